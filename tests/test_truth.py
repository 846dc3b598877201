"""The truth is tested too: published vectors, high precision, finite differences, PyTorch's own autograd."""

import mpmath
import numpy as np
import pytest
import torch
import truth
from scipy import stats

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


def exact_logits(z, m, is_logits):
    return list(z) if is_logits else [-((z - code) ** 2) for code in m]


def exact_loss(z, m, tau, noise, a, h, v, is_logits, straight=None):
    """One row: a quantized + h kl + sum v weights by the textbook. straight, if hard: (index, constant m).

    Without noise and with straight, it is the surrogate of "straight_through": c (D + p - sg(p)), p with tau.
    """
    logits = exact_logits(z, m, is_logits)
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

    check_derivatives(got, point, lambda x: loss(x)[0])


def check_derivatives(got, point, loss):
    """The gradients of a row are the derivatives of the loss at the point: z or logits, codes, tau."""
    flat = [*np.atleast_1d(got.input[0]), *got.codebook, got.temperature]
    for i, value in enumerate(flat):
        # In 150 digits this central difference is right to some 40 digits, even at z = 3e38.
        step = mpmath.mpf(10) ** -25
        up, down = list(point), list(point)
        up[i], down[i] = up[i] + step, down[i] - step
        with mpmath.workdps(150):
            expected = (loss(up) - loss(down)) / (2 * step)
        assert abs(value - expected) <= 1e-9 * max(1, abs(expected)), (i, value, expected)


def reinmax_loss(z, m, tau, index, a, h, v, is_logits, at):
    """The surrogate of eq. 8: c (D + 2 pi - q / 2), less its value, c and the way from q to pi held constant.

    pi is softmax(l + x) with the constant x = ln pi - l at the point ``at``: (logits, tau, codes).
    """
    logits = exact_logits(z, m, is_logits)
    q = exact_softmax(logits)
    kl = mpmath.fsum(p * mpmath.log(p * len(m)) for p in q if p != 0)
    logits_there, tau_there, codes_there = at
    p = exact_softmax([x / tau_there for x in logits_there])
    pi = [(x + (k == index)) / 2 for k, x in enumerate(p)]
    moved = exact_softmax(
        [x + mpmath.log(y) - there for x, y, there in zip(logits, pi, logits_there, strict=True)]
    )
    score = mpmath.fsum(
        (a * code + x) * (2 * y - y0 / 2) for code, x, y, y0 in zip(codes_there, v, moved, q, strict=True)
    )
    return score + a * m[index] + h * kl


@pytest.mark.parametrize(("codes", "scale", "tau", "is_logits", "far"), CASES)
@pytest.mark.parametrize("estimator", ["straight_through", "reinmax"])
def test_drawn_estimators_are_derivatives_of_their_surrogates(codes, scale, tau, is_logits, far, estimator):
    z, m, noise, a, h, v = random_case(codes, scale, is_logits, far)
    given = {"u": np.array([0.6]), "temperature": tau, "is_logits": is_logits, "estimator": estimator}
    result = truth.forward(z[None], m, **given)
    got = truth.gradients(
        z[None], m, grad_quantized=np.array([a]), grad_kl=np.array([h]), grad_weights=v[None], **given
    )
    index = int(result.indices[0])
    assert result.quantized[0] == m[index]
    assert result.weights[0].tolist() == [float(k == index) for k in range(codes)]
    assert np.array_equal(result.kl, truth.forward(z[None], m, is_logits=is_logits, noise=noise[None]).kl)

    def exact(values):
        return [mpmath.mpf(float(value)) for value in values]

    point = [*(exact(z) if is_logits else exact([z])), *exact(m), mpmath.mpf(tau)]
    inputs = codes if is_logits else 1

    def loss(x):
        row = x[:inputs] if is_logits else x[0]
        if estimator == "straight_through":
            return exact_loss(
                row, x[inputs:-1], x[-1], [0] * codes, a, h, exact(v), is_logits, (index, exact(m))
            )[0]
        there = exact_logits(exact(z) if is_logits else exact([z])[0], exact(m), is_logits)
        at = (there, mpmath.mpf(tau), exact(m))
        return reinmax_loss(row, x[inputs:-1], x[-1], index, a, h, exact(v), is_logits, at)

    check_derivatives(got, point, loss)


def every_index(logits, m, slope, estimator, temperature):
    """The gradient of the logits for each index that could be drawn, ``(K, K)``. slope: f' of a code."""
    codes = len(m)
    return truth.gradients(
        np.tile(logits, (codes, 1)),
        m,
        grad_quantized=slope(m),
        is_logits=True,
        estimator=estimator,
        temperature=temperature,
        indices=np.arange(codes),
    ).input


def test_reinmax_is_exact_for_a_quadratic_at_temperature_one():
    """Liu et al., NeurIPS 2023: second-order. The expectation over the index is summed, not sampled."""
    rng = np.random.default_rng(8)
    logits, m = rng.normal(size=7), rng.normal(size=7)
    q = np.exp(logits) / np.exp(logits).sum()

    def expectation(slope, estimator, temperature=1.0):
        return q @ every_index(logits, m, slope, estimator, temperature)

    def exact(f):
        return q * (f(m) - q @ f(m))

    quadratic, cubic = (lambda y: 3.0 * y**2 - 2.0 * y), (lambda y: y**3)
    slope, steeper = (lambda y: 6.0 * y - 2.0), (lambda y: 3.0 * y**2)
    np.testing.assert_allclose(expectation(slope, "reinmax"), exact(quadratic), atol=1e-14)
    # Straight-through is of the first order; and neither is exact beyond.
    assert np.abs(expectation(slope, "straight_through") - exact(quadratic)).max() > 0.05
    assert np.abs(expectation(slope, "reinmax", 0.5) - exact(quadratic)).max() > 0.05
    assert np.abs(expectation(steeper, "reinmax") - exact(cubic)).max() > 0.01
    linear = np.full_like(m, 2.0)
    first_order = expectation(lambda y: np.full_like(y, 2.0), "straight_through")
    np.testing.assert_allclose(first_order, q * (linear * m - q @ (linear * m)), atol=1e-14)


def test_row_uniform_has_a_counter_of_its_own():
    seed, offset = 0x299F31D0A4093822, 2**32 - 1
    got = truth.row_uniform(seed, 3, offset)
    for i in range(3):
        n = offset + i
        word = truth.philox4x32((0, 1, n % 2**32, n // 2**32), (0xA4093822, 0x299F31D0))[0]
        assert got[i] == ((int(word) >> 9) + 0.5) / 2**23


def test_draw_takes_the_smallest_index_whose_sum_is_above():
    cumulative = np.array([0.0, 0.25, 0.25, 0.75, 1.0])
    for u, expected in ((2.0**-24, 1), (0.2499, 1), (0.25, 3), (0.5, 3), (0.75, 4), (1.0 - 2.0**-24, 4)):
        assert truth.draw(cumulative[None], np.array([u])).tolist() == [expected]


@pytest.mark.parametrize("codes", [2, 5, 64, 130])
def test_drawn_indices_follow_the_posterior(codes):
    rows = 40_000
    m = np.linspace(-1.0, 1.0, codes)
    result = truth.forward(np.full(rows, 0.4), m, seed=codes, estimator="reinmax", temperature=0.2)
    expected = np.exp(-((0.4 - m) ** 2))
    counts = np.bincount(result.indices, minlength=codes)
    assert stats.chisquare(counts, rows * expected / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("estimator", ["straight_through", "reinmax"])
def test_drawn_estimators_under_autograd(estimator):
    """Several rows and a codebook per latent, by the constructions that their authors publish."""
    rng = np.random.default_rng(3)
    rows, latents, codes, tau = 12, 3, 5, 0.6
    z, m = rng.normal(size=rows), rng.normal(size=(latents, codes))
    a, h, v = rng.normal(size=rows), rng.normal(size=rows), rng.normal(size=(rows, codes))
    given = {"seed": 5, "row_offset": 2**32 - 6, "temperature": tau, "estimator": estimator}
    index = truth.forward(z, m, **given).indices
    got = truth.gradients(z, m, grad_quantized=a, grad_kl=h, grad_weights=v, **given)
    zt, mt = torch.tensor(z, requires_grad=True), torch.tensor(m, requires_grad=True)
    tt = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    book = mt[torch.arange(rows) % latents]
    logits = -((zt[:, None] - book) ** 2)
    drawn = torch.nn.functional.one_hot(torch.from_numpy(index), codes).double()
    q = torch.softmax(logits, -1)
    p = torch.softmax(logits / tt, -1)
    if estimator == "reinmax":
        pi = (p.detach() + drawn) / 2
        moved = torch.softmax((pi.log() - logits).detach() + logits, -1)
        p = 2 * moved - q / 2
    w = drawn + p - p.detach()
    kl = (q * (q * codes).log()).sum(-1)
    loss = (torch.tensor(a) * (w * book).sum(-1) + torch.tensor(h) * kl).sum()
    (loss + (torch.tensor(v) * w).sum()).backward()
    np.testing.assert_allclose(got.input, zt.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(got.codebook, mt.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(got.temperature, 0.0 if tt.grad is None else tt.grad.item(), atol=1e-11)


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


@pytest.mark.parametrize("estimator", ["gumbel", "straight_through", "reinmax"])
@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("code", [np.nan, np.inf, -np.inf])
def test_a_bad_code_spoils_its_codebook_alone(estimator, is_logits, code):
    rng = np.random.default_rng(1)
    m = rng.normal(size=(2, 3))
    m[1, 2] = code
    input = rng.normal(size=(6, 3) if is_logits else 6)
    given = {"is_logits": is_logits, "estimator": estimator, "temperature": 0.5}
    result = truth.forward(input, m, **given)
    assert result.bad.tolist() == [False, True] * 3
    assert np.isnan(result.quantized).tolist() == np.isnan(result.kl).tolist() == result.bad.tolist()
    assert ((result.indices >= 0) & (result.indices < 3)).all()
    a = np.where(result.bad, np.nan, 1.0)
    got = truth.gradients(input, m, grad_quantized=a, grad_kl=a, **given)
    assert not got.input[1::2].any() and not got.codebook[1].any() and np.isfinite(got.temperature)
    assert got.input[::2].any() and np.isfinite(got.codebook).all()


def test_nearest_of_bad_rows_is_nan():
    z = np.array([0.9, 0.1, np.nan, 2.0, -np.inf, 0.4])
    m = np.array([[0.0, 1.0], [0.5, np.nan]])
    quantized, index = truth.nearest_quantized(z, m), truth.nearest(z, m)
    assert quantized[0] == 1.0 and np.isnan(quantized[1:]).all()
    assert ((index >= 0) & (index < 2)).all()


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
