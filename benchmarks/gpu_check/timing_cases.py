"""The cases of the timings, by subject: a backend, "textbook", "sweep" or "compiled"."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

import fqvae_kernels
from fqvae_kernels import backends
from fqvae_kernels._call import Call, Incoming, Kept, Needs
from gpu_check.place import BACKENDS, ON_CPU, PRETENDED, device_name

# The size between first, then that of a training step, then the one that no cache holds.
SMALL = ON_CPU and not PRETENDED
ROWS, CODES = ((96, 1024), (16, 64)) if SMALL else ((65_536, 3_072, 1_048_576), (64, 16, 256))
SHAPES = tuple(itertools.product(ROWS, CODES))
SWEPT = ((65_536, 64), (3_072, 64), (1_048_576, 64), (65_536, 256), (3_072, 256), (65_536, 16))
LANES = (1, 2, 4, 8, 16, 32)
BLOCKS_A_MULTIPROCESSOR = (1, 2, 3, 4, 5, 6, 8, 12, 16)
TEMPERATURE, SEED = 0.7, 1234
COPIED_BYTES = 2**28 if ON_CPU else 2**30
SUBJECTS = (*BACKENDS, "textbook", "sweep", "compiled")

Run = Callable[[], dict[str, Any]]
Case = tuple[dict[str, Any], Run]


def cases(subject: str) -> list[Case]:
    """Fields of the line, and the function that gives its other fields."""
    if subject == "textbook":
        return [_textbook(*shape, part) for shape in SHAPES for part in ("forward", "both")]
    if subject == "compiled":
        return [_compiled(*shape) for shape in SHAPES if shape[1] == 64]
    if subject == "sweep":
        return [] if ON_CPU else list(_sweeps())
    first = [({"what": "copy", "bytes": COPIED_BYTES}, _copy)] if subject == BACKENDS[0] else []
    parts = ["forward", "backward", "both"]
    if subject == "cuda":
        parts = ["forward", "backward", "reduce", "both", "frozen both"]
    if subject == "reference":
        parts = []  # it has no passes that are called as a pair
    kernels = [_kernel(subject, part, *shape) for shape in SHAPES for part in parts]
    if subject == "cuda":
        kernels += [_kernel(subject, "posterior", max(ROWS), codes) for codes in CODES if codes > 16]
    public = [_public(subject, part, *shape) for shape in SHAPES for part in ("forward", "both")]
    # Calls at the sizes where the host decides come before the kernels of the other sizes.
    return first + kernels[: len(parts)] + public[:2] + kernels[len(parts) :] + public[2:]


class Tensors:
    """The inputs of a call and its gradients, on the device."""

    def __init__(self, rows: int, codes: int) -> None:
        random = torch.Generator().manual_seed(20240914)
        self.z, self.book, self.a, self.h = (
            torch.randn(size, generator=random).to(device_name()) for size in (rows, codes, rows, rows)
        )
        self.call = Call(temperature=TEMPERATURE, seed=SEED)


def on_device(step: Callable[[], Any]) -> dict[str, Any]:
    """The clock of kernels: replays, or where there is no GPU, the wall's."""
    if PRETENDED:
        step()
        return {"us": 0.0}
    from gpu_check import clocks

    return clocks.wall(step, lambda: None) if ON_CPU else clocks.replay(step)


def on_the_wall(step: Callable[[], Any]) -> dict[str, Any]:
    if PRETENDED:
        step()
        return {"us": 0.0}
    from gpu_check import clocks

    return clocks.wall(step, (lambda: None) if ON_CPU else torch.cuda.synchronize)


def _copy() -> dict[str, Any]:
    # By a kernel: a graph hands a plain copy to other hardware, which is slower.
    source = torch.zeros(COPIED_BYTES // 4, device=device_name())
    target = torch.empty_like(source)
    found = on_device(lambda: torch.neg(source, out=target))
    return found | {"gb_per_s": round(2e-3 * COPIED_BYTES / max(found["us"], 1e-3), 1)}


def pass_steps(backend: str, rows: int, codes: int, frozen: bool = False) -> dict[str, Callable[[], Any]]:
    """The forward pass, the backward pass and both, by the backend's own functions: no autograd.

    frozen: the codebook wants no gradient.
    """
    module, tensors = backends.kernel(backend), Tensors(rows, codes)
    z, book, needs = tensors.z, tensors.book, Needs(True, not frozen)
    call = tensors.call._replace(needs=needs)
    stats = book.new_zeros((module.stats_rows(call), rows))
    kept = Kept(module.forward(z, book, call, stats)[1], stats)

    def forward() -> Any:
        return module.forward(z, book, call, stats)

    def backward() -> Any:
        return module.backward(z, book, call, kept, Incoming(tensors.a, tensors.h), needs)

    return {"forward": forward, "backward": backward, "both": lambda: (forward(), backward())}


def _kernel(backend: str, part: str, rows: int, codes: int) -> Case:
    """A kernel by itself; of the CUDA backend, `forward` is without `posterior`, which fills the table that
    many rows read, `backward` is without `reduce`, and `both` is everything.
    """

    def run() -> dict[str, Any]:
        if backend != "cuda":
            return on_device(pass_steps(backend, rows, codes)[part])
        from gpu_check.geometries import forced, only

        with forced() as seen:
            steps = pass_steps(backend, rows, codes, frozen=part == "frozen both")
            if part.endswith("both"):
                found = on_device(steps["both"])
            else:
                with only(part):
                    found = on_device(steps[{"reduce": "backward", "posterior": "forward"}.get(part, part)])
        return found | _chosen(seen[-1:])

    return {"what": f"kernel {part}", "rows": rows, "codes": codes}, run


def _chosen(seen: list[Any]) -> dict[str, Any]:
    return {"lanes": seen[0].lanes, "blocks": seen[0].blocks} if seen else {}


def _public(backend: str, part: str, rows: int, codes: int) -> Case:
    """The public call on the host's clock: forward alone, or forward and backward by autograd."""

    def run() -> dict[str, Any]:
        tensors = Tensors(rows, codes)
        z, book = tensors.z.requires_grad_(part == "both"), tensors.book.requires_grad_(part == "both")

        def step() -> Any:
            out = fqvae_kernels.gumbel_quantize(z, book, temperature=TEMPERATURE, backend=backend)
            if part == "both":
                torch.autograd.grad((out.quantized, out.kl), (z, book), (tensors.a, tensors.h))

        return on_the_wall(step)

    return {"what": f"call {part}", "rows": rows, "codes": codes}, run


def _sweeps() -> list[Case]:
    found = []
    for (rows, codes), part in itertools.product(SWEPT, ("forward", "backward")):
        least, most = (-(-codes // 64) if part == "backward" else 1), -(-codes // 4)
        found += [_forced(part, rows, codes, lanes=n) for n in LANES if least <= n <= most]
        if codes == 64:
            found += [_forced(part, rows, codes, blocks_each=n) for n in BLOCKS_A_MULTIPROCESSOR]
    return found


def _forced(
    part: str, rows: int, codes: int, lanes: int | None = None, blocks_each: int | None = None
) -> Case:
    def run() -> dict[str, Any]:
        from gpu_check.geometries import forced, only

        count = torch.cuda.get_device_properties(0).multi_processor_count
        blocks = None if blocks_each is None else blocks_each * count
        with forced(lanes, blocks) as seen:
            steps = pass_steps("cuda", rows, codes)
            with only(part):
                found = on_device(steps[part])
        return found | _chosen(seen[-1:])

    about = {"what": f"sweep {part}", "rows": rows, "codes": codes, "lanes": lanes}
    return about | {"blocks_a_multiprocessor": blocks_each}, run


def _textbook_steps(tensors: Tensors, function: Callable[..., Any], part: str) -> Callable[[], Any]:
    leaves = tensors.z.requires_grad_(part == "both"), tensors.book.requires_grad_(part == "both")

    def step() -> Any:
        quantized, _, kl = function(*leaves, TEMPERATURE)
        if part == "both":
            torch.autograd.grad((quantized, kl), leaves, (tensors.a, tensors.h))

    return step


def _textbook(rows: int, codes: int, part: str) -> Case:
    def run() -> dict[str, Any]:
        from _contenders import textbook

        from gpu_check import clocks

        step = _textbook_steps(Tensors(rows, codes), textbook, part)
        return clocks.wall(step, lambda: None) if ON_CPU else clocks.events(step)

    return {"what": f"textbook {part}", "rows": rows, "codes": codes}, run


def _compiled(rows: int, codes: int) -> Case:
    def run() -> dict[str, Any]:
        from _contenders import textbook

        from gpu_check import clocks

        torch._dynamo.reset()
        function = torch.compile(textbook, dynamic=False, fullgraph=True)
        step = _textbook_steps(Tensors(rows, codes), function, "both")
        return clocks.wall(step, lambda: None) if ON_CPU else clocks.events(step)

    return {"what": "compiled both", "rows": rows, "codes": codes}, run
