"""Through generated text: which step, and which part of the prompt, an answer rests on.

What a model samples is discrete, so no gradient flows through it: the gradient of a final answer ends in the text just
before, and the prompt is lost. But each written unit is a prediction of its own. Its row says what it rests on, and rows are
followed back to the prompt, as :mod:`tl_scopes.results.chain` says. Row j explains written token j, read at position j − 1,
over the tokens before it; the tokens of one unit are explained together, as a span.

A block of units shares one forward, on the text up to its last token, and the longest block runs first: a text that does not
fit is refused before any work.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from typing_extensions import Unpack

from tl_scopes.baselines.by_name import BASELINES, WITHOUT_ROWS
from tl_scopes.directions.by_name import SCOPES, check_keywords
from tl_scopes.evaluation.chain_records import row_record, run_settings, store_of
from tl_scopes.evaluation.records import RecordStore
from tl_scopes.evaluation.written import written_text
from tl_scopes.kernel.attributed import provenance
from tl_scopes.kernel.calls import asked_of, show_keywords
from tl_scopes.kernel.explain import explain
from tl_scopes.kernel.options import ChainKeywords, RunOptions, run_options, split_keywords
from tl_scopes.model.lens import LensModel
from tl_scopes.model.lock import model_call
from tl_scopes.model.prompts import EncodedPrompt, OnePrompt
from tl_scopes.model.soundness import require_causal
from tl_scopes.model.targets import encode_targets
from tl_scopes.numerics.arguments import integer
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.numerics.progress import progress
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.chain import Chain
from tl_scopes.results.chain_units import TextUnit, answer_positions, step_weights, written_units
from tl_scopes.results.chain_units import prompt_units as units_of_prompt
from tl_scopes.results.units import Entries, Units, unit_kind

BLOCK = 8
"""Units that share a forward: as many as are pulled back at once where each has one row."""
ROW_METHODS = (*SCOPES, *(name for name in BASELINES if name not in WITHOUT_ROWS))
"""What can make the rows of a chain."""
_OF_TEXT = ("prepend_bos", "chat_options")
"""Keywords that say how the text is read, whatever explains it."""
_ENTRIES_OWN = ("hidden", "answer", "details")
"""Fields of entries that a chain has otherwise, or not."""
KEPT = ("at", "of", "combine", "n_probes", "frozen", "target_hook", "rank")
"""Details of a row that all rows have alike."""


@model_call
@show_keywords
def chain(
    model: LensModel,
    text: OnePrompt,
    *,
    method: str = "semantic",
    units: Units = "sentence",
    prompt_units: Units | None = None,
    answer: int | str | Mapping[int, float] | None = None,
    hops: int | None = None,
    language: str = "en",
    out: str | Path | None = None,
    **keywords: Unpack[ChainKeywords],
) -> Chain:
    """Which written step, and which part of the prompt, an answer rests on: the rows of a generated text, followed back.

    Every unit of the written text is explained as a span, and shares of squares go back from unit to unit: with ``G[u, v]``
    the share of unit u that comes from an earlier unit v, ``P[u, q]`` that of prompt unit q and w the answer,
    ``direct = w P``, ``by_hop[k] = w Gᵏ P``, ``total = w (I − G)⁻¹ P``. Special tokens and a unit's own earlier tokens are
    left out of its row before it is made to add up to 1; :attr:`Chain.special_share` and :attr:`Chain.self_share` say how
    much they had.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        text: what :func:`tl_scopes.generate` gave, a pair ``(prompt, text)``, or a chat that ends with the assistant's
            message.
        method: the scope of every row; or a baseline that explains several predictions together (``"input_x_gradient"``).
        units: of the written text, as in :meth:`Attribution.by_unit`; each is a stretch of neighbours.
        prompt_units: of the prompt; None is the same as ``units``.
        answer: the number of a unit (negative counts from the end), ``{number: weight}`` of several, or a text, the last
            place of which is then a unit of its own; None is the last unit.
        hops: rows of :attr:`Chain.by_hop` beside the direct one; None is all. The total has all hops in any case.
        language: of sentences.
        out: folder of the rows, from which the same call goes on after a kill.
        keywords: of the scope or baseline that reads them.
        prepend_bos, chat_options, at, checkpoint, memory_budget, frozen, combine, n_probes: as in
            :func:`tl_scopes.semantic_scope`; ``combine`` joins the predictions of one unit. Baselines refuse those that they
            have no use for; one that takes no ``memory_budget`` is not held to any.

    Returns:
        A :class:`Chain`: ``.total``, ``.direct``, ``.by_hop`` over the prompt's units ``.sources``; ``.graph`` over the
        written units ``.steps``; ``.path``, ``.top()``, ``.of(step)``, ``.by_unit()``; ``print``, ``.html()``, ``.plot()``.

    Raises:
        ValueError: nothing is written; the answer is not in it; units as in :meth:`Attribution.by_unit`; as the scope; a
            folder of another run.
        TypeError: a prompt that does not say which part of it the model wrote; not a TransformerLens model.

    Cost: for n units n/8 forwards, on the text up to each block's end, and one vector-Jacobian product per unit (with
        ``combine="norm"`` one per token, at most 32).

    >>> said = generate(model, "German: der Hund sieht die Katze. English: the", 4)
    >>> found = chain(model, said, units="word")
    >>> [step.text for step in found.steps]
    [' dog', ' sees', ' the', ' cat']
    >>> bool(torch.allclose(found.by_hop.sum(0), found.total))
    True

    Reference: this package. Rows followed back by a triangular solve: CAGE (arXiv 2512.15663), whose rows are another
        method's and of tokens; hops: FlashTrace (arXiv 2602.01914).
    """
    if hops is not None:
        integer("hops", hops, least=0)
    check_row_method(method, keywords)
    own, given = split_keywords(keywords)
    options = run_options(**given)
    model, encoded = written_text(model, text, options)
    require_causal(model)
    if "foil" in own:  # the same for every written token
        own["foil"] = encode_targets(model, own["foil"], 1, argument="foil")[0]
    entries, kinds = Entries.of(encoded), (units, units if prompt_units is None else prompt_units)
    steps, sources, weights = _units(entries, kinds, language, answer)
    settings = run_settings(model, encoded, steps, method, {**own, **given}, stored=out is not None)
    rows = _Asked(model, encoded, method, own, given, options).every_row(steps, store_of(out, settings))
    scores = torch.zeros(len(steps), len(encoded.tokens), dtype=compute_dtype(model.W_U.dtype))
    for u, row in enumerate(rows):
        scores[u, : len(row["scores"])] = torch.tensor(row["scores"], dtype=scores.dtype)
    details = {name: value for row in reversed(rows) for name, value in row["details"].items()}
    shared = {f.name: getattr(entries, f.name) for f in fields(Entries) if f.name not in _ENTRIES_OWN}
    return Chain(
        scores=scores,
        steps=steps,
        sources=sources,
        weights=weights,
        tokens=encoded.tokens,
        answer_start=encoded.answer[0],
        method=rows[0]["method"],
        unit=unit_kind(units),
        hops=hops,
        details=details,
        notes=tuple(dict.fromkeys((*encoded.notes, *(note for row in rows for note in row["notes"])))),
        provenance=provenance(model, details),
        **shared,
    )


def check_row_method(method: str, keywords: Mapping[str, Any]) -> None:
    """Refuse a method that makes no rows, and keywords that it does not read.

    Raises:
        ValueError: such a method or keyword.
    """
    if method not in ROW_METHODS:
        raise ValueError(f"(method={method!r}): expected one of {ROW_METHODS}")
    if method in SCOPES:
        check_keywords([method], split_keywords(keywords)[0], "method")
        return
    own = {*inspect.signature(BASELINES[method]).parameters, *_OF_TEXT}
    for name in _given(keywords):
        if name not in own:
            raise ValueError(f"({name}=...): method {method!r} does not read it")


def _given(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that say nothing."""
    return {name: value for name, value in keywords.items() if value is not None and value != ()}


def _units(entries: Entries, kinds: tuple[Units, Units], language: str, answer: Any) -> tuple[Any, Any, torch.Tensor]:
    """Steps, the prompt's units, and the weights of the answer."""
    of_answer = answer if isinstance(answer, str) else None
    steps = written_units(entries, kinds[0], language, of_answer)
    sources = units_of_prompt(entries, kinds[1], language)
    for name, found in (("text", steps), ("prompt", sources)):
        if not found:
            raise ValueError(f"(text=...): the {name} has only special tokens, so there is nothing to follow back")
    if of_answer is not None:
        first = answer_positions(entries, of_answer)[0]
        answer = next(u for u, step in enumerate(steps) if first in step.positions)
    return steps, sources, step_weights(-1 if answer is None else answer, len(steps))


def sources_of(model: LensModel, text: OnePrompt, units: Units) -> tuple[TextUnit, ...]:
    """The prompt's units, as a chain of this text has them; nothing runs."""
    _, encoded = written_text(model, text, RunOptions())
    return units_of_prompt(Entries.of(encoded), units)


def _blocks(n: int) -> list[list[int]]:
    """Units that run together, those at the end of the text first; always the same ones, on which what is drawn depends."""
    order = list(reversed(range(n)))
    return [order[first : first + BLOCK] for first in range(0, n, BLOCK)]


@dataclass(frozen=True, eq=False)
class _Asked:
    """What every row is made with."""

    model: LensModel
    text: EncodedPrompt
    method: str
    own: Mapping[str, Any]
    given: Mapping[str, Any]
    options: RunOptions

    def every_row(self, steps: Sequence[TextUnit], store: RecordStore) -> list[dict[str, Any]]:
        """The record of each unit: those of the store, and what is missing, a block at a time."""
        records = store.done()
        with progress(total=len(steps), initial=len(records), unit="unit") as bar:
            for block in _blocks(len(steps)):
                missing = [u for u in block if u not in records]
                found = self.rows([steps[u].positions for u in block]) if missing else ()
                for u, attribution in zip(block, found, strict=bool(missing)):
                    if u in missing:
                        records[u] = row_record(u, attribution, KEPT)
                        store.append(records[u])
                bar.update(len(missing))
        return [records[u] for u in range(len(steps))]

    def rows(self, spans: Sequence[Sequence[int]]) -> list[Attribution]:
        """Each unit's tokens explained together, all from one run of the text up to the last of them."""
        end = max(span[-1] for span in spans) + 1
        read = [[p - 1 for p in span] for span in spans]
        if self.method not in SCOPES:
            given = {k: v for k, v in _given({**self.own, **self.given}).items() if k not in _OF_TEXT}
            tokens = [self.text.tokens[:end]] * len(spans)
            found: list[Attribution] = BASELINES[self.method](self.model, tokens, pos=read, **given)
            return found
        cut = replace(
            self.text,
            tokens=self.text.tokens[:end],
            str_tokens=self.text.str_tokens[:end],
            special=frozenset(p for p in self.text.special if p < end),
            text=None,
            offsets=None,
            units=(),
            answer=(),
            notes=(),
        )
        prompts = [replace(cut, pos=at[-1], span=tuple(at)) for at in read]
        prompts, directions = asked_of(self.model, prompts, [self.method], self.own, self.options, "method")
        return [row for (row,) in explain(self.model, prompts, directions, self.options)]
