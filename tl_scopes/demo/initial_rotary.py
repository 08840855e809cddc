"""Initial weights of ``demo-llama``: Gaussian but for a seed of the circuit that looks facts up, as rotary heads have it.

What `initial` plants in a GPT-2 stands there on position embeddings. Here positions are the turns of queries and keys:
pair i of a head's dimensions turns by ``rate_i`` per position, from 1 down to nearly 0.

* Every token embedding has the same constant in its dimension 0. In layer 0 queries and keys are that constant, each in
  the fast pairs; the query's pairs are turned ahead by ``lag * rate_i``, so that ``query · key = Σ_i w_i cos(rate_i
  (distance - lag))`` is largest ``lag`` positions back. What is found there is written into directions ``B[lag]``.
* In layers 1 and 2 heads compare the query's ``A`` (the word here) or ``B[lag]`` (the word ``lag`` back) with keys
  ``B[key lag]`` in the slow pairs, which distance hardly turns, and copy a random subspace of the found position to
  the output. Two queries share the key and value of their group.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

CONSTANT = 0.4  # of dimension 0 of each token embedding; the rest of it has norm 0.56
N_FAST = 5  # pairs of a head that tell positions; the others compare words
BACK_WEIGHTS = (12.0, 8.0, 5.0, 3.0, 2.0)  # w_i of the fast pairs
LAGS = ((1, 2), (3, 4))  # per group of layer 0: what its heads look back at
LOOK_UPS = {  # layer: per group (key lag, query lags of its heads); 0 is the word at the position itself
    1: ((3, (1, 2)), (2, (1, 0))),
    2: ((3, (1, 2)), (1, (0, 2))),
}
MATCH_SHARPNESS, WRITE_RMS = 2.0, 0.1
QUIET = 0.3  # times the Gaussian weights that write to the residual stream


def orthonormal(width: int, n: int) -> Tensor:
    """`n` random orthonormal columns with nothing in dimension 0."""
    columns = torch.zeros(width, n)
    columns[1:] = torch.linalg.qr(torch.randn(width - 1, n)).Q
    return columns


def look_back(lag: int, width: int, head_width: int, rates: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key maps ``[width, head_width]`` of dimension 0 under which a position matches the one `lag` back best."""
    n_pairs = head_width // 2
    seen = CONSTANT / (CONSTANT**2 + (width - 1) * 0.05**2) ** 0.5 * width**0.5  # dimension 0 after the norm
    sizes = (torch.tensor(BACK_WEIGHTS) * head_width**0.5).sqrt() / seen
    fast = torch.arange(N_FAST)
    turn = -lag * rates[:N_FAST]
    query, key = torch.zeros(width, head_width), torch.zeros(width, head_width)
    key[0, fast] = sizes
    query[0, fast], query[0, n_pairs + fast] = sizes * turn.cos(), sizes * turn.sin()
    return query, key


def in_slow_pairs(columns: Tensor, head_width: int) -> Tensor:
    """The `columns` laid into the slow pairs of a head."""
    n_pairs = head_width // 2
    laid = torch.zeros(len(columns), head_width)
    laid[:, [*range(N_FAST, n_pairs), *range(n_pairs + N_FAST, head_width)]] = columns
    return laid


@torch.no_grad()
def initialise(model: LlamaForCausalLM) -> None:
    """Set the constant and the look-up circuit; draws from torch's global generator."""
    config = model.config
    width, head_width = config.hidden_size, config.head_dim
    n_shared = config.num_attention_heads // config.num_key_value_heads
    rates = model.model.rotary_emb.inv_freq
    model.model.embed_tokens.weight[:, 0] = CONSTANT
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight *= QUIET
        layer.mlp.down_proj.weight *= QUIET

    def part(weights: Tensor, index: int, columns: Tensor) -> None:
        """Write the rows of one head."""
        weights[index * head_width : (index + 1) * head_width] = columns.T

    lags = [lag for group in LAGS for lag in group]
    n_compared = head_width - 2 * N_FAST
    split = torch.split(orthonormal(width, n_compared * (1 + len(lags))), n_compared, dim=1)
    written = {lag: in_slow_pairs(columns, head_width) for lag, columns in zip((0, *lags), split, strict=True)}
    attention = model.model.layers[0].self_attn
    for index, lag in enumerate(lags):
        query, key = look_back(lag, width, head_width, rates)
        part(attention.q_proj.weight, index, query)
        part(attention.k_proj.weight, index // n_shared, key)
        part(attention.v_proj.weight, index // n_shared, written[0])
        part(attention.o_proj.weight.T, index, WRITE_RMS * written[lag])
    for layer, groups in LOOK_UPS.items():
        attention = model.model.layers[layer].self_attn
        for group, (key_lag, query_lags) in enumerate(groups):
            copied = orthonormal(width, head_width)
            part(attention.k_proj.weight, group, MATCH_SHARPNESS * written[key_lag])
            part(attention.v_proj.weight, group, copied)
            for head, lag in enumerate(query_lags, start=group * n_shared):
                part(attention.q_proj.weight, head, MATCH_SHARPNESS * written[lag])
                part(attention.o_proj.weight.T, head, WRITE_RMS * copied)
