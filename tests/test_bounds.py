"""The compiled module writes its outputs and nothing beside them: every array lies between guards."""

import itertools

import pytest
import torch
from cases import compute_dtype
from test_forward import divisor

CODE_OF_DTYPE = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
GUARD = 64  # bytes on either side; also more than a vector register's worth of neighbours
ROWS = (0, 1, 2, 3, 7, 15, 16, 17, 33, 65)
CODES = (1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 130)


class Guarded:
    """A tensor amid bytes of 0xFF (NaN to floating-point types) that must stay so."""

    def __init__(self, shape, dtype, value=None):
        size = torch.Size(shape).numel() * dtype.itemsize
        self.bytes = torch.full((GUARD + size + GUARD,), 0xFF, dtype=torch.uint8)
        self.tensor = self.bytes[GUARD : GUARD + size].view(dtype).view(shape)
        if value is not None:
            self.tensor.copy_(value)
        self.pointer = self.bytes.data_ptr() + GUARD

    def intact(self) -> bool:
        return bool(
            (self.bytes[:GUARD] == 0xFF).all() and (self.bytes[len(self.bytes) - GUARD :] == 0xFF).all()
        )


def arrays(native, rows, codes, codebooks, dtype, is_logits):
    compute = compute_dtype(dtype)
    wide = (rows, codes)
    return {
        "input": Guarded(wide if is_logits else (rows,), dtype, -0.5),
        "codebook": Guarded((codebooks, codes), compute, torch.randn(codebooks, codes)),
        "quantized": Guarded((rows,), dtype),
        "indices": Guarded((rows,), torch.int64),
        "kl": Guarded((rows,), compute),
        "weights": Guarded(wide, dtype),
        "stats": Guarded((native.ROW_SUMS, rows), compute),
        "grad_quantized": Guarded((rows,), dtype, 1.0),
        "grad_kl": Guarded((rows,), compute, 1.0),
        "grad_weights": Guarded(wide, dtype, 1.0),
        "grad_input": Guarded(wide if is_logits else (rows,), dtype),
        "grad_codebook": Guarded((codebooks, codes), compute),
        "grad_temperature": Guarded((1,), torch.float64),
    }


def run(native, rows, codes, codebooks, dtype, is_logits, hard, threads):
    held = arrays(native, rows, codes, codebooks, dtype, is_logits)
    p = {name: array.pointer for name, array in held.items()}
    shared = (
        p["input"], CODE_OF_DTYPE[dtype], is_logits, p["codebook"], rows, codes, codebooks, 7, 3, 0.5, hard
    )  # fmt: skip
    native.gumbel_forward(*shared, p["quantized"], p["indices"], p["kl"], p["weights"], p["stats"], threads)
    native.gumbel_backward(
        *shared, p["indices"], p["stats"], p["grad_quantized"], p["grad_kl"], p["grad_weights"],
        p["grad_input"], p["grad_codebook"], p["grad_temperature"], threads,
    )  # fmt: skip
    return held


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("dtype", list(CODE_OF_DTYPE))
def test_forward_and_backward(every_native, dtype, is_logits, hard):
    for rows, codes, per_latent in itertools.product(ROWS, CODES, (False, True)):
        held = run(every_native, rows, codes, divisor(rows) if per_latent else 1, dtype, is_logits, hard, 2)
        for name, array in held.items():
            assert array.intact(), f"wrote beside {name}: rows {rows}, codes {codes}, per latent {per_latent}"
            # Parts of the stats are left alone; that nobody reads them shows in the gradients.
            if name != "stats":
                assert not array.tensor.isnan().any(), f"{name} holds NaN: rows {rows}, codes {codes}"
        index = held["indices"].tensor
        assert ((index >= 0) & (index < codes)).all()


def test_nearest_noise_and_words(every_native):
    for dtype, rows, codes in itertools.product(CODE_OF_DTYPE, ROWS, CODES):
        held = arrays(every_native, rows, codes, 1, dtype, False)
        p = {name: array.pointer for name, array in held.items()}
        every_native.nearest_forward(
            p["input"], CODE_OF_DTYPE[dtype], p["codebook"], rows, codes, 1, p["quantized"], p["indices"], 2
        )
        noise = Guarded((rows, codes), compute_dtype(dtype))
        every_native.gumbel_noise(5, 2**32 - 3, rows, codes, dtype == torch.float64, noise.pointer, 2)
        words = Guarded((rows, codes), torch.int32)
        every_native.philox_words(5, 2**32 - 3, rows, codes, words.pointer, 2)
        given = Guarded((rows * codes,), torch.int32, words.tensor.reshape(-1))
        mapped = Guarded((rows * codes,), compute_dtype(dtype))
        every_native.gumbel_from_words(given.pointer, rows * codes, dtype == torch.float64, mapped.pointer)
        for array in (*held.values(), noise, words, given, mapped):
            assert array.intact(), f"rows {rows}, codes {codes}, {dtype}"
        assert torch.equal(mapped.tensor, noise.tensor.reshape(-1))
