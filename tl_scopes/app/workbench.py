"""Models, questions about a text, and the results that are kept; what the web server calls.

Every question is answered once and kept under an id: changing how a result is shown computes nothing. One computation
runs at a time, whatever number of threads ask.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import tl_scopes as tls
from tl_scopes.app.menu import Entry, menu
from tl_scopes.app.question import Question
from tl_scopes.demo import BUNDLED, DEMO_PROMPTS
from tl_scopes.kernel.calls import encode
from tl_scopes.kernel.options import RunOptions
from tl_scopes.model.lens import LensModel
from tl_scopes.numerics.arguments import public_call
from tl_scopes.numerics.stopping import require_wanted, while_wanted
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.chain import Chain
from tl_scopes.results.generation import Generation
from tl_scopes.results.influence import HeadInfluence, LayerInfluence
from tl_scopes.results.matrix import AttributionMatrix
from tl_scopes.results.units import UnitKind
from tl_scopes.results.verdict import Verdict
from tl_scopes.views import tokens, view
from tl_scopes.views.canvas.page import View

KEPT = 64
"""Results that are kept; the oldest is forgotten first."""
Scale = Literal["auto", "linear", "minmax", "log"]
Wanted = Callable[[], bool]
Result = Attribution | AttributionMatrix | LayerInfluence | HeadInfluence | Verdict | Chain
AS_GIVEN = (Verdict, Chain)
"""Results that say themselves what special tokens had, or have none."""


def always() -> bool:
    """Somebody waits."""
    return True


class Forgotten(LookupError):
    """A result that is not kept, or never was."""


class Workbench:
    """Loaded models and kept results; safe to use from several threads."""

    def __init__(self, models: Mapping[str, LensModel]) -> None:
        if not models:
            raise ValueError("app: give at least one model")
        self._models = dict(models)
        self._results: OrderedDict[str, Result | Generation] = OrderedDict()
        self._computing = threading.Lock()
        self._keeping = threading.Lock()

    def options(self) -> dict[str, Any]:
        """What the page offers: models, methods, examples."""
        examples = [{"title": d.title, "prompt": d.prompt, "target": d.target} for d in DEMO_PROMPTS.values()]
        return {
            "models": [
                {"name": name, "context": model.cfg.n_ctx, "examples": name in BUNDLED}
                for name, model in self._models.items()
            ],
            "methods": [entry.to_dict() for entry in menu().values()],
            "examples": examples if self._models.keys() & BUNDLED.keys() else [],
        }

    # -- computing -----------------------------------------------------------------------------------------
    # ``wanted`` says whether somebody still waits for the answer; where nobody does, the work stops with ``Stopped``.

    def explain(self, question: Question, wanted: Wanted = always) -> str:
        """The attribution that answers a question; its id."""
        entry = menu()[question.method]

        def compute(model: LensModel) -> Attribution:
            chosen = {name: getattr(question, name) for name in entry.options}
            return entry.call(model, question.prompt, pos=question.pos, **chosen)

        return self._computed("attribution", question, compute, wanted)

    def matrix(self, question: Question, wanted: Wanted = always) -> str:
        """The matrix of all predictions of the text; its id."""
        entry = menu()[question.method]
        method = self._scope("matrix", entry)

        def compute(model: LensModel) -> AttributionMatrix:
            chosen = {name: getattr(question, name) for name in entry.options if name != "target"}
            return tls.attribution_matrix(model, question.prompt, method=method, **chosen).without("nothing")

        return self._computed("matrix", question, compute, wanted)

    def layers(self, question: Question, wanted: Wanted = always) -> str:
        """Influence of the residual stream at every layer; its id."""
        return self._inside("layers", question, wanted, tls.layer_influence, relative=True)

    def heads(self, question: Question, wanted: Wanted = always) -> str:
        """Influence through every attention head; its id."""
        return self._inside("heads", question, wanted, tls.head_influence)

    def verdict(self, question: Question, wanted: Wanted = always) -> str:
        """Do the strongest tokens of the answer matter, more than random ones? Its id."""
        explained = self.explain(question, wanted)

        def compute(model: LensModel) -> Verdict:
            return tls.verdict(model, cast(Attribution, self.result(explained)))

        return self._computed("verdict", question, compute, wanted)

    def chain(self, question: Question, wanted: Wanted = always) -> str:
        """What the model writes after the text, followed back to it; its id."""
        entry = menu()[question.method]
        if (rows := entry.chain) is None:
            raise ValueError(f"{entry.title} makes no chain. Choose another")
        if question.step is not None:  # the rows are there: nothing runs
            step, whole = question.step, self.chain(replace(question, step=None), wanted)
            return self._computed("chain", question, lambda model: cast(Chain, self.result(whole)).of(step), wanted)
        asked = Question(question.model, "", question.prompt, write=question.write)
        said = self._computed("written", asked, lambda model: write(model, asked.prompt, asked.write), wanted)

        def compute(model: LensModel) -> Chain:
            chosen = {name: getattr(question, name) for name in entry.options if name != "target"}
            chosen |= {name: getattr(question, name) for name in ("units", "prompt_units", "answer")}
            return tls.chain(model, cast(Generation, self._kept(said)), method=rows, **chosen)

        return self._computed("chain", question, compute, wanted)

    def _inside(self, what: str, question: Question, wanted: Wanted, function: Any, **own: Any) -> str:
        entry = menu()[question.method]
        method = self._scope(what, entry)

        def compute(model: LensModel) -> Result:
            chosen = {name: getattr(question, name) for name in entry.options}
            result = function(model, question.prompt, method=method, pos=question.pos, **chosen, **own)
            shown: Result = result.without("nothing")  # the page has a switch for them
            return shown

        return self._computed(what, question, compute, wanted)

    def open(self, text: str) -> str:
        """A file that ``Attribution.save`` wrote; its id."""
        try:
            raw = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"This is not a JSON file: {error}") from error
        if isinstance(raw, dict):
            raw.pop("gradient_file", None)  # it lies beside the original, and no view needs it
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "opened.json"
            path.write_text(json.dumps(raw), encoding="utf-8")
            try:
                attribution = Attribution.load(path)
            except ValueError as error:  # which names a path that the page knows nothing of
                raise ValueError(str(error).replace(f"Attribution.load({str(path)!r})", "This file")) from error
        try:
            tokens(attribution.by_word())
            tokens(attribution)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"This file is not as Attribution.save writes it ({error})") from error
        return self._keep(_key("opened", text), attribution)

    def _scope(self, what: str, entry: Entry) -> str:
        if entry.scope is None:
            able = ", ".join(e.title for e in menu().values() if e.scope is not None)
            raise ValueError(f"{entry.title} has no {what}. Choose one of: {able}")
        return entry.scope

    def _computed(
        self, what: str, question: Question, compute: Callable[[LensModel], Result | Generation], wanted: Wanted
    ) -> str:
        if question.model not in self._models:
            raise ValueError(
                f"explain(model={question.model!r}): not loaded; expected one of {', '.join(self._models)}. "
                "Start the app with --model for another"
            )
        key = _key(what, repr(question))
        with while_wanted(wanted), self._turn():
            return key if key in self._results else self._keep(key, compute(self._models[question.model]))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The right to compute; one that waits for it leaves when it is not wanted any more."""
        while not self._computing.acquire(timeout=0.1):
            require_wanted()
        try:
            require_wanted()
            yield
        finally:
            self._computing.release()

    # -- results -------------------------------------------------------------------------------------------

    def _keep(self, key: str, result: Result | Generation) -> str:
        with self._keeping:
            self._results[key] = result
            self._results.move_to_end(key)
            while len(self._results) > KEPT:
                self._results.popitem(last=False)
        return key

    def _kept(self, key: str) -> Result | Generation:
        with self._keeping:
            result = self._results.get(key)
        if result is None:
            raise Forgotten("This result is not kept any more. Explain the text again")
        return result

    def result(self, key: str, *, unit: UnitKind | None = None, specials: bool = True) -> Result:
        """A kept result as it is shown; ``Forgotten`` when it is not kept any more."""
        result = self._kept(key)
        if isinstance(result, Generation):
            raise Forgotten("A text that was written has no picture of its own")
        if not specials and not isinstance(result, AS_GIVEN):
            result = result.without("special")
        if unit == "turn" and not getattr(result, "units", ()):
            raise ValueError("Only a saved chat has turns. Choose word, sentence, line or paragraph")
        return result.by_unit(unit) if unit and isinstance(result, Attribution | AttributionMatrix) else result

    def view(self, key: str, *, unit: UnitKind | None = None, specials: bool = True, scale: Scale = "auto") -> View:
        """The picture of a result, as the package draws it everywhere."""
        result = self.result(key, unit=unit, specials=specials)
        if isinstance(result, Attribution):
            return tokens(result, scale=scale)
        drawn: View = view(result)
        return drawn

    def saved(self, key: str, *, specials: bool = True) -> bytes:
        """What ``Attribution.save`` writes: one score per token, without loss."""
        result = self.result(key, specials=specials)
        if not isinstance(result, Attribution):
            raise ValueError("Only single attributions are saved as JSON; share this as a page (HTML)")
        with tempfile.TemporaryDirectory() as folder:
            return result.save(Path(folder) / "saved.json").read_bytes()


@public_call
def write(model: LensModel, prompt: str, most: int) -> Generation:
    """What the model writes after a text: ``most`` tokens, or as many as fit into its context."""
    _, (given,) = encode(model, prompt, RunOptions())
    room = model.cfg.n_ctx - len(given.tokens)
    if not room:
        raise ValueError(f"(prompt=...): {len(given.tokens)} tokens fill the model's context; shorten the text")
    return tls.generate(model, prompt, max_new_tokens=min(most, room))


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:20]
