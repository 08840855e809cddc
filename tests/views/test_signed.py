"""Invariant: signed scores are blue above 0, orange below, as deep as they are large, in every picture, which says which
colour raises what is explained; results whose signed scores add up open so, others where it is asked for.
"""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
import torch
from chromium import browser, look, picture_shows  # noqa: F401  # fixtures
from contrast import AA, contrast
from every_result import baseline
from matplotlib.colors import to_hex
from samples import attribution

from tl_scopes import Attribution, views
from tl_scopes.model.held_functions import PARTS as PARTS_HELD
from tl_scopes.views.canvas.colours import (
    BELOW_ZERO,
    FULL,
    Scale,
    blend,
    css,
    ink,
    ink_before_inversion,
    inverted,
)
from tl_scopes.views.coloured import scale_of
from tl_scopes.views.terminal import token_styles

pytestmark = pytest.mark.one_lens

SIGNED = [0.5, -4.0, 2.0, 0.0, -1.0, 8.0]
PARTS = {"tokens": 5.5, "positions": 0.25, "biases": -0.75, "rounding": 0.0, "whole": 5.0}
LINE = "Signed scores 5.500 + positions 0.250 + biases −0.750 = logit 5.000."


def summing(**changes: Any) -> Attribution:
    """Scores of six tokens that add up with what is named beside them."""
    details = {
        "at": "hook_embed",
        "of": "logit",
        "frozen": ["norms", "attention", "activations"],
        "completeness": PARTS,
    }
    given = {
        "details": details,
        "signed": torch.tensor(SIGNED),
        "notes": (LINE,),
        "method": "input_x_gradient",
        "pos": 5,
    } | changes
    return attribution(**given)


def signed_alone(**changes: Any) -> Attribution:
    """Signed scores that need not add up to anything."""
    return summing(details={"at": "hook_embed", "of": "logit"}, notes=(), **changes)


def backgrounds(body: str) -> list[str]:
    return re.findall(r'background-color:(rgb\([^)]*\))" title', body)


def wanted(attr: Attribution) -> list[str]:
    top = max(abs(SIGNED[p]) for p in attr.shown)
    return [css(blend(value / top)) if p in attr.shown else css(blend(0.0)) for p, value in enumerate(SIGNED)]


def test_scores_that_add_up_open_with_their_signs_and_a_box_for_sizes() -> None:
    attr = summing().without("special")
    body = unescape(views.tokens(attr).body)
    first, second = body.split('<div class="tls-pane">')[1:]
    cells = backgrounds(first)
    assert cells[: len(attr)] == wanted(attr)
    assert "orange lowers the logit of ' dog', blue raises it" in first
    assert "without signs" in body
    assert backgrounds(second) == backgrounds(views.tokens(attr, signed=False).body)
    assert "Strongest: <bdi>" in body and "+8" in body and "−4" in body
    assert LINE in body


def test_others_show_signs_where_it_is_asked_for() -> None:
    attr = signed_alone()
    plain, signs = views.tokens(attr), views.tokens(attr, signed=True)
    assert plain.body == views.tokens(attr, signed=False).body
    assert backgrounds(signs.body)[: len(attr)] == wanted(attr)
    assert "without signs" not in signs.body
    assert attr.view(signed=True).body == signs.body
    assert attr.html(signed=True) == signs.html()
    assert "+8" in signs.plain() and "+8" not in plain.plain()


def test_signs_are_refused_where_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    for show in (Attribution.view, Attribution.html, Attribution.show, Attribution.plot):
        with pytest.raises(ValueError, match=r"\(signed=True\): this semantic has no signed scores"):
            show(attribution(), signed=True)
    with pytest.raises(ValueError, match=r"\(scale='minmax'\): signed scores have their 0 in the middle"):
        summing().view(signed=True, scale="minmax")
    assert not scale_of(summing(), "minmax").signed, "a scale without a 0 is of sizes"
    signed_alone().show(signed=True)
    assert "orange, − lowers it" in capsys.readouterr().out


def test_a_scale_around_zero_is_as_deep_on_both_sides() -> None:
    linear = scale_of(summing())
    assert [linear.share(v) for v in (-8.0, -4.0, 0.0, 4.0, 8.0)] == [-1.0, -0.5, 0.0, 0.5, 1.0]
    wide = Scale.around_zero([500.0, -1.0, 2.0, 1.0, -0.001], "auto")
    assert wide.log and wide.signed
    assert wide.share(-500.0) == -1.0 and wide.share(0.001) == -wide.share(-0.001)
    assert blend(-1.0) == tuple(int(BELOW_ZERO[i : i + 2], 16) for i in (1, 3, 5))


def test_ink_is_readable_on_orange_in_light_and_dark() -> None:
    rgb = {"#000": (0, 0, 0), "#fff": (255, 255, 255)}
    for step in range(1001):
        colour = blend(-step / 1000)
        assert contrast(colour, rgb[ink(colour)]) >= AA, colour
        assert contrast(inverted(colour), inverted(rgb[ink_before_inversion(colour)])) >= AA, colour


def test_tips_say_sign_side_and_rank_by_size() -> None:
    body = unescape(views.tokens(summing()).body)
    assert "−4 logit · lowers · rank 2 of 6 · position 1" in body
    assert "+8 logit · raises · rank 1 of 6 · position 5" in body
    assert "0 logit · rank 6 of 6 · position 3" in body


def test_a_terminal_has_bars_left_and_right_of_zero() -> None:
    text = str(summing())
    rows = [line for line in text.split("\n") if re.match(r"\s+\d  ?\S", line)]
    assert len(rows) == 3
    (_, right), *_ = (row.split(re.search(r"[▐█▏▎▍▌▋▊▉]+", row)[0]) for row in rows)  # type: ignore[index]
    assert right.strip() == "+8" and rows[1].endswith("−4")
    assert rows[1].index("█") < rows[0].index("█") == len(rows[1].rstrip(" −4"))
    assert "blue, + raises the logit of ' dog', orange, − lowers it" in text
    styles = token_styles(summing())
    assert styles[1].bgcolor.triplet.red > styles[1].bgcolor.triplet.blue  # type: ignore[union-attr]
    assert styles[2].bgcolor.triplet.red < styles[2].bgcolor.triplet.blue  # type: ignore[union-attr]
    assert token_styles(signed_alone()) == token_styles(summing(), scale_of(summing(), signed=False))


def test_a_figure_has_the_pages_colours_and_the_sum() -> None:
    figure = summing().plot()
    (axes,) = figure.axes
    drawn = [to_hex(patch.get_facecolor()) for patch in axes.patches][: len(SIGNED)]
    assert drawn == ["#{:02x}{:02x}{:02x}".format(*blend(v / 8)) for v in SIGNED]
    said = " ".join(text.get_text() for text in axes.texts)
    assert "orange lowers the logit of" in said and LINE in said
    assert "−8" in said and "+8" in said
    assert LINE not in " ".join(text.get_text() for text in summing().plot(signed=False).axes[0].texts)


def test_bars_go_both_ways() -> None:
    axes = summing().plot(kind="bars").axes[0]
    bars = axes.containers[0]
    assert [bar.get_height() for bar in bars] == SIGNED
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [BELOW_ZERO if v < 0 else FULL for v in SIGNED]
    assert "blue raises" in axes.get_xlabel()
    assert min(bar.get_height() for bar in summing().plot(kind="bars", signed=False).axes[0].containers[0]) >= 0
    wide = signed_alone(signed=torch.tensor([500.0, -1.0, 2.0, 1.0, -1.0, 0.5])).plot(kind="bars", signed=True)
    assert wide.axes[0].get_yscale() == "symlog"


def test_units_add_signed_scores_and_have_bars_on_both_sides() -> None:
    units = summing(text="<bos> a b. c d", offsets=((0, 0), (0, 7), (7, 10), (10, 10), (10, 12), (12, 14))).by_unit(
        {"first": (0, 10), "second": (10, 14)}
    )
    assert units.signed is not None
    total = dict(zip(units.str_tokens, units.signed.tolist(), strict=True))
    assert sum(total.values()) == sum(SIGNED)
    body = unescape(views.tokens(units).body)
    assert "Bars: signed scores; left of the middle lowers the logit" in body
    below = re.findall(r'tls-bar tls-below" style="width:([\d.]+)%;margin-left:([\d.]+)%', body)
    assert below and all(float(w) + float(m) == pytest.approx(50, abs=0.11) for w, m in below)
    assert 'tls-bar" style="width:50.0%;margin-left:50.0%' in body
    for value in total.values():
        assert (f"+{value:.3g}" if value > 0 else f"{value:.3g}".replace("-", "−")) in str(units)


def test_files_with_one_sum_for_all_that_is_no_tokens_are_shown() -> None:
    old = {"tokens": 15.68, "positions and biases": -5.007, "whole": 10.67}
    raw = summing(details={"at": "hook_embed", "of": "logit", "completeness": old}).to_dict()
    loaded = Attribution.from_dict(raw)
    assert "Signed scores 15.68 + positions and biases −5.01 = logit 10.67." in " ".join(
        text.get_text() for text in loaded.plot().axes[0].texts
    )
    assert backgrounds(views.tokens(loaded).body)[: len(SIGNED)] == wanted(loaded)
    del raw["signed"]
    assert backgrounds(views.tokens(Attribution.from_dict(raw)).body)


def test_shares_and_ratios_are_of_sizes() -> None:
    attr = summing()
    assert "completeness" not in attr.normalized().details
    assert not scale_of(attr.normalized()).signed
    assert any(note.startswith("Signed scores") for note in attr.notes)
    assert "Signed scores" not in "".join(attr.normalized().notes)
    typical, ours = replace(baseline(n=6), frozen=PARTS_HELD), summing(method="semantic")
    corrected = typical.corrected(ours)
    assert scale_of(ours).signed and not scale_of(corrected).signed
    assert "Signed scores" not in "".join(corrected.notes) and "completeness" not in corrected.details
    assert "over the mean share" in views.tokens(ours, baseline=typical).body


def test_methods_with_and_without_signs_stand_beside_each_other() -> None:
    sizes = attribution(pos=5)
    both = unescape(views.compare({"sizes": sizes, "signs": summing()}).body)
    assert both.count("blue raises it") == 1
    assert "blue raises it" not in views.compare({"sizes": sizes, "signs": summing()}, signed=False).body
    rows = unescape(views.figure([sizes, summing()]).body)
    assert rows.count("blue raises it") == 1
    with pytest.raises(ValueError, match="no signed scores"):
        views.figure([sizes, summing()], signed=True)


@pytest.mark.parametrize("notebook", [True, False], ids=["output", "page"])
@pytest.mark.parametrize("dark", [True, False], ids=["dark", "light"])
def test_a_browser_shows_both_colours(look: Any, notebook: bool, dark: bool) -> None:  # noqa: F811
    attr = summing().without("special")
    html = f'<!doctype html><meta charset="utf-8"><title>o</title><body>{attr._repr_html_()}</body>'
    page = look(html if notebook else attr.html(), dark=dark)
    picture_shows(page, attr)
    panes = page.locator(".tls-pane")
    assert [panes.nth(i).is_visible() for i in range(2)] == [True, False]
    page.locator(".tls-choice input").check()
    assert [panes.nth(i).is_visible() for i in range(2)] == [False, True]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
