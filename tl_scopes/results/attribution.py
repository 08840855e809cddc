"""The frozen result of every scope and baseline.

An :class:`Attribution` holds one non-negative score per input token, for the prediction that was
explained, together with what a reader needs in order to judge it: the target, the model's own top
predictions, the numbers behind the score (``details``), the cautions that apply (``notes``) and the
state of the model that produced it (``provenance``). Views and statistics read it; nothing writes it.

Scores are indexed by position only. Two tokens with the same text are two entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_scopes.model.units import Unit
from tl_scopes.numerics.arguments import Count, public_call
from tl_scopes.results.base import Serializable
from tl_scopes.results.completeness import without_sum
from tl_scopes.results.methods import is_known, legend
from tl_scopes.results.showing import _Shown
from tl_scopes.results.units import Entries, Group, Grouping, Units, by_name, grouping, joined, joined_stderr, kind_of

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens import ActivationCache


_GLUED = "The tokens carry no white space, and there are no character offsets: words may be glued together."
_CORRECTED = "Sink-corrected view"


class TokenScore(NamedTuple):
    """One input token and its score."""

    pos: int
    str_token: str
    score: float


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(_Shown, Serializable):
    """Scores of all input tokens for one prediction.

    Attributes:
        scores: ``[pos]``, one score per input token (BOS included), on the CPU; float64 for a float64
            model, float32 for every other. Exactly 0 after ``pos``.
        tokens: ``[pos]`` int64 token ids on the CPU.
        str_tokens: the text of each token.
        pos: the position whose next-token prediction is explained, non-negative.
        method: name of the scope or baseline.
        target: id of the explained token, or None where no single token is explained.
        target_str: its text, or None.
        top_predictions: the model's most probable next tokens at ``pos``, with probabilities.
        top_tokens: their ids; empty where they were not kept.
        stderr: ``[pos]`` standard error of the scores when they were sampled, else None.
        gradient: ``[pos, d_model]`` signed gradient behind the scores, when it was kept.
        signed: ``[pos]`` signed sum of embedding and gradient, ``Σ_d x_td g_td``, where the method has one: above 0 the
            token raises what is explained; None where nothing is signed. See ``details["completeness"]`` for whether they
            add up to it.
        direction: the caller's own rows ``[k, ...]`` at the target hook (``jacobian_scope``); None where the method
            names what is explained.
        cache: TransformerLens ``ActivationCache`` of the run, when it was asked for.
        details: plain numbers by method (eigenvalues, explained share, ...), JSON-ready.
        notes: sentences a reader must know before trusting the scores.
        provenance: class, name, dtype and processing state of the model; library versions.
        special: positions of special tokens (BOS, EOS, padding) in the prompt.
        hidden: positions that views and statistics leave out; see :meth:`without`.
        text: the prompt as text, where it is known.
        offsets: ``(start, end)`` of each token in ``text``, where the tokenizer gives it; empty for special tokens.
        span: the explained positions, where several are explained together; else empty.
        targets: the explained token at each of them, or None.
        answer: positions of the tokens that were put behind the prompt to be explained; they are inputs too, and their scores
            say how earlier tokens of the answer move later ones.
        sinks: positions found to be secondary attention sinks (:mod:`tl_scopes.kernel.massive_activations`); None where
            nobody looked.
        units: parts of ``text`` that have names: the turns of a chat, by role; see :meth:`by_unit`.
    """

    _beside: ClassVar = ("gradient", "direction")
    _unsaved: ClassVar = ("cache",)
    _later: ClassVar = ("top_tokens", "text", "offsets", "sinks", "span", "targets", "answer", "units", "signed")
    _along: ClassVar = {"str_tokens": "pos", "offsets": "pos"}
    _within: ClassVar = dict.fromkeys(("pos", "special", "hidden", "sinks", "span", "answer"), "pos")
    _finite: ClassVar = ("scores", "top_predictions")

    scores: Float[Tensor, " pos"]
    tokens: Int[Tensor, " pos"]
    str_tokens: list[str]
    pos: int
    method: str
    target: int | None
    target_str: str | None
    top_predictions: list[tuple[str, float]]
    top_tokens: tuple[int, ...] = ()
    stderr: Float[Tensor, " pos"] | None = None
    gradient: Float[Tensor, "pos d_model"] | None = None
    signed: Float[Tensor, " pos"] | None = None
    direction: Tensor | None = None
    cache: ActivationCache | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    special: frozenset[int] = frozenset()
    hidden: frozenset[int] = frozenset()
    text: str | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    sinks: frozenset[int] | None = None
    span: tuple[int, ...] = ()
    targets: tuple[int | None, ...] = ()
    answer: tuple[int, ...] = ()
    units: tuple[Unit, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.offsets is None or self.text is not None, "offsets", "come with text")
        if is_known(self.method):
            self.require(not bool((self.scores < 0).any()), "scores", f"{self.method} has none below 0")

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        strongest = ", ".join(f"{t.str_token!r} {t.score:.3g}" for t in self.top(3))
        return (
            f"Attribution({self.method}, {len(self)} tokens, pos={self.pos}, "
            f"target={self.target_str!r}, top: {strongest})"
        )

    @property
    def shown(self) -> list[int]:
        """Positions that views and statistics use: up to ``pos``, less the hidden ones."""
        return [p for p in range(self.pos + 1) if p not in self.hidden]

    @public_call
    def top(self, k: Count = 5) -> list[TokenScore]:
        """The ``k`` shown tokens with the highest scores, highest first; ties by position."""
        ranked = sorted(self.shown, key=lambda p: (-float(self.scores[p]), p))
        return [TokenScore(p, self.str_tokens[p], float(self.scores[p])) for p in ranked[:k]]

    @public_call
    def normalized(self) -> Attribution:
        """The same attribution with scores divided by their sum over the shown tokens.

        ``share_t = score_t / Σ_{s shown} score_s``: dimensionless, comparable between prompts. Hidden
        tokens keep their score on the same scale. Raises ``ValueError`` when the sum is 0.
        """
        total = float(self.scores[self.shown].sum()) if self.shown else 0.0
        if total <= 0:
            raise ValueError("all shown scores are 0, there is no share to give")
        details, notes = without_sum(self.details, self.notes)
        for name in {"signed", "row_scores", "interval"}.intersection(details):
            details[name] = (torch.tensor(details[name], dtype=torch.float64) / total).tolist()
        return replace(
            self,
            scores=self.scores / total,
            stderr=None if self.stderr is None else self.stderr / total,
            gradient=None if self.gradient is None else self.gradient / total,
            signed=None if self.signed is None else self.signed / total,
            details=details | {"normalized_by": total * details.get("normalized_by", 1.0)},
            notes=notes,
        )

    @public_call
    def without(self, tokens: Literal["special", "sinks", "nothing"] | Iterable[int]) -> Attribution:
        """The same attribution with some positions left out of views and statistics.

        Scores stay one per token; only :attr:`hidden` changes, so nothing is renormalised behind the
        reader's back.

        Args:
            tokens: ``"special"`` for BOS, EOS and padding; ``"sinks"`` for those, the token at position 0, and of
                :attr:`sinks` each that takes more than an even share of the influence, which is ``1/n`` of it for n
                tokens up to ``pos`` (a correction: the result's notes name them, how much of the influence was on them,
                and which sinks stay); or positions (negative counts from the end). They join what is left out
                already; ``"nothing"`` shows every token again.
        """
        if isinstance(tokens, str):
            if tokens == "sinks":
                return self._without_sinks()
            if tokens == "nothing":
                return replace(self, hidden=frozenset())
            chosen = set(self.special)
        else:
            positions = list(tokens)
            outside = [p for p in positions if not -len(self) <= p < len(self)]
            if outside:
                raise ValueError(
                    f"(tokens={positions}): positions {outside} are outside a prompt of {len(self)} tokens"
                )
            chosen = {p % len(self) for p in positions}
        return replace(self, hidden=self.hidden | chosen)

    def _without_sinks(self, shares: bool = True) -> Attribution:
        """Special tokens, the token at 0 and sinks with more than an even share hidden, and a note that names them."""
        first = frozenset({0, *(p for p in self.special if p <= self.pos)})
        found = (self.sinks or frozenset()) - first
        even = float(self.scores[: self.pos + 1].double().mean())
        others = frozenset(p for p in found if float(self.scores[p]) > even)
        said = f"{_CORRECTED}, scores unchanged. Left out: {self._part(first, shares)}"
        if self.sinks is None:
            said += ". Secondary sinks: not looked for."
        elif not found:
            said += ". Secondary sinks: none found."
        elif others:
            said += f"; secondary sinks, found by norm or attention: {self._part(others, shares)}."
        else:
            said += "."
        if kept := found - others:
            named = ", ".join(map(self._named, sorted(kept)))
            said += f" Secondary sinks that stay, each with no more than an even share: {named}."
        return replace(
            self,
            hidden=self.hidden | self.special | first | others,
            notes=self.notes if said in self.notes else (*self.notes, said),
        )

    def _part(self, positions: frozenset[int], shares: bool) -> str:
        """Tokens by name, with their share of the influence beside an even one."""
        named = ", ".join(self._named(p) for p in sorted(positions))
        scores = self.scores[: self.pos + 1].double()
        total = float(scores.sum())
        if not shares or total <= 0:
            return named
        of = float(scores[sorted(positions)].sum()) / total
        return f"{named} with {of:.1%} of the influence (an even share is {len(positions) / len(scores):.1%})"

    def _named(self, p: int) -> str:
        """One token for the reader."""
        return f"{self.str_tokens[p]!r} ({p})"

    def by_word(self) -> Attribution:
        """The same attribution with one entry per word: ``by_unit("word")``.

        Words end at white space and punctuation and never inside a character, see :mod:`tl_scopes.results.words`; special
        tokens are words of their own. ``details["words"]`` holds the token positions of each word.
        """
        return self.by_unit("word")

    @public_call
    def by_unit(self, units: Units, *, language: str = "en") -> Attribution:
        """The same attribution with one entry per unit: word, sentence, line, paragraph, turn, or characters of your own.

        ``score_u = sqrt(Σ_{t in u} score_t²)``: the largest first-order change that one perturbation of unit norm,
        shared by the unit's tokens, can cause (appendix A.7). Total information and attention rollout are additive: there
        it is the plain sum, and so it is of :attr:`signed`. Every token is in one unit, so squares
        (or sums) are kept, and words joined into sentences are the sentences of the tokens.

        Args:
            units: ``"word"``; ``"sentence"``; ``"line"``; ``"paragraph"``, between empty lines; ``"turn"`` of a chat, where
                tokens of the template are units apart; the plurals of these; ``{name: (start, end)}`` in characters of
                :attr:`text`; or ``[(name, substring)]``. Text that nobody named is units of its own, one for each stretch.
            language: whose abbreviations end no sentence, as a code (``"de"``).

        Returns:
            An :class:`Attribution` with positions counted in units, each shown as its text, or as the name that you gave.
            ``details["units"]`` (of words ``details["words"]``) holds the token positions of each, ``details["names"]``
            the roles or names; ``tokens`` is the id of each unit's first token. A unit is special if all its tokens are.
            Hidden tokens are units apart, but for those inside a word. ``stderr`` is an upper bound, because the errors of a
            unit's tokens are correlated; ``gradient`` and ``cache`` are None. Units of the same kind are the same units.

        Raises:
            ValueError: characters outside the text, in two units or without a token; a substring that is not there once;
                turns of what is no chat; units smaller than those at hand.

        >>> attr = semantic_scope(model, "German: der Hund sieht die Katze. English: the", target=" dog")
        >>> attr.by_unit("sentence").str_tokens[1:]
        ['German: der Hund sieht die Katze.', ' English: the']
        >>> attr.by_unit([("source", "der Hund sieht die Katze")]).top(1)[0].str_token
        'source'
        """
        found = grouping(Entries.of(self), units, language=language, pos=self.pos)
        return self if found is None else self._grouped(found)

    def _read(self) -> dict[str, Any]:
        """What units know of the prediction no more: after which token it is read, and how many are explained together."""
        together = {"together": len(self.span)} if self.span else {}
        return {"read_at": self.pos, "read_token": self.str_tokens[self.pos], **together}

    def _grouped(self, found: Grouping) -> Attribution:
        """With one entry per group."""
        additive, groups = legend(self.method).additive, found.positions
        longest = max(map(len, groups))
        unclear = found.kind == "word" and self.offsets is None and longest > 2
        unclear = unclear and not any(c.isspace() for t in self.str_tokens for c in t)
        return replace(
            self,
            scores=joined(self.scores, groups, additive),
            tokens=self.tokens[[group[0] for group in groups]],
            str_tokens=[group.text for group in found.groups],
            pos=next(i for i, group in enumerate(groups) if self.pos in group),
            stderr=None if self.stderr is None else joined_stderr(self.stderr, self.scores, groups, additive),
            gradient=None,
            signed=None if self.signed is None else joined(self.signed, groups, True),
            cache=None,
            details=self._read() | found.details(self.details, additive),
            notes=(*self.notes, *self._partly_hidden(found.groups), *([_GLUED] if unclear else [])),
            special=found.within(self.special),
            hidden=found.within(self.hidden),
            sinks=None if self.sinks is None else found.within(self.sinks),
            text=found.text,
            offsets=tuple(group.span for group in found.groups),
            span=(),
            targets=(),
            answer=tuple(sorted(found.within(frozenset(self.answer)))),
        )

    @public_call
    def shares(self) -> dict[str, float]:
        """How much of the influence each name has, of an attribution by turn or by units of your own: role to share.

        ``share = Σ_{u with the name} score_u² / Σ_{u shown} score_u²``, or plain sums where scores add; they add up to 1.
        Tokens of a chat's template are ``"template"``, text that nobody named ``"rest"``. Hidden units are left out.

        Raises:
            ValueError: units without names; all shown scores are 0.

        >>> attr = semantic_scope(model, "German: der Hund sieht die Katze. English: the", target=" dog")
        >>> named = attr.without("special").by_unit([("source", "der Hund sieht die Katze")]).shares()
        >>> named["source"] > named["rest"]
        True
        """
        names = self.details.get("names")
        if names is None:
            raise ValueError(
                f"the units of this attribution, by {kind_of(self.details) or 'token'}, have no names; "
                "call it on by_unit('turn') of a chat, or on by_unit({name: (start, end)})"
            )
        parts = self.scores.double() if legend(self.method).additive else self.scores.double().square()
        total = float(parts[self.shown].sum()) if self.shown else 0.0
        if total <= 0:
            raise ValueError("all shown scores are 0, there is no share to give")
        return by_name({p: names[p] or self.str_tokens[p] for p in self.shown}, parts / total)

    def _partly_hidden(self, groups: Iterable[Group]) -> list[str]:
        """A note where a sink that was left out is part of a word that is not: a note says that it is left out."""
        if not any(note.startswith(_CORRECTED) for note in self.notes):
            return []
        kept = [g for g in groups if self.hidden.intersection(g.positions) and not self.hidden.issuperset(g.positions)]
        named = ", ".join(self._named(p) + f" of {g.text!r}" for g in kept for p in g.positions if p in self.hidden)
        return [f"Left out as tokens, but their words are shown and count them: {named}."] if kept else []

    def to_frame(self) -> pd.DataFrame:
        """One row per token: ``pos``, ``token``, ``str_token``, ``score``, ``stderr``, ``shown`` (``signed``, ``name``).

        Of a list of results, with the number of each in front:

        >>> import pandas
        >>> results = semantic_scope(model, ["a dog sees the cat", "the old man"])
        >>> frame = pandas.concat([r.to_frame() for r in results], keys=range(len(results)), names=["prompt"])
        >>> frame.loc[1].str_token.tolist() == results[1].str_tokens
        True
        """
        import pandas as pd

        shown = set(self.shown)
        more = {} if self.signed is None else {"signed": self.signed.tolist()}
        more |= {"name": self.details["names"]} if "names" in self.details else {}
        return pd.DataFrame(
            {
                "pos": range(len(self)),
                "token": self.tokens.tolist(),
                "str_token": self.str_tokens,
                "score": self.scores.tolist(),
                "stderr": [math.nan] * len(self) if self.stderr is None else self.stderr.tolist(),
                "shown": [p in shown for p in range(len(self))],
                **more,
            }
        )
