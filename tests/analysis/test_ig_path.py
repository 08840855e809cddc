"""The IG path is Hugging Face autograd at every scaled input, ends in the Semantic Scope, and adds up.

Invariants: each row of the map is the gradient norm at α x; the residual of completeness goes to 0 with the grid; with
`scale_positions` the position embeddings follow.
"""

from __future__ import annotations

import math
from typing import Any

import families
import oracles
import pytest
import torch
from families import Pair
from oracles import relative_error

import tl_scopes as tls
from tl_scopes.analysis.ig_path import ig_path

TARGET = families.VOCAB[" house"]
PROMPT = "German: der Hund sieht die Katze. English: the"


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_rows_are_the_gradients_at_scaled_embeddings(pair: Pair) -> None:
    tokens, pos, grid = families.prompt_tokens(), 9, (0.1, 0.5, 1.0)
    path = ig_path(pair.model, tokens, TARGET, alphas=grid, pos=pos)
    x = oracles.embeddings(pair.hf, tokens)
    for row, alpha in enumerate(grid):
        gradient = oracles.gradient_at(pair.hf, alpha * x, pos, lambda z, y: z[TARGET])
        assert relative_error(path.grad_norms[row], gradient.norm(dim=-1)) < 1e-4
        assert float(path.slopes[row]) == pytest.approx(float((x * gradient).sum()), rel=1e-4, abs=1e-5)
        z = oracles.run(pair.hf, alpha * x).logits[pos].detach().double()
        assert float(path.logits[row]) == pytest.approx(float(z[TARGET]), rel=1e-4)
        p = z.softmax(-1)
        assert float(path.entropy[row]) == pytest.approx(float(-(p * p.log()).sum()), rel=1e-4)
        norms = gradient.norm(dim=-1)
        assert float(path.sink_share[row]) == pytest.approx(float(norms[0] / norms.sum()), rel=1e-4)


def test_alpha_1_is_the_semantic_scope(demo_model: Any) -> None:
    scope = tls.semantic_scope(demo_model, PROMPT, target=" dog").scores
    for scaled in (False, True):
        path = ig_path(demo_model, PROMPT, " dog", alphas=(0.5, 1.0), scale_positions=scaled)
        assert relative_error(path.grad_norms[-1], scope) < 1e-6


def test_residual_goes_to_zero_with_the_grid(demo_model: Any) -> None:
    for scaled in (False, True):
        residuals = [
            abs(
                ig_path(
                    demo_model, PROMPT, alphas=torch.linspace(0.2, 1, n).tolist(), scale_positions=scaled
                ).completeness_residual
            )
            for n in (5, 17, 65)
        ]
        assert residuals[2] < min(0.02, residuals[0] / 20), (scaled, residuals)


@pytest.mark.on_families("gpt2")
def test_scaled_positions_start_from_nothing(pair: Pair) -> None:
    """At α = 0 all tokens look alike, so the prediction does not depend on the prompt."""
    logits = [
        ig_path(pair.model, families.prompt_tokens(seed=s), TARGET, alphas=(0.0, 1.0), scale_positions=True).logits
        for s in (1, 2)
    ]
    assert float(logits[0][0]) == pytest.approx(float(logits[1][0]), rel=1e-12)
    assert float(logits[0][1]) != pytest.approx(float(logits[1][1]), rel=1e-3)


@pytest.mark.on_families("llama", "gemma2", "gemma3")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_where_zero_is_a_limit_the_row_stands_beside_it_and_says_so(pair: Pair, dtype: torch.dtype) -> None:
    """Norms without mean: the gradient at 0 itself is 1/√eps to the power of the depth, or overflows."""
    tokens, model = families.prompt_tokens(), families.build(pair.family, pair.kind, dtype=dtype).model
    path = ig_path(model, tokens, TARGET)
    x = oracles.embeddings(pair.hf, tokens)
    alpha = float(path.alphas[0])
    assert alpha == pytest.approx((pair.model.cfg.eps / float(x.square().mean(-1).median())) ** 0.5, rel=1e-3)
    gradient = oracles.gradient_at(pair.hf, alpha * x, 11, lambda z, y: z[TARGET]).norm(dim=-1)
    assert relative_error(path.grad_norms[0], gradient) < (1e-3 if dtype == torch.float64 else 0.05)
    assert abs(path.completeness_residual) < 10, "not 1e9"
    (note,) = path.notes
    assert f"α = {alpha:.2g}" in note
    assert note in str(path)
    assert note.split(":")[0] in path.html()
    other = ig_path(model, tokens, TARGET, baseline="mean")
    assert (other.alphas[0], other.notes) == (0.0, ())
    assert abs(other.completeness_residual) < 0.01


@pytest.mark.on_families("gpt2", "llama")
@pytest.mark.parametrize("baseline", ["mean", "prompt"])
def test_a_path_from_the_data_is_autograd_at_its_points(pair: Pair, baseline: str) -> None:
    tokens, other, grid = families.prompt_tokens(), families.prompt_tokens(seed=4), (0.0, 0.5, 1.0)
    given: Any = other if baseline == "prompt" else baseline
    path = ig_path(pair.model, tokens, TARGET, alphas=grid, baseline=given)
    x = oracles.embeddings(pair.hf, tokens)
    mean = torch.cat([x[:1], x[1:].mean(0).expand_as(x[1:])])
    start = oracles.embeddings(pair.hf, other) if baseline == "prompt" else mean
    for row, alpha in enumerate(grid):
        gradient = oracles.gradient_at(pair.hf, start + alpha * (x - start), 11, lambda z, y: z[TARGET])
        assert relative_error(path.grad_norms[row], gradient.norm(dim=-1)) < 1e-4
        assert float(path.slopes[row]) == pytest.approx(float(((x - start) * gradient).sum()), rel=1e-4, abs=1e-4)
    assert path.baseline == baseline
    assert path.start in str(path)


def test_default_grid_and_target(demo_model: Any) -> None:
    path = ig_path(demo_model, PROMPT)
    assert len(path.alphas) == 51
    assert path.target_str == " dog", "the top prediction of the unchanged prompt"
    assert path.residual.shape == path.alphas.shape
    assert float(path.residual[0]) == 0
    assert 0 <= float(path.sink_share.min()) <= float(path.sink_share.max()) <= 1
    assert float(path.entropy[0]) > float(path.entropy[-1])
    assert float(path.entropy.max()) <= math.log(demo_model.cfg.d_vocab)
    assert "residual" in repr(path)
    assert len(path.to_frame()) == 51


def test_batches_and_lists_do_not_change_the_numbers(demo_model: Any) -> None:
    whole = ig_path(demo_model, PROMPT, " dog", alphas=(0.0, 0.3, 0.6, 1.0))
    many = ig_path(demo_model, ["29,61,40,", PROMPT], [None, " dog"], alphas=(0.0, 0.3, 0.6, 1.0), batch_size=3)[1]
    assert relative_error(many.grad_norms, whole.grad_norms) < 1e-5


def test_views_are_made_from_the_result(demo_model: Any) -> None:
    path = ig_path(demo_model, "<script>alert(1)</script> German: der", alphas=(0.2, 0.6, 1.0))
    page = path.html()
    assert "http" not in page
    assert page.count("</script>") == 2, "text of the prompt never ends a script"
    assert 'type="range"' in page
    assert len(path.plot().axes) >= 4


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"alphas": ()}, "expected increasing finite numbers"),
        ({"alphas": (0.5, 0.5)}, "expected increasing finite numbers"),
        ({"alphas": (0.5, math.nan)}, "expected a finite number"),
        ({"sink_tokens": 0}, "positive integer"),
        ({"batch_size": 0}, "positive integer"),
        ({"scale_positions": True, "baseline": "mean"}, "use it with baseline='zero'"),
    ],
)
def test_a_wrong_argument_is_refused(unchecked: None, demo_model: Any, kwargs: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ig_path(demo_model, PROMPT, **kwargs)


@pytest.mark.on_families("llama")
def test_rotary_models_have_no_positions_to_scale(pair: Pair) -> None:
    with pytest.raises(ValueError, match="no additive position embedding"):
        ig_path(pair.model, families.prompt_tokens(), scale_positions=True)
