"""TemperatureSchedule, by itself and as the temperature of a ScalarQuantizer."""

import copy
import math
import pickle

import pytest
import torch
from quantizers import z_of

from fqvae_kernels import ScalarQuantizer, TemperatureSchedule, gumbel_quantize

FORMULAS = {
    "exponential": lambda t: 2.0 * (0.1 / 2.0) ** t,
    "linear": lambda t: 2.0 + t * (0.1 - 2.0),
    "cosine": lambda t: 0.1 + (2.0 - 0.1) * (1 + math.cos(math.pi * t)) / 2,
}


def annealed(steps=10, **options):
    torch.manual_seed(1)
    return ScalarQuantizer(6, temperature=TemperatureSchedule(2.0, 0.1, steps), **options)


@pytest.mark.parametrize("shape", FORMULAS)
def test_values(shape):
    schedule = TemperatureSchedule(2.0, 0.1, 7, shape=shape)
    for count in range(10):
        assert schedule().item() == pytest.approx(FORMULAS[shape](min(count / 7, 1)), rel=1e-6)
        schedule.step()
    jumped = TemperatureSchedule(2.0, 0.1, 7, shape=shape)
    jumped.step(3)
    assert jumped().item() == pytest.approx(FORMULAS[shape](3 / 7), rel=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "decay"), [(2.0, 0.5, 0.9), (2.0, 0.5, 0.999995), (0.7, 0.7, 0.5), (1.0, 0.9, 0.01)]
)
def test_a_decay_is_that_of_wav2vec(start, end, decay):
    schedule = TemperatureSchedule(start, end, decay=decay)
    for count in (0, 1, 2, 13, 14, 1000, 277_000, 277_300, 10**9):
        schedule.count.fill_(count)
        assert schedule().item() == pytest.approx(max(start * decay**count, end), rel=1e-6)
    assert repr(schedule) == f"TemperatureSchedule({start:g}, {end:g}, decay={decay})"


def test_a_long_schedule_ends_where_it_says():
    for shape in FORMULAS:
        schedule = TemperatureSchedule(1e-30, 1e30, 10**9, shape=shape)
        schedule.step(10**10)
        assert schedule().item() == pytest.approx(1e30, rel=1e-5)


def test_a_quantizer_takes_it(backend):
    q = annealed(backend=backend)
    for count in range(3):
        expected = gumbel_quantize(
            z_of(10), q.codebook, temperature=FORMULAS["exponential"](count / 10), seed=3, backend=backend
        )
        for _ in range(2):
            torch.testing.assert_close(
                q(z_of(10), seed=3).quantized, expected.quantized, atol=1e-5, rtol=1e-5
            )
        assert q.temperature.item() == q.temperature_schedule().item()
        q.temperature_schedule.step()
    other = q(z_of(10), seed=3, temperature=7.0).quantized
    torch.testing.assert_close(
        other, gumbel_quantize(z_of(10), q.codebook, temperature=7.0, seed=3, backend=backend).quantized
    )


@pytest.mark.parametrize("method", ["deepcopy", "pickle", "state_dict"])
def test_copies_go_on(method):
    q = annealed()
    q.temperature_schedule.step(4)
    assert list(q.state_dict()) == ["codebook", "temperature_schedule.count"]
    if method == "state_dict":
        other = annealed()
        other.load_state_dict(q.state_dict())
    else:
        other = copy.deepcopy(q) if method == "deepcopy" else pickle.loads(pickle.dumps(q))
    other.temperature_schedule.step()
    assert q.temperature.item() == pytest.approx(FORMULAS["exponential"](0.4), rel=1e-6)
    assert other.temperature.item() == pytest.approx(FORMULAS["exponential"](0.5), rel=1e-6)


def test_quantizers_may_share_one():
    schedule = TemperatureSchedule(2.0, 0.1, 10)
    model = torch.nn.ModuleList(ScalarQuantizer(4, temperature=schedule) for _ in range(2))
    schedule.step(10)
    assert [q.temperature.item() for q in model] == [pytest.approx(0.1, rel=1e-6)] * 2
    assert not list(schedule.parameters()) and "TemperatureSchedule(2, 0.1, 10" in repr(model)


def test_compiled_and_exported_programs_read_it_anew():
    torch._dynamo.reset()
    q = annealed(backend="reference")
    fast = torch.compile(q, fullgraph=True, backend="aot_eager")
    fast(z_of(10), seed=torch.tensor(1))
    exported = torch.export.export(q, (z_of(10),), {"seed": torch.tensor(1)}).module()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            q.temperature_schedule.step()
            exported.temperature_schedule.count.add_(1)
            expected = q(z_of(10), seed=1).quantized
            for program in (fast, exported):
                torch.testing.assert_close(program(z_of(10), seed=torch.tensor(1)).quantized, expected)


def test_what_cannot_be_is_named():
    for name, value in (
        ("start", 0.0),
        ("end", math.inf),
        ("start", "hot"),
        ("steps", 0),
        ("shape", "square"),
        ("steps or decay .* both", {"decay": 0.9}),
        ("steps or decay .* neither", {"steps": None}),
        ("decay", {"steps": None, "decay": 1.0}),
        ("decay", {"steps": None, "decay": math.nan}),
        ("decay", {"steps": None, "decay": "fast"}),
        ("end", {"steps": None, "decay": 0.9, "end": 2.0}),
        ("shape", {"steps": None, "decay": 0.9, "shape": "linear"}),
    ):
        given = value if isinstance(value, dict) else {name: value}
        with pytest.raises((TypeError, ValueError), match=name):
            TemperatureSchedule(**({"start": 1.0, "end": 0.1, "steps": 5} | given))
    with pytest.raises(TypeError, match="start"):
        TemperatureSchedule(torch.tensor(1.0), 0.1, 5)
    with pytest.raises(ValueError, match="steps"):
        TemperatureSchedule(1.0, 0.1, 5).step(-1)
    with pytest.raises(ValueError, match="learn_temperature"):
        annealed(learn_temperature=True)
    with pytest.raises(AttributeError, match="temperature_schedule"):
        annealed().temperature = 0.5
    with pytest.raises(TypeError, match="temperature"):
        ScalarQuantizer(3).temperature = TemperatureSchedule(1.0, 0.1, 5)
