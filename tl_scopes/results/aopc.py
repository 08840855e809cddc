"""Area over the perturbation curve: from measured changes to one number per prompt, and a table over prompts.

Legend: ``k`` a fraction of tokens; ``Δ_k = log p(target | top k removed) − log p(target)`` in nats, negative when the
removal hurts.

    AOPC = Σ_i ½ (k_{i+1} − k_i)(Δ_{k_i} + Δ_{k_{i+1}})

by the trapezoidal rule over the fractions, *not* normalised and without a point at k = 0 (paper eq. 9). One
number per prompt first, then mean and standard error over prompts. More negative is more faithful.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from tl_scopes.numerics.arguments import Seed, number, public_call
from tl_scopes.numerics.ranking import PAPER_FRACTIONS, require_fractions
from tl_scopes.numerics.statistics import LEAST_PROMPTS, Comparison, paired_bootstrap, standard_error
from tl_scopes.numerics.values import shown
from tl_scopes.results.base import Displayable, Serializable, views
from tl_scopes.results.pairs import all_pairs
from tl_scopes.results.written import minus

if TYPE_CHECKING:
    import pandas as pd

Values = NDArray[np.float64]
NEEDED = 0.5
"""Nats of the true token's log p from which a model is said to need its BOS."""


def few_prompts(n: int) -> str:
    """The sentence in the place of a verdict."""
    prompts = "1 prompt is" if n == 1 else f"{n} prompts are"
    return f"{prompts} too few to say which methods can be told apart (from {LEAST_PROMPTS} on): read the intervals."


_FISHER = re.compile(r"fisher(?:@(\d+))?(?:/(.+))?")
"""The Fisher Scope with its rank and what it holds constant."""


@dataclass(frozen=True, eq=False)
class AOPC(Displayable, Serializable):
    """AOPC of one method.

    Attributes:
        per_prompt: ``[prompt]`` float64, one number per prompt.
        fractions: the k of the curve.
        deltas: ``[prompt, fraction]``, the measured changes.
    """

    _along: ClassVar = {"fractions": "fraction"}

    per_prompt: Float[ndarray, " prompt"]
    fractions: tuple[float, ...]
    deltas: Float[ndarray, "prompt fraction"]

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fractions(self.fractions)

    @property
    def mean(self) -> float:
        """Mean over prompts."""
        return float(self.per_prompt.mean()) if len(self.per_prompt) else math.nan

    @property
    def sem(self) -> float:
        """Standard error of the mean over prompts."""
        return standard_error(self.per_prompt)

    def __len__(self) -> int:
        return len(self.per_prompt)

    def __repr__(self) -> str:
        return minus(f"AOPC({self.mean:.4f} ± {self.sem:.4f}, {len(self)} prompts, fractions {self.fractions})")


@public_call
def aopc_from_deltas(deltas: Any, fractions: Sequence[float] = PAPER_FRACTIONS) -> AOPC:
    """AOPC of one method from changes that are already measured.

    ``AOPC_i = Σ_j ½ (k_{j+1} − k_j)(Δ_ij + Δ_i,j+1)`` per prompt i, then mean and standard error over prompts; nats.

    Args:
        deltas: ``deltas[prompt][fraction]``: a sequence with one sequence per prompt, an array or tensor
            ``[prompt, fraction]``, or one mapping ``{fraction: Δ}`` per prompt; the outer level may be a mapping too.
        fractions: the k of the columns, increasing; not normalised by their range, no point at 0 is added.

    Returns:
        An :class:`AOPC` with ``per_prompt``, ``mean`` and ``sem``.

    Raises:
        ValueError: fractions that do not increase, rows of another length, values that are not finite.

    Cost: arithmetic only.

    >>> aopc_from_deltas([[-1.0, -2.0, -3.0], [0.0, 0.0, -1.0]], (0.05, 0.1, 0.2)).per_prompt.round(4).tolist()
    [-0.325, -0.05]

    Reference: paper eq. 9; Samek et al. 2017 (arXiv 1509.06321).
    """
    k = require_fractions(fractions)
    if isinstance(deltas, str | bytes) or not isinstance(deltas, Iterable):
        raise TypeError(f"(deltas={shown(deltas)}): expected one list or mapping per prompt")
    prompts = deltas.values() if isinstance(deltas, Mapping) else deltas
    rows = []
    for i, row in enumerate(prompts):
        missing = [f for f in fractions if f not in row] if isinstance(row, Mapping) else []
        odd = isinstance(row, str | bytes) or not isinstance(row, Iterable) or getattr(row, "ndim", 1) == 0
        if odd or missing:
            raise TypeError(f"(deltas=...): prompt {i} has {shown(row)}; expected {len(k)} numbers, one per fraction")
        cells = [row[f] for f in fractions] if isinstance(row, Mapping) else row
        rows.append([number(f"deltas[{i}]", v) for v in cells])
    try:
        table = np.array(rows, dtype=np.float64).reshape(len(rows), -1 if rows else len(k))
    except ValueError as error:
        raise ValueError(f"(deltas=...): rows of different lengths; expected {len(k)} per prompt") from error
    if len(rows) and table.shape[1] != len(k):
        raise ValueError(f"(deltas=...): {table.shape[1]} values per prompt for {len(k)} fractions")
    table = table.reshape(len(rows), len(k))
    per_prompt = (np.diff(np.array(k)) * (table[:, 1:] + table[:, :-1]) / 2).sum(axis=1)
    return AOPC(per_prompt, k, table)


BESIDE = ("sufficiency", "loo_spearman", "loo_top5_hit")
"""What a record may hold beside its deltas, by method."""
BOS = ("log_prob", "log_prob_with", "right", "right_with")
"""What a record holds where the protocol left out the BOS: of the true token and of the top prediction, without and with."""


def require_record(record: Mapping[str, Any], methods: Sequence[str], fractions: Sequence[float]) -> None:
    """Refuse what is not the record of one passage under these methods and fractions.

    Raises:
        ValueError: the key, and what is wrong with it.
    """
    for key in ("n", "truth", "top"):
        if type(record.get(key)) is not int:
            raise ValueError(f"{key}: expected an integer, got {str(record.get(key))[:40]!r}")
    for key in ("deltas", *(k for k in BESIDE if k in record)):
        of = record.get(key)
        missing = [m for m in methods if not isinstance(of, Mapping) or m not in of]
        if missing:
            raise ValueError(f"{key}: nothing of {', '.join(map(repr, missing))}")
        for method in methods:
            value = of[method]  # type: ignore[index]
            parts = value if isinstance(value, list | tuple) else [value]
            fits = key != "deltas" or (parts is value and len(parts) == len(fractions))
            if not fits or not all(map(_is_number, parts if key == "deltas" or value is not None else ())):
                raise ValueError(
                    f"{key}.{method}: expected numbers, one for each of fractions, got {str(value)[:40]!r}"
                )
    answer, said = record.get("answer", []), record.get("answer_top", [])
    if not all(isinstance(ids, list | tuple) and all(type(i) is int for i in ids) for ids in (answer, said)) or len(
        answer
    ) != len(said):
        raise ValueError(f"answer: expected as many tokens as answer_top, got {str(answer)[:40]!r}")
    bos = record.get("without_bos")
    if bos is not None and not (
        isinstance(bos, Mapping) and all(isinstance(bos.get(k), bool | int | float) for k in BOS)
    ):
        raise ValueError(f"without_bos: expected {', '.join(BOS)}, got {str(bos)[:40]!r}")


def is_right(record: Mapping[str, Any]) -> bool:
    """Is the top prediction the truth; of an answer of several tokens, at each of them?"""
    return bool(record.get("answer_top", record["top"]) == record.get("answer", record["truth"]))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


@dataclass(frozen=True, eq=False)
class AOPCTable(Displayable, Serializable):
    """Result of :func:`tl_scopes.aopc`: methods against each other on the same prompts.

    Attributes:
        records: one mapping per prompt that was measured, in order: ``deltas``, ``removed`` (positions by method and
            fraction), ``target``, ``scored``, ``top`` (token ids), ``n`` candidates, and what was asked for beside; of an
            answer of several tokens ``answer`` and ``answer_top``, of which the others are the first.
        failures: ``{prompt number: reason}`` of prompts that could not be run; left out of every figure.
        methods: names, in the order they were given.
        fractions: the k.
        settings: the protocol, as it is stored with the run.
        total: prompts given; fewer records and failures mean that the run is not complete.
    """

    records: tuple[Mapping[str, Any], ...]
    failures: Mapping[int, str]
    methods: tuple[str, ...]
    fractions: tuple[float, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    total: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(bool(self.methods), "methods", "there is none")
        require_fractions(self.fractions)
        for i, record in enumerate(self.records):
            try:
                require_record(record, self.methods, self.fractions)
            except ValueError as error:
                self.require(False, f"records.{i}", str(error))

    def __getitem__(self, method: str) -> AOPC:
        if method not in self.methods:
            raise KeyError(f"{method!r} is not among the methods {self.methods}")
        return aopc_from_deltas([r["deltas"][method] for r in self.records], self.fractions)

    @property
    def complete(self) -> bool:
        """Is every prompt either measured or recorded as failed?"""
        return len(self.records) + len(self.failures) == self.total

    @property
    def mean(self) -> dict[str, float]:
        """Mean AOPC by method."""
        return {m: self[m].mean for m in self.methods}

    @property
    def sem(self) -> dict[str, float]:
        """Standard error over prompts by method."""
        return {m: self[m].sem for m in self.methods}

    @property
    def per_prompt(self) -> dict[str, Values]:
        """AOPC of each prompt by method."""
        return {m: self[m].per_prompt for m in self.methods}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures must know: too few prompts for a verdict, a BOS that was left out."""
        found = [few_prompts(len(self.records))] if 0 < len(self.records) < LEAST_PROMPTS else []
        if bos := self._without_bos:
            without, within = (np.array([r[name] for r in bos]) for name in ("log_prob", "log_prob_with"))
            right, kept = (sum(r[name] for r in bos) for name in ("right", "right_with"))
            why = "preset='paper'" if self.settings.get("preset") == "paper" else "prepend_bos=False"
            found.append(
                f"{why} leaves out the BOS that this model's tokenizer puts in front: log p of the true token "
                f"{without.mean():.2f} on average, with it {within.mean():.2f}; the top prediction is right on {right} of "
                f"{len(bos)} prompts, with it on {kept}."
                + (
                    " The model needs it: keep it with preset='text'."
                    if within.mean() - without.mean() > NEEDED
                    else ""
                )
            )
        return tuple(map(minus, found))

    @property
    def _without_bos(self) -> list[Mapping[str, Any]]:
        """Of the prompts whose BOS was left out."""
        return [r["without_bos"] for r in self.records if r.get("without_bos") is not None]

    @property
    def best(self) -> str:
        """The method with the most negative mean; says nothing about whether it is distinguishable."""
        mean = self.mean
        return min(self.methods, key=lambda m: mean[m])

    @public_call
    def where(self, top_is_truth: bool) -> AOPCTable:
        """The prompts whose top prediction is (or is not) the true next token; of an answer, at each of its tokens."""
        kept = tuple(r for r in self.records if is_right(r) == top_is_truth)
        return AOPCTable(kept, {}, self.methods, self.fractions, self.settings, len(kept))

    @public_call
    def compare(self, first: str, second: str, *, level: float = 0.95, seed: Seed = 0) -> Comparison:
        """Paired bootstrap of the mean difference first − second."""
        return paired_bootstrap(self[first].per_prompt, self[second].per_prompt, level=level, seed=seed)

    @public_call
    def comparisons(self, *, level: float = 0.95, seed: Seed = 0) -> pd.DataFrame:
        """Every pair of methods: difference, interval, p, ``indistinguishable``; each pair at the level by itself.

        ``indistinguishable`` is None below 20 prompts. ``p_holm`` is p for all pairs together, by Holm's step-down rule.
        """
        return all_pairs(self.per_prompt, partial(paired_bootstrap, level=level, seed=seed))

    def curves(self) -> pd.DataFrame:
        """Perturbation curves: one row per method and fraction, mean Δ and its standard error over prompts."""
        import pandas as pd

        rows = []
        for method in self.methods:
            for k, column in zip(self.fractions, self[method].deltas.T, strict=True):
                row = {"method": method, "fraction": k, "delta": float(column.mean()) if len(column) else math.nan}
                rows.append({**row, "sem": standard_error(column)})
        return pd.DataFrame(rows)

    @staticmethod
    def fisher_rank(method: str) -> int | None:
        """Rank of ``"fisher"`` or ``"fisher@<rank>"``, whatever it holds constant; None for every other method."""
        found = _FISHER.fullmatch(method)
        return int(found[1] or 1) if found else None

    @public_call
    def by_rank(self) -> pd.DataFrame:
        """AOPC against the Fisher Scope's rank: mean, standard error, and the paired difference from the lowest rank.

        One row per rank among the methods ``"fisher"`` and ``"fisher@<rank>"``, in order, of those that hold the same parts
        constant as the first of them. Raises ``ValueError`` where there is none. The prompts are the same for all ranks, so
        the differences have far smaller errors than the means.
        """
        import pandas as pd

        found = [(m, parts) for m in self.methods if (parts := _FISHER.fullmatch(m))]
        ranks = {int(parts[1] or 1): m for m, parts in reversed(found) if parts[2] == found[0][1][2]}
        if not ranks:
            raise ValueError(f"no 'fisher' or 'fisher@<rank>' among the methods {self.methods}")
        first, rows = ranks[min(ranks)], []
        for rank, method in sorted(ranks.items()):
            difference = self[method].per_prompt - self[first].per_prompt
            rows.append(
                {
                    "rank": rank,
                    "aopc": self[method].mean,
                    "sem": self[method].sem,
                    "difference": float(difference.mean()) if len(difference) else math.nan,
                    "difference_sem": standard_error(difference),
                }
            )
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """One row per method: AOPC with its error, what it is less the best one's, and what was asked beside.

        ``difference`` is the mean paired difference from the best, from ``low`` to ``high`` (95 %);
        ``indistinguishable_from_best`` says whether that holds 0, and is None below 20 prompts.
        """
        import pandas as pd

        best, rows = self.best, []
        for method in self.methods:
            measured = self[method]
            row: dict[str, Any] = {"method": method, "n": len(measured), "aopc": measured.mean, "sem": measured.sem}
            if len(measured):
                c = self.compare(method, best)
                row |= {"difference": c.difference, "low": c.low, "high": c.high}
                row["indistinguishable_from_best"] = c.indistinguishable
            if bos := self._without_bos:
                names = {"true_log_prob": "log_prob", "true_log_prob_with_bos": "log_prob_with"}
                row |= {column: float(np.mean([r[name] for r in bos])) for column, name in names.items()}
            row["comprehensiveness"] = -float(measured.deltas.mean()) if len(measured) else math.nan
            for name in BESIDE:
                found = [r[name][method] for r in self.records if name in r]
                finite = [float(np.mean(v)) for v in found if v is not None]
                if found:
                    row[name] = float(np.mean(finite)) if finite else math.nan
                    row[f"{name}_sem"] = standard_error(finite)
            rows.append(row)
        return pd.DataFrame(rows)

    def plot_ranks(self) -> Any:
        """A matplotlib figure: AOPC against the Fisher Scope's rank (:meth:`by_rank`), the other methods as lines."""
        return views().rank_figure(self)
