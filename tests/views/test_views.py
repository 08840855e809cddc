"""Invariant: a picture shows every token as text, in colours that follow the scores, offline; it never writes.

Without a browser: the HTML is parsed, and what a script would draw is read from its data. `test_browser.py` looks at
the same pictures in Chromium.
"""

from __future__ import annotations

import json
import re
from html import escape, unescape
from html.parser import HTMLParser

import every_result
import pytest
import torch
from contrast import AA, contrast
from samples import HOSTILE, attribution, matrix

from tl_scopes import Attribution, PositionalBaseline, views
from tl_scopes.views.canvas import page
from tl_scopes.views.canvas.colours import (
    FULL,
    Scale,
    blend,
    css,
    ink,
    ink_before_inversion,
    inverted,
    luminance,
)
from tl_scopes.views.canvas.table import seen
from tl_scopes.views.coloured import scale_of
from tl_scopes.views.wording import number, odds, ordinal, predicted, visible

BUNDLE = "window.CircuitsVis = window.CircuitsVis ||"


def every_view(tokens: list[str]) -> dict[str, views.View]:
    one = attribution(tokens, target_str=tokens[0], top_predictions=[(text, 0.1) for text in tokens[:5]])
    return {
        "tokens": views.tokens(one),
        "log": views.tokens(one, scale="log"),
        "compare": views.compare({"one": one, "<two>": one.without([1])}),
        "figure": views.figure([one, one]),
        "matrix": views.matrix(matrix(tokens)),
        "by word": views.tokens(one.by_word()),
    }


class Reader(HTMLParser):
    """What a browser without scripts sees: elements, token texts with their backgrounds, and the scripts' data."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tokens: list[tuple[int, str, str]] = []
        self.data: list[dict] = []
        self.bdi: list[str] = []
        self._background, self._pos = "", -1
        self._in: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("br", "input", "meta"):
            self._in.append(tag)
        values = dict(attrs)
        if "background-color" in (values.get("style") or ""):
            self._background = re.search(r"background-color:(rgb\([^)]*\))", values["style"] or "")[1]  # type: ignore[index]
        if tag == "bdi":
            self.bdi.append("")
            self._pos = int(values.get("data-pos") or -1)

    def handle_endtag(self, tag: str) -> None:
        assert self._in.pop() == tag, f"</{tag}> closes another element"
        if tag == "bdi" and self._pos >= 0:
            self.tokens.append((self._pos, self.bdi[-1], self._background))

    def handle_data(self, data: str) -> None:
        if self._in[-1:] == ["script"]:
            self.data.append(json.loads(data))
        elif "bdi" in self._in:
            self.bdi[-1] += data


# -- text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", every_view(HOSTILE))
def test_hostile_token_text_is_shown_as_text(name: str) -> None:
    view = every_view(HOSTILE)[name]
    read = Reader(view.body)
    assert not {"img", "i"} & set(read.tags)
    assert read.tags.count("script") == len(read.data), "one script element per component, closed by itself"
    assert not any(attribute.startswith("on") for attribute, _ in read.attributes)
    shown = "".join(read.bdi)
    for text in HOSTILE:
        assert visible(text) in shown, text
    for data in read.data:
        for text, html in zip(data.get("texts", data["html"]), data["html"], strict=True):
            inner = Reader(html)
            assert set(inner.tags) <= {"bdi", "b", "small"}, html
            assert name == "matrix" or "".join(inner.bdi) == text
    assert "\u202e" not in view.body, "a direction override would reorder what follows"
    assert "\x1b" not in view.body + view.plain()
    for text in ("</script>", "<img src=x onerror=alert(1)>"):
        assert text in view.plain()


def test_angle_brackets_never_stand_raw_in_the_data_of_a_script() -> None:
    for name, view in every_view(HOSTILE).items():
        for block in re.findall(r'<script type="application/json">(.*?)</script>', view.body, re.DOTALL):
            assert "<" not in block, name
            assert "\\u003c" in block, name


def test_each_token_is_isolated_from_the_direction_of_its_neighbours() -> None:
    read = Reader(views.tokens(attribution(HOSTILE)).body)
    assert [text for _, text, _ in read.tokens] == [visible(text) for text in HOSTILE]


def test_joined_emoji_stay_one_picture_and_controls_become_visible() -> None:
    for whole in (
        "👩‍👩‍👧",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "می\u200cخواهم",
        "é",
        "�",
    ):
        assert visible(whole) == whole
    assert visible("\n\t\r\x00\x1b\x7f") == "⏎⇥␍␀␛␡"


@pytest.mark.one_lens
def test_every_character_that_cannot_be_seen_has_a_mark_of_its_own() -> None:
    assert visible("a\u00a0b\u202f\u3000\u00ad") == "a‹NBSP›b‹NNBSP›‹IDSP›‹SHY›"
    assert visible("x\u200dy\u200b\u200c\ufeff\u2060") == "x‹ZWJ›y‹ZWSP›‹ZWNJ›‹BOM›‹WJ›"
    assert visible("\u202e\u2066\u200f\ud800\ue000") == "‹RLO›‹LRI›‹RLM›‹U+D800›‹U+E000›"
    assert visible("😀\U000e0041") == "😀‹U+E0041›", "text hidden behind an emoji"
    unseen = [c for c in map(chr, [*range(0x3100), *range(0xFE00, 0x10000)]) if not c.isprintable()]
    marks = [visible(c) for c in unseen]
    assert len(set(marks)) == len(unseen)
    assert all(mark.isprintable() and mark.strip() and mark != "�" for mark in marks)


def test_the_explained_prediction_is_found_by_its_id_not_by_its_text() -> None:
    attr = attribution(top_predictions=[("�", 0.5), ("�", 0.25)], top_tokens=(8, 3), target=3, target_str="�")
    assert [explained for *_, explained in predicted(attr, 7)] == [False, True]


# -- colours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_static_colours_follow_the_rank_of_the_scores(scale: str) -> None:
    attr = attribution().without("special")
    read = Reader(views.tokens(attr, scale=scale).body)  # type: ignore[arg-type]
    background = {pos: colour for pos, _, colour in read.tokens}
    ranked = [t.pos for t in attr.top(10)]
    darkness = [-sum(int(c) for c in re.findall(r"\d+", background[p])) for p in ranked]
    assert darkness == sorted(darkness, reverse=True)
    assert len(set(darkness)) == len(darkness)
    assert background[ranked[0]] == css(blend(1.0)) == "rgb(8, 81, 156)"
    assert background[0] == background[5] == "rgb(255, 255, 255)", "hidden, and after pos"


def test_what_the_script_draws_has_the_values_of_the_static_picture() -> None:
    read = Reader(views.tokens(attribution()).body)
    (data,) = read.data
    drawn = [css(blend(v)) for v, html in zip(data["values"], data["html"], strict=True) if "data-pos" in html]
    assert drawn == [colour for _, _, colour in read.tokens]
    assert data["colour"] == FULL


def test_the_scale_is_log_where_one_score_dwarfs_the_rest_and_the_legend_says_so() -> None:
    assert not Scale.of([1.0, 2.0, 3.0, 4.0, 10.0]).log
    wide = Scale.of([1.0, 1.0, 2.0, 3.0, 4000.0])
    assert wide.log
    assert wide.share(0.0) == 0 < wide.share(1.0) < wide.share(2.0) < wide.share(4000.0) == 1
    assert wide.score(wide.share(30.0)) == pytest.approx(30)
    assert "linear scale" in views.tokens(attribution()).body
    assert "log scale" in views.tokens(attribution(scores=torch.tensor([4000.0, 1, 1, 2, 3, 0]))).body


def test_colours_start_at_the_lowest_score_where_it_is_far_above_zero() -> None:
    high = attribution(scores=torch.tensor([9.0, 5.0, 6.0, 10.0, 8.0, 0.0]))
    scale = scale_of(high)
    assert (scale.kind, scale.low, scale.high) == ("minmax", 5.0, 10.0), (
        "what comes after the explained position is no score"
    )
    assert 0 < scale.share(5.0) < scale.share(6.0) < scale.share(10.0) == 1
    assert scale.score(scale.share(7.0)) == pytest.approx(7.0)
    assert scale_of(high.without([1, 2])).low == 8.0
    assert scale_of(attribution()).kind == scale_of(high, "linear").kind == "linear"
    body = views.tokens(high).body
    assert "linear scale from the lowest score" in body and "colours from 0" in body
    assert "colours from 0" not in views.tokens(high, scale="minmax").body + views.tokens(attribution()).body


def test_the_target_says_its_probability_and_rank_as_far_as_they_are_known() -> None:
    for details, said in (
        ({"target_probability": 0.035, "target_rank": 3}, "3.5%, 3rd"),
        ({"target_probability": 0.5}, "50.0%"),
        ({"target_probability": 1e-9, "target_rank": 1113}, "1e-07%, 1,113th"),
        ({}, ""),
    ):
        attr = attribution(details=details)
        assert odds(attr) == said
        assert (f">{said}</small>" in views.tokens(attr).body) == bool(said)
        assert (f"({said})" in str(attr)) == bool(said)
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 111, 122)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "111th", "122nd")
    ]


def test_wrong_arguments_of_pictures_are_refused_by_the_name_that_was_called(unchecked) -> None:
    attr, share = attribution(), torch.full((5,), 0.2)
    baseline = PositionalBaseline(share, share, "semantic", 4)
    layers = every_result.layers()
    for call, error, said in (
        (lambda: attr.html(baseline=5), TypeError, r"^tokens\(baseline=5\): expected a PositionalBaseline or None"),
        (lambda: views.compare({"a": attr}, baselines=5), TypeError, r"^compare\(baselines=5\): expected a mapping"),
        (
            lambda: baseline.corrected(5),
            TypeError,
            r"^PositionalBaseline.corrected\(attribution=5\): expected an Attri",
        ),
        (
            lambda: baseline.corrected(attribution(method="fisher")),
            ValueError,
            r"^PositionalBaseline.ratio: this is of sem",
        ),
        (
            lambda: layers.html(per_row="yes"),
            TypeError,
            r"^LayerInfluence.html\(per_row='yes'\): expected True or False",
        ),
        (lambda: layers.plot(per_row=1), TypeError, r"^LayerInfluence.plot\(per_row=1\): expected True or False"),
    ):
        with pytest.raises(error, match=said):
            call()


def test_rows_of_a_figure_name_their_scopes() -> None:
    rows = [
        attribution(),
        attribution(method="contrast", details={"foil_str": " cat"}),
        attribution(method="temperature"),
    ]
    body = unescape(views.figure(rows).body)
    for name in ("Semantic Scope: ", "Contrast Scope: which tokens prefer ' dog' to ' cat'", "Temperature Scope: "):
        assert name in body
    assert "Semantic Scope" not in views.figure(rows[0]).body


def test_an_unknown_scale_is_refused(unchecked) -> None:
    with pytest.raises(ValueError, match="expected 'auto', 'linear', 'minmax' or 'log'"):
        views.tokens(attribution(), scale="cubic")  # type: ignore[arg-type]


def test_the_legend_holds_true_scores_and_their_unit() -> None:
    body = views.tokens(attribution().without("special")).body
    assert re.search(r"0 <span.*?</span> 5 <span.*</span> 10 <span>logit per unit of embedding", body)
    assert "share of the shown" in views.tokens(attribution().normalized()).body
    assert "all shown scores are 0" in views.tokens(attribution(scores=torch.zeros(6))).body


def test_ink_is_readable_on_every_colour_in_light_and_dark() -> None:
    rgb = {"#000": (0, 0, 0), "#fff": (255, 255, 255)}
    for step in range(1001):
        colour = blend(step / 1000)
        assert contrast(colour, rgb[ink(colour)]) >= AA, colour
        assert contrast(inverted(colour), inverted(rgb[ink_before_inversion(colour)])) >= AA, colour
    for text in ((0x6B, 0x6B, 0x6B), (0xB2, 0x18, 0x2B)):
        assert contrast((255, 255, 255), text) >= AA
        assert contrast((0, 0, 0), inverted(text)) >= AA


def test_depth_of_colour_grows_with_the_share_in_light_and_dark() -> None:
    light = [luminance(blend(step / 100)) for step in range(101)]
    dark = [luminance(inverted(blend(step / 100))) for step in range(101)]
    assert light == sorted(light, reverse=True)
    assert dark == sorted(dark)


# -- what is around the tokens -----------------------------------------------------------------------------


def test_target_predictions_notes_and_strongest_tokens_are_there() -> None:
    body = views.tokens(attribution().without("special")).body
    assert "→<bdi> dog</bdi>" in body
    assert "<b><bdi> dog</bdi></b>" in body
    assert "50.0%" in body
    assert "a note &lt;b&gt;" in body
    assert "Strongest: <bdi>Hund</bdi> 10 ·" in body
    assert "→<bdi> next token</bdi>" in views.tokens(attribution(target=None, target_str=None)).body


def test_an_explained_token_below_the_top_is_added_to_the_predictions() -> None:
    body = views.tokens(attribution(target_str=" pig", details={"target_probability": 0.00012})).body
    assert "<b><bdi> pig</bdi></b>" in body
    assert "0.01%" in body


def test_compare_has_a_button_for_each_method_and_refuses_other_texts() -> None:
    body = views.compare({"semantic": attribution(), "fisher": attribution(method="fisher")}).body
    read = Reader(body)
    assert read.tags.count("input") == read.tags.count("section") == 2
    assert read.attributes.count(("type", "radio")) == 2
    with pytest.raises(ValueError, match="use stack"):
        views.compare({"a": attribution(), "b": attribution(pos=2)})
    with pytest.raises(ValueError, match="at least one"):
        views.compare({})


def test_figure_has_a_row_for_each_and_the_top_seven_words() -> None:
    many = [(f" w{i}", 0.1) for i in range(10)]
    view = views.figure([attribution(top_predictions=many, details={}), attribution()])
    assert view.body.count('class="tls-row"') == 2
    assert " w6<" in view.body
    assert " w7<" not in view.body
    with pytest.raises(ValueError, match=r"^figure\(k=0\): k must be 1 or more"):
        views.figure(attribution(), k=0)
    with pytest.raises(ValueError, match=r"^figure\(attributions=\[\]\): give at least one"):
        views.figure([])


def test_matrix_rows_are_normalised_shifted_to_their_target_and_the_view_says_so() -> None:
    view = views.matrix(matrix().without("special"))
    (data,) = Reader(view.body).data
    (values,) = data["attention"]
    assert len(values) == len(data["html"]) == 5, "four tokens and the prediction after them"
    assert values[0] == [0.0] * 5, "nothing predicts the first token"
    assert values[3] == [0.0, 0.909, 1.0, 0.0, 0.0], "the row read at 2 explains token 3; BOS is left out"
    assert max(values[4]) == 1.0
    assert "each row divided by its highest shown score" in view.body
    assert "The last target is the model's top prediction" in view.body
    lines = view.plain().splitlines()
    assert lines[-1].split() == ["3", "end", "(top", "prediction)", "c", "1.00", "b", "0.94", "a", "0.88"]
    assert lines[2].split() == ["0", "a", "–"], "only BOS stands before it, which is left out"


@pytest.mark.slow
@pytest.mark.one_lens
def test_matrix_too_long_to_hover_keeps_its_list() -> None:
    n = 257
    view = views.matrix(matrix([f" t{i}" for i in range(n)]))
    assert "data-component" not in view.body
    assert " t255" in view.body


def test_matrix_rows_are_attributions_with_their_own_details() -> None:
    row = matrix().without("special").row(-2)
    assert (row.pos, row.target_str, row.details["lambda_1"], row.hidden) == (2, " c", 2.0, {0})
    assert row.scores.tolist() == [9.0, 10.0, 11.0, 0.0]
    assert matrix().to_frame().loc[3, 2] == 15.0
    with pytest.raises(ValueError, match=r"^AttributionMatrix\.row\(i=\d\): there are 4 rows"):
        matrix().row(4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": (0, 1, 2)}, "positions: 3 entries for 4"),
        ({"positions": (0, 1, 2, 9)}, "positions: 9 outside 0..3"),
        ({"targets": (1,)}, "targets: 1 entries for 4"),
        ({"scores": torch.full((4, 4), float("nan"))}, "NaN or infinity"),
        ({"hidden": frozenset({8})}, "hidden: 8 outside 0..3"),
    ],
)
def test_inconsistent_matrices_cannot_be_made(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matrix(**change)


@pytest.mark.parametrize(
    "attr",
    [
        Attribution(torch.tensor([2.0]), torch.tensor([1]), ["x"], 0, "semantic", None, None, []),
        attribution().without(range(6)),
        attribution(scores=torch.zeros(6)),
        attribution(scores=torch.ones(6), stderr=torch.ones(6), method="something_new", details={}),
        attribution(["", " ", "", "\n\n", "", ""]),
    ],
    ids=["one token", "all hidden", "all zero", "unknown method", "empty tokens"],
)
def test_degenerate_results_have_pictures_too(attr: Attribution) -> None:
    for view in (views.tokens(attr), views.tokens(attr, scale="log"), views.compare({"a": attr}), views.figure(attr)):
        assert len(Reader(view.body).tokens) == len(attr)
        assert view.plain()
    assert len(Reader(views.tokens(attr.by_word()).body).tokens) <= len(attr)


def test_a_matrix_of_one_token_or_of_some_positions_has_a_picture() -> None:
    one = matrix(["x"])
    assert "→" in views.matrix(one).body
    some = matrix(scores=torch.eye(4)[1:3], positions=(2, 1), targets=(None, None), target_strs=(None, None))
    rows = [a for a in Reader(views.matrix(some).body).attributes if a[0] == "data-row"]
    assert len(rows) == 2, "the two targets can be chosen, and nothing else"


# -- pages -------------------------------------------------------------------------------------------------


def test_nothing_is_loaded_from_elsewhere() -> None:
    for name, view in every_view(HOSTILE).items():
        assert (BUNDLE in view.html()) == (name == "matrix"), name
        own = re.sub(r"window\.CircuitsVis = .*?\n\}\)\(\);", "", view.html(), flags=re.DOTALL)
        assert len(own) < 200_000, name
        assert "http" not in own, name
        loading = [a for a in Reader(view.body).attributes if a[0] in ("src", "href", "srcset", "action")]
        assert not loading, name
        assert not re.search(r"url\(|@import|\bimport\(|\bfetch\(", own), name
        assert "sourceMappingURL" not in view.html(), name


def test_several_views_on_one_page_share_one_bundle() -> None:
    both = views.stack(*every_view(["a", "b"] * 3).values())
    assert both.html().count(BUNDLE) == both._repr_html_().count(BUNDLE) == 1
    assert both._repr_html_().count("data-component=") == both.body.count("data-component=") > 7
    assert both.html().count("data-component=") == 1, "of the matrix; a page holds its tokens as they are"
    assert attribution()._repr_html_().count(BUNDLE) == 1


def test_a_page_of_tokens_holds_nothing_for_circuitsvis() -> None:
    html = views.compare({"a": attribution(HOSTILE), "b": attribution(HOSTILE, method="fisher")}).html()
    assert BUNDLE not in html and "application/json" not in html
    assert "data-component" not in html.split("<script>")[0]
    words = attribution([' data-component="ColoredTokens"', '<script type="application/json" class="tls-tokens-data">'])
    for text in words.str_tokens:
        assert escape(text) in words.html(), "the text of a token is not taken for it"


def test_the_bundle_is_the_installed_one_and_cannot_close_its_script() -> None:
    code = page._bundle()
    assert code.count("</script") == 1
    assert "CircuitsVis" in code
    assert len(code) > 1_000_000


class Shell:
    """As much of an IPython shell as a view asks for."""

    kernel = object()
    execution_count = 1
    cell: str | None = "a"

    def get_parent(self) -> dict[str, object]:
        return {"metadata": {"cellId": self.cell} if self.cell else {}}


def test_in_a_notebook_the_first_output_carries_the_bundle_and_carries_it_again_when_rerun(monkeypatch) -> None:
    shell = Shell()
    monkeypatch.setattr(page, "_shell", lambda: shell)
    monkeypatch.setattr(page, "_carrier", None)
    carried = []
    for cell, count in (("a", 1), ("a", 1), ("b", 2), ("a", 3), (None, 4)):
        shell.cell, shell.execution_count = cell, count
        carried.append(BUNDLE in attribution()._repr_html_())
    assert carried == [True, False, False, True, False]
    shell = Shell()
    assert BUNDLE in attribution()._repr_html_(), "a new kernel"
    monkeypatch.setattr(page, "_shell", lambda: None)
    assert BUNDLE in attribution()._repr_html_(), "outside a notebook each output stands alone"


def test_2000_tokens_are_a_small_page() -> None:
    n = 2000
    scores = torch.rand(n, generator=torch.Generator().manual_seed(0)) ** 4
    long = attribution([" token"] * n, scores=scores)
    assert len(views.tokens(long).body) < 1_000_000


def test_showing_outside_a_notebook_prints_the_text(capsys) -> None:
    attribution().show()
    assert "Hund" in capsys.readouterr().out
    matrix().show()
    assert "4 targets" in capsys.readouterr().out
    views.stack(views.tokens(attribution()), views.compare({"a": attribution()})).show()
    assert "Hund" in capsys.readouterr().out


def test_views_never_write() -> None:
    attr, many = attribution(), matrix()
    before, scores = attr.to_dict(), many.scores.clone()
    attr.html()
    attr._repr_html_()
    views.compare({"a": attr}).html()
    views.figure(attr).html()
    many.html()
    many._repr_html_()
    assert attr.to_dict() == before
    assert torch.equal(many.scores, scores)


def test_a_view_is_saved_as_the_page(tmp_path) -> None:
    path = views.tokens(attribution()).save(tmp_path / "a.html")
    assert path.read_text(encoding="utf-8") == attribution().html()


def test_tables_in_a_terminal_show_what_cannot_be_seen() -> None:
    import pandas as pd

    frame = seen(pd.DataFrame({"token": ["\u202ea\n", "b"], "score": [1.0, 2.0], "id": [1, 2]}))
    assert frame.token.tolist() == ["‹RLO›a⏎", "b"]
    assert (frame.score.tolist(), frame.id.tolist()) == ([1.0, 2.0], [1, 2])


@pytest.mark.one_lens
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.04567, "0.0457"),
        (999.4, "999"),
        (999.6, "1,000"),
        (-1318.0, "−1,320"),
        (123456.0, "123,000"),
        (2.5e7, "2.5e+07"),
    ],
)
def test_thousands_are_written_out(value: float, said: str) -> None:
    assert number(value) == said
