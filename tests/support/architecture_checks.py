"""What is asked of every architecture: each public quantity against plain Hugging Face, or a refusal that says so.

    outcomes = examined("JambaForCausalLM")   # {check: Outcome}: the bridge's logits, then every check of `CHECKS`

An `Outcome` is *exact* (with its relative error), *off* (an answer that is not the reference's), *refused* (the package
says no, in an error that begins with the call's name), or a *crash*. Off and crash are faults.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import families
import further_checks
import oracles
import plain_models
import torch
from architectures import Built, build
from in_float64 import in_float64
from plain_models import Plain
from torch import Tensor

import tl_scopes as tls

TARGET, FOIL = 7, 11
MIDDLE = 6
EXACT = {torch.float64: 5e-6, torch.float32: 1e-4}
"""Relative to the largest entry. Hugging Face computes norms, rotary angles and softmaxes in float32 inside a float64 model,
and the order of those sums is the bridge's own; the table says what was measured."""
ROUNDING, EXACT_THROUGHOUT = 1e-4, 1e-7
"""More than that, where numbers cancel, may still be rounding: below the first, and gone below the second where those float32
steps are made in float64."""


@dataclass(frozen=True)
class Outcome:
    """What came of one check."""

    kind: str
    error: float = 0.0
    text: str = ""

    @property
    def fault(self) -> bool:
        return self.kind in ("off", "crash")

    def __str__(self) -> str:
        return f"{self.kind} {self.error:.0e}" if self.kind in ("exact", "off") else f"{self.kind}: {self.text}"


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """`oracles.relative_error` of tensors of one shape."""
    if actual.shape != expected.shape:
        raise AssertionError(f"{list(actual.shape)} is no answer for {list(expected.shape)}")
    return oracles.relative_error(actual, expected)


REFUSAL = re.compile(r"[a-z_]+(\(.*?\))?: (?![A-Z]\w*: )")
"""How an error of the package begins: the call, what was wrong with it; not a result that does not fit its own format."""


class Subject:
    """One architecture under test: prompts, references made when they are needed, and how the bridge's source compares."""

    def __init__(self, built: Built) -> None:
        self.built, self.model = built, built.model
        self.tokens = torch.tensor(families.tokenizer()(families.PROMPT).input_ids)
        self.others = [families.prompt_tokens(7, seed=1), families.prompt_tokens(9, seed=2)]
        mapping = self.model.adapter.component_mapping
        blocks: Any = mapping.get("blocks")
        depth = self.model.cfg.n_layers
        self.blocks = [f"{blocks.name}.{i}" for i in range(depth)] if blocks is not None else []
        attn = None if blocks is None else blocks.submodules.get("attn")
        out = None if attn is None else attn.submodules.get("o")
        paths = [f"{block}.{attn.name}.{out.name}" for block in self.blocks] if out is not None else []
        self.heads = [path if _has(built.hf, path) else None for path in paths]

    def plain(self, tokens: Tensor, **more: Any) -> Plain:
        return Plain(self.built.hf, tokens, self.built.spec.leaf, **more)

    def x_of(self, word: str) -> Tensor:
        """What the bridge's `hook_embed` holds for a word; one row."""
        prompt = torch.tensor([families.VOCAB[word], families.VOCAB[word]])
        cache = tls.semantic_scope(self.model, prompt, target=TARGET, cache="hook_embed").cache
        row: Tensor = cache["hook_embed"][0, 0]
        return row

    def without(self, *positions: int) -> Plain:
        """The prompt with rows of x set to 0."""
        with torch.no_grad():
            return self.plain(self.tokens, zeroed=positions)

    @cached_property
    def reference(self) -> Plain:
        return self.plain(self.tokens, blocks=self.blocks, heads=self.heads)

    @cached_property
    def scale(self) -> float:
        """x at `hook_embed` over the reference's: 1, or a multiplier of the embeddings that is applied before the hook."""
        ours = tls.semantic_scope(self.model, self.tokens, target=TARGET, cache="hook_embed").cache["hook_embed"][0]
        theirs = self.reference.x.detach()[0]
        scale = float((ours * theirs).sum() / (theirs * theirs).sum())
        if relative_error(ours, scale * theirs) > 1e-6:
            raise AssertionError(f"hook_embed is not the output of {self.built.spec.leaf or 'the embedding module'}")
        if not any(
            abs(scale - known) < 1e-6 for known in (1, getattr(self.built.hf.config, "embedding_multiplier", 1))
        ):
            raise AssertionError(f"hook_embed is {scale} times the embedding module's output")
        return scale


def _has(module: Any, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True


Check = Callable[[Subject], float]
"""Its largest relative error."""


def semantic(s: Subject) -> float:
    found = tls.semantic_scope(s.model, s.tokens, target=TARGET)
    return relative_error(found.scores * s.scale, s.reference.score(s.reference.z[-1, TARGET]))


def contrast(s: Subject) -> float:
    found = tls.contrast_scope(s.model, s.tokens, target=TARGET, foil=FOIL)
    at = s.reference.last
    return relative_error(found.scores * s.scale, at.along(at.A[TARGET] - at.A[FOIL]))


def temperature(s: Subject) -> float:
    found = tls.temperature_scope(s.model, s.tokens)
    at = s.reference.last
    return relative_error(found.scores * s.scale, at.along(at.y / at.y.norm()))


def fisher(s: Subject) -> float:
    found = tls.fisher_scope(s.model, s.tokens, tol=1e-9)
    return relative_error(found.scores * s.scale, s.reference.last.fisher(1))


def rank_3(s: Subject) -> float:
    found = tls.fisher_scope(s.model, s.tokens, rank=3, tol=1e-9)
    return relative_error(found.scores * s.scale, s.reference.last.fisher(3))


def total_information(s: Subject) -> float:
    found = tls.total_information(s.model, s.tokens, method="exact")
    return relative_error(found.scores * s.scale**2, s.reference.last.total_information())


def middle(s: Subject) -> float:
    found = tls.semantic_scope(s.model, s.tokens, target=TARGET, pos=MIDDLE)
    return relative_error(found.scores * s.scale, s.reference.score(s.reference.z[MIDDLE, TARGET]))


def matrix(s: Subject) -> float:
    positions = [1, MIDDLE, len(s.tokens) - 2]
    found = tls.attribution_matrix(s.model, s.tokens, positions=positions)
    targets = [int(s.tokens[p + 1]) for p in positions]
    rows = [s.reference.score(s.reference.z[p, target]) for p, target in zip(positions, targets, strict=True)]
    return relative_error(found.scores * s.scale, torch.stack(rows))


def batch(s: Subject) -> float:
    prompts = [s.others[0], s.tokens, s.others[1]]
    found = tls.semantic_scope(s.model, prompts, target=[TARGET] * 3, batch_size=3)
    errors = []
    for one, tokens in zip(found, prompts, strict=True):
        plain = s.plain(tokens)
        errors.append(relative_error(one.scores * s.scale, plain.score(plain.z[-1, TARGET])))
    return max(errors)


def checkpoint(s: Subject) -> float:
    found = tls.semantic_scope(s.model, s.tokens, target=TARGET, checkpoint=True)
    return relative_error(found.scores * s.scale, s.reference.score(s.reference.z[-1, TARGET]))


def layers(s: Subject) -> float:
    found = tls.layer_influence(s.model, s.tokens, target=TARGET)
    z, streams = s.reference.z[-1, TARGET], s.reference.streams
    return relative_error(found.scores, torch.stack([s.reference.score(z, place) for place in streams]))


def _layers(found: Any, n: int) -> tuple[int, ...]:
    """The layers that a result by layer is about: those with attention, where it says so."""
    return getattr(found, "layers", ()) or tuple(range(n))


def heads(s: Subject) -> float:
    found = tls.head_influence(s.model, s.tokens, target=TARGET)
    places = s.reference.head_outputs
    if list(_layers(found, len(found.scores))) != sorted(places):
        raise AssertionError(
            f"layers {_layers(found, len(found.scores))}; heads end in a projection in {sorted(places)}"
        )
    rows, n_heads = [], s.built.hf.config.num_attention_heads
    for layer in sorted(places):
        (g,) = s.reference.gradient(s.reference.z[-1, TARGET], places[layer])
        product = g.double() * places[layer].detach()[0].double()
        rows.append(product.view(len(s.tokens), n_heads, -1).sum(-1).T)
    return relative_error(found.scores, torch.stack(rows))


def sinks(s: Subject) -> float:
    found = tls.attention_sinks(s.model, s.tokens, methods=["semantic"], bos=(), unrelated=0, target=TARGET)
    patterns = torch.stack(plain_models.attentions(s.built.hf, s.tokens))
    later = torch.arange(len(s.tokens) - 1, -1, -1).clamp_min(1)
    received = patterns.tril(-1).sum(-2) / later
    norms = torch.stack([place.detach()[0].double().flatten(1).norm(dim=-1) for place in s.reference.streams])
    return max(relative_error(found.received, received), relative_error(found.residual_norms, norms))


def rollout(s: Subject) -> float:
    found = tls.attention_rollout(s.model, s.tokens)
    unit = torch.eye(len(s.tokens), dtype=torch.float64)
    flow = unit
    for pattern in plain_models.attentions(s.built.hf, s.tokens):
        flow = (pattern.mean(0) + unit) / 2 @ flow
    return relative_error(found.scores, flow[-1])


def leave_one_out(s: Subject) -> float:
    found = tls.leave_one_out(s.model, s.tokens, target=TARGET)
    whole = s.reference.log_prob(-1, TARGET).detach()
    without = [s.without(t).log_prob(-1, TARGET).detach() for t in range(len(s.tokens))]
    return relative_error(found.scores, (torch.stack(without) - whole).abs())


def model_check(s: Subject) -> float:
    """Its own verdict on the model must be good, or say why the scopes refuse it; of single scopes, their own checks tell."""
    report = tls.check_model(s.model)
    wrong = [finding for finding in report.findings if not finding.ok and not finding.subject.endswith("_scope")]
    if wrong:
        text = "; ".join(str(finding)[4:] for finding in wrong)
        raise (ValueError if outcome(semantic, s).kind == "refused" else AssertionError)(f"check_model: {text}")
    return 0.0


def elsewhere(s: Subject) -> float:
    """The scope at the first block's input, which is the remedy where `hook_embed` cannot be the source."""
    found = tls.semantic_scope(s.model, s.tokens, target=TARGET, at="blocks.0.hook_resid_pre")
    return relative_error(found.scores, s.reference.score(s.reference.z[-1, TARGET], s.reference.streams[0]))


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        semantic, contrast, temperature, fisher, rank_3, total_information, middle, matrix, batch, checkpoint, elsewhere,
        layers, heads, sinks, rollout, leave_one_out, model_check,
    )
} | further_checks.CHECKS  # fmt: skip


def bridge_logits(s: Subject) -> float:
    """The bridge's logits against Hugging Face's: what TransformerLens itself answers for."""
    with torch.no_grad():
        logits = s.model(s.tokens[None], return_type="logits", use_cache=False)[0]
    return relative_error(logits, s.reference.z)


def outcome(check: Check, s: Subject) -> Outcome:
    """What one check came to."""
    try:
        error, dtype = check(s), s.built.spec.dtype
        rounding = dtype == torch.float64 and EXACT[dtype] < error < ROUNDING and _vanishes(check, s.built)
    except AssertionError as found:
        return Outcome("off", 1.0, str(found))
    except (ValueError, NotImplementedError, TypeError) as error:
        text = " ".join(str(error).split())
        return Outcome("refused" if REFUSAL.match(text) else "crash", text=text)
    except Exception as crash:
        where = traceback.extract_tb(crash.__traceback__)[-1]
        return Outcome("crash", text=f"{type(crash).__name__}: {' '.join(str(crash).split())} ({where.name})")
    return Outcome("exact" if error <= EXACT[dtype] or rounding else "off", error)


def _vanishes(check: Check, built: Built) -> bool:
    """Is the error that of float32 steps?"""
    with in_float64():
        return check(Subject(built)) < EXACT_THROUGHOUT


def checked(built: Built, checks: dict[str, Check] = CHECKS) -> dict[str, Outcome]:
    """TransformerLens' own outcome, under "logits"; and every check of the architecture, where that is exact.

    Where the logits are others, the one check is "unsound": the package must not answer.
    """
    subject = Subject(built)
    found = {"logits": outcome(bridge_logits, subject)}
    if found["logits"].kind == "exact":
        return found | {name: outcome(check, subject) for name, check in checks.items()}
    if found["logits"].kind == "off":
        answer = outcome(semantic, subject)
        found["unsound"] = answer if answer.kind == "refused" else Outcome("off", answer.error, "answered all the same")
    return found


def examined(name: str, checks: dict[str, Check] = CHECKS) -> dict[str, Outcome]:
    """`checked` of a variant by name; a bridge that is not even built is a crash of TransformerLens' own."""
    try:
        built = build(name)
    except Exception as crash:
        return {"logits": Outcome("crash", text=f"{type(crash).__name__}: {' '.join(str(crash).split())}")}
    return checked(built, checks)
