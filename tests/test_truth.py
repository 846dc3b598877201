"""The truth is tested too: published vectors, high precision, finite differences, PyTorch's own autograd."""

import mpmath
import numpy as np
import pytest
import torch
import truth

mpmath.mp.dps = 80

# Known answers of philox4x32-10 that Random123 publishes: counter, key, output.
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_philox_gives_the_published_words(counter, key, expected):
    assert tuple(int(word) for word in truth.philox4x32(counter, key)) == expected


def test_words_use_the_right_counter_and_key():
    seed, offset = 0x299F31D0A4093822, 2**32 - 1
    got = truth.words(seed, 2, 7, offset)
    for i in range(2):
        for k in range(7):
            n = offset + i
            block = truth.philox4x32((k // 4, 0, n % 2**32, n // 2**32), (0xA4093822, 0x299F31D0))
            assert int(got[i, k]) == int(block[k % 4])


def test_uniform_is_strictly_inside_the_unit_interval():
    assert truth.uniform([0, 0xFFFFFFFF]).tolist() == [2.0**-24, 1.0 - 2.0**-24]


def test_gumbel_of_words_in_high_precision():
    rng = np.random.default_rng(0)
    word = np.concatenate([rng.integers(0, 2**32, 200), [0, 511, 512, 2**31, 2**32 - 1, 2**32 - 513]])
    got = truth.gumbel_from_words(word)
    for value, g in zip(word.tolist(), got, strict=True):
        u = (mpmath.mpf(value >> 9) + mpmath.mpf("0.5")) / 2**23
        expected = -mpmath.log(-mpmath.log(u))
        assert abs(expected - g) <= 1e-14 * max(1, abs(expected))


def exact_softmax(x):
    top = max(x)
    e = [mpmath.exp(value - top) for value in x]
    total = mpmath.fsum(e)
    return [value / total for value in e]


def exact_loss(z, m, tau, noise, a, h, v, is_logits, straight=None):
    """One row: a quantized + h kl + sum v weights by the textbook. straight, if hard: (index, constant m)."""
    logits = list(z) if is_logits else [-((z - code) ** 2) for code in m]
    q = exact_softmax(logits)
    kl = mpmath.fsum(p * mpmath.log(p * len(m)) for p in q if p != 0)
    w = exact_softmax([(x + g) / tau for x, g in zip(logits, noise, strict=True)])
    if straight is None:
        quantized = mpmath.fsum(p * code for p, code in zip(w, m, strict=True))
    else:
        # Its gradient is the straight-through one: soft weights of constant codes, plus the picked code.
        index, constant = straight
        quantized = mpmath.fsum(p * code for p, code in zip(w, constant, strict=True)) + m[index]
    return a * quantized + h * kl + mpmath.fsum(x * p for x, p in zip(v, w, strict=True)), quantized, kl, w


def random_case(codes, scale, is_logits, far):
    rng = np.random.default_rng(codes + 100 * is_logits)
    m = scale * rng.normal(size=codes)
    z = scale * rng.normal(size=codes) if is_logits else np.float64(far if far else scale * rng.normal())
    return z, m, rng.gumbel(size=codes), rng.normal(), rng.normal(), rng.normal(size=codes)


CASES = [
    # codes, scale, temperature, is_logits, far z
    (1, 1.0, 1.0, False, None),
    (2, 1.0, 0.2, False, None),
    (5, 1.0, 0.7, False, None),
    (5, 1.0, 0.05, False, None),
    (9, 3.0, 3.0, False, None),
    (9, 1.0, 100.0, False, None),
    (6, 100.0, 1.0, False, None),
    (5, 1.0, 0.7, False, 1e3),
    (5, 1.0, 0.7, False, -1e6),
    (5, 1.0, 0.7, False, 3e38),
    (1, 1.0, 1.0, True, None),
    (6, 1.0, 0.3, True, None),
    (6, 20.0, 2.0, True, None),
]


@pytest.mark.parametrize(("codes", "scale", "tau", "is_logits", "far"), CASES)
@pytest.mark.parametrize("hard", [False, True])
def test_forward_and_gradients_in_high_precision(codes, scale, tau, is_logits, far, hard):
    z, m, noise, a, h, v = random_case(codes, scale, is_logits, far)
    given = {"noise": noise[None], "temperature": tau, "is_logits": is_logits, "hard": hard}
    result = truth.forward(z[None], m, **given)
    got = truth.gradients(
        z[None],
        m,
        grad_quantized=np.array([a]),
        grad_kl=np.array([h]),
        grad_weights=v[None],
        **given,
    )

    def exact(values):
        return [mpmath.mpf(float(value)) for value in values]

    point = [*(exact(z) if is_logits else exact([z])), *exact(m), mpmath.mpf(tau)]
    inputs = codes if is_logits else 1
    straight = (int(result.indices[0]), exact(m)) if hard else None

    def loss(x):
        row = x[:inputs] if is_logits else x[0]
        return exact_loss(row, x[inputs:-1], x[-1], exact(noise), a, h, exact(v), is_logits, straight)

    _, quantized, kl, w = loss(point)
    assert abs(result.kl[0] - kl) <= 1e-12 * max(1, abs(kl))
    assert max(abs(x - y) for x, y in zip(result.soft[0], w, strict=True)) <= 1e-11
    if hard:
        assert result.quantized[0] == m[result.indices[0]]
        assert result.weights[0].tolist() == [float(k == result.indices[0]) for k in range(codes)]
    else:
        assert abs(result.quantized[0] - quantized) <= 1e-11 * scale
        assert np.array_equal(result.weights, result.soft)

    flat = [*np.atleast_1d(got.input[0]), *got.codebook, got.temperature]
    for i, value in enumerate(flat):
        # In 150 digits this central difference is right to some 40 digits, even at z = 3e38.
        step = mpmath.mpf(10) ** -25
        up, down = list(point), list(point)
        up[i], down[i] = up[i] + step, down[i] - step
        with mpmath.workdps(150):
            expected = (loss(up)[0] - loss(down)[0]) / (2 * step)
        assert abs(value - expected) <= 1e-9 * max(1, abs(expected)), (i, value, expected)


@pytest.mark.parametrize("hard", [False, True])
def test_gradients_agree_with_gumbel_softmax_under_autograd(hard):
    """Several rows, a codebook per latent, and PyTorch's straight-through construction."""
    rng = np.random.default_rng(3)
    rows, latents, codes, tau = 12, 3, 5, 0.6
    z, m = rng.normal(size=rows), rng.normal(size=(latents, codes))
    a, h, v = rng.normal(size=rows), rng.normal(size=rows), rng.normal(size=(rows, codes))
    noise = rng.gumbel(size=(rows, codes))
    got = truth.gradients(
        z, m, grad_quantized=a, grad_kl=h, grad_weights=v, noise=noise, temperature=tau, hard=hard
    )
    zt, mt = torch.tensor(z, requires_grad=True), torch.tensor(m, requires_grad=True)
    tt = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    book = mt[torch.arange(rows) % latents]
    logits = -((zt[:, None] - book) ** 2)
    w = torch.softmax((logits + torch.tensor(noise)) / tt, dim=-1)
    if hard:
        w = torch.nn.functional.one_hot(w.argmax(-1), codes).double() - w.detach() + w
    q = torch.softmax(logits, -1)
    kl = (q * (q * codes).log()).sum(-1)
    loss = (
        (torch.tensor(a) * (w * book).sum(-1)).sum()
        + (torch.tensor(h) * kl).sum()
        + (torch.tensor(v) * w).sum()
    )
    loss.backward()
    np.testing.assert_allclose(got.input, zt.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(got.codebook, mt.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(got.temperature, tt.grad.item(), atol=1e-11)


def test_bad_rows_are_nan_and_pass_no_gradient():
    z = np.array([0.5, np.nan, np.inf, -np.inf])
    m = np.array([-1.0, 0.0, 1.0])
    result = truth.forward(z, m)
    assert np.isnan(result.quantized).tolist() == [False, True, True, True]
    assert np.isnan(result.kl).tolist() == [False, True, True, True]
    ones = np.ones(4)
    all_rows = truth.gradients(z, m, grad_quantized=ones, grad_kl=ones)
    first = truth.gradients(z[:1], m, grad_quantized=ones[:1], grad_kl=ones[:1])
    assert all_rows.input[1:].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(all_rows.codebook, first.codebook, rtol=1e-14)


def test_masked_logits_weigh_nothing():
    result = truth.forward([[0.0, -np.inf, 1.0], [-np.inf] * 3], [1.0, 2.0, 3.0], is_logits=True)
    assert result.weights[0, 1] == 0.0 and np.isfinite(result.kl[0])
    assert np.isnan(result.quantized[1])
