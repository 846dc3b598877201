"""QuantizerOutput in PyTorch's containers: pytrees, checkpointing, gather, export, compile, copies."""

import copy
import io
import pickle

import pytest
import torch
from cases import reloaded
from gradcases import leaf
from quantizers import ESTIMATORS, quantizer, z_of
from torch.utils import _pytree
from torch.utils.checkpoint import checkpoint

from fqvae_kernels import QuantizerOutput, ScalarQuantizer

FIELDS = ("quantized", "indices", "loss", "kl", "weights")


class Encoded(torch.nn.Module):
    """An encoder and a quantizer, which draws the same codes at every call."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(2)
        self.encoder = torch.nn.Linear(4, 3)
        self.quantizer = quantizer(**options)

    def forward(self, x):
        return self.quantizer(self.encoder(x), seed=7, return_weights=True)


def gradients(module, loss):
    module.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def assert_same(got, expected):
    assert type(got) is QuantizerOutput
    for name in FIELDS:
        one, other = getattr(got, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other)
    torch.testing.assert_close(got.losses, expected.losses)


def test_it_is_a_tuple_of_three():
    out = quantizer()(z_of(6, 3), return_weights=True)
    assert isinstance(out, tuple) and len(out) == 3
    quantized, indices, loss = out
    assert quantized is out.quantized is out[0] and indices is out.indices and loss is out.loss is out[-1]
    assert out == out and out != quantizer()(z_of(6, 3)) and out in {out}
    for name in (*FIELDS, "losses"):
        assert f"{name}=" in repr(out)
    with pytest.raises(ValueError, match="three items quantized, indices, loss"):
        QuantizerOutput([loss, loss])


def test_it_is_a_pytree_of_its_tensors():
    out = quantizer()(z_of(6, 3), return_weights=True)
    leaves, spec = _pytree.tree_flatten(out)
    assert len(leaves) == 8 and all(isinstance(value, torch.Tensor) for value in leaves)
    assert_same(_pytree.tree_unflatten(leaves, spec), out)
    doubled = _pytree.tree_map(lambda value: value * 2, out)
    assert torch.equal(doubled.kl, out.kl * 2) and torch.equal(doubled.losses["kl"], out.losses["kl"] * 2)
    paths = [_pytree.keystr(path) for path, _ in _pytree.tree_flatten_with_path(out)[0]]
    assert paths[0] == ".quantized" and paths[-1] == ".losses['codebook']"
    # What is absent is no leaf: torch.func takes nothing but tensors.
    bare = ScalarQuantizer(5).eval()(z_of(6))
    assert len(_pytree.tree_leaves(bare)) == 3
    assert_same(_pytree.tree_map(torch.clone, bare), bare)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_gives_the_encoder_its_gradient(estimator, use_reentrant):
    module = Encoded(estimator=estimator)
    x = leaf(z_of(6, 4))

    def total(out):
        quantized, indices, loss = out
        assert indices.dtype == torch.int64
        return quantized.square().sum() + loss

    expected = gradients(module, total(module(x)))
    expected_x, x.grad = x.grad, None
    got = gradients(module, total(checkpoint(module, x, use_reentrant=use_reentrant)))
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(x.grad, expected_x)
    assert expected["encoder.weight"].any()


def test_checkpointing_keeps_every_field_unless_it_is_reentrant():
    module = Encoded()
    out = checkpoint(module, z_of(6, 4), use_reentrant=False)
    assert_same(out, module(z_of(6, 4)))
    plain = checkpoint(module, leaf(z_of(6, 4)), use_reentrant=True)
    assert type(plain) is tuple and len(plain) == 3 and plain[0].requires_grad


def test_gather(monkeypatch):
    """DataParallel's gather, with concatenation on the CPU in place of the copy to a GPU."""
    from torch.nn.parallel import scatter_gather

    class Concatenate:
        @staticmethod
        def apply(device, dim, *tensors):
            return torch.cat([tensor.reshape(1) if tensor.dim() == 0 else tensor for tensor in tensors], dim)

    monkeypatch.setattr(scatter_gather, "Gather", Concatenate)
    q = quantizer()
    parts = [q(z_of(4, 3, seed=seed), return_weights=True) for seed in (0, 1)]
    out = scatter_gather.gather(parts, "cpu")
    assert type(out) is QuantizerOutput and out.kl is None and out.weights is None and out.losses == {}
    quantized, indices, loss = out
    assert torch.equal(quantized, torch.cat([part.quantized for part in parts]))
    assert torch.equal(indices, torch.cat([part.indices for part in parts]))
    assert torch.equal(loss, torch.stack([part.loss for part in parts]))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_export(estimator, strict):
    """Of a module that returns the output as it is; saved, loaded, at another batch."""
    module = Encoded(estimator=estimator).eval()
    batch = torch.export.Dim("batch", min=2, max=100)
    program = torch.export.export(module, (z_of(6, 4),), dynamic_shapes=({0: batch},), strict=strict)
    assert not program.graph_signature.buffers_to_mutate
    for loaded in (program, reloaded(program)):
        assert_same(loaded.module()(z_of(9, 4)), module(z_of(9, 4)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compile(estimator, training):
    module = Encoded(estimator=estimator).train(training)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = z_of(6, 4)
    assert_same(compiled(x), module(x))

    def total(out):
        return out.quantized.square().sum() + out.loss + out.kl.sum() + out.losses["codebook"]

    torch.testing.assert_close(gradients(module, total(compiled(x))), gradients(module, total(module(x))))


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:The .grad attribute:UserWarning"
)
def test_compiled_programs_take_it_in_and_hand_it_out():
    q = quantizer()

    @torch.compile(fullgraph=True, backend="eager")
    def double(out):
        quantized, _, loss = out
        return QuantizerOutput(quantized * 2, out.indices, loss, out.kl, losses=out.losses), out.kl.sum()

    out = q(z_of(6, 3))
    doubled, kl = double(out)
    assert torch.equal(doubled.quantized, out.quantized * 2) and torch.equal(doubled.kl, out.kl)
    assert torch.equal(kl, out.kl.sum()) and doubled.losses.keys() == out.losses.keys()


def test_functional_call_and_transforms():
    q = quantizer(estimator="nearest")
    z = z_of(4, 3)
    parameters = dict(q.named_parameters())
    assert_same(torch.func.functional_call(q, parameters, (z,)), q(z))
    gradient = torch.func.grad(lambda value: q(value).loss)(z)
    other = leaf(z)
    q(other).loss.backward()
    torch.testing.assert_close(gradient, other.grad)
    _, out = torch.func.grad(lambda value: (q(value).loss, q(value)), has_aux=True)(z)
    assert_same(out, q(z))


@pytest.mark.parametrize("training", [True, False])
def test_vmap(training):
    q = quantizer(estimator="nearest").train(training)
    z = z_of(4, 6, 3)
    out = torch.func.vmap(lambda part: q(part, return_weights=True))(z)
    assert type(out) is QuantizerOutput and out.loss.shape == (4,)
    for i, part in enumerate(z):
        one = _pytree.tree_map(lambda value: value[i], out)  # noqa: B023
        assert_same(one, q(part, return_weights=True))


@pytest.mark.parametrize("method", ["deepcopy", "pickle", "save"])
def test_copies(method):
    with torch.no_grad():
        out = quantizer()(z_of(6, 3), return_weights=True)
    if method == "deepcopy":
        other = copy.deepcopy(out)
    elif method == "pickle":
        other = pickle.loads(pickle.dumps(out))
    else:
        file = io.BytesIO()
        torch.save(out, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert_same(other, out)
    assert other.quantized is not out.quantized
