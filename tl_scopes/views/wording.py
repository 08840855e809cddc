"""Words that every renderer shares: titles, units, and token text in which everything can be seen."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tl_scopes.directions.by_name import scope_of
from tl_scopes.model.held_functions import PARTS
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.completeness import adds_up
from tl_scopes.results.methods import legend
from tl_scopes.results.units import kind_of, members
from tl_scopes.results.written import minus

LONGEST = 44
"""Letters of a unit's text, of more than which it is cut."""
_ALL = 0.995
"""A share that is printed as the whole."""
_EFFECT = "largest first-order effect"
_MARKS = {"\n": "⏎", "\t": "⇥", "\x7f": "␡"} | {chr(c): chr(0x2400 + c) for c in (*range(9), *range(11, 32))}
_MARKS |= {
    chr(code): f"‹{name}›"
    for name, code in {
        **{
            "NEL": 0x85,
            "NBSP": 0xA0,
            "SHY": 0xAD,
            "CGJ": 0x34F,
            "ALM": 0x61C,
            "MVS": 0x180E,
            "THSP": 0x2009,
            "HSP": 0x200A,
        },
        **{"ZWSP": 0x200B, "ZWNJ": 0x200C, "ZWJ": 0x200D, "LRM": 0x200E, "RLM": 0x200F, "LSEP": 0x2028, "PSEP": 0x2029},
        **{"LRE": 0x202A, "RLE": 0x202B, "PDF": 0x202C, "LRO": 0x202D, "RLO": 0x202E, "NNBSP": 0x202F, "WJ": 0x2060},
        **{"LRI": 0x2066, "RLI": 0x2067, "FSI": 0x2068, "PDI": 0x2069, "IDSP": 0x3000, "BOM": 0xFEFF},
    }.items()
}
"""What cannot be seen, by a control picture or by its Unicode abbreviation."""
_WRITTEN = "[\u0300-\u034e\u0350-\u1fff\u2190-\u2bff\u2e80-\u2fff\u3001-\U000dffff]"
_DRAWN = re.compile(f"(?<={_WRITTEN})[\u200c\u200d](?={_WRITTEN})|\U0001f3f4[\U000e0030-\U000e007a]{{2,6}}\U000e007f")
"""Joiners that make one emoji or one ligature out of several characters, and flags of regions."""


def visible(text: str) -> str:
    """A token's text with what cannot be seen made visible, so that one token stays on one line."""
    drawn = {i for found in _DRAWN.finditer(text) for i in range(*found.span())}
    return "".join(c if i in drawn else _mark(c) for i, c in enumerate(text))


def named(text: str) -> str:
    """A token's text where it stands by itself; of one that is nothing but spaces, each is seen."""
    return visible(text) if text.strip(" ") else "␣" * len(text)


def _mark(c: str) -> str:
    """A character, or what stands for it where it cannot be seen."""
    if c in _MARKS:
        return _MARKS[c]
    return c if c.isprintable() else f"‹U+{ord(c):04X}›"


def shortened(said: str, most: int = LONGEST) -> str:
    """A unit's text on one line."""
    flat = visible(" ".join(said.split("\n"))).strip() or named(said)
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


def in_lines(text: str) -> str:
    """A text of several lines as those, without the white space around it; what else cannot be seen by its mark."""
    return "\n".join(map(visible, text.strip().split("\n"))) if text.strip() else visible(text)


def literal(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")


def quoted(text: str, most: int = LONGEST) -> str:
    """Text in quotation marks, with what cannot be seen made visible; of a long answer how it begins."""
    shown = visible(text) if len(text) <= most else shortened(text, most)
    mark = '"' if "'" in shown and '"' not in shown else "'"
    return f"{mark}{shown}{mark}"


def entry(details: Mapping[str, Any]) -> str:
    """What each entry of a result is: ``"token"``, ``"word"``, ``"sentence"``, …; ``"part"`` of what the caller named."""
    kind = kind_of(details) or "token"
    return "part" if kind == "span" else kind


def title(attribution: Attribution) -> str:
    """One line: which scope, and what it explains."""
    method = attribution.method.replace("_", " ").capitalize()
    foil = quoted(attribution.details["foil_str"]) if "foil_str" in attribution.details else "the foil"
    of, several = _what(attribution), _several(attribution)
    target = "the prediction" if attribution.target_str is None else quoted(attribution.target_str)
    each = entry(attribution.details)
    known = {"target": target, "foil": foil, "method": method, "of": of, "token": each, "tokens": f"{each}s"}
    said = legend(attribution.method).title.format(**known)
    if each_alone(attribution) and attribution.target_str is not None:
        said += ", each by itself"
    if several > 1 and attribution.target_str is None:
        said += f", in {several} predictions together"
    return said + linearised(attribution.details)


def _several(attribution: Attribution) -> int:
    """How many predictions are explained together; units have no span."""
    details = attribution.details
    return len(attribution.span) or details.get("together") or len(details.get("target_log_probs") or ())


def marks_target(attribution: Attribution) -> bool:
    """Does the explained token stand behind the position that is read? Those of an answer are in the text, and so are those
    of several positions, which units know only the number of.
    """
    return not attribution.answer and not (kind_of(attribution.details) is not None and _several(attribution) > 1)


def _what(attribution: Attribution) -> str:
    """What of a target is explained."""
    apart = each_alone(attribution)
    if _of(attribution) == "logit":
        return "logits" if apart else "summed logits" if _several(attribution) > 1 else "logit"
    return "log-probabilities" if apart else "log-probability"


def each_alone(attribution: Attribution) -> bool:
    """Are several predictions moved each by itself, and their scores joined by a root of squares?"""
    return attribution.details.get("combine") == "norm" and _several(attribution) > 1


def about_score(attribution: Attribution) -> str:
    """What a score without a sign is, in a few sentences."""
    own = legend(attribution.method)
    trace = own.additive and scope_of(attribution.method) is not None
    what = "trace of the token's Fisher information" if trace else size_of_score(attribution)
    if each_alone(attribution):
        what = f"root of the summed squares, over {_several(attribution)} predictions, of the {what}"
    said = [f"Score: {what}, {unit(attribution)}."]
    if (errors := attribution.stderr) is not None and attribution.shown:
        most = max(float(errors[p]) for p in attribution.shown)
        said += [f"Estimated, with a standard error of at most {number(most)}."] if most > 0 else []
    if _what(attribution) == "summed logits" and "of" in attribution.details:
        said.append("Summed logits have offsets that differ between positions without meaning; of='log_prob' has none.")
    return " ".join(said)


def size_of_score(attribution: Attribution) -> str:
    """What a score without a sign is: ``norm of the product of activation and gradient``."""
    return legend(attribution.method).what or _EFFECT


def explained_scalar(attribution: Attribution) -> str:
    """``the logit of ' dog'``."""
    of = "" if attribution.target_str is None else f" of {quoted(attribution.target_str)}"
    return f"the {_what(attribution)}{of}"


def shows_signs(attribution: Attribution, signed: bool | None = None, scale: str = "auto") -> bool:
    """Is a picture of its signed scores? None is where these add up and the scale can have a 0 in its middle.

    Raises:
        ValueError: signs are asked for where there are none, or on a scale without a 0.
    """
    if signed and attribution.signed is None:
        raise ValueError(
            f"(signed=True): this {attribution.method} has no signed scores. input_x_gradient and integrated_gradients have "
            "them (one row of V: not with combine='norm')"
        )
    if signed and scale == "minmax":
        raise ValueError("(scale='minmax'): signed scores have their 0 in the middle; use 'auto', 'linear' or 'log'")
    own = attribution.signed is not None and adds_up(attribution.details) and scale != "minmax"
    return own if signed is None else signed


def linearised(details: Mapping[str, Any]) -> str:
    """What the gradient held constant, as the end of a title; nothing where it is the exact one."""
    frozen = list(details.get("frozen", ()))
    if "through" in details:
        return " (through where the model looks)"
    if not frozen:
        return ""
    return f" ({'everything' if len(frozen) == len(PARTS) else ' and '.join(frozen)} frozen)"


def notes_of_prediction(attribution: Attribution) -> tuple[str, ...]:
    """An attribution's notes, and what a prediction by a few of F's eigenvectors leaves out of the whole divergence."""
    details = attribution.details
    share = details.get("explained_share")
    if not isinstance(share, float) or details.get("estimator", "low_rank") != "low_rank" or share > _ALL:
        return attribution.notes
    return (
        *attribution.notes,
        f"Predicted is the part of the divergence along {'this direction' if details['rank'] == 1 else 'these directions'}, "
        f"{share:.0%} of the trace of the Fisher information; measured is all of it.",
    )


def _of(attribution: Attribution) -> str:
    """What of a token is explained; older results do not say that it is its logit."""
    return str(attribution.details.get("of", "logit"))


def unit(attribution: Attribution) -> str:
    """What one unit of the score is."""
    if "over_baseline" in attribution.details:
        return "times the mean share of its position"
    if "normalized_by" in attribution.details:
        by_unit = kind_of(attribution.details) is not None and not legend(attribution.method).additive
        return "share of the shown tokens' sum" + ", as root of squares" * by_unit
    at = str(attribution.details.get("at", "hook_embed"))
    source = "embedding" if at == "hook_embed" else at
    return legend(attribution.method).unit.format(at=source, unit="logit" if _of(attribution) == "logit" else "nats")


def explained_tokens(attribution: Attribution) -> dict[int, str]:
    """The tokens of the text that are explained together, where they stand, with what the model thought of each."""
    if not attribution.span:  # of units, too, whose answers are known
        return dict.fromkeys(attribution.answer, "explained")
    log_probs = attribution.details.get("target_log_probs") or [None] * len(attribution.span)
    targets = attribution.targets or [None] * len(attribution.span)
    following = attribution.tokens.tolist()[1:]
    return {
        p + 1: "explained" if lp is None else minus(f"explained · log p {lp:.3g}")
        for p, lp, target in zip(attribution.span, log_probs, targets, strict=True)
        if p < len(following) and target in (None, following[p])  # others are no tokens of the text
    }


def said_together(attribution: Attribution) -> tuple[str, list[tuple[str, float]]]:
    """What is said of several explained tokens: the log-probability of all, and, but for units, the probability of each."""
    log_probs = attribution.details.get("target_log_probs") or []
    after = dict(enumerate(attribution.str_tokens))
    names = attribution.details.get("target_strs") or [after.get(p + 1, "next token") for p in attribution.span]
    each = [(named(name), math.exp(lp)) for name, _, lp in zip(names, attribution.span, log_probs, strict=False)]
    if not log_probs:
        return "", each
    other = attribution.details.get("foil_log_prob")
    beside = "" if other is None else f", of {quoted(str(attribution.details.get('foil_str')))} {other:.3g}"
    together = f"{len(log_probs)} tokens together" if len(log_probs) > 1 else "1 token"
    return minus(f"{together}: log p {sum(log_probs):.3g}{beside}"), each


def shares(attribution: Attribution) -> tuple[dict[int, float], str]:
    """The share of the influence of each shown entry, and of what it is a share; of nothing where there is none to divide."""
    additive = legend(attribution.method).additive
    parts = attribution.scores.double() if additive else attribution.scores.double().square()
    total = float(parts[attribution.shown].sum()) if attribution.shown else 0.0
    what = "influence" if additive else "squared influence"
    if total <= 0 or "over_baseline" in attribution.details:
        return {}, what
    return {p: float(parts[p]) / total for p in attribution.shown}, what


def prompt_and_answer(attribution: Attribution) -> str:
    """How the influence is divided between prompt and answer; empty where there is no answer among the inputs."""
    found, what = shares(attribution)
    own = [share for p, share in found.items() if p in attribution.answer]
    if not own:
        return ""
    return f"Share of the {what}: prompt {percent(1 - sum(own))}, answer {percent(sum(own))}."


def number(value: float) -> str:
    """Three significant digits; thousands are written out, ``1,320`` and not ``1.32e+03``."""
    rounded = float(f"{value:.3g}")
    return minus(f"{rounded:,.0f}" if 1e3 <= abs(rounded) < 1e6 else f"{rounded:.3g}")


def counted(n: int, what: str) -> str:
    """``1 prompt``, ``1,200 prompts``."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def plus(value: float) -> str:
    """:func:`number` with its sign: ``+1.2``, ``−0.3``."""
    return f"+{number(value)}" if value > 0 else number(value)


def percent(probability: float) -> str:
    """``99.1%``; small ones with one significant digit."""
    return f"{probability:.1%}" if probability >= 0.001 else f"{100 * probability:.1g}%"


def ordinal(n: int) -> str:
    """``1st``, ``22nd``, ``113th``."""
    return f"{n:,}" + ("th" if 10 < n % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th"))


def odds_in_title(attribution: Attribution) -> str:
    """What stands behind the title: of which token the probability is, where the title does not end with it."""
    if not (known := odds(attribution)):
        return ""
    own = quoted(attribution.target_str or "")
    return f" ({known})" if title(attribution).endswith(own) else f" ({own} {known})"


def odds(attribution: Attribution) -> str:
    """Probability and rank of the explained token among all, as far as they are known: ``3.5%, 3rd``."""
    probability, rank = (attribution.details.get(f"target_{name}") for name in ("probability", "rank"))
    said = [percent(probability)] if isinstance(probability, float) else []
    return ", ".join([*said, ordinal(rank)] if isinstance(rank, int) else said)


def read_text(attribution: Attribution) -> str:
    """The token after which the prediction is made; where units do not know it, the end of the last one."""
    said = visible(attribution.details.get("read_token", attribution.str_tokens[attribution.pos]))
    return said if len(said) <= LONGEST else f"…{said[1 - LONGEST :]}"


def read_after(attribution: Attribution) -> str:
    """``' the' (position 14)``: the token after which the prediction is made, and where it stands among the tokens."""
    inside = members(attribution.details)
    last = attribution.pos if inside is None else max(inside[attribution.pos])
    place = attribution.details.get("read_at", last)
    return f"{quoted(read_text(attribution))} (position {place})"


def predicted(attribution: Attribution, k: int) -> list[tuple[str, float, bool]]:
    """The ``k`` most probable next tokens, their probabilities, and which is explained: added if it is not among them."""
    target, own = attribution.target_str, attribution.details.get("target_probability")
    ids: Sequence[object] = attribution.top_tokens or [text for text, _ in attribution.top_predictions]
    wanted = attribution.target if attribution.top_tokens else target
    rows = [
        (text, p, target is not None and i == wanted)
        for i, (text, p) in zip(ids, attribution.top_predictions[:k], strict=False)
    ]
    if rows and target is not None and isinstance(own, float) and not any(explained for *_, explained in rows):
        rows.append((target, own, True))
    return [(named(text), p, explained) for text, p, explained in rows]
