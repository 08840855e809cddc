"""Draw the pictures of docs/images again: ``python scripts/make_pictures.py [NAME ...]`` (needs playwright and Chromium).

Every picture is a view of the demo model or the app, photographed in a browser; nothing is retouched. ``real*.png`` and
``chain-real*.png`` are pages of commands on a real model, and are drawn where the environment variable
``TL_SCOPES_REAL_MODEL`` names its folder (Gemma 3 270M base); without it these stay as they are. The other pictures there
are figures of longer runs: ``aopc*.png`` of ``scripts/measure_aopc.py``, ``gold.png`` of ``tl-scopes gold --plot``
(``benchmarks/README.md``).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import tl_scopes as tls
from tl_scopes import timeseries, views
from tl_scopes.demo import DEFAULT_PROMPT, DEMO_PROMPTS

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
REAL = "TL_SCOPES_REAL_MODEL"
"""Environment variable that names the folder of a real model."""
COMMANDS = {"real": ("README.md", "trace"), "chain-real": ("docs/chains.md", "chain")}
"""Pictures of a real model: the page that stands above each, and its command there."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
MARGIN = 12
"""Pixels around a view."""
DRAWN = """
    [...document.querySelectorAll('.tls-live')].every(e => e.style.display === '')
    && !document.querySelector('[aria-busy]')
"""


def pictures() -> dict[str, views.View]:
    """What is shown, by file name."""
    model = tls.load_model()
    shown = DEMO_PROMPTS[DEFAULT_PROMPT]
    results = tls.scopes(model, shown.prompt, target=shown.target)
    text = shown.prompt + shown.target
    tokens = model.to_tokens(text)[0]
    translated = range(model.to_str_tokens(text).index(" English") + 1, len(tokens))
    series = timeseries.lorenz(101, seed=1)
    forecast = timeseries.forecast_scope(model, series[:-1], truth=series[-1], methods=("temperature", "semantic"))
    assert isinstance(forecast, timeseries.Forecast)
    layers = tls.layer_influence(model, shown.prompt, target=shown.target, relative=True)
    matrix = tls.attribution_matrix(model, text, positions=translated)
    return {
        "trace": views.compare({name: result.without("special") for name, result in results.items()}),
        "layers": views.heatmap(views.influence_maps(layers.without("special"))),
        "matrix": matrix.without("special").view(),
        "series": forecast.view(),
    }


def real_page(name: str, folder: str, file: Path) -> str:
    """The page of a command that is written in the documentation, on the real model in a folder; its address."""
    source, word = COMMANDS[name]
    found = re.search(rf"tl-scopes ({word} .*) --model \S+ --html \S+\n", (ROOT / source).read_text(encoding="utf-8"))
    assert found is not None, f"the command of {source}"
    command = [*shlex.split(found[1]), "--model", folder, "--html", str(file)]
    subprocess.run([sys.executable, "-m", "tl_scopes", *command], check=True)
    return file.as_uri()


@contextmanager
def app() -> Iterator[str]:
    """The address of ``tl-scopes app`` while it runs."""
    command = [sys.executable, "-m", "tl_scopes", "app", "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[3]
        finally:
            process.terminate()


def opened(browser: Browser, url: str, *, dark: bool, scale: int, size: tuple[int, int]) -> Page:
    """A page that is drawn to its end; the app's own policy would not let it be asked whether it is."""
    page = browser.new_page(
        bypass_csp=True,
        color_scheme="dark" if dark else "light",
        device_scale_factor=scale,
        viewport={"width": size[0], "height": size[1]},
    )
    page.goto(url)
    settled(page)
    return page


def settled(page: Page) -> None:
    """Wait until everything is drawn."""
    page.wait_for_timeout(500)
    page.wait_for_function(DRAWN)
    page.wait_for_timeout(500)


def photograph_page(browser: Browser, url: str, file: Path, *, dark: bool) -> None:
    """One view's page, cut to its content, in at most 256 colours."""
    page = opened(browser, url, dark=dark, scale=2, size=(960, 800))
    page.set_viewport_size({"width": 960, "height": page.evaluate("document.documentElement.scrollHeight")})
    settled(page)  # all of it in sight: what sticks to the edge of the window then covers nothing
    boxes = [box for part in page.locator(".tls").all() if (box := part.bounding_box()) is not None]
    left, top = (min(box[side] for box in boxes) - MARGIN for side in ("x", "y"))
    right, bottom = (
        max(box[side] + box[length] for box in boxes) + MARGIN for side, length in (("x", "width"), ("y", "height"))
    )
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    page.screenshot(path=file, clip=clip, full_page=True)  # type: ignore[arg-type]
    page.close()
    Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)


def photograph_app(browser: Browser, url: str, file: Path, *, dark: bool) -> None:
    """The app with its default prompt explained."""
    page = opened(browser, url, dark=dark, scale=1, size=(1280, 720))
    page.get_by_role("button", name=DEMO_PROMPTS[DEFAULT_PROMPT].title).click()
    page.mouse.move(0, 0)
    settled(page)
    page.screenshot(path=file)
    page.close()


def main() -> None:
    """Write every picture that is asked for, light and dark."""
    wanted = set(sys.argv[1:])
    with sync_playwright() as driver, app() as url, tempfile.TemporaryDirectory() as folder:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        pages = {name: view.save(Path(folder) / f"{name}.html").as_uri() for name, view in pictures().items()}
        if real := os.environ.get(REAL):
            named = [name for name in COMMANDS if not wanted or name in wanted]
            pages |= {name: real_page(name, real, Path(folder) / f"{name}.html") for name in named}
        if unknown := wanted - {*pages, "app"}:
            raise SystemExit(f"no picture {', '.join(sorted(unknown))}: {', '.join([*pages, 'app'])}")
        for dark in (False, True):
            end = "-dark.png" if dark else ".png"
            for name, page in pages.items():
                if not wanted or name in wanted:
                    photograph_page(browser, page, IMAGES / f"{name}{end}", dark=dark)
            if not wanted or "app" in wanted:
                photograph_app(browser, url, IMAGES / f"app{end}", dark=dark)
        browser.close()


if __name__ == "__main__":
    main()
