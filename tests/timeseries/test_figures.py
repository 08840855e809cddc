"""Invariant: the pictures of a forecast show every number once, bars as long as its influence, and the truth where it is."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from itertools import pairwise
from typing import Any

import every_result
import numpy as np
import pytest

from tl_scopes import timeseries as ts
from tl_scopes import views

pytestmark = pytest.mark.one_lens


@pytest.fixture(scope="module")
def forecast(_demo: Any) -> Any:
    x = ts.lorenz(31, seed=1)
    return ts.forecast_scope(_demo, x[:-1], truth=x[-1], methods=("temperature", "fisher"))


def test_the_page_says_all_and_marks_the_truth(forecast: Any) -> None:
    view = views.forecast(forecast)
    html = view.html()
    assert all(note.replace("'", "&#x27;") in html for note in forecast.notes)
    assert html.count(f"{forecast.truth_number}: probability") == 2, "in each of two scopes"
    sections = html.split("<section>")[1:]
    assert len(sections) == 2
    for method, section in zip(forecast.methods, sections, strict=True):
        assert f"{method.capitalize()} Scope" in section
        said = [unescape(tip) for tip in re.findall(r"<title>(number [^<]*)</title>", section)]
        influence = forecast.influence_by(method)
        assert [re.search(r"influence ([^,]*),", tip)[1] for tip in said] == [f"{v:.3g}" for v in influence.tolist()]  # type: ignore[index]
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


@pytest.mark.slow
@pytest.mark.parametrize(("truth", "end", "mark"), [(9.0, 99, "^"), (-9.0, 10, "v")])
def test_a_truth_off_the_scale_is_an_arrow_at_its_end(truth: float, end: int, mark: str) -> None:
    shown = replace(every_result.forecast(), truth=truth, truth_number=None)
    (drawn,) = (line for line in shown.plot().axes[0].lines if line.get_marker() == mark)
    assert float(np.ravel(drawn.get_ydata())[0]) == end
    said = f"{shown.encoded.would_be(truth):.0f}, off the scale".replace("-", "−")
    html = shown.html()
    assert f"the true next number: {said}" in html
    assert f"truth {said}" in html
    assert "(the true next number)" not in html, "no bar is the truth's"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_in_the_browser_buttons_switch_and_hovering_reads_out(look: Any, forecast: Any, dark: bool) -> None:
    page = look(forecast.html(), dark=dark)
    assert page.locator("svg:visible").count() == 1
    line = page.locator("section:visible .tls-read")
    page.locator("section:visible .tls-hit").nth(3).hover()
    assert line.text_content().startswith(f"number 3 (token 7): {forecast.encoded.numbers[3]}, value")
    page.locator("section:visible svg").focus()
    page.keyboard.press("ArrowRight")
    assert line.text_content().startswith("number 4 (token 9): ")
    page.keyboard.press("End")
    assert line.text_content().startswith("99: probability ")
    page.locator(".tls-switch label").nth(1).click()
    assert "Fisher Scope" in page.locator("section:visible svg").text_content()
    turned = page.evaluate("getComputedStyle(document.querySelector('section .tls-chart')).filter")
    assert turned == ("invert(1) hue-rotate(180deg)" if dark else "none")


def test_the_place_of_each_number_holds_its_mark_and_its_bar(look: Any, forecast: Any) -> None:
    page = look(forecast.html())
    places = page.eval_on_selector_all(
        "section:first-of-type .tls-hit", "all => all.slice(0, 30).map(e => e.getBBox()).map(b => [b.x, b.x + b.width])"
    )
    figure = forecast.plot()
    page_dots = page.eval_on_selector_all(
        "section:first-of-type .tls-chart use", "all => all.map(e => +e.getAttribute('x'))"
    )
    assert len(figure.axes[0].collections[0].get_offsets()) == len(places) == 30
    for left, right in places:
        assert sum(left < x < right for x in page_dots) >= 1
    assert all(a[1] == pytest.approx(b[0], abs=0.2) for a, b in pairwise(places))


@pytest.mark.parametrize("peaked", [True, False])
def test_a_parabola_without_a_peak_has_no_top(peaked: bool) -> None:
    result = every_result.forecast(peaked=peaked)
    assert result.gaussian is not None and (result.gaussian.b > 0) == peaked
    for words in (str(result), result.html()):
        assert ("μ = " in words, "1/(2βb) = " in words, "no peak" in words) == (peaked, peaked, not peaked)


def test_the_axis_counts_numbers_as_the_text_does(forecast: Any) -> None:
    bars = forecast.plot().axes[1].patches
    centres = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    strongest = max(range(len(bars)), key=lambda i: bars[i].get_height())
    assert np.allclose(centres, range(30))
    assert f"{forecast.encoded.numbers[strongest]} (number {strongest}) " in str(forecast)


def test_the_forecast_after_the_series_is_within_the_picture_and_ticks_are_whole(demo_model: Any) -> None:
    rolling = ts.rolling_forecast(demo_model, ts.encode(ts.periodic(21, seed=0)))
    above, below = rolling.plot().axes
    assert above.get_xlim()[1] > above.lines[0].get_xdata()[-1] == 21
    assert all(tick == int(tick) for axis in (below.xaxis, below.yaxis) for tick in axis.get_ticklocs())
    assert "NaN" not in str(rolling)
