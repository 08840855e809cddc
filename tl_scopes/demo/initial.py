"""Initial weights of the demo model: Gaussian but for a seed of the circuit that looks facts up.

"Anna lives in Paris, Tom lives in Rome. The home of Tom is" needs two attention layers that fit each other: one brings the
word three back (Anna) to each position (Paris), the next searches for the position that holds the queried word and copies
what stands there. Neither half lowers the loss without the other, so from Gaussian weights training finds the pair late
or never. Setting both in outline, as random features, is enough; training does the rest and may undo it.

* Layer 0: head ``n`` attends to the position ``lag`` back through the sinusoids of the position embeddings and writes
  what it finds there, read through `A`, into directions ``B[lag]`` of the residual stream.
* Layers 1 and 2: heads search for keys ``B[key lag]`` equal to the query's ``A`` (the word here) or ``B[lag]`` (the word
  ``lag`` back), and copy a random subspace of the found position to the output.

After Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers" (2023), and the induction heads of Olsson et al.
(2022).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

SHORTEST_WAVE = 2.2  # in positions: neighbours must look different
POSITION_RMS = 0.1  # twice that of the token embeddings: attention by position stands out
LAGS = (1, 2, 3)  # what the heads of layer 0 look back at
LOOK_UPS = ((1, 3), (1, 2), (0, 1))  # (query lag, key lag) of the searching heads; 0 is the word at the position itself
BACK_SHARPNESS, MATCH_SHARPNESS, WRITE_RMS = 1.7, 1.4, 0.1


def rates(n_positions: int, n: int) -> Tensor:
    """Angular frequencies of wavelengths `SHORTEST_WAVE` ... 4 n_positions, geometric."""
    ratio = 4.0 * n_positions / SHORTEST_WAVE
    return 2 * math.pi / (SHORTEST_WAVE * ratio ** torch.linspace(0, 1, n))


def sinusoids(n_positions: int, width: int) -> Tensor:
    """Sines, then cosines, RMS 1: an offset is one rotation at every position."""
    angles = torch.outer(torch.arange(n_positions), rates(n_positions, width // 2))
    return math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)


def look_back(lag: int, width: int, head_width: int, n_positions: int) -> tuple[Tensor, Tensor]:
    """Query and key maps ``[width, head_width]`` under which position i matches position i - lag best."""
    n_waves = head_width // 2
    sines, cosines = torch.arange(n_waves), width // 2 + torch.arange(n_waves)
    turn = lag * rates(n_positions, width // 2)[:n_waves]
    query, key = torch.zeros(width, head_width), torch.zeros(width, head_width)
    even, odd = 2 * torch.arange(n_waves), 2 * torch.arange(n_waves) + 1
    key[sines, even] = key[cosines, odd] = 1.0
    query[sines, even], query[cosines, even] = turn.cos(), -turn.sin()
    query[cosines, odd], query[sines, odd] = turn.cos(), turn.sin()
    return query, key


def orthonormal(width: int, n: int) -> Tensor:
    """`n` random orthonormal columns."""
    columns: Tensor = torch.linalg.qr(torch.randn(width, n)).Q
    return columns


@torch.no_grad()
def initialise(model: GPT2LMHeadModel) -> None:
    """Set position embeddings and the look-up circuit; draws from torch's global generator."""
    config = model.config
    width, head_width = config.n_embd, config.n_embd // config.n_head
    model.transformer.wpe.weight.copy_(POSITION_RMS * sinusoids(config.n_positions, width))

    def set_head(layer: int, head: int, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
        """Write one head's four maps, each ``[width, head_width]``, into GPT-2's joint matrices."""
        attention = model.transformer.h[layer].attn
        own = slice(head * head_width, (head + 1) * head_width)
        for part, weights in enumerate((query, key, value)):
            attention.c_attn.weight[:, part * width : (part + 1) * width][:, own] = weights
        attention.c_proj.weight[own] = output.T

    word = orthonormal(width, head_width)
    written = {0: word}
    for head, lag in enumerate(LAGS):
        query, key = look_back(lag, width, head_width, config.n_positions)
        written[lag] = orthonormal(width, head_width)
        set_head(0, head, BACK_SHARPNESS * query, BACK_SHARPNESS * key, word, WRITE_RMS * written[lag])
    for layer in (1, 2):
        for head, (query_lag, key_lag) in enumerate(LOOK_UPS):
            query, key = MATCH_SHARPNESS * written[query_lag], MATCH_SHARPNESS * written[key_lag]
            copied = orthonormal(width, head_width)
            set_head(layer, head, query, key, copied, WRITE_RMS * copied)
