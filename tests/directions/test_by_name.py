"""Invariant: a scope is one record: what is registered in one place is known everywhere, with its words and its scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from rich.console import Console

import tl_scopes as tls
from tl_scopes.app.menu import menu
from tl_scopes.app.question import Question
from tl_scopes.app.workbench import Workbench
from tl_scopes.directions.base import ReadOut, Rows, Scalar, each_alone, one_row
from tl_scopes.directions.by_name import SCOPES, register
from tl_scopes.directions.scope import Scope
from tl_scopes.evaluation.aopc import aopc
from tl_scopes.views.wording import title, unit

PROMPT = "German: der Hund sieht die Katze. English: the"


@dataclass(frozen=True)
class Twice:
    """``v = 2y``: the gradient of ``‖y‖²``, times a strength of its own."""

    combines: ClassVar[tuple[str, ...]] = ("sum", "norm")

    strength: float = 1.0
    method: str = "twice"

    def held(self, reads: int, W_U: Any) -> None:
        """No whole distribution is looked at."""

    def check(self, state: Any) -> None:
        """Valid on every model."""

    @each_alone
    def rows(self, read: ReadOut, state: Any) -> Rows:
        V, weights = one_row(2 * self.strength * read.y)
        return Rows(V, weights, None, {"strength": self.strength})

    def scalar(self, target: int, text: Callable[[int], str]) -> Scalar:
        return Scalar("‖y‖²", "squares of y", lambda run: self.strength * run.hidden.double().square().sum(-1))


TOY = Scope(
    name="twice",
    label="Twice",
    summary="What moves the square of the final state",
    title="Twice: which tokens move the square",
    unit="squares per unit of {at}",
    direction=lambda model, n, keywords: Twice(keywords["strength"]),
    rebuild=lambda model, explained: Twice(explained.details["strength"]),
    keywords={"strength": 1.0},
    kept_of_rows={"strengths": lambda details: details["strength"]},
)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    before = dict(SCOPES)
    register(TOY)
    yield
    SCOPES.clear()
    SCOPES.update(before)


def test_scopes_compute_it_with_its_own_keyword(demo_model: Any) -> None:
    plain, strong = (
        tls.scopes(demo_model, PROMPT, methods=["twice"], **own)["twice"] for own in ({}, {"strength": 3.0})
    )
    beta = tls.temperature_scope(demo_model, PROMPT)
    # the gradient of ‖y‖² is 2‖y‖ times that of ‖y‖
    assert torch.allclose(plain.scores, 2 * beta.details["beta"] * beta.scores, rtol=1e-4)
    assert torch.allclose(strong.scores, 3 * plain.scores, rtol=1e-4)
    assert title(plain) == "Twice: which tokens move the square"
    assert unit(plain) == "squares per unit of embedding"


def test_a_keyword_that_no_chosen_scope_reads_is_refused(demo_model: Any) -> None:
    with pytest.raises(
        ValueError, match=r"scopes\(strength=...\): method 'fisher' does not read it; it belongs to 'twice'"
    ):
        tls.scopes(demo_model, PROMPT, methods=["fisher"], strength=2.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight'"):
        tls.scopes(demo_model, PROMPT, methods=["twice"], weight=2.0)


def test_matrix_layers_and_heads_take_it(demo_model: Any) -> None:
    one = tls.scopes(demo_model, PROMPT, methods=["twice"])["twice"]
    matrix = tls.attribution_matrix(demo_model, PROMPT, method="twice", strength=2.0)
    assert torch.allclose(matrix.scores[-1], 2 * one.scores, rtol=1e-4, atol=1e-4)
    assert matrix.details["strengths"] == [2.0] * len(matrix)
    layers = tls.layer_influence(demo_model, PROMPT, method="twice")
    assert torch.allclose(layers.scores[0], one.scores, rtol=1e-4)
    assert tls.head_influence(demo_model, PROMPT, method="twice").scores.abs().sum() > 0
    assert (
        tls.attention_sinks(demo_model, PROMPT, methods=["twice"], bos=(), unrelated=0).attributions["twice"]
        is not None
    )


def test_a_saved_result_is_verified(demo_model: Any, tmp_path: Any) -> None:
    one = tls.scopes(demo_model, PROMPT, methods=["twice"], strength=0.5)["twice"]
    loaded = tls.Attribution.load(one.save(tmp_path / "twice.json"))
    checked = tls.verify(demo_model, loaded, step=1e-3, top=3)
    assert checked.scalar == "‖y‖²"
    assert checked.linearity.r2 > 0.99


def test_aopc_and_the_model_report_know_it(demo_model: Any) -> None:
    table = aopc(demo_model, [PROMPT + " dog"], ["twice", "temperature"])
    assert table["twice"].per_prompt.tolist() == table["temperature"].per_prompt.tolist()  # the same ranking
    assert "twice" in tls.check_model(demo_model).valid_scopes
    refusing = replace(TOY, require=lambda state: (_ for _ in ()).throw(ValueError("not on this one")))
    register(refusing)
    assert "twice" not in tls.check_model(demo_model).valid_scopes


def test_the_app_offers_and_answers_it(demo_model: Any) -> None:
    assert menu()["twice"].title == "Twice"
    bench = Workbench({"demo": demo_model})
    key = bench.explain(Question.of({"model": "demo", "method": "twice", "prompt": PROMPT}))
    assert "Twice" in bench.view(key).html()


def test_the_command_line_takes_it(demo_model: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from tl_scopes.cli import main as cli

    monkeypatch.setattr(tls, "load_model", lambda name, **options: demo_model)
    monkeypatch.setattr("sys.argv", ["tl-scopes", "trace", PROMPT, "--method", "twice"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert "Twice: which tokens move the square" in capsys.readouterr().out
    Console()  # rich looked at the terminal in a test before this one
