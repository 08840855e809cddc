"""Train a bundled model and print its card: ``python -m tl_scopes.demo.train --shape demo-llama --out folder``.

A small model (`shapes`) reads endless passages of the demo corpora. One step is a fixed mix of
passages, run in a few micro-batches of similar length. The loss is the mean over the predictable words of each
corpus, averaged over corpora with the mix's weights; the other words of a text (a source sentence, the
statements) join with one position in twenty, so that the model stays a language model without spending itself on
what nobody can predict.

Curriculum: looking a fact up (who lives where, what followed this number last time) takes two attention layers that fit
each other. `initial` plants the outline of that circuit, the first `look_up_steps` train it on the corpora that need it,
and then all corpora follow, their passages longer and fuller of distractors while `level` grows from 0 to 1. Labels are
smoothed, so that the model stays as unsure as a language model is; without it probabilities saturate at 0.999.

The same seed, thread count and library versions give the same weights; other machines give the same figures
to within their intervals.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import GPT2Config, PreTrainedTokenizerFast

from tl_scopes.demo.card import table, write
from tl_scopes.demo.corpora import ALL_CORPORA
from tl_scopes.demo.corpora.passages import Passage
from tl_scopes.demo.figures import accuracy, measure
from tl_scopes.demo.shapes import DEMO, SHAPES, Causal, Mix, Shape
from tl_scopes.demo.tokenizer import build_tokenizer, save_tokenizer

EASY, RAMP = 0.05, 0.3  # shares of the steps after them at level 0, and growing to 1
READ_RATE = 0.05  # share of unpredictable words that join the loss
SMOOTHING = 0.1  # of the labels
N_MICRO_BATCHES = 2
N_CARD = 1000  # held-out examples per corpus on the card
PEAK_LR, LOOK_UP_LR, WEIGHT_DECAY, WARM_UP = 1.5e-3, 1e-3, 0.05, 50


Report = Callable[[int, Causal, PreTrainedTokenizerFast], None]


@dataclass
class MicroBatch:
    """Padded ids ``[batch, pos]`` and the weight of the prediction of each id in the step's loss."""

    ids: torch.Tensor
    weights: torch.Tensor


def encode(passage: Passage, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> tuple[list[int], list[float]]:
    """Ids with BOS in front, and 1 for each id that joins the loss."""
    encoding = tokenizer(passage.text, add_special_tokens=False, return_offsets_mapping=True)
    weights = [0.0]
    target_index = 0
    for start, end in encoding["offset_mapping"]:
        while target_index < len(passage.targets) and passage.targets[target_index][1] <= start:
            target_index += 1
        in_target = target_index < len(passage.targets) and passage.targets[target_index][0] < end
        weights.append(1.0 if in_target or rng.random() < READ_RATE else 0.0)
    return [0, *encoding["input_ids"]], weights


def step_batches(
    mix: Mix,
    streams: dict[str, Iterator[Passage]],
    tokenizer: PreTrainedTokenizerFast,
    rng: random.Random,
) -> list[MicroBatch]:
    """One step's passages in micro-batches of similar length; the weights of a step sum to 1."""
    rows: list[tuple[list[int], list[float]]] = []
    total = sum(weight for _, weight in mix.values())
    for corpus, (n_passages, weight) in mix.items():
        encoded = [encode(next(streams[corpus]), tokenizer, rng) for _ in range(n_passages)]
        scale = weight / total / sum(sum(weights) for _, weights in encoded)
        rows += [(ids, [scale * w for w in weights]) for ids, weights in encoded]
    rows.sort(key=lambda row: len(row[0]))
    budget = sum(len(ids) for ids, _ in rows) / N_MICRO_BATCHES
    batches, group, filled = [], [], 0
    for row in rows:
        group.append(row)
        filled += len(row[0])
        if filled >= budget:
            batches.append(group)
            group, filled = [], 0
    if group:
        batches.append(group)
    return [pad(group) for group in batches]


def pad(rows: list[tuple[list[int], list[float]]]) -> MicroBatch:
    """Right-pad rows to one length; padding has weight 0, and causal attention keeps it out of the rest."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in rows])
    weights = torch.tensor([weights + [0.0] * (length - len(weights)) for _, weights in rows])
    return MicroBatch(ids, weights)


def weighted_loss(model: Causal, batch: MicroBatch) -> torch.Tensor:
    """Sum of the weighted next-token losses; logits are computed only where they count."""
    hidden = model.base_model(batch.ids).last_hidden_state[:, :-1]
    counted = batch.weights[:, 1:] > 0
    logits = model.lm_head(hidden[counted])
    losses = F.cross_entropy(logits, batch.ids[:, 1:][counted], reduction="none", label_smoothing=SMOOTHING)
    return (losses * batch.weights[:, 1:][counted]).sum()


def learning_rate(step: int, steps: int, look_up_steps: int) -> float:
    """Linear warm-up to the rate of the look-up steps; from the peak, a cosine to a hundredth of it."""
    if step < look_up_steps:
        return LOOK_UP_LR * min(1.0, (step + 1) / WARM_UP)
    done = (step - look_up_steps) / max(1, steps - look_up_steps)
    return PEAK_LR * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def train(
    steps: int, seed: int, threads: int, report: Report | None = None, every: int = 200, shape: Shape = DEMO
) -> tuple[Causal, PreTrainedTokenizerFast]:
    """A model trained for `steps` steps, in evaluation mode, with its tokenizer."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = build_tokenizer()
    model = shape.untrained(len(tokenizer))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=PEAK_LR,
        betas=(0.9, 0.98),
        fused=True,
    )
    levels = [0.0]  # shared with the streams, which read it at every passage
    streams = {corpus: graded_passages(corpus, seed, levels) for corpus in shape.mix}
    bar = tqdm(range(steps), unit="step")
    for step in bar:
        looking_up = step < shape.look_up_steps
        done = (step - shape.look_up_steps) / (steps - shape.look_up_steps)
        levels[0] = min(1.0, max(0.0, (done - EASY) / RAMP))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, shape.look_up_steps)
        total = 0.0
        for batch in step_batches(shape.look_up_mix if looking_up else shape.mix, streams, tokenizer, rng):
            loss = weighted_loss(model, batch)
            torch.autograd.backward(loss)
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 0:
            bar.set_postfix(loss=f"{total:.3f}", level=f"{levels[0]:.2f}")
        if report is not None and (step + 1) % every == 0:
            report(step + 1, model, tokenizer)
    return model.eval(), tokenizer


def graded_passages(corpus: str, seed: int, levels: list[float]) -> Iterator[Passage]:
    """Training passages whose difficulty follows ``levels[0]``."""
    rng = random.Random(f"{corpus}/{seed}")
    while True:
        yield ALL_CORPORA[corpus](rng, "train", levels[0])


def save(model: Causal, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a Hugging Face folder that TransformerLens loads offline."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if isinstance(model.config, GPT2Config):
        config = GPT2Config.from_pretrained(folder)
        config.activation_function = "gelu_new"  # the same function, written out; the fused one trains faster
        config.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tl_scopes.demo.train", description="Train a bundled model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--shape", choices=sorted(SHAPES), default=DEMO.name, help="which of the models")
    parser.add_argument("--steps", type=int, help="default: as the bundled weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    steps = shape.steps if options.steps is None else options.steps
    start = time.perf_counter(), time.process_time()

    def report(step: int, model: Causal, tokenizer: PreTrainedTokenizerFast) -> None:
        """Write what there is so far, so that a stopped run leaves a model, and say how well it does."""
        minutes, cpu_minutes = (time.perf_counter() - start[0]) / 60, (time.process_time() - start[1]) / 60
        save(model, tokenizer, options.out)
        run = {"steps": step, "of": steps, "seed": options.seed, "threads": options.threads}
        record = {**run, "minutes": round(minutes, 1), "cpu_minutes": round(cpu_minutes, 1), "torch": torch.__version__}
        (options.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
        scores = {corpus: f"{100 * accuracy(model, tokenizer, corpus, 200):.0f}" for corpus in shape.corpora}
        tqdm.write(f"step {step}, {minutes:.1f} min, held-out accuracy in per cent: {scores}")

    model, tokenizer = train(steps, options.seed, options.threads, report, shape=shape)
    report(steps, model, tokenizer)
    figures = measure(options.out, N_CARD)
    write(options.out, figures, N_CARD)
    print(table(figures))


if __name__ == "__main__":
    main()
