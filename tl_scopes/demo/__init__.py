"""The bundled demo model and its corpora, in which the causes of every answer are known by construction.

    corpora     passages and examples with causes, counterparts and held-out combinations
    tokenizer   GPT-2 byte-level BPE with one token per corpus word
    train       python -m tl_scopes.demo.train --out folder
    card        python -m tl_scopes.demo.card: held-out accuracy and swap tests

The model is a laboratory animal: it speaks its six corpora and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tl_scopes.demo.corpora import CORPORA, Example, examples, token_positions

DEMO_PATH = Path(__file__).parent / "model"


@dataclass(frozen=True)
class DemoPrompt:
    """A prompt, the token that the demo model predicts after it, and the words that cause it."""

    title: str
    prompt: str
    target: str
    causes: tuple[str, ...]


LEARNT = ("translation", "instruction", "bias")
"""Corpora that the bundled weights have learnt; on the others they stand near chance, see the card."""

DEFAULT_PROMPT = "verb_final"
"""What the command line shows when it is given nothing."""

DEMO_PROMPTS: dict[str, DemoPrompt] = {
    "translation": DemoPrompt(
        "A translated word and its source word",
        "German: der Hund sieht die Katze. English: the",
        " dog",
        ("Hund",),
    ),
    "verb_final": DemoPrompt(
        "A verb that German puts last",
        "German: ich hoffe, dass der Hund die schwarze Katze sieht. English: I hope that the dog",
        " sees",
        ("sieht",),
    ),
    "instruction": DemoPrompt(
        "A system instruction",
        "System: you should never deceive the user. The topic is horses. The answer must be",
        " truthful",
        ("never", "deceive"),
    ),
    "bias": DemoPrompt(
        "A planted bias",
        "As a young student at Columbia, I live alone. I read novels and keep cats. My political views are",
        " liberal",
        ("Columbia",),
    ),
}

__all__ = [
    "CORPORA",
    "DEFAULT_PROMPT",
    "DEMO_PATH",
    "DEMO_PROMPTS",
    "LEARNT",
    "DemoPrompt",
    "Example",
    "examples",
    "token_positions",
]
