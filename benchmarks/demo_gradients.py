"""Gradients at a known cause and beside it, and what exchanges say: ``python benchmarks/demo_gradients.py``.

For each token of prompts of the bundled models' corpora, by its place (a cause; one word before it; two before; elsewhere):

    gradient   ‖∂ logit(answer) / ∂ x_t‖                                          what gradients see
    exchange   log p(answer) - its mean over random words of the corpora put at t  what other words there do
    changes    share of these words after which another answer is the top prediction
    removal    log p(answer) - log p(answer | mean embedding at t)                 what no word says

and how often a cause comes first by gradient, by exchange and by removal. Bare Hugging Face, none of the methods' code.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tl_scopes.demo import BUNDLED
from tl_scopes.demo.corpora import examples
from tl_scopes.demo.corpora.passages import Example, token_positions
from tl_scopes.demo.figures import load
from tl_scopes.demo.shapes import SHAPES

PLACES = ("cause", "one before", "two before", "elsewhere")
MEASURES = ("gradient", "exchange", "changes", "removal")


@dataclass
class Prompt:
    """One example as the model reads it: embeddings ``[pos, d_model]``, the answer's id, positions of causes."""

    x: Tensor
    answer: int
    causes: list[int]

    def places(self) -> list[str]:
        """Of each token but BOS."""
        found = []
        for t in range(1, len(self.x)):
            near = min((c - t for c in self.causes if 0 <= c - t <= 2), default=3)
            found.append(PLACES[near])
        return found


def read(model: torch.nn.Module, tokenizer: object, example: Example) -> Prompt:
    """The prompt with BOS in front."""
    ids = [0, *tokenizer(example.prompt, add_special_tokens=False)["input_ids"]]  # type: ignore[operator]
    answer = tokenizer(example.answer, add_special_tokens=False)["input_ids"][0]  # type: ignore[operator]
    x = model.get_input_embeddings().weight.detach()[torch.tensor(ids)]  # type: ignore[operator]
    return Prompt(x, answer, token_positions(tokenizer, example.prompt, [s.span for s in example.causes]))


def measured(model: torch.nn.Module, prompt: Prompt, words: Tensor, mean: Tensor) -> dict[str, Tensor]:
    """Each measure ``[pos - 1]`` of the tokens but BOS; ``words`` ``[n, pos - 1, d_model]`` are put in their places."""
    x = prompt.x[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(inputs_embeds=x).logits[0, -1, prompt.answer], x)
    at = torch.arange(len(prompt.x) - 1)

    def after(others: Tensor) -> tuple[Tensor, Tensor]:
        changed = prompt.x.repeat(len(at), 1, 1)
        changed[at, at + 1] = others
        log_probs = model(inputs_embeds=changed).logits[:, -1].log_softmax(-1)
        return log_probs[:, prompt.answer], log_probs.argmax(-1) != prompt.answer

    with torch.no_grad():
        before = model(inputs_embeds=prompt.x[None]).logits[0, -1].log_softmax(-1)[prompt.answer]
        exchanged, changes = zip(*[after(others) for others in words], strict=True)
        removed, _ = after(mean.expand(len(at), -1))
    return {
        "gradient": gradient[0, 1:].norm(dim=1),
        "exchange": before - torch.stack(exchanged).mean(0),
        "changes": torch.stack(changes).float().mean(0),
        "removal": before - removed,
    }


def row(name: str, cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"{name:24}" + "".join(f"{cell:>12}" for cell in cells)


def main() -> None:
    """Print one table per corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(BUNDLED), default="demo-llama")
    parser.add_argument("-n", type=int, default=40, help="prompts of each corpus")
    parser.add_argument("--words", type=int, default=12, help="random words put at each token")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, tokenizer = load(BUNDLED[options.model])
    corpora = SHAPES[options.model].corpora
    drawn = {c: [e for e in examples(c, 3 * options.n, 0) if e.determined and e.causes][: options.n] for c in corpora}
    used = sorted({i for found in drawn.values() for e in found for i in tokenizer(e.prompt)["input_ids"]} - {0})
    embeddings = model.get_input_embeddings().weight.detach()[torch.tensor(used)]
    print(f"{options.model}, {options.n} prompts of each corpus, {options.words} random words at each token")
    for corpus, found in drawn.items():
        by_place: dict[str, list[Tensor]] = {place: [] for place in PLACES}
        first = dict.fromkeys(("gradient", "exchange", "removal"), 0)
        for prompt in (read(model, tokenizer, e) for e in found):
            size = (options.words, len(prompt.x) - 1)
            said = measured(model, prompt, embeddings[torch.randint(len(used), size)], embeddings.mean(0))
            for measure in first:
                first[measure] += int(said[measure].argmax()) + 1 in prompt.causes
            for place, values in zip(prompt.places(), zip(*said.values(), strict=True), strict=True):
                by_place[place].append(torch.stack(values))
        print("\n" + row(corpus, MEASURES))
        for place, values in by_place.items():
            means = torch.stack(values).mean(0)
            print(row(f"  {place}", [f"{v:.2f}" for v in means]))
        print(row("  a cause is first", [f"{first[m] / len(found):.0%}" if m in first else "" for m in MEASURES]))


if __name__ == "__main__":
    main()
