"""levels: each latent is quantized as by a codebook of its own, on rows that keep their numbers."""

import copy
import math
import pickle

import pytest
import torch
from gradcases import leaf
from hypothesis import given, settings
from hypothesis import strategies as st
from quantizers import ESTIMATORS, fresh_compiler, quantizer, z_of  # noqa: F401

from fqvae_kernels import ScalarQuantizer, gumbel_quantize, nearest_quantize
from fqvae_kernels._quantizer.capacity import capacity

LEVELS = [8, 5, 1, 5]
LOSSES = {"kl_weight": 0.1, "commitment_weight": 0.2, "codebook_weight": 0.3}


def leveled(levels=LEVELS, **options):
    torch.manual_seed(1)
    return ScalarQuantizer(**({"levels": levels, "backend": "reference"} | options))


def separate(q, z, temperature, seed, draws, **options):
    """For each latent what the functions give with its codes alone: its column of a call on all rows."""
    columns = []
    for latent, level in enumerate(q.levels):
        book = q.codebook.detach()[latent, :level].clone()
        posterior = gumbel_quantize(
            z, book, temperature=temperature, seed=seed, hard=True, return_weights=True, **options
        )
        quantized, indices, kl, weights = posterior
        if not draws:
            quantized, indices = nearest_quantize(z, book, backend=options["backend"])
            weights = torch.nn.functional.one_hot(indices, level).to(z.dtype)
            weights = torch.where(z.isfinite().unsqueeze(-1), weights, math.nan)
        weights = torch.nn.functional.pad(weights, (0, max(q.levels) - level))
        columns.append([value.select(z.dim() - 1, latent) for value in (quantized, indices, kl, weights)])
    stacked = [torch.stack(values, z.dim() - 1) for values in zip(*columns, strict=True)]
    return dict(zip(("quantized", "indices", "kl", "weights"), stacked, strict=True))


@settings(max_examples=25)
@given(
    levels=st.lists(st.sampled_from([1, 2, 3, 4, 5, 8, 17]), min_size=2, max_size=5),
    lead=st.lists(st.integers(0, 4), max_size=2),
    estimator=st.sampled_from(ESTIMATORS),
    draws=st.booleans(),
    is_sorted=st.booleans(),
    nan=st.booleans(),
)
def test_levels_equal_separate_codebooks(levels, lead, estimator, draws, is_sorted, nan):
    q = leveled(levels, estimator=estimator, hard=True, temperature=0.7, sorted=is_sorted).train(draws)
    z = 2 * z_of(*lead, len(levels))
    if nan and z.numel():
        z.view(-1)[-1] = math.nan
    options = {"backend": "reference", "row_offset": 40}
    if estimator != "nearest":
        options["estimator"] = estimator
    got = q(z, seed=5, row_offset=40, return_weights=True, return_kl=True)
    expected = separate(q, z, 0.7, 5, draws and estimator != "nearest", **options)
    for name, value in expected.items():
        torch.testing.assert_close(getattr(got, name), value, equal_nan=True, rtol=0, atol=0, msg=name)
    assert (got.indices < torch.tensor(levels)).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    "options", [{}, {"hard": True, "learn_precision": True, "precision": [2.0, 1.0, 0.5, 1]}]
)
def test_gradients_are_those_of_separate_quantizers(backend, estimator, training, options):
    """Of a sum over rows, every loss in it; each latent in a quantizer of its own that takes all rows."""
    common = {"estimator": estimator, "backend": backend, "temperature": 0.6} | LOSSES
    q = leveled(**common, **options).train(training)
    z, same = leaf(z_of(11, 4)), leaf(z_of(11, 4))
    warm, same_warm = leaf(torch.tensor(0.6)), leaf(torch.tensor(0.6))
    out = q(z, temperature=warm, seed=3, return_weights=True, return_kl=True)
    factor = torch.linspace(-1, 2, 44).reshape(11, 4)
    (factor * (out.quantized + out.kl + out.weights[..., 0])).sum().add(out.loss).backward()
    loss = 0
    for latent, level in enumerate(LEVELS):
        alone_options = options | ({"precision": options["precision"][latent]} if options else {})
        book = q.codebook.detach()[latent, :level].clone()
        alone = ScalarQuantizer(level, init=book, **common, **alone_options).train(training)
        column = torch.arange(4) == latent
        part = alone(
            same,
            temperature=same_warm,
            mask=column.expand(11, 4),
            seed=3,
            return_weights=True,
            return_kl=True,
        )
        assert torch.equal(part.indices[:, latent], out.indices[:, latent])
        torch.testing.assert_close(part.quantized[:, latent], out.quantized[:, latent])
        (factor * (part.quantized + part.kl + part.weights[..., 0])).sum().add(part.loss / 4).backward()
        loss = loss + part.loss.detach() / 4
        if alone.codebook.grad is not None:
            torch.testing.assert_close(q.codebook.grad[latent, :level], alone.codebook.grad)
        assert not q.codebook.grad[latent, level:].any()
        if options and alone.log_precision.grad is not None:
            torch.testing.assert_close(q.log_precision.grad[[latent]], alone.log_precision.grad)
    torch.testing.assert_close(out.loss, loss)
    torch.testing.assert_close(z.grad, same.grad)
    torch.testing.assert_close(warm.grad, same_warm.grad)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kl_weight", [0.1, 0.0])
def test_what_lies_beyond_a_level_is_never_read(backend, estimator, training, kl_weight):
    q = leveled(estimator=estimator, backend=backend, **LOSSES | {"kl_weight": kl_weight}).train(training)
    z = torch.cat((3 * z_of(20, 4), torch.full((1, 4), 3e38), torch.full((1, 4), -3e38), torch.zeros(1, 4)))
    unusable = torch.tensor([math.nan, math.inf, -math.inf]).unsqueeze(-1).expand(3, 4)
    indices = q(unusable).indices
    assert ((indices >= 0) & (indices < torch.tensor(LEVELS))).all()
    q.reset_usage()
    expected = q(z, seed=1, return_weights=True)
    for filling in (math.nan, 1e30, 0.0):
        for latent, level in enumerate(LEVELS):
            q.codebook.data[latent, level:] = filling
        out = q(z, seed=1, return_weights=True)
        for name in ("quantized", "indices", "weights", "loss"):
            assert torch.equal(getattr(out, name), getattr(expected, name)), name
        assert torch.equal(q.codes(out.indices)[0], q.codes(expected.indices)[0])
    for latent, level in enumerate(LEVELS):
        assert not expected.weights[:, latent, level:].any() and not q.usage[latent, level:].any()


def test_all_passes_draw_with_one_seed():
    """Taken from the generator as one call takes it."""
    q, z = leveled(hard=True), z_of(50, 4)
    torch.manual_seed(2)
    got = q(z).indices
    after = torch.get_rng_state()
    for latent, level in enumerate(LEVELS):
        torch.manual_seed(2)
        alone = gumbel_quantize(z, q.codebook[latent, :level], backend="reference").indices
        assert torch.equal(got[:, latent], alone[:, latent])
    assert torch.equal(torch.get_rng_state(), after)


def test_equal_levels_are_codebooks_of_one_size():
    q, other = leveled([5, 5, 5]), ScalarQuantizer(5, num_codebooks=3, backend="reference")
    other.load_state_dict(q.state_dict())
    z = z_of(9, 3)
    assert torch.equal(q(z, seed=1).quantized, other(z, seed=1).quantized)
    single = leveled([5])
    assert single.codebook.shape == (5,) and single.num_codebooks == 1 and single(z_of(4, 7)).quantized.any()


def test_initial_codes():
    q = leveled([4, 2, 3], init="linspace", init_scale=2.0)
    expected = [[-1, -1 / 3, 1 / 3, 1], [-1, 1, 0, 0], [-1, 0, 1, 0]]
    torch.testing.assert_close(q.codebook.detach(), torch.tensor(expected))
    assert q.codebook.shape == (3, 4) and list(q.state_dict()) == ["codebook"]
    given = torch.tensor([[3.0, 1.0, 2.0, 0.0], [2.0, 1.0, -5.0, 9.0]])
    for is_sorted, first, second in ((False, [3, 1, 2, 0], [2, 1]), (True, [0, 1, 2, 3], [1, 2])):
        q = leveled([4, 2], init=given, sorted=is_sorted)
        torch.testing.assert_close(q.codebook[0], torch.tensor(first, dtype=torch.float32))
        torch.testing.assert_close(q.codebook[1, :2], torch.tensor(second, dtype=torch.float32))


def test_usage_perplexity_and_capacity():
    q = leveled([4, 2, 3], estimator="nearest", init="linspace", init_scale=9.0)
    assert q.perplexity().tolist() == [0, 0, 0]
    z = torch.linspace(-4.5, 4.5, 12).unsqueeze(-1).expand(12, 3)
    q(z)
    assert q.usage.tolist() == [[2, 4, 4, 2], [6, 6, 0, 0], [3, 6, 3, 0]]
    assert q.perplexity()[1].item() == pytest.approx(2.0)
    expected = [capacity(q.codebook[i, :level], 1.0) for i, level in enumerate([4, 2, 3])]
    assert q.capacity().tolist() == pytest.approx(expected) and q.capacity()[1].item() < 1.001


def test_indices_of_each_latent_are_below_its_level():
    q = leveled([4, 2, 3])
    q.codes(torch.tensor([[3, 1, 2], [-1, 0, -1]]))
    for indices, latent, level in (([[0, 2, 0]], 1, 2), ([[0, 0, 3]], 2, 3), ([[-2, 0, 0]], 0, 4)):
        with pytest.raises(ValueError, match=rf"indices of latent {latent} must be in \[0, {level}\)"):
            q.codes(torch.tensor(indices))
    with pytest.raises(ValueError, match="indices of latent 1"):
        leveled([4, 2], channel_first=True).codes(torch.full((5, 2, 3), 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": [4, 2], "codebook_size": 64}, "codebook_size must not be given with levels"),
        ({"levels": [4, 2], "num_codebooks": 2}, "num_codebooks must not be given with levels"),
        ({"levels": []}, "levels must have"),
        ({"levels": 8}, "levels must be a sequence"),
        ({"levels": "85"}, "levels must be a sequence"),
        ({"levels": [8, 0]}, "levels must be an int of at least 1"),
        ({"levels": [8, 2.5]}, "levels must be an int"),
        (
            {"levels": [8, 5], "dim": 6, "num_latents": 3},
            r"num_latents must be the number of codebooks \(2\)",
        ),
    ],
)
def test_bad_levels_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ScalarQuantizer(**options)


def test_with_channel_first_dim_and_mask():
    q = leveled([4, 2, 3], dim=6, channel_first=True, hard=True)
    mask = z_of(2, 5, 5, seed=3) > 0
    out = q(z_of(2, 6, 5, 5), mask=mask)
    assert out.indices.shape == (2, 3, 5, 5) and q.usage.sum() == 3 * mask.sum()
    torch.testing.assert_close(q.codes(out.indices), out.quantized)


@pytest.mark.parametrize("method", ["deepcopy", "pickle", "state_dict"])
def test_copies(method):
    q = leveled()
    if method == "state_dict":
        other = ScalarQuantizer(levels=LEVELS, backend="reference")
        other.load_state_dict(q.state_dict())
    else:
        other = copy.deepcopy(q) if method == "deepcopy" else pickle.loads(pickle.dumps(q))
    assert torch.equal(other(z_of(9, 4), seed=1).quantized, q(z_of(9, 4), seed=1).quantized)
    assert "levels=[8, 5, 1, 5]" in repr(other)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_under_compile_export_and_vmap(training):
    q, z = leveled(**LOSSES).train(training), z_of(6, 4)
    compiled = torch.compile(q, fullgraph=True, backend="aot_eager")
    torch.manual_seed(3)
    expected = q(z)
    torch.manual_seed(3)
    out = compiled(z)
    for name in ("quantized", "indices", "loss"):
        torch.testing.assert_close(getattr(out, name), getattr(expected, name))
    batched = torch.func.vmap(lambda part: q(part, seed=3))(z.reshape(2, 3, 4))
    assert torch.equal(batched.indices.reshape(6, 4), q(z, seed=3).indices)
    if not training:
        assert torch.equal(torch.export.export(q, (z,)).module()(z).indices, q(z).indices)
