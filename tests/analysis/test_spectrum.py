"""Invariant: the spectrum is that of the dense Fisher matrix, and the tokens named are those that really move."""

from __future__ import annotations

import families
import oracles
import pytest
import torch

import tl_scopes as tls
from tl_scopes.numerics import fisher_information
from tl_scopes.numerics.unembedding import RowSquares

TOKENS = families.prompt_tokens(10)


def test_eigenvalues_and_shares_are_those_of_the_dense_matrix(pair: families.Pair) -> None:
    F = oracles.dense_fisher(pair.hf, TOKENS, 6)
    expected = torch.linalg.eigvalsh(F).flip(0)
    got = tls.fisher_spectrum(pair.model, TOKENS, pos=6)
    assert oracles.relative_error(got.eigenvalues[0], expected) <= 2 * families.rtol(pair)
    assert float(got.trace[0]) == pytest.approx(float(F.trace()), rel=1e-5)
    assert float(got.share[0, -1]) == pytest.approx(1, rel=1e-6)
    few = tls.fisher_spectrum(pair.model, TOKENS, pos=6, k=3)
    assert torch.allclose(few.eigenvalues, got.eigenvalues[:, :3])


def test_the_tokens_named_are_those_whose_probability_a_step_changes_most() -> None:
    pair = families.build("gpt2", "bridge")
    got = tls.fisher_spectrum(pair.model, TOKENS, k=1, n_tokens=3)
    run = oracles.run_tokens(pair.hf, TOKENS)
    y = run.y[-1].detach()
    u = torch.linalg.eigh(oracles.dense_fisher(pair.hf, TOKENS, len(TOKENS) - 1))[1][:, -1]
    step = 1e-5
    p, moved = (oracles.read_out(pair.hf, point).softmax(-1).detach() for point in (y, y + step * u))
    names = {i: t for t, i in families.VOCAB.items()}
    up = {names[i] for i in (moved - p).topk(3).indices.tolist()}
    down = {names[i] for i in (p - moved).topk(3).indices.tolist()}
    found = [set(side) for side in got.moved[0][0]]
    assert found in ([up, down], [down, up])


def test_a_corpus_gives_mean_and_spread_of_the_share() -> None:
    model = families.build("gpt2", "bridge").model
    prompts = [families.prompt_tokens(n, seed=n) for n in (4, 7, 9)]
    together = tls.fisher_spectrum(model, prompts, k=5)
    alone = torch.stack([tls.fisher_spectrum(model, p, k=5).share[0] for p in prompts])
    frame = together.to_frame()
    assert frame.share_mean.tolist() == pytest.approx(alone.mean(0).tolist())
    assert frame.share_sd.tolist() == pytest.approx(alone.std(0).tolist())
    assert "rank-1 share" in repr(together)
    axes = together.plot().axes
    assert axes[0].get_xscale() == axes[0].get_yscale() == "log"
    assert len(axes[0].lines) == 3


def test_the_prompts_of_a_call_share_one_look_at_the_unembedding(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, look = [], RowSquares._look

    def counted(self: RowSquares, image: torch.Tensor) -> None:
        looks.append(1)
        look(self, image)

    monkeypatch.setattr(RowSquares, "_look", counted)
    monkeypatch.setattr(fisher_information, "DENSE_COST", 0)
    prompts = [families.prompt_tokens(n, seed=n) for n in (4, 7, 9)]
    tls.fisher_spectrum(families.build("gpt2", "bridge").model, prompts, k=2)
    assert len(looks) == 1


@pytest.mark.parametrize("k", [0, families.D_MODEL + 1])
def test_impossible_numbers_of_eigenvalues_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="k must be in 1"):
        tls.fisher_spectrum(families.build("gpt2", "bridge").model, TOKENS, k=k)


@pytest.mark.parametrize("kind", families.kinds_available())
def test_processed_weights_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="final norm is folded"):
        tls.fisher_spectrum(families.processed("gpt2", kind).model, TOKENS)


def test_tokens_of_one_prompt_are_not_shown_as_those_of_all(demo_model) -> None:
    texts = ["German: der Hund sieht die Katze. English: the", "Anna lives in Rome. Tom lives in"]
    many, one = (tls.fisher_spectrum(demo_model, given, k=2) for given in (texts, texts[0]))
    for shown in (str(many), many.html()):
        assert "in the first of 2 prompts alone" in shown
    assert "alone" not in str(one)
    means, _, tokens = str(many).partition("Tokens that each direction moves")
    moved = many.moved[0][0][0][0]
    assert repr(moved) in tokens
    assert "'" not in means, "no token stands beside a mean"
    assert texts[0].split(".")[0] in tokens
