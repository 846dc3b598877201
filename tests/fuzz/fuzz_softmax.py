"""Random calls of `gumbel_softmax`: PyTorch's function over any dimension, rows in C order with it last."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from cases import Case, check_indices, double
from fuzz_calls import describe, input_and_codebook, row_offset, temperature
from fuzz_compare import check_close, check_gradients, incoming

import fqvae_kernels


@dataclass
class Softmax:
    logits: torch.Tensor
    dim: int
    arguments: dict
    case: Case


def random_softmax(draw: random.Random, backend: str) -> Softmax:
    last, book = input_and_codebook(draw, True)
    axis = draw.randrange(last.dim())
    logits = last.movedim(-1, axis)
    warmth = float(temperature(draw, last.dtype, False))
    rows = last.numel() // book.shape[-1]
    arguments = {
        "hard": draw.random() < 0.4,
        "seed": draw.randrange(2**64),
        "row_offset": row_offset(draw, rows),
        "backend": backend,
    }
    case = Case(
        last,
        torch.zeros(book.shape[-1]),
        True,
        warmth,
        arguments["hard"],
        arguments["seed"],
        arguments["row_offset"],
    )
    return Softmax(logits, axis - (last.dim() if draw.random() < 0.5 else 0), arguments, case)


def describe_softmax(call: Softmax) -> str:
    given = f"tau={call.case.temperature}, dim={call.dim}, **{call.arguments}"
    return f"gumbel_softmax({describe(call.logits)}, {given})"


def check_softmax(call: Softmax, draw: random.Random):
    case, logits = call.case, call.logits.detach().requires_grad_()
    got = fqvae_kernels.gumbel_softmax(logits, tau=case.temperature, dim=call.dim, **call.arguments)
    assert got.shape == logits.shape and got.dtype == logits.dtype, "shape or dtype"
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        true = case.true_forward()
        weights = got.movedim(call.dim, -1)
        expected = true.weights
        if case.hard:
            index = check_indices(case, weights.detach().nan_to_num(0.0).argmax(dim=-1), true)
            expected = np.where(true.bad[:, None], np.nan, index[:, None] == np.arange(case.codes))
        allowed = 0.0 if case.hard else case.tolerance
        check_close(weights, expected.reshape(weights.shape), allowed, "weights")
        bad = torch.from_numpy(true.bad).reshape(weights.shape[:-1])
        v = incoming(draw, weights, bad)
        (of_logits,) = torch.autograd.grad(got, logits, v.movedim(-1, call.dim))
        of_logits = torch.from_numpy(double(of_logits.movedim(call.dim, -1))).to(case.dtype)
        gradients = case.true_gradients(None, None, v)
        check_gradients(case, (of_logits, None, None), gradients, true)
