"""The report in a real Chromium: by keyboard, in light and dark, at phone width, without a network."""

import io

import chromium
import numpy as np
import pytest
import reportruns
import torch
from blobset import BlobSet
from PIL import Image

from fqvae.report import build_report

MOVED = "changed"


SHEETS = "model.network.kind=official"  # which the page cannot run: it shows images decoded beforehand


@pytest.fixture(scope="module", params=["decoder", "sheets"])
def run(request, tmp_path_factory):
    # A name that would end the title, a script or an attribute, if it were not escaped.
    folder = tmp_path_factory.mktemp("runs") / 'a<b> & "c" <img src=x onerror=alert(1)>'
    return reportruns.make_run(folder, "factorqvae", *([SHEETS] if request.param == "sheets" else []))


@pytest.fixture(scope="module")
def report(run):
    return build_report(run, run.folder / "report.html")


@pytest.fixture(scope="module")
def browser():
    with chromium.browser() as running:
        yield running


class Watched:
    """A page with all that it has complained of or asked for."""

    def __init__(self, browser, file):
        self.problems, self.requests = [], []
        context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
        self.page = context.new_page()
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-shown]", timeout=10_000)

    def pixels(self, canvas):
        """uint8 (S, S, 4)."""
        rows = self.page.evaluate(
            "id => { const c = document.getElementById(id);"
            " return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data) }",
            canvas,
        )
        return np.array(rows, np.uint8).reshape(16, 16, 4)

    def picture(self, canvas):
        assert (self.pixels(canvas)[..., 3] == 255).all()
        return self.pixels(canvas)[..., :3].astype(int)


@pytest.fixture
def watched(browser, report):
    watched = Watched(browser, report)
    yield watched
    assert watched.problems == []
    file, *others = watched.requests
    assert file.startswith("file://") and all(each.startswith("data:image/") for each in others)
    watched.page.context.close()


def decoded(model, codes):
    """What the model makes of codes (M,), as a picture: int (S, S, 3)."""
    with torch.no_grad():
        image = model.decode(torch.as_tensor(codes)[None])[0]
    return np.clip(np.rint((image.numpy() + 0.5) * 255), 0, 255).astype(int).transpose(1, 2, 0)


def test_a_slider_moves_the_image(watched, run):
    page, model = watched.page, run.model
    assert page.title() == page.text_content("h1") == run.folder.name

    # From the first thumbnail by Tab alone to the first slider.
    number = int(page.locator(".thumbnails img").first.get_attribute("alt").split(":")[0].split()[1])
    original = BlobSet().images([number])
    own = model.encode(original)[0]
    assert (watched.picture("original") == original[0].permute(1, 2, 0).numpy()).all()
    assert np.abs(watched.picture("reconstruction") - decoded(model, own)).max() <= 1
    assert (watched.picture(MOVED) == watched.picture("reconstruction")).all()
    assert not watched.pixels("difference")[..., 3].any()
    page.locator(".thumbnails input").first.focus()
    page.keyboard.press("Tab")
    latent = _focused_latent(page)
    slider = page.locator(f"#latent-{latent}")

    # With a codebook of 8 all codes that a latent uses fit a slider of 12: here by hand, in order of value.
    everything = model.encode(BlobSet().images(_test_split()))
    values = model.latent.codebook.detach()
    used = sorted(set(everything[:, latent].tolist()), key=lambda code: values[code].item())
    assert len(used) > 2 and int(slider.get_attribute("max")) == len(used) - 1
    place = used.index(own[latent].item())
    assert int(slider.input_value()) == place
    key, step = ("ArrowRight", 1) if place + 1 < len(used) else ("ArrowLeft", -1)
    page.keyboard.press(key)
    codes = own.clone()
    codes[latent] = used[place + step]
    changed = watched.picture(MOVED)
    assert (changed != watched.picture("reconstruction")).any()
    assert np.abs(changed - decoded(model, codes)).max() <= 1
    difference = watched.pixels("difference")[..., 3]
    assert (difference > 0).tolist() == (changed != watched.picture("reconstruction")).any(-1).tolist()
    spoken = slider.get_attribute("aria-valuetext").replace("\u2212", "-")
    assert spoken == f"{values[codes[latent]]:.2f}, the image's own is {values[own[latent]]:.2f}"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    # Another slider leaves the first one where it is, unless images were decoded beforehand.
    page.keyboard.press("Tab")
    second = _focused_latent(page)
    other = page.locator(f"#latent-{second}")
    assert second != latent
    other.press("End" if other.input_value() == "0" else "Home")
    together = runs_decoder(page)
    assert int(slider.input_value()) == (place + step if together else place)
    assert page.locator(".latent.moved").count() == (2 if together else 1)
    used = sorted(set(everything[:, second].tolist()), key=lambda code: values[code].item())
    codes = codes if together else own.clone()
    codes[second] = used[int(other.input_value())]
    assert np.abs(watched.picture(MOVED) - decoded(model, codes)).max() <= 1
    status = page.text_content("#status")
    assert f"Latent {second}" in status and ("2 latents moved" in status) == together
    page.locator("#reset").press("Enter")
    assert (watched.picture(MOVED) == watched.picture("reconstruction")).all()
    assert page.locator(".latent.moved").count() == 0 and int(slider.input_value()) == place
    assert page.text_content("#status") == "No latent moved." and page.locator("#reset").is_disabled()


def test_another_image(watched, run):
    page, model = watched.page, run.model
    page.locator(".latent input:enabled").first.press("End")
    page.locator(".thumbnails input").first.focus()
    for place in (1, 2):
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(f"html[data-shown='{place}']", timeout=5_000)
        number = int(page.locator(".thumbnails img").nth(place).get_attribute("alt").split(":")[0].split()[1])
        original = BlobSet().images([number])
        own = model.encode(original)[0]
        assert (watched.picture("original") == original[0].permute(1, 2, 0).numpy()).all()
        assert np.abs(watched.picture("reconstruction") - decoded(model, own)).max() <= 1
        assert (watched.picture(MOVED) == watched.picture("reconstruction")).all()

    # A click on a strip's last picture is that step.
    strip = page.locator(".latent:has(input:enabled) canvas").first
    box = strip.bounding_box()
    strip.click(position={"x": box["width"] - 2, "y": box["height"] / 2})
    slider = page.locator(".latent input:enabled").first
    assert slider.input_value() == slider.get_attribute("max")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_scale_has_the_colours_of_the_difference(watched, scheme):
    page = watched.page
    page.emulate_media(color_scheme=scheme)
    slider = page.locator(".latent input:enabled").first
    slider.press("End" if slider.input_value() == "0" else "Home")
    levels = np.abs(watched.picture(MOVED) - watched.picture("reconstruction")).max(-1)
    ramp = _shot(page, ".ramp")
    shown = _shot(page, "#difference")
    ticks = page.locator("#scale span")
    places = {
        int(each.text_content()): float(each.evaluate("e => e.style.left").strip("%")) / 100
        for each in ticks.all()
    }
    assert list(places) == [0, 16, 64, 128, 255] and places[0] == 0 and places[255] == 1
    middle, scale = ramp[len(ramp) // 2], len(shown) / 16
    compared = 0
    for row, column in np.ndindex(16, 16):
        change = levels[row, column]
        x = min(int((change / 255) ** 0.7 * len(middle)), len(middle) - 1)  # where the ticks are, see below
        pixel = shown[int((row + 0.5) * scale), int((column + 0.5) * scale)]
        if 3 < x < len(middle) - 3 and 1 <= row <= 14 and 1 <= column <= 14:
            assert np.abs(pixel - middle[x]).max() <= 6, (change, pixel, middle[x])
            compared += 1
    assert compared > 20
    for tick, place in places.items():
        assert place == pytest.approx((tick / 255) ** 0.7, abs=1e-6)


def _shot(page, selector):
    """What an element looks like: int (H, W, 3)."""
    picture = Image.open(io.BytesIO(page.locator(selector).screenshot()))
    return np.asarray(picture.convert("RGB")).astype(int)


def test_light_dark_and_phone(watched, tmp_path):
    page = watched.page
    for width in (1280, 375):
        page.set_viewport_size({"width": width, "height": 700})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            text, ground = (_luminance(page, name) for name in ("color", "backgroundColor"))
            assert (ground > 0.8 and text < 0.1) if scheme == "light" else (ground < 0.1 and text > 0.7)
            picture = Image.open(io.BytesIO(page.screenshot(path=tmp_path / f"{width}-{scheme}.png")))
            assert len(picture.getcolors(1 << 24)) > 100
    # While the last slider has the focus, what it changes is in sight and does not cover it.
    last = page.locator(".latent input:enabled").last
    last.focus()
    page.keyboard.press("ArrowRight")
    stage, slider = page.locator("#changed").bounding_box(), last.bounding_box()
    assert stage["y"] >= 0 and stage["y"] + stage["height"] <= slider["y"] <= 700 - slider["height"]
    page.emulate_media(media="print")
    assert page.locator(".track input").first.is_hidden() and page.locator("#changed").is_visible()


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("factorqvae", []),
        ("factorqvae", ["data.channels=1"]),
        ("qlae", []),
        ("vae", []),
        ("factorqvae", ["model.latent.kind=vector", "model.latent.dimension=3"]),
    ],
)
def test_the_pages_decoder_is_the_models(browser, model, overrides, tmp_path):
    dataset = reportruns.GreySet() if "data.channels=1" in overrides else BlobSet()
    run = reportruns.make_run(tmp_path / "run", model, *overrides, dataset=dataset)
    watched = Watched(browser, build_report(run, tmp_path / "report.html"))
    page = watched.page
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    assert data["decoder"]["bits"] == 16
    # All sliders to their ends, and then every step of every strip, the other latents at their ends.
    ends = [len(values) - 1 for values in data["bases"][0]["values"]]
    for latent, end in enumerate(ends):
        if end:
            page.locator(f"#latent-{latent}").press("End")
    page.wait_for_selector("html[data-strips='drawn']", timeout=10_000)
    values = [np.array(each, np.float32) for each in data["bases"][0]["values"]]
    assert np.abs(watched.picture(MOVED) - from_inputs(run, [v[-1] for v in values])).max() <= 1
    for latent, rows in enumerate(values):
        strip = page.evaluate(
            "latent => { const c = document.querySelector(`[data-latent='${latent}'] canvas`);"
            " return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data) }",
            latent,
        )
        strip = np.array(strip).reshape(16, len(rows), 16, 4)[..., :3]
        for step, row in enumerate(rows):
            expected = from_inputs(run, [row if other == latent else v[-1] for other, v in enumerate(values)])
            assert np.abs(strip[:, step] - expected).max() <= 1, (latent, step)
    assert watched.problems == [] and len(watched.requests) < 40


def from_inputs(run, values):
    """What PyTorch makes of the decoder's inputs of each latent: int (S, S, 3)."""
    with torch.no_grad():
        image = run.model.decoder(torch.from_numpy(np.concatenate(values))[None])[0]
    picture = np.clip(np.rint((image.numpy().astype(float) + 0.5) * 255), 0, 255).astype(int)
    return np.broadcast_to(picture, (3, 16, 16)).transpose(1, 2, 0)


def runs_decoder(page):
    return page.evaluate("JSON.parse(document.getElementById('data').textContent).decoder !== null")


def test_a_continuous_model(browser, tmp_path):
    run = reportruns.make_run(tmp_path / "vae", "vae")
    watched = Watched(browser, build_report(run, tmp_path / "report.html"))
    codes = run.model.encode(BlobSet().images(_test_split()))
    slider = watched.page.locator(".latent input:enabled").first
    latent = int(slider.get_attribute("id").removeprefix("latent-"))
    slider.press("End")
    number = int(watched.page.locator(".thumbnails img").first.get_attribute("alt").split(":")[0].split()[1])
    moved = run.model.encode(BlobSet().images([number]))[0].detach().clone()
    steps = np.linspace(*np.percentile(codes[:, latent].detach().numpy(), (1, 99)), 12)
    own = moved[latent].item()
    # The image's own value takes the place of the step nearest to it.
    moved[latent] = own if np.abs(steps - own).argmin() == 11 else float(steps[-1])
    assert np.abs(watched.picture(MOVED) - decoded(run.model, moved)).max() <= 1
    assert watched.problems == []


def _test_split():
    from fqvae.data import split

    return split(BlobSet()).test


def _focused_latent(page):
    """The latent of the slider that has the focus."""
    return int(page.locator("input[type=range]:focus").get_attribute("id").removeprefix("latent-"))


def _luminance(page, name):
    """Relative luminance, of the colour's three channels from 0 to 1."""
    colour = page.evaluate(f"getComputedStyle(document.body).{name}")
    channels = np.array([float(each) for each in colour.strip("rgba()").split(",")[:3]]) / 255
    return float(((channels + 0.055) / 1.055) ** 2.4 @ np.array([0.2126, 0.7152, 0.0722]))
