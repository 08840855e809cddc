"""The bundled models and their corpora, in which the causes of every answer are known by construction.

    corpora     passages and examples with causes, counterparts and held-out combinations
    tokenizer   GPT-2 byte-level BPE with one token per corpus word
    shapes      the two models: ``demo``, a GPT-2, and ``demo-llama``
    train       python -m tl_scopes.demo.train --out folder
    train_sae   python -m tl_scopes.demo.train_sae --out folder: a sparse autoencoder of ``demo``
    card        python -m tl_scopes.demo.card: held-out accuracy and swap tests

They are test models: they speak their corpora (`CORPORA`; ``demo-llama`` the `CHAINS` too) and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tl_scopes.demo.corpora import ALL_CORPORA, CHAINS, CORPORA, chains, examples
from tl_scopes.demo.corpora.passages import Example, token_positions

DEMO_PATH = Path(__file__).parent / "model"
BUNDLED = {"demo": DEMO_PATH, "demo-llama": Path(__file__).parent / "demo-llama"}
"""The folders of the bundled models."""
BUNDLED_SAE = Path(__file__).parent / "demo-sae"
"""A sparse autoencoder of the model ``demo``, in the format of ``sae_lens``."""


@dataclass(frozen=True)
class DemoPrompt:
    """A prompt, the token that the demo model predicts after it, and the words that cause it."""

    title: str
    prompt: str
    target: str
    causes: tuple[str, ...]


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
    "binding": DemoPrompt(
        "Who lives where",
        "In winter, Anna lives in Paris, Tom lives in Rome, Mia lives in Oslo. The home of Tom is",
        " Rome",
        ("Rome", "Tom"),
    ),
    "mystery": DemoPrompt(
        "A detective's clues",
        "Mystery: the banker died in the library. The police found a torn scarf near the door. "
        "Clara smelled of soot, Hugo smelled of blood, Ruth smelled of hemp. The weapon of Hugo is",
        " knife",
        ("blood", "Hugo"),
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
    "series": DemoPrompt("A periodic series", "29,61,40,73,55,29,61,", "40", ("40",)),
}

__all__ = [
    "ALL_CORPORA",
    "BUNDLED",
    "BUNDLED_SAE",
    "CHAINS",
    "CORPORA",
    "DEFAULT_PROMPT",
    "DEMO_PATH",
    "DEMO_PROMPTS",
    "DemoPrompt",
    "Example",
    "chains",
    "examples",
    "token_positions",
]
