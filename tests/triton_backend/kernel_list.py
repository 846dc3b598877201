"""The kernels that resources.csv records, and the command that writes it.

    PYTHONPATH=. python tests/triton_backend/kernel_list.py

compiles every kernel of the list for every architecture (no GPU is needed) and writes the table. Do it after
a change that is meant to cost registers, or with another release of Triton, and look at the difference.
"""

import csv
import importlib.metadata
import pathlib
import sys

import torch

TABLE = pathlib.Path(__file__).parent / "resources.csv"
ARCHITECTURES = (80, 90, 100)
COLUMNS = ("triton", "kernel", "variant", "arch", "registers", "shared", "stack")
MEASURES = COLUMNS[4:]


def recorded_calls():
    """(variant, function of no arguments that calls the backend): what they launch is recorded."""
    from cases import make
    from gradcases import leaf, weighted_sum

    from fqvae_kernels import nearest_quantize

    def both(case, every=False, weights=False, **options):
        """Forward and gradients, of quantized and kl for input and codebook. weights: also of the weights;
        every: of and for everything.
        """

        def call():
            case.call("triton", return_weights=weights or every, **options)
            leaves = leaf(case.input), leaf(case.codebook)
            temperature = leaf(torch.tensor(case.temperature, dtype=torch.float64), every)
            out = case.call(
                "triton",
                input=leaves[0],
                codebook=leaves[1],
                temperature=temperature,
                return_weights=weights or every,
                **options,
            )
            outputs = [o for o in (out.quantized, out.kl, out.weights) if o is not None]
            weighted_sum(outputs, map(torch.ones_like, outputs)).backward()

        return call

    def frozen():
        """A pass whose kl nobody wants, over a codebook that wants no gradient."""
        case = make(3072, 64)
        out = case.call("triton", input=leaf(case.input), return_kl=False)
        out.quantized.sum().backward()

    def nearest():
        case = make(3072, 64)
        nearest_quantize(case.input, case.codebook, backend="triton")

    half = {"dtype": torch.bfloat16}
    return [
        ("3,072 rows of 64 codes", both(make(3072, 64))),
        ("3,072 rows of 64 codes, weights and temperature", both(make(3072, 64), every=True)),
        ("3,072 rows of 64 codes, weights", both(make(3072, 64), weights=True)),
        ("3,072 rows of 64 codes, no kl, frozen", frozen),
        ("1,048,576 rows of 64 codes", both(make(2**20, 64))),
        ("1,048,576 rows of 16 codes", both(make(2**20, 16))),
        ("3,072 rows of 1,024 codes", both(make(3072, 1024))),
        (
            "3,072 rows of 64 codes, bfloat16, 12 codebooks, hard",
            both(make(3072, 64, latents=12, hard=True, **half)),
        ),
        ("3,072 rows of 64 codes, bfloat16 logits", both(make(3072, 64, is_logits=True, **half))),
        ("3,072 rows of 64 codes, float64", both(make(3072, 64, dtype=torch.float64))),
        (
            "3,072 rows of 64 codes, float64, weights and temperature",
            both(make(3072, 64, dtype=torch.float64), every=True),
        ),
        ("3,072 rows of 64 codes, nearest", nearest),
        *(
            (f"{what}, {estimator}", both(case, every, estimator=estimator))
            for estimator in ("straight_through", "reinmax")
            for what, case, every in (
                ("3,072 rows of 64 codes", make(3072, 64), False),
                ("3,072 rows of 64 codes, weights and temperature", make(3072, 64), True),
                ("1,048,576 rows of 64 codes", make(2**20, 64), False),
                ("3,072 rows of 1,024 codes, weights and temperature", make(3072, 1024), True),
                ("3,072 rows of 64 codes, bfloat16, 12 codebooks", make(3072, 64, latents=12, **half), False),
                ("3,072 rows of 64 codes, bfloat16 logits", make(3072, 64, is_logits=True, **half), False),
                ("3,072 rows of 64 codes, float64", make(3072, 64, dtype=torch.float64), True),
            )
        ),
    ]


class Recorder:
    """A launcher that compiles for every architecture, and runs nothing."""

    def __init__(self, variant: str):
        self.variant = variant
        self.lines: list[dict] = []

    def __call__(self, kernel, programs, arguments):
        from compiled import compile_kernel

        for arch in ARCHITECTURES:
            found = compile_kernel(kernel, arguments, arch)
            line = {"kernel": kernel.fn.__name__, "variant": self.variant, "arch": arch}
            line |= {"triton": importlib.metadata.version("triton")}
            self.lines.append(line | {name: found[name] for name in MEASURES})


def measured() -> list[dict]:
    """The table as the kernels are now: a line for each compiled kernel, not twice the same one."""
    from interpreter import launching_with

    lines = []
    for variant, call in recorded_calls():
        recorder = Recorder(variant)
        with launching_with(recorder):
            call()
        lines += recorder.lines
    unique = {(line["kernel"], line["variant"], line["arch"]): line for line in lines}
    return list(unique.values())


def main() -> None:
    here = pathlib.Path(__file__).parent
    sys.path[:0] = [str(here), str(here.parent)]
    import interpreter

    interpreter.prepare()
    with interpreter.interpreting(), TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(measured())


if __name__ == "__main__":
    main()
