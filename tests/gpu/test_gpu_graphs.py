"""CUDA graphs: forward and backward captured once, replayed with new inputs, seeds and temperatures."""

import pytest
import torch
from cases import check_forward, make, output_gradients
from gradcases import assert_gradients, leaf

import fqvae_kernels

pytestmark = pytest.mark.gpu


def capture(step, device):
    """A function that replays what `step` does. On the CPU it calls `step` again, into the same outputs."""
    if device.type != "cuda":
        outputs = step()

        def call_again():
            for old, new in zip(outputs, step(), strict=True):
                old.copy_(new)

        return outputs, call_again
    # Work that a first call does once must not be captured.
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = step()
    return outputs, graph.replay


class Step:
    """One training step on tensors that stay where they are."""

    def __init__(self, case, backend, device, seed):
        self.case, self.backend = case, backend
        self.z, self.book = leaf(case.input.to(device)), leaf(case.codebook.to(device))
        self.temperature = torch.tensor(case.temperature, device=device)
        self.seed = None if seed is None else torch.tensor(seed, device=device)
        self.gradients = [g.to(device) for g in output_gradients(case)]

    def __call__(self):
        result = self.case.call(
            self.backend,
            input=self.z,
            codebook=self.book,
            seed=self.seed,
            temperature=self.temperature,
            return_weights=True,
        )
        outputs = (result.quantized, result.kl, result.weights)
        gradients = torch.autograd.grad(outputs, (self.z, self.book), self.gradients)
        return [output.detach() for output in result] + list(gradients)


def check(case, outputs):
    *forward, grad_input, grad_codebook = (output.cpu() for output in outputs)
    check_forward(case, fqvae_kernels.GumbelQuantized(*forward), weights=True)
    true = case.true_gradients(*output_gradients(case))
    true.temperature = 0.0
    assert_gradients(case, (grad_input, grad_codebook, None), true)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("latents", [0, 3])
def test_replays_follow_the_seed_the_inputs_and_the_temperature(backend, device, latents, is_logits, hard):
    case = make(300, 17, latents=latents, is_logits=is_logits, hard=hard, temperature=0.7, seed=11)
    step = Step(case, backend, device, case.seed)
    outputs, replay = capture(step, device)
    drawn = []
    for seed in (11, 12, 2**40):
        step.seed.fill_(seed)
        replay()
        check(case.but(seed=seed), outputs)
        drawn.append(outputs[1].clone())
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])
    step.seed.add_(1)
    step.temperature.fill_(0.4)
    other = make(300, 17, latents=latents, is_logits=is_logits).input.flip(0)
    with torch.no_grad():
        step.z.copy_(other)
    replay()
    check(case.but(seed=2**40 + 1, temperature=0.4, input=other), outputs)


def test_without_a_seed_every_replay_draws_afresh(backend, device):
    """From the device's generator, whose seed decides; forward and backward of one replay agree."""
    case = make(600, 17, temperature=0.7)
    step = Step(case, backend, device, None)
    outputs, replay = capture(step, device)
    draws = []
    for manual_seed in (5, None, 5):
        if manual_seed is not None:
            torch.manual_seed(manual_seed)  # of every device
        replay()
        draws.append([output.clone() for output in outputs])
    first, second, third = draws
    assert not torch.equal(first[1], second[1])
    assert all(torch.equal(x, y) for x, y in zip(first, third, strict=True))
    # The gradient of a soft sample knows its noise: dz = 2 sum dl m, with the weights that came out.
    weights, a, h, v = (first[3].double(), *(g.double() for g in step.gradients))
    book, z = step.book.detach().double(), step.z.detach().double()[:, None]
    centred = a[:, None] * book + v
    centred -= (weights * centred).sum(-1, keepdim=True)
    logits = -((z - book) ** 2)
    posterior = torch.softmax(logits, -1)
    slope = posterior * (logits - (posterior * logits).sum(-1, keepdim=True))
    expected = 2 * ((weights * centred / 0.7 + h[:, None] * slope) * book).sum(-1)
    torch.testing.assert_close(first[4].double(), expected, atol=2e-5, rtol=2e-5)


def test_nearest_is_captured(backend, device):
    case = make(300, 17)
    z, book = case.input.to(device, copy=True), case.codebook.to(device)
    outputs, replay = capture(lambda: list(fqvae_kernels.nearest_quantize(z, book, backend=backend)), device)
    z.copy_(case.input.flip(0))
    replay()
    expected = fqvae_kernels.nearest_quantize(case.input.flip(0), case.codebook)
    assert torch.equal(outputs[1].cpu(), expected.indices)
    assert torch.equal(outputs[0].cpu(), expected.quantized)
