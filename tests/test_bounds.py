"""The compiled module writes its outputs and nothing beside them: every array lies between guards."""

import itertools
import struct

import pytest
import torch
from cases import compute_dtype
from test_forward import divisor

from fqvae_kernels._call import Call, Incoming, Kept
from fqvae_kernels._tensors import DTYPE_CODES
from fqvae_kernels.backends import cpu

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
        "stats": Guarded((native.STATS, rows), compute),
        "grad_quantized": Guarded((rows,), dtype, 1.0),
        "grad_kl": Guarded((rows,), compute, 1.0),
        "grad_weights": Guarded(wide, dtype, 1.0),
        "grad_input": Guarded(wide if is_logits else (rows,), dtype),
        "grad_codebook": Guarded((codebooks, codes), compute),
        "grad_temperature": Guarded((1,), torch.float64),
    }


PASSES = ("soft", "hard", "straight_through", "reinmax")
GRADIENTS = ("grad_input", "grad_codebook", "grad_temperature")


def pass_call(kind, is_logits):
    estimator = "gumbel" if kind in ("soft", "hard") else kind
    return Call(
        estimator=estimator,
        is_logits=is_logits,
        hard=kind == "hard",
        temperature=0.5,
        seed=7,
        row_offset=3,
    )


def run(native, rows, codes, codebooks, dtype, is_logits, kind, threads, left_out=(), keeps_weights=False):
    """A forward and a backward pass, without the arrays that are left out."""
    held = arrays(native, rows, codes, codebooks, dtype, is_logits)
    t = {name: None if name in left_out else array.tensor for name, array in held.items()}
    call = pass_call(kind, is_logits)
    inputs = t["input"], t["codebook"], call
    stats = t["stats"] if cpu.stats_rows(call) else held["stats"].tensor[:0]
    outputs = t["quantized"], t["indices"], t["kl"], t["weights"], stats if len(stats) else None
    native.forward(cpu.pack_forward(*inputs, *outputs), threads)
    kept = Kept(held["indices"].tensor, stats, t["weights"] if keeps_weights else None)
    incoming = Incoming(t["grad_quantized"], t["grad_kl"], t["grad_weights"])
    gradients = tuple(t[name] for name in GRADIENTS)
    native.backward(cpu.pack_backward(*inputs, kept, incoming, gradients), threads)
    return held


@pytest.mark.parametrize("kind", PASSES)
@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("dtype", list(DTYPE_CODES))
def test_forward_and_backward(every_native, dtype, is_logits, kind):
    for rows, codes, per_latent in itertools.product(ROWS, CODES, (False, True)):
        held = run(every_native, rows, codes, divisor(rows) if per_latent else 1, dtype, is_logits, kind, 2)
        for name, array in held.items():
            assert array.intact(), f"wrote beside {name}: rows {rows}, codes {codes}, per latent {per_latent}"
            # Parts of the stats are left alone; that nobody reads them shows in the gradients.
            if name != "stats":
                assert not array.tensor.isnan().any(), f"{name} holds NaN: rows {rows}, codes {codes}"
        index = held["indices"].tensor
        assert ((index >= 0) & (index < codes)).all()


# What a backward pass may do without, besides the temperature's gradient.
LEFT_OUT = (
    ("kl", "grad_kl"),
    ("grad_kl",),
    ("grad_codebook",),
    ("grad_input",),
    ("kl", "grad_kl", "grad_codebook"),
    ("grad_quantized", "grad_codebook"),
    ("grad_weights",),
    ("grad_weights", "grad_codebook", "kl", "grad_kl"),
)


@pytest.mark.parametrize("kind", PASSES)
@pytest.mark.parametrize("is_logits", [False, True])
def test_what_is_left_out_stays_as_it_was(every_native, is_logits, kind):
    """And the rest holds no NaN: nothing reads what an earlier pass had no reason to write."""
    for left_out, rows, codes in itertools.product(LEFT_OUT, (17, 33), (5, 16, 66)):
        left = (*left_out, "grad_temperature")
        held = run(every_native, rows, codes, 1, torch.float32, is_logits, kind, 1, left)
        for name, array in held.items():
            assert array.intact(), f"wrote beside {name}: without {left_out}"
            if name in left and (name in GRADIENTS or name == "kl"):
                assert (array.bytes == 0xFF).all(), f"wrote {name}: without {left_out}"
            elif name != "stats":
                assert not array.tensor.isnan().any(), f"{name} holds NaN: without {left_out}, codes {codes}"


@pytest.mark.parametrize("is_logits", [False, True])
def test_kept_weights_stand_for_the_noise(every_native, is_logits):
    """With the weights of the forward pass the gradients are those of the noise drawn again."""
    without = ((), ("grad_kl",), ("kl", "grad_kl"), ("grad_quantized",), ("grad_codebook",))
    for left_out, rows, codes in itertools.product(without, (16, 33, 70), (1, 4, 5, 64, 131)):
        left, results = (*left_out, "grad_temperature"), []
        for keeps_weights in (False, True):
            torch.manual_seed(rows * codes)
            results.append(
                run(
                    every_native,
                    rows,
                    codes,
                    1,
                    torch.float32,
                    is_logits,
                    "soft",
                    1,
                    left,
                    keeps_weights,
                )
            )
        for name in ("grad_input", "grad_codebook"):
            if name not in left:
                again, kept = (held[name].tensor for held in results)
                torch.testing.assert_close(kept, again, rtol=1e-5, atol=2e-5, msg=f"{name}, {left_out}")


def test_kept_weights_are_read(native):
    """In a group of rows of which the kept weights are 0, no gradient comes of the quantized value."""
    held = arrays(native, 16, 64, 1, torch.float32, False)
    t = {name: array.tensor for name, array in held.items()}
    inputs = t["input"], t["codebook"], pass_call("soft", False)
    outputs = t["quantized"], t["indices"], None, t["weights"], t["stats"]
    native.forward(cpu.pack_forward(*inputs, *outputs), 1)
    kept = Kept(t["indices"], t["stats"], torch.zeros_like(t["weights"]))
    gradients = t["grad_input"], t["grad_codebook"], None
    incoming = Incoming(t["grad_quantized"], None, None)
    native.backward(cpu.pack_backward(*inputs, kept, incoming, gradients), 1)
    assert not t["grad_input"].any() and not t["grad_codebook"].any()


def test_nearest_noise_and_words(every_native):
    for dtype, rows, codes in itertools.product(DTYPE_CODES, ROWS, CODES):
        held = arrays(every_native, rows, codes, 1, dtype, False)
        t = {name: array.tensor for name, array in held.items()}
        outputs = t["quantized"], t["indices"], None, None, None
        packed = cpu.pack_forward(t["input"], t["codebook"], Call(estimator="nearest"), *outputs)
        every_native.forward(packed, 2)
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


@pytest.mark.parametrize(
    ("rows", "latents", "codes"),
    [(0, 1, 5), (1, 1, 1), (7, 1, 3), (1030, 1, 64), (1030, 5, 64), (300_000, 12, 9), (2000, 4, 20_000)],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_counting_codes(native, rows, latents, codes, threads):
    """Against PyTorch's bincount; indices outside of the codes, far ones among them, count nothing."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-1, codes + 1, (rows,), generator=generator)
    values[3::50], values[4::50] = 2**62, -(2**62)
    indices, table = Guarded((rows,), torch.int64, values), Guarded((latents, codes), torch.int64)
    table.tensor.fill_(3)
    native.count_codes(indices.pointer, rows, latents, codes, table.pointer, threads)
    for latent in range(latents):
        own = values[latent::latents]
        own = own[(own >= 0) & (own < codes)]
        assert torch.equal(table.tensor[latent], 3 + torch.bincount(own, minlength=codes))
    assert indices.intact() and table.intact()
    assert rows < 5 or table.tensor.sum() > 3 * latents * codes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "codebooks", "latents", "codes"),
    [
        (0, 1, 1, 5),
        (1, 1, 1, 1),
        (1030, 1, 1, 64),
        (5001, 1, 1, 6),
        (1030, 1, 5, 64),
        (1030, 1, 103, 3),
        (1030, 5, 5, 7),
        (34 * 1030, 34, 34, 3),
        (2000, 4, 4, 20_000),
        (60, 1, 60, 2000),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_counting_within_the_nearest_pass(every_native, dtype, rows, codebooks, latents, codes, threads):
    """Against PyTorch's bincount of the pass's own indices; rows of NaN count at the index that they get."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(rows, generator=generator)
    z[5::40] = float("nan")
    given = Guarded((rows,), dtype, z)
    book = Guarded(
        (codebooks, codes), compute_dtype(dtype), torch.randn(codebooks, codes, generator=generator)
    )
    quantized, indices = Guarded((rows,), dtype), Guarded((rows,), torch.int64)
    table = Guarded((latents, codes), torch.int64)
    table.tensor.fill_(3)
    call = Call(estimator="nearest")
    outputs = quantized.tensor, indices.tensor, None, None, None
    packed = cpu.pack_forward(given.tensor, book.tensor, call, *outputs)
    every_native.forward_counted(packed, latents, table.pointer, threads)
    for latent in range(latents):
        taken = indices.tensor[latent::latents]
        assert torch.equal(table.tensor[latent], 3 + torch.bincount(taken, minlength=codes))
    assert table.tensor.sum() == 3 * latents * codes + rows
    assert all(array.intact() for array in (given, book, quantized, indices, table))


def test_what_cannot_be_counted_is_refused(native):
    for rows, latents, codes in ((-1, 1, 2), (3, 2, 2), (2, 0, 2), (2, 1, 0), (2, 1, 2**24 + 1)):
        with pytest.raises(ValueError, match="must be"):
            native.count_codes(0, rows, latents, codes, 0, 1)
    z, book, table = torch.zeros(4), torch.zeros(2), torch.zeros((3, 2), dtype=torch.int64)
    indices = torch.zeros(4, dtype=torch.int64)
    for estimator, kept, latents, wrong in (
        ("nearest", indices, 3, "rows must be a multiple of latents, got 4 and 3"),
        ("nearest", None, 2, "only a pass of the estimator 3"),
        ("gumbel", indices, 2, "only a pass of the estimator 3"),
    ):
        packed = cpu.pack_forward(z, book, Call(estimator=estimator), None, kept, None, None, None)
        with pytest.raises(ValueError, match=wrong):
            native.forward_counted(packed, latents, table.data_ptr(), 1)
    packed = cpu.pack_forward(
        z, torch.zeros(2, 2), Call(estimator="nearest"), None, indices, None, None, None
    )
    with pytest.raises(ValueError, match="latents must be 1 or codebooks where there are several, got 4"):
        native.forward_counted(packed, 4, table.data_ptr(), 1)
    assert table.sum() == 0


def test_what_is_not_wanted_is_not_written(every_native):
    """Each output alone is the same as among all; nothing else is touched."""
    for is_logits, kind in itertools.product((False, True), PASSES):
        together = run(every_native, 33, 5, 1, torch.float32, is_logits, kind, 1)
        for name in ("quantized", "indices", "kl", "weights", "stats"):
            alone = arrays(every_native, 33, 5, 1, torch.float32, is_logits)
            alone["codebook"].tensor.copy_(together["codebook"].tensor)
            call = pass_call(kind, is_logits)
            outputs = (
                alone[other].tensor if other == name else None
                for other in ("quantized", "indices", "kl", "weights", "stats")
            )
            packed = cpu.pack_forward(alone["input"].tensor, alone["codebook"].tensor, call, *outputs)
            every_native.forward(packed, 1)
            if name == "stats":  # without kl it lacks what only the gradient of kl reads
                alone[name].tensor[-2:] = together[name].tensor[-2:]
            assert torch.equal(alone[name].bytes, together[name].bytes), f"{name}, {is_logits=}, {kind=}"


# Of the packed `Call` (csrc/call.h): the field's place, what it may not be, and what is said then.
REFUSED = (
    (2, 8, "seed and temperature must come by value"),
    (6, 0.0, "temperature must be above 0, got 0"),
    (6, float("nan"), "temperature must be above 0, got"),
    (9, -1, "rows must be a multiple of codebooks, got -1 and 1"),
    (10, 0, "rows must be a multiple of codebooks, got 4 and 0"),
    (10, 3, "rows must be a multiple of codebooks, got 4 and 3"),
    (11, 0, r"codes must be in \[1, 2\*\*24\], got 0"),
    (11, 2**24 + 1, r"codes must be in \[1, 2\*\*24\], got 16777217"),
    (12, 4, "dtype must be 0, 1, 2 or 3, got 4"),
    (14, 4, "estimator must be 0, 1, 2 or 3, got 4"),
    (14, -1, "estimator must be 0, 1, 2 or 3, got -1"),
)


def test_what_the_compiled_module_refuses(native):
    held = arrays(native, 4, 3, 1, torch.float32, False)
    t = {name: array.tensor for name, array in held.items()}
    layout = struct.Struct("4P2Q3d2q6i5P")
    packed = cpu.pack_forward(
        t["input"], t["codebook"], Call(), t["quantized"], t["indices"], t["kl"], None, None
    )
    native.forward(packed, 1)
    for place, value, said in REFUSED:
        fields = list(layout.unpack(packed))
        fields[place] = value
        with pytest.raises(ValueError, match=said):
            native.forward(layout.pack(*fields), 1)
    with pytest.raises(ValueError, match=f"forward takes {layout.size} bytes of arguments, got 8"):
        native.forward(bytes(8), 1)
    with pytest.raises(ValueError, match=r"backward takes .* bytes of arguments, got"):
        native.backward(packed, 1)
