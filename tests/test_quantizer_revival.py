"""ScalarQuantizer's revive_after: unused codes restart at inputs."""

import copy
import math

import pytest
import torch
from gradcases import leaf
from quantizers import z_of
from torch.utils.checkpoint import checkpoint

from fqvae_kernels import ScalarQuantizer

# Nothing is near the last two codes of each codebook.
CODES = torch.tensor([0.0, 1.0, 100.0, 200.0])


def reviving(after=3, **options):
    torch.manual_seed(1)
    return ScalarQuantizer(4, **({"init": CODES, "estimator": "nearest", "revive_after": after} | options))


@pytest.mark.parametrize("after", [1, 3])
def test_a_code_unused_for_so_many_calls_restarts_at_an_input(after):
    q = reviving(after)
    z = z_of(40, seed=7)
    for call in range(1, after + 1):
        assert torch.equal(q.codebook.detach(), CODES), call
        out = q(z)
        assert torch.equal(out.quantized, CODES[out.indices]), "the call itself takes the codes as they were"
    assert torch.equal(q.codebook[:2].detach(), CODES[:2]), "codes in use stay"
    restarted = q.codebook[2:].detach()
    assert all((value == z).any() for value in restarted) and restarted[0] != restarted[1]


def test_codes_restart_at_different_inputs():
    q = ScalarQuantizer(50, estimator="nearest", init=1e6 + torch.arange(50.0), revive_after=1)
    q(z_of(50))
    restarted = q.codebook.detach()[1:]
    assert restarted.unique().numel() == 49 and torch.isin(restarted, z_of(50)).all()


def test_taken_codes_are_counted_from_their_last_call():
    q = reviving(3)
    near, far = torch.tensor([0.1, 0.9]), torch.tensor([0.1, 0.9, 101.0])
    for z in (near, near, far, near, near):
        q(z)
        assert q.codebook[2] == 100.0
    assert q.codebook[3] in far, "it was never taken"
    q(near)
    assert q.codebook[2] in near


def test_each_codebook_takes_its_own_inputs():
    q = reviving(1, num_codebooks=3)
    z = z_of(5, 8, 3) + torch.tensor([0.0, 10.0, 1000.0])
    q(z)
    for latent in range(3):
        changed = q.codebook[latent].detach() != CODES
        # Near z are the first two codes, the second, and the last.
        assert (
            changed.tolist()
            == [
                [False, False, True, True],
                [True, False, True, True],
                [True, True, True, False],
            ][latent]
        )
        assert torch.isin(q.codebook[latent].detach()[changed], z[..., latent]).all()


def test_rows_that_are_not_finite_neither_count_nor_are_taken():
    q = reviving(1)
    q(torch.tensor([math.nan, math.inf, -math.inf]))
    assert torch.equal(q.codebook.detach(), CODES) and q.revival.unused.tolist() == [[1] * 4]
    q(torch.tensor([math.nan, 0.5, math.inf]))
    assert q.codebook.isfinite().all() and (q.codebook[1:] == 0.5).all() and q.codebook[0] == 0.0
    q(torch.empty(0))


@pytest.mark.parametrize("estimator", ["gumbel", "straight_through", "reinmax", "nearest"])
def test_gradients_are_those_of_the_codes_that_were_used(estimator):
    """Also of a call that comes back after another one has changed codes."""
    options = {"estimator": estimator, "codebook_weight": 0.5, "init": torch.tensor([0.0, 1.0, 9.0, 11.0])}
    q, plain = reviving(1, **options), reviving(None, **options)
    results = []
    for module in (q, plain):
        z = leaf(z_of(20))
        first, second = module(z, seed=1), module(z.detach(), seed=2) if module is q else None
        assert second is None or not torch.equal(q.codebook, plain.codebook)
        (first.quantized.square().sum() + first.loss).backward()
        results.append((first.quantized, first.loss, z.grad, module.codebook.grad))
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got, expected)


def test_the_optimizer_keeps_what_it_had():
    q = reviving(1, codebook_weight=1.0)
    optimizer = torch.optim.Adam(q.parameters(), lr=0.0)
    q(z_of(10)).loss.backward()
    before = q.codebook.data_ptr()
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    q(z_of(10))
    after = optimizer.state_dict()
    assert torch.equal(after["state"][0]["exp_avg"], state["state"][0]["exp_avg"])
    assert q.codebook.data_ptr() == before and optimizer.param_groups[0]["params"][0] is q.codebook


def test_repeats_and_resumes_and_takes_nothing_from_the_generator():
    state = torch.get_rng_state()
    whole, part = reviving(2), None
    torch.set_rng_state(state)
    for step in range(12):
        if step == 5:
            part = reviving(2)
            part.load_state_dict(whole.state_dict())
        for module in (whole, part) if part is not None else (whole,):
            module(3 * z_of(30, seed=step) + step)
    assert torch.equal(whole.codebook, part.codebook) and torch.equal(
        whole.revival.unused, part.revival.unused
    )
    before = torch.get_rng_state()
    reviving_now = reviving(1)
    torch.set_rng_state(before)
    reviving_now(z_of(30))
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_happens_in_eval_nor_in_what_stands_for_other_calls():
    torch._dynamo.reset()
    q = reviving(1, estimator="gumbel", backend="reference")
    z = z_of(20)
    q.eval()
    q(z)
    q.train()
    compiled = torch.compile(q, fullgraph=True, backend="aot_eager")
    with pytest.warns(UserWarning, match="^revive_after does nothing in a program of torch.compile"):
        compiled(z)
    compiled(z)  # warnings are errors: it is told as the program is made
    q.eval()
    compiled(z)
    q.train()
    torch.func.vmap(lambda row: q(row, seed=1).quantized)(z.reshape(2, 10))
    assert torch.equal(q.codebook.detach(), CODES) and not q.revival.unused.any() and q.revival.calls == 0
    checkpoint(lambda x: q(x, seed=1).quantized, leaf(z), use_reentrant=False).sum().backward()
    assert q.revival.calls == 1


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("options", [{}, {"levels": [4, 3], "codebook_size": None}], ids=["one", "levels"])
def test_checkpointing_repeats_a_call_with_the_codes_that_it_had(reentrant, options):
    """Codes restart after the call, and are others when the backward pass repeats it."""
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        q = ScalarQuantizer(
            **{
                "codebook_size": 8,
                "revive_after": 1,
                "temperature": 0.5,
                "init": "linspace",
                "init_scale": 4.0,
            }
            | options
        )
        z = leaf(torch.linspace(0.1, 0.2, 8).reshape(4, 2))

        def loss(x, q=q):
            out = q(x, seed=7)
            return (out.quantized**2).sum()

        for _ in range(2):
            before = q.codebook.detach().clone()
            (checkpoint(loss, z, use_reentrant=reentrant) if checkpointed else loss(z)).backward()
            assert not torch.equal(before, q.codebook)  # some restarted
        gradients.append((z.grad, q.codebook.grad))
    for got, expected in zip(*gradients, strict=True):
        assert torch.equal(got, expected)


def test_without_it_nothing_is_kept():
    q = ScalarQuantizer(4)
    assert q.revival is None and list(q.state_dict()) == ["codebook"]
    assert set(reviving().state_dict()) == {"codebook", "revival.unused", "revival.calls"}
    assert "revive_after=3" in repr(reviving())


def test_reset_parameters_counts_anew():
    q = reviving(3)
    q(z_of(5))
    q.reset_parameters()
    assert not q.revival.unused.any() and q.revival.calls == 0


@pytest.mark.parametrize(("value", "options"), [(0, {}), (1.5, {}), ("often", {}), (3, {"sorted": True})])
def test_bad_arguments_are_named(value, options):
    with pytest.raises((TypeError, ValueError), match="revive_after"):
        reviving(value, **options)


def test_more_codes_come_into_use():
    """What it is for: codes that start far from the data."""
    used = []
    for after in (None, 10):
        torch.manual_seed(0)
        q = ScalarQuantizer(
            32, estimator="nearest", codebook_weight=1.0, init=5 + torch.arange(32.0), revive_after=after
        )
        optimizer = torch.optim.Adam(q.parameters(), lr=0.01)
        for step in range(200):
            optimizer.zero_grad()
            q(z_of(256, seed=step)).loss.backward()
            optimizer.step()
        q.eval()
        used.append(q(z_of(2000, seed=1000)).indices.unique().numel())
    assert used[0] <= 3 and used[1] >= 28
