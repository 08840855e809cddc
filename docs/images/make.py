"""Draw the pictures of this folder again: ``python docs/images/make.py`` (needs playwright and Chromium).

Every picture is a view of the demo model, photographed in a browser without network; nothing is retouched.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import tl_scopes as tls
from tl_scopes import timeseries, views
from tl_scopes.demo import DEFAULT_PROMPT, DEMO_PROMPTS

HERE = Path(__file__).parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]


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
    return {
        "trace": views.compare({name: result.without("special") for name, result in results.items()}),
        "layers": views.heatmap(
            views.influence_maps(
                tls.layer_influence(model, shown.prompt, target=shown.target, relative=True).without("special")
            )
        ),
        "matrix": views.matrix(tls.attribution_matrix(model, text, positions=translated).without("special")),
        "series": views.forecast(forecast),
    }


def photograph(browser: Browser, view: views.View, file: Path, *, dark: bool) -> None:
    """One view, cut to its content, in at most 256 colours."""
    context = browser.new_context(
        color_scheme="dark" if dark else "light", device_scale_factor=2, viewport={"width": 960, "height": 800}
    )
    page = context.new_page()
    with tempfile.TemporaryDirectory() as folder:
        page.goto(view.save(Path(folder) / "view.html").as_uri())
        page.wait_for_function("[...document.querySelectorAll('.tls-live')].every(e => e.style.display === '')")
        page.wait_for_timeout(500)
        box = page.locator(".tls").bounding_box()
        assert box is not None
        margin = 12
        clip = {"x": box["x"] - margin, "y": box["y"] - margin}
        clip |= {"width": box["width"] + 2 * margin, "height": box["height"] + 2 * margin}
        page.screenshot(path=file, clip=clip, full_page=True)  # type: ignore[arg-type]
    context.close()
    Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)


def main() -> None:
    """Write every picture, light and dark."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, view in pictures().items():
            photograph(browser, view, HERE / f"{name}.png", dark=False)
            photograph(browser, view, HERE / f"{name}-dark.png", dark=True)
        browser.close()


if __name__ == "__main__":
    main()
