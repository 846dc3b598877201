"""How the CUDA backend cuts a call into blocks (_cuda/geometry.py): nothing here needs nvcc."""

import itertools

import pytest

from fqvae_kernels.backends._cuda import geometry

H200 = geometry.Device(132, 228 * 1024)


@pytest.mark.parametrize("real_size", [4, 8])
def test_no_block_is_without_rows_and_parts_fit(real_size):
    for rows, codes, codebooks in itertools.product(
        (1, 129, 65_536, 2**20, 2**24 + 1), (1, 16, 65, 256, 3_000, 100_000), (1, 12)
    ):
        positions = -(-rows // codebooks)
        for pass_, drawn in itertools.product((geometry.forward, geometry.backward), (False, True)):
            found = pass_(rows, codes, codebooks, H200, False, real_size, drawn=drawn)
            chunks = -(-positions * found.lanes // geometry.THREADS)
            assert 1 <= found.blocks <= chunks, (rows, codes, codebooks)
            if pass_ is geometry.backward and found.blocks > 1:
                assert found.blocks * codes * codebooks * 8 <= geometry.MOST_PARTS


def test_blocks_of_many_turns():
    """Whole multiples of what the device holds; more for more codes. An H200 was fastest with about these
    (benchmarks/results/nvidia_h200/sweep.csv): 660 for 16 codes, 1,056 to 2,112 for 64, 2,112 for 256.
    """
    held = 5 * H200.multiprocessors
    blocks = [geometry.forward(2**20, codes, 1, H200, False, 4, True).blocks for codes in (16, 64, 256)]
    assert blocks == [held, 2 * held, 3 * held]
    assert geometry.backward(2**20, 16, 1, H200, False, 4).blocks == held
    assert geometry.backward(2**20, 256, 1, H200, False, 4).blocks == 2 * held
    # Few turns: all blocks take equally many.
    assert geometry.forward(65_536, 64, 1, H200, False, 4).blocks == 512


def test_codes_as_given_lie_at_the_end_of_shared_memory():
    for codes in (16, 64, 300):
        for pass_ in (geometry.forward, geometry.backward):
            single, double = (pass_(65_536, codes, 1, H200, False, size) for size in (4, 8))
            assert single.as_given == single.shared - 4 * single.staged
            assert double.as_given == double.shared
