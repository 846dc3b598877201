"""Exported programs of a quantizer in eval(): plain operators, which ONNX knows and which need no package."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import truth

from fqvae_kernels import GumbelVectorQuantizer, ScalarQuantizer, nearest_quantize

pytestmark = [
    pytest.mark.skipif(
        not hasattr(torch.compiler, "is_exporting"), reason="PyTorch does not tell that it exports"
    ),
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
]
LATENTS = 6
BOOKS = [pytest.param(1, id="one"), pytest.param(LATENTS, id="per-latent")]
DTYPES = [torch.float32, torch.float64]


class Encoder(torch.nn.Module):
    """To indices and codes. Its products and sums are exact: every runtime must have the same."""

    def __init__(self, dtype, books, **settings):
        super().__init__()
        self.linear = torch.nn.Linear(8, LATENTS, dtype=dtype)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randint(-8, 9, self.linear.weight.shape) / 8)
            self.linear.bias.copy_(torch.randint(-8, 9, (LATENTS,)) / 8)
        self.quantizer = ScalarQuantizer(64, num_codebooks=books, **settings).to(dtype)

    def forward(self, x):
        out = self.quantizer(self.linear(x))
        return out.indices, out.quantized, out.loss


class Quantize(torch.nn.Module):
    def __init__(self, codebook, **settings):
        super().__init__()
        self.quantizer = ScalarQuantizer(
            codebook.shape[-1],
            num_codebooks=codebook.shape[0] if codebook.dim() == 2 else 1,
            init=codebook,
            **settings,
        ).to(codebook.dtype)

    def forward(self, z):
        out = self.quantizer(z)
        return out.indices, out.quantized


def inputs(rows, dtype):
    return torch.randint(-256, 257, (rows, 8)).to(dtype) / 64


def exported(module, example, **options):
    shapes = ({0: torch.export.Dim("batch")},)
    return torch.export.export(module, (example,), dynamic_shapes=shapes, **options)


def operators(program):
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


def onnx_session(module, example):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(module, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    (name,) = (each.name for each in session.get_inputs())
    return lambda x: session.run(None, {name: x.numpy()})


@pytest.mark.parametrize("books", BOOKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_onnx_takes_the_same_codes(books, dtype):
    torch.manual_seed(books)
    module = Encoder(dtype, books).eval()
    run = onnx_session(module, inputs(16, dtype))
    codebook = module.quantizer.codebook.detach().numpy()
    for rows in (10_000, 1, 3):
        x = inputs(rows, dtype)
        indices, quantized, loss = run(x)
        with torch.no_grad():
            expected = module(x)
        z = module.linear(x).detach().double().numpy()
        assert np.array_equal(indices, truth.nearest(z.reshape(-1), codebook).reshape(z.shape))
        assert np.array_equal(indices, expected[0])
        assert np.array_equal(quantized, expected[1])
        assert loss == 0


def test_onnx_gives_the_losses():
    torch.manual_seed(0)
    settings = {"kl_weight": 0.5, "commitment_weight": 0.25, "sorted": True, "learn_precision": True}
    module = Encoder(torch.float32, LATENTS, precision=3.0, **settings).eval()
    run = onnx_session(module, inputs(16, torch.float32))
    x = inputs(500, torch.float32)
    indices, _, loss = run(x)
    expected = module(x)
    assert np.array_equal(indices, expected[0])
    assert loss == pytest.approx(expected[2].item(), rel=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_onnx_keeps_ties_far_values_and_nan(dtype):
    codebook = torch.tensor([1.0, -1.0, 0.0, 1.0, 0.0, -1.0], dtype=dtype)
    largest = torch.finfo(dtype).max
    z = torch.tensor([[0.0, 0.5, -0.5, 2.0], [largest, -largest, math.nan, math.inf]], dtype=dtype)
    run = onnx_session(Quantize(codebook).eval(), torch.zeros(2, 4, dtype=dtype))
    indices, quantized = run(z)
    # A tie takes the lowest index, between two codes and between equal ones.
    assert indices[0].tolist() == [2, 0, 1, 0]
    assert indices[1, :2].tolist() == [0, 1]
    assert ((indices >= 0) & (indices < 6)).all()
    assert quantized[0].tolist() == [0.0, 1.0, -1.0, 1.0]
    assert quantized[1, :2].tolist() == [1.0, -1.0]
    assert np.isnan(quantized[1, 2:]).all()
    expected = nearest_quantize(z, codebook)
    assert np.array_equal(indices, expected.indices)
    assert np.array_equal(quantized, expected.quantized, equal_nan=True)


def test_onnx_spoils_only_the_codebook_with_a_nan():
    codebook = torch.tensor([[0.0, 1.0], [math.nan, 1.0], [0.0, math.inf]])
    module = Quantize(torch.zeros(3, 2)).eval()
    with torch.no_grad():
        module.quantizer.codebook.copy_(codebook)
    run = onnx_session(module, torch.zeros(2, 3))
    _, quantized = run(torch.full((2, 3), 0.7))
    assert np.array_equal(quantized, [[1.0, math.nan, math.nan]] * 2, equal_nan=True)


class Decode(torch.nn.Module):
    def __init__(self, quantizer):
        super().__init__()
        self.quantizer = quantizer

    def forward(self, indices):
        return self.quantizer.codes(indices)


@pytest.mark.parametrize("books", BOOKS)
def test_onnx_reads_codes(books):
    quantizer = ScalarQuantizer(64, num_codebooks=books).eval()
    indices = torch.randint(64, (50, LATENTS))
    (codes,) = onnx_session(Decode(quantizer).eval(), indices[:5])(indices)
    assert np.array_equal(codes, quantizer.codes(indices).detach())


class Tokenize(torch.nn.Module):
    def __init__(self, quantizer):
        super().__init__()
        self.quantizer = quantizer

    def forward(self, z):
        return self.quantizer.to_tokens(self.quantizer(z).indices)


class Detokenize(Decode):
    def forward(self, tokens):
        return self.quantizer.codes(self.quantizer.from_tokens(tokens))


def test_onnx_packs_and_unpacks_tokens():
    quantizer = ScalarQuantizer(10, num_codebooks=LATENTS, channel_first=True).eval()
    z = torch.randn(200, LATENTS, 3)
    (tokens,) = onnx_session(Tokenize(quantizer).eval(), z[:4])(z)
    out = quantizer(z)
    # The first latent is the leading digit.
    assert np.array_equal(tokens, sum(out.indices[:, place] * 10 ** (5 - place) for place in range(LATENTS)))
    tokens = torch.from_numpy(tokens)
    (codes,) = onnx_session(Detokenize(quantizer).eval(), tokens[:4])(tokens)
    assert np.array_equal(codes, out.quantized.detach())


@pytest.mark.parametrize(("estimator", "strict"), [("gumbel", False), ("gumbel", True), ("nearest", False)])
def test_an_exported_program_holds_plain_operators(estimator, strict):
    module = Encoder(torch.float32, LATENTS, estimator=estimator, kl_weight=1.0).eval()
    program = exported(module, inputs(16, torch.float32), strict=strict)
    for each in (program, program.run_decompositions()):
        assert [name for name in operators(each) if "fqvae" in name] == []
        x = inputs(100, torch.float32)
        found, expected = each.module()(x), module(x)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
        torch.testing.assert_close(found[2], expected[2])


def test_an_exported_program_of_vectors_holds_plain_operators():
    q = GumbelVectorQuantizer(None, 5, 4, num_codebooks=2, kl_weight=0.5).eval()
    program = exported(q, torch.randn(4, 10))
    assert [name for name in operators(program) if "fqvae" in name] == []
    x = torch.randn(9, 10)
    torch.testing.assert_close(program.module()(x).loss, q(x).loss)


def test_a_named_backend_stays_in_the_program(native):
    module = Quantize(torch.randn(5), backend="cpu").eval()
    assert "fqvae_kernels.nearest.default" in operators(exported(module, torch.randn(4, 3)))


def test_nothing_counts(native):
    module = Encoder(torch.float32, LATENTS).eval()
    program = exported(module, inputs(16, torch.float32))
    program.module()(inputs(16, torch.float32))
    assert not module.quantizer.usage.any()


def test_the_gradient_goes_straight_through():
    module = Quantize(torch.randn(5)).eval()
    z = torch.randn(4, 3, requires_grad=True)
    _, quantized = exported(module, torch.randn(4, 3)).module()(z)
    weights = torch.randn(4, 3)
    quantized.backward(weights)
    assert torch.equal(z.grad, weights)


@pytest.mark.skipif(
    torch.torch_version.TorchVersion(torch.__version__) < (2, 9),
    reason="PyTorch 2.8 saves no program with a NaN",
)
def test_it_runs_where_this_package_is_not(tmp_path):
    module = Quantize(torch.randn(LATENTS, 64)).eval()
    z = torch.randn(7, LATENTS)
    torch.export.save(exported(module, torch.randn(4, LATENTS)), tmp_path / "program.pt2")
    torch.save(z, tmp_path / "z.pt")
    code = (
        "import sys, torch; sys.modules['fqvae_kernels'] = None;"
        "found = torch.export.load('program.pt2').module()(torch.load('z.pt'));"
        "torch.save(found, 'found.pt')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    indices, quantized = torch.load(tmp_path / "found.pt")
    expected = module(z)
    assert torch.equal(indices, expected[0]) and torch.equal(quantized, expected[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # PyTorch's own
@pytest.mark.skipif(sys.platform != "linux", reason="AOTInductor was tried on Linux")
def test_aot_inductor_takes_the_same_codes(tmp_path):
    module = Quantize(torch.randn(LATENTS, 64)).eval()
    with torch.no_grad():
        program = exported(module, torch.randn(16, LATENTS))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "program.pt2"))
        run = torch._inductor.aoti_load_package(path)
        z = torch.randn(1000, LATENTS)
        z[0, 0], z[1, 1], z[2, 2] = math.nan, -math.inf, 3e38
        indices, quantized = run(z)
        expected = module(z)
    assert torch.equal(indices, expected[0])
    assert np.array_equal(quantized, expected[1], equal_nan=True)
