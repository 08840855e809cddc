"""What every adapter needs: the plain Hugging Face model of a folder, and the ids, positions and targets of our own call.

    given   (model, prompts, targets), as ``gold_alignment`` calls a method
    asked   prompt and answer as ids, the answer behind its prompt where it is several tokens; read at ``span``
    score   an adapter's function of (plain model, tokenizer, asked): one number for each token of the prompt
    result  an ``Attribution`` with these scores, special tokens marked, and the plain model's own predictions

The plain model is loaded apart from the bridge, which changes its Hugging Face model in place. Tokens of an answer are no
candidates, so that their scores are left at 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import transformers
from torch import Tensor

from tl_scopes.demo import BUNDLED
from tl_scopes.evaluation.questions import question
from tl_scopes.kernel.attributed import Answer, attributed
from tl_scopes.model.predictions import Predictions, Table
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.results.attribution import Attribution


@dataclass(frozen=True, eq=False)
class Asked:
    """One prompt and its answer.

    Attributes:
        encoded: as our own methods read them.
        text: the prompt as it was typed.
        answer: ids of the answer.
    """

    encoded: EncodedPrompt
    text: str
    answer: tuple[int, ...]

    @property
    def prompt(self) -> Tensor:
        """``[pos]`` ids of the prompt, BOS included."""
        return self.encoded.tokens[: len(self.encoded.tokens) - len(self.encoded.answer)]

    @property
    def whole(self) -> Tensor:
        """``[pos]`` ids that are fed to have all predictions of the answer: all but its last token."""
        return torch.cat([self.prompt, torch.tensor(self.answer[:-1], dtype=torch.int64)])

    @property
    def span(self) -> list[int]:
        """Positions at which the answer's tokens are predicted."""
        return list(range(len(self.prompt) - 1, len(self.whole)))


Score = Callable[[Any, Any, Asked], Tensor]
"""``(plain model, tokenizer, asked) -> [prompt tokens]``: higher is more of a cause."""


@dataclass(frozen=True)
class Peer:
    """Another package.

    Attributes:
        package: as pip knows it.
        scores: its methods, by label.
        families: ``model_type`` of the configurations that it is made for; None is all.
        substitutes: labels of those that leave out or exchange tokens.
        check: ``(bridge, plain model, asked)``: what of it is compared with an oracle, and how far apart they are.
    """

    package: str
    scores: dict[str, Score]
    check: Callable[[Any, Any, Asked], dict[str, float]]
    families: tuple[str, ...] | None = None
    substitutes: tuple[str, ...] = ()

    @property
    def version(self) -> str | None:
        """Of the installed package; None where there is none."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None

    def why_not(self, folder: str) -> str | None:
        """Why it cannot be run on a model; None where it can."""
        if self.version is None:
            return "not installed (README.md in this folder says how)"
        family = transformers.AutoConfig.from_pretrained(folder).model_type
        if self.families is not None and family not in self.families:
            return f"is made for {', '.join(self.families)}, and this is {family}"
        return None

    def methods(self, folder: str) -> dict[str, Any]:
        """Its methods as ``gold_alignment`` takes them."""
        return {label: functools.partial(attribute, label, f, folder, self.version) for label, f in self.scores.items()}


def attribute(
    label: str, score: Score, folder: str, _version: str, model: Any, prompts: Sequence[str], targets: Sequence[str]
) -> list[Attribution]:
    """A peer's scores of each prompt, on the plain model of the folder; the version is part of what a stored run is."""
    found = []
    for one in read(model, prompts, targets):
        hf = plain_model(folder)
        scores = score(hf, model.tokenizer, one).detach().float().cpu()
        if scores.shape != one.prompt.shape or not torch.isfinite(scores).all():
            raise ValueError(f"{label}: {list(scores.shape)} scores of {len(one.prompt)} tokens, or not all finite")
        log_probs = predictions(hf, one)
        said = [float(row[token]) for row, token in zip(log_probs, one.answer, strict=True)]
        aim = one.answer if len(one.answer) > 1 else one.answer[0]
        predicted = Predictions.all_of(Table(log_probs[-1:], None, model.W_U))
        found.append(attributed(model, one.encoded, predicted, label, Answer(scores, aim, {}, target_log_probs=said)))
    return found


def read(model: Any, prompts: Sequence[str], targets: Sequence[str]) -> list[Asked]:
    """Prompts and answers as our own methods read them."""
    asked = [(p, question(model, (p, a), None)) for p, a in zip(prompts, targets, strict=True)]
    return [Asked(one.given, text, one.truth) for text, one in asked]


@functools.lru_cache(maxsize=1)
def plain_model(folder: str) -> Any:
    """The causal language model of a folder: eager attention, float32, frozen, no hook of ours in it."""
    with torch.random.fork_rng():
        load = transformers.AutoModelForCausalLM.from_pretrained
        return load(folder, dtype=torch.float32, attn_implementation="eager").eval().requires_grad_(False)


def folder_of(name: str) -> str:
    """The folder of a bundled model, or the one that is named."""
    return str(BUNDLED.get(name, name))


@torch.no_grad()
def predictions(hf: Any, one: Asked) -> Tensor:
    """``[answer, d_vocab]`` log-probabilities where the answer's tokens are predicted."""
    return hf(one.whole[None], use_cache=False).logits[0, one.span].log_softmax(-1)


def explained(logits: Tensor, one: Asked) -> Tensor:
    """The scalar that gradients are of, as our own methods take it: a token's logit, Σ log p of an answer of several."""
    rows = logits[0, one.span]
    rows = rows if len(one.answer) == 1 else rows.log_softmax(-1)
    return rows[range(len(one.answer)), list(one.answer)].sum()


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max())


@contextmanager
def given_back(targets: Iterable[Any]) -> Iterator[None]:
    """Every attribute of classes and modules as it was before, after what a package changes in them."""
    before = {target: dict(vars(target)) for target in targets}
    try:
        yield
    finally:
        for target, kept in before.items():
            for name in [n for n, value in vars(target).items() if n not in kept or value is not kept[n]]:
                if name in kept:
                    setattr(target, name, kept[name])
                else:
                    delattr(target, name)


def require_same_ids(label: str, theirs: Any, ours: Tensor) -> None:
    """Refuse scores of other tokens than ours."""
    if list(theirs) != ours.tolist():
        raise ValueError(f"{label} reads other tokens, {list(theirs)}, than {ours.tolist()}")
