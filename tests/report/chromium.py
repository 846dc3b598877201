"""The system's Chromium, driven by Playwright; as a script, screenshots of a report: REPORT.html FOLDER.

They are those of the documentation: the page with the first slider moved, 1280 and 375 pixels wide, light and
dark; of each what the window shows, and the whole page.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path

import pytest


def executable():
    """The program's path. Without it the test is skipped, or fails if FQVAE_REQUIRE_CHROMIUM is set."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    missing = None if found else "there is no Chromium here (Debian's package chromium)"
    try:
        import playwright.sync_api  # noqa: F401
    except ModuleNotFoundError:
        missing = "the package playwright is not installed"
    if missing and os.environ.get("FQVAE_REQUIRE_CHROMIUM"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    return found


@contextlib.contextmanager
def browser():
    """A browser without a window, which asks the network for nothing of its own accord."""
    path = executable()
    from playwright.sync_api import sync_playwright

    arguments = ["--disable-background-networking", "--disable-component-update"]
    if os.geteuid() == 0:  # the sandbox refuses root, as tests in containers are
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield running
        finally:
            running.close()


def open_page(running, file, **options):
    """The file in a page of its own, once its first image is shown."""
    page = running.new_page(**options)
    page.goto(Path(file).resolve().as_uri())
    page.wait_for_selector("html[data-shown]", timeout=10_000)
    return page


def screenshots(file, folder):
    """Write them, and return their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as running:
        for name, width, height, scheme in (
            ("desktop-light", 1280, 900, "light"),
            ("desktop-dark", 1280, 900, "dark"),
            ("phone-light", 375, 740, "light"),
            ("phone-dark", 375, 740, "dark"),
        ):
            page = open_page(
                running,
                file,
                viewport={"width": width, "height": height},
                color_scheme=scheme,
                device_scale_factor=2 if width < 500 else 1,
            )
            slider = page.locator(".latent input:enabled").first
            slider.press("End" if slider.input_value() == "0" else "Home")
            page.wait_for_selector("html:not([data-strips='waiting'])", timeout=30_000)
            page.screenshot(path=folder / f"report-{name}-whole.png", full_page=True)
            if width > 500:
                page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=folder / f"report-{name}.png")
            page.close()
    return sorted(folder.glob("report-*.png"))


if __name__ == "__main__":
    print(*screenshots(*sys.argv[1:]), sep="\n")
