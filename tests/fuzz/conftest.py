"""Options of the fuzzer: how long, and from which seed. They are known where tests/fuzz is named."""


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz-seconds",
        type=float,
        help="how long to fuzz; FQVAE_FUZZ_SECONDS, else 5000 calls in a minute at most",
    )
    parser.addoption("--fuzz-seed", type=int, help="the first call's seed; FQVAE_FUZZ_SEED, else 0")
