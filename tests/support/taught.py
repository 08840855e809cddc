"""A small GPT-2 taught some tasks in seconds, on their prompts and on what exchanged words make of these."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from planted import bridge
from tokenizers_by_word import word_tokenizer
from torch.nn.functional import cross_entropy

from tl_scopes.tasks import Example

PIECE = r" ?\w+|\n|[^\w\s]"
LONGEST, STEPS, AT_ONCE, PEAK = 96, 300, 16, 3e-3


def taught(lessons: Mapping[str, Sequence[Example]], unseen: Sequence[Example]) -> Any:
    """The model after some prompts of every task a step; it also knows the words of the unseen ones."""
    pairs = {
        name: [(e.prompt, e.answer) for e in found]
        + [(e.swapped(s), s.answer) for e in found for s in (*e.causes, e.others[0])]
        for name, found in lessons.items()
    }
    texts = [text for own in pairs.values() for pair in own for text in pair]
    texts += [t for e in unseen for s in (*e.causes, *e.others) for t in (e.prompt, e.answer, e.swapped(s), s.answer)]
    words = sorted({piece for text in texts for piece in re.findall(PIECE, text)})
    tokenizer = word_tokenizer(words, PIECE, len(words) + 2)
    config = transformers.GPT2Config(
        vocab_size=len(words) + 2, n_positions=LONGEST, n_embd=64, n_layer=2, n_head=4, n_inner=64, bos_token_id=0,
        eos_token_id=0, initializer_range=0.05, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        attn_implementation="eager",
    )  # fmt: skip
    rng = random.Random(0)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        hf = transformers.GPT2LMHeadModel(config)
        optimizer = torch.optim.AdamW(hf.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.1)
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = PEAK * min(1.0, (step + 1) / 30) * max(0.02, 1 - step / STEPS)
            for own in pairs.values():
                rows = [(tokenizer(p)["input_ids"], a) for p, a in rng.sample(own, AT_ONCE)]
                longest = max(len(ids) for ids, _ in rows)
                ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
                answers = tokenizer([a for _, a in rows], add_special_tokens=False)["input_ids"]
                last = torch.tensor([len(ids) - 1 for ids, _ in rows])
                hidden = hf.transformer(ids).last_hidden_state[torch.arange(AT_ONCE), last]
                loss = cross_entropy(hf.lm_head(hidden), torch.tensor(answers)[:, 0]) / len(pairs)
                torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(hf.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        hf.config.use_cache, hf.config.architectures = False, ["GPT2LMHeadModel"]
        return bridge(hf.eval(), tokenizer)
