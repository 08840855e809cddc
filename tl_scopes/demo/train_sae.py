"""Train the bundled sparse autoencoder: ``python -m tl_scopes.demo.train_sae --out folder``.

    z = relu(TopK((h − b_dec)·W_enc + b_enc)),   ĥ = z·W_dec + b_dec,   loss = ‖h − ĥ‖² / ‖h − mean(h)‖² + AUX·dead

h is the residual stream of the model ``demo`` after its third block, on passages of all its corpora but for BOS, whose
activation is of another size than all others. TopK keeps the `K` largest pre-activations of a position; ``dead`` is the
error of explaining h − ĥ by the `K_DEAD` largest features that have not fired for `PATIENCE` steps, which brings them
back. Rows of ``W_dec`` have norm 1.

What is written is a folder as ``sae_lens`` writes them: ``cfg.json`` and ``sae_weights.safetensors``. The same seed, thread
count and library versions give the same weights.

Reference: Gao et al. 2024 (arXiv 2406.04093) for TopK and the loss of dead features.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tl_scopes.demo.corpora import CORPORA, Split, passages
from tl_scopes.demo.figures import load
from tl_scopes.demo.shapes import DEMO, Causal

LAYER, D_SAE, K = 2, 512, 8
HOOK = f"blocks.{LAYER}.hook_resid_post"
N_TOKENS, N_HELD_OUT, BATCH = 240_000, 20_000, 2048
STEPS, LEARNING_RATE = 3000, 1e-3
K_DEAD, PATIENCE, AUX = 64, 100, 1 / 32


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """The four tensors, in the names of ``sae_lens``."""

    W_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    W_dec: Float[Tensor, "d_sae d_in"]
    b_dec: Float[Tensor, " d_in"]

    def pre(self, h: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """Before TopK."""
        return (h - self.b_dec) @ self.W_enc + self.b_enc

    def decode(self, z: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_in"]:
        """ĥ."""
        return z @ self.W_dec + self.b_dec


def top_k(pre: Float[Tensor, "batch d_sae"], k: int) -> Float[Tensor, "batch d_sae"]:
    """The k largest of each row, where positive; else 0."""
    values, at = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, at, values.relu())


@torch.no_grad()
def activations(
    model: Causal, tokenizer: PreTrainedTokenizerBase, n: int, split: Split, seed: int
) -> Float[Tensor, "n d_in"]:
    """h at `n` positions behind BOS, equally many of each corpus."""
    found: list[Tensor] = []
    for corpus in CORPORA:
        rows, left, stream = [], -(-n // len(CORPORA)), passages(corpus, seed, split)
        while left > 0:
            ids = tokenizer(next(stream).text, add_special_tokens=False)["input_ids"]
            rows.append([tokenizer.bos_token_id, *ids])
            left -= len(ids)
        for batch in _batches(sorted(rows, key=len)):
            ids = torch.tensor([row + [0] * (max(map(len, batch)) - len(row)) for row in batch])
            real = torch.tensor([[0 < t < len(row) for t in range(ids.shape[1])] for row in batch])
            found.append(model.base_model(ids, output_hidden_states=True).hidden_states[LAYER + 1][real])
    everything = torch.cat(found)
    return everything[torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed))[:n]]


def _batches(rows: list[list[int]], size: int = 64) -> Iterator[list[list[int]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def train(h: Float[Tensor, "n d_in"], seed: int, steps: int = STEPS) -> Autoencoder:
    """An autoencoder of activations h."""
    drawn = torch.Generator().manual_seed(seed)
    mean = h.mean(0)
    scale = (h - mean).norm(dim=-1).mean()  # trained on vectors of mean length 1; taken back at the end
    x = (h - mean) / scale
    W_dec = F.normalize(torch.randn(D_SAE, h.shape[1], generator=drawn), dim=-1)
    sae = Autoencoder(W_dec.T.clone(), torch.zeros(D_SAE), W_dec, torch.zeros(h.shape[1]))
    parameters = [value.requires_grad_(True) for value in vars(sae).values()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    silent = torch.zeros(D_SAE)  # steps since a feature fired
    variance = x.square().sum(-1).mean()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, 5 * (1 - step / steps))
        batch = x[torch.randint(len(x), (BATCH,), generator=drawn)]
        pre = sae.pre(batch)
        z = top_k(pre, K)
        error = batch - sae.decode(z)
        loss = error.square().sum(-1).mean() / variance
        silent = torch.where((z.detach() > 0).any(0), 0.0, silent + 1)
        if (dead := silent > PATIENCE).any():
            revived = top_k(pre.masked_fill(~dead, -torch.inf), min(K_DEAD, int(dead.sum()))) @ sae.W_dec
            loss = loss + AUX * (error.detach() - revived).square().sum(-1).mean() / variance
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        with torch.no_grad():
            sae.W_dec.copy_(F.normalize(sae.W_dec, dim=-1))
    W_enc, b_enc, W_dec, b_dec = (value.detach() for value in vars(sae).values())
    return Autoencoder(W_enc.contiguous(), b_enc * scale, W_dec.contiguous(), b_dec * scale + mean)


@torch.no_grad()
def figures(sae: Autoencoder, h: Float[Tensor, "n d_in"]) -> dict[str, float]:
    """On held-out activations: share of variance explained, features that fire at a position, features that never do."""
    z = top_k(sae.pre(h), K)
    error, spread = (h - sae.decode(z)).square().sum(), (h - h.mean(0)).square().sum()
    never = (z > 0).any(0).logical_not().sum()
    return {
        "explained_variance": round(float(1 - error / spread), 4),
        "features_per_position": round(float((z > 0).sum(-1).float().mean()), 2),
        "features_that_never_fire": int(never),
    }


def save(sae: Autoencoder, folder: Path, record: dict[str, object]) -> None:
    """As ``sae_lens`` saves them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(vars(sae)), folder / "sae_weights.safetensors")
    cfg = {
        "architecture": "topk",
        "d_in": sae.W_enc.shape[0],
        "d_sae": D_SAE,
        "k": K,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"sae_lens_version": "6.0.0", "model_name": "tl_scopes demo", "hook_name": HOOK},  # of the format
    }
    for name, content in (("cfg.json", cfg), ("training.json", record)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tl_scopes.demo.train_sae", description="Train the bundled SAE.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.process_time()
    model, tokenizer = load(DEMO.folder)
    sae = train(activations(model, tokenizer, N_TOKENS, "train", options.seed), options.seed)
    found = figures(sae, activations(model, tokenizer, N_HELD_OUT, "held_out", options.seed))
    minutes = round((time.process_time() - start) / 60, 1)
    run = {"seed": options.seed, "threads": options.threads, "cpu_minutes": minutes, "torch": torch.__version__}
    save(sae, options.out, run | found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
