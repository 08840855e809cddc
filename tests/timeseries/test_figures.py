"""Invariant: the pictures of a forecast show every number once, bars as long as its influence, and the truth where it is."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tl_scopes import timeseries as ts
from tl_scopes import views

pytestmark = pytest.mark.one_lens


@pytest.fixture(scope="module")
def forecast(_demo: Any) -> Any:
    x = ts.lorenz(31, seed=1)
    return ts.forecast_scope(_demo, x[:-1], truth=x[-1], methods=("temperature", "fisher"))


def bars(html: str) -> list[list[float]]:
    """Heights of the influence bars of each scope."""
    charts = html.split("<section>")[1:]
    found = []
    for chart in charts:
        marks = re.findall(r'<g data-tip="number \d+.*?</g>', chart)
        found.append([float(re.search(r'height="([\d.]+)" class="tls-fill"', mark).group(1)) for mark in marks])  # type: ignore[union-attr]
    return found


def test_bars_are_as_long_as_the_influence(forecast: Any) -> None:
    heights = bars(forecast.html())
    assert len(heights) == 2
    for method, height in zip(forecast.methods, heights, strict=True):
        influence = forecast.influence_by(method).numpy()
        assert np.allclose(height, 60 * influence / influence.max(), atol=0.06), method


def test_the_page_says_all_and_marks_the_truth(forecast: Any) -> None:
    view = views.forecast(forecast)
    html = view.html()
    assert all(note.replace("'", "&#x27;") in html for note in forecast.notes)
    assert html.count(f"{forecast.truth_number}: probability") == 4, "tip and title, in each of two scopes"
    assert len(re.findall(r'height="[\d.]+" class="tls-true"', html)) == 2, "its bar is red, no other"
    assert view.plain() == str(forecast)


def test_the_figures_have_a_row_per_scope_and_a_bar_per_number(forecast: Any) -> None:
    figure = forecast.plot()
    assert len(figure.axes) == 6
    influence = forecast.influence_by("fisher").numpy()
    drawn = [bar.get_height() for bar in figure.axes[4].patches]
    assert np.allclose(drawn, influence, rtol=1e-5)
    widths = [bar.get_width() for bar in figure.axes[2].patches if bar.get_height() == pytest.approx(0.85)]
    assert np.allclose(widths, forecast.prediction.probabilities)
    red = [i for i, bar in enumerate(figure.axes[2].patches[:90]) if bar.get_facecolor()[0] > 0.6]
    assert red == [forecast.truth_number - 10]


def test_in_the_browser_buttons_switch_and_hovering_reads_out(look: Any, forecast: Any) -> None:
    for dark in (False, True):
        page = look(forecast.html(), dark=dark)
        assert page.locator("svg:visible").count() == 1
        page.locator("section:visible .tls-hit").nth(3).hover()
        line = page.locator("section:visible .tls-read").text_content()
        assert line.startswith(f"number 3 (token 7): {forecast.encoded.numbers[3]}, value")
        page.locator("section:visible svg").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("section:visible .tls-read").text_content().startswith("number 4 (token 9): ")
        page.locator(".tls-switch label").nth(1).click()
        assert "Fisher Scope" in page.locator("section:visible .tls-read").text_content()
        dot, text = (
            page.evaluate(f"getComputedStyle(document.querySelector('section {s}')).fill") for s in (".tls-dot", "text")
        )
        assert dot == ("rgb(107, 174, 214)" if dark else "rgb(49, 130, 189)")
        assert text == ("rgb(228, 228, 228)" if dark else "rgb(26, 26, 26)")
