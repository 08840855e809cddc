"""Invariant: predicted and measured agree to second order as the step shrinks; where they do not at step 1, it is said.

Oracles: plain Hugging Face runs with edited `inputs_embeds`, and its autograd. Slopes are in float64; the bridge computes
norms in float32 inside on some families, so steps stay large enough for the second-order error to be far above that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import numpy as np
import oracles
import pytest
import torch

import tl_scopes as tls

STEPS = tuple(2.0**-k for k in (5, 6, 7))
SLOPE = 0.1
PROMPT = families.PROMPT


def slope(model: Any, attribution: tls.Attribution, **options: Any) -> float:
    """Exponent of the error ‖measured − predicted‖ in the step, by least squares on logs."""
    errors = []
    for step in STEPS:
        result = tls.verify(model, attribution, step=step, top=4, fractions=(0.5,), **options)
        errors.append(float((result.measured - result.predicted).norm()))
    return float(np.polyfit(np.log(STEPS), np.log(errors), 1)[0])


SIGNED: dict[str, Callable[[Any], tls.Attribution]] = {
    "semantic": lambda m: tls.semantic_scope(m, PROMPT, target=" king"),
    "contrast": lambda m: tls.contrast_scope(m, PROMPT, target=" king", foil=" dog"),
    "temperature": lambda m: tls.temperature_scope(m, PROMPT),
    "log_prob": lambda m: tls.gradient_norm(m, PROMPT, target=" king"),
    "moment_variance": lambda m: tls.moment_scope(m, PROMPT, moment="variance"),
    "direction at a later layer": lambda m: tls.jacobian_scope(
        m, PROMPT, direction=_noise(families.D_MODEL), target_hook="blocks.0.hook_resid_post"
    ),
    "two directions": lambda m: tls.jacobian_scope(m, PROMPT, direction=_noise(2, families.D_MODEL)),
    "source in the middle": lambda m: tls.semantic_scope(m, PROMPT, target=" king", at="blocks.1.hook_resid_pre"),
}


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.on_families("neox", "llama", "qwen2", "gemma2")
def test_error_is_of_second_order(pair: families.Pair) -> None:
    assert slope(pair.model, SIGNED["semantic"](pair.model)) == pytest.approx(2, abs=SLOPE)


@pytest.mark.on_families("gpt2")
def test_error_is_of_second_order_for_every_signed_scalar(pair: families.Pair) -> None:
    for what, scope in SIGNED.items():
        assert slope(pair.model, scope(pair.model)) == pytest.approx(2, abs=SLOPE), what


@pytest.mark.on_families("llama")
@pytest.mark.parametrize("ablation", ["mean", "resample"])
def test_error_is_of_second_order_for_every_ablation(pair: families.Pair, ablation: str) -> None:
    assert slope(pair.model, SIGNED["semantic"](pair.model), ablation=ablation) == pytest.approx(2, abs=SLOPE)


@pytest.mark.on_families("gpt2")
def test_divergence_is_predicted_to_third_order_at_full_rank(pair: families.Pair) -> None:
    full = tls.fisher_scope(pair.model, PROMPT, rank=families.D_MODEL)
    exact = tls.total_information(pair.model, PROMPT, method="exact")
    assert slope(pair.model, full) == pytest.approx(3, abs=SLOPE)
    assert slope(pair.model, exact) == pytest.approx(3, abs=SLOPE)


def test_low_rank_predicts_a_part_of_the_divergence(kind: str) -> None:
    model = families.build("gpt2", kind).model
    low, exact = (
        tls.verify(model, a, step=1e-3, top=8)
        for a in (tls.fisher_scope(model, PROMPT), tls.total_information(model, PROMPT, method="exact"))
    )
    by_pos = dict(zip(exact.positions, exact.predicted, strict=True))
    both = [(p, by_pos[s]) for s, p in zip(low.positions, low.predicted, strict=True) if s in by_pos]
    assert len(both) >= 5 and all(0 <= part <= whole * (1 + 1e-9) for part, whole in both)


@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_predicted_and_measured_are_those_of_hugging_face(pair: families.Pair) -> None:
    attribution = tls.semantic_scope(pair.model, PROMPT, target=" king")
    result = tls.verify(pair.model, attribution, fractions=(0.3,), top=3)
    tokens, target = attribution.tokens, attribution.target
    x = oracles.embeddings(pair.hf, tokens)
    g = oracles.hf_gradient(pair.hf, tokens, attribution.pos, lambda z, y: z[target])
    clean = oracles.run(pair.hf, x).logits[-1].detach()
    for removed, predicted, measured, log_p in zip(
        result.positions, result.predicted, result.measured, result.delta_log_prob, strict=True
    ):
        changed = x.clone()
        changed[list(removed)] = 0
        z = oracles.run(pair.hf, changed).logits[-1].detach()
        assert float(predicted) == pytest.approx(float(-(g * x)[list(removed)].sum()), rel=1e-4, abs=1e-6)
        assert float(measured) == pytest.approx(float(z[target] - clean[target]), rel=1e-4, abs=1e-6)
        assert float(log_p) == pytest.approx(
            float(z.log_softmax(-1)[target] - clean.log_softmax(-1)[target]), rel=1e-4, abs=1e-6
        )


@pytest.mark.on_families("gpt2")
def test_what_is_predicted_has_the_attributions_parts_frozen(pair: families.Pair) -> None:
    attribution = tls.semantic_scope(pair.model, PROMPT, target=" king", frozen="attention", keep_gradient=True)
    assert attribution.gradient is not None
    along = (attribution.gradient * oracles.embeddings(pair.hf, attribution.tokens)).sum(-1)
    result = tls.verify(pair.model, attribution, fractions=(0.3,), top=3)
    expected = [-float(along[list(removed)].sum()) for removed in result.positions]
    assert result.predicted.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    plain = tls.verify(pair.model, tls.semantic_scope(pair.model, PROMPT, target=" king"), fractions=(0.3,), top=3)
    assert max(plain.measured.abs().max(), result.measured.abs().max()) > 0
    assert not torch.allclose(result.predicted, plain.predicted, rtol=1e-2)


def test_resampling_is_of_the_seed_and_of_nothing_else(kind: str) -> None:
    model = families.build("gpt2", kind).model
    attribution = tls.semantic_scope(model, PROMPT)
    first, again, other = (
        tls.verify(model, attribution, ablation="resample", seed=s, batch_size=b) for s, b in ((0, 3), (0, 16), (1, 3))
    )
    assert torch.allclose(first.measured, again.measured, rtol=1e-9)
    assert not torch.allclose(first.measured, other.measured, rtol=1e-3)


def test_the_top_tokens_are_removed_and_no_special_or_hidden_one(kind: str) -> None:
    model = families.build("llama", kind).model
    attribution = tls.semantic_scope(model, PROMPT).without([3])
    result = tls.verify(model, attribution, fractions=(0.2, 1.0), top=100)
    expected = [t.pos for t in attribution.without("special").top(100)]
    assert [p for (p,) in result.positions[:-2]] == expected
    assert result.positions[-2:] == (tuple(expected[: len(expected) // 5]), tuple(expected))
    assert not {0, 3} & {p for removed in result.positions for p in removed}
    frame = result.to_frame()
    assert frame.score[:-2].tolist() == [t.score for t in attribution.without("special").top(100)]
    assert result.linearity.n == len(expected)


def test_a_saturated_token_is_reported(kind: str) -> None:
    """The norm divides by the size of what it is given: a huge embedding has next to no gradient, and all the effect."""
    model = families.build("llama", kind, fresh=True).model
    planted = int(model.to_tokens(" saw", prepend_bos=False)[0, 0])
    with torch.no_grad():
        next(iter(model.embed.parameters()))[planted] *= 300
    attribution = tls.semantic_scope(model, PROMPT, target=" king")
    where = attribution.tokens.tolist().index(planted)
    result = tls.verify(model, attribution, top=100)
    row = result.to_frame().set_index("pos").loc[where]
    assert abs(row.measured) > 20 * abs(row.predicted)
    assert row.flag
    shrunk = tls.verify(model, attribution, top=100, step=1e-3)
    flags = dict(zip(shrunk.positions, shrunk.flags, strict=True))
    assert flags[(where,)] == "", "for a small step the gradient is right there too"
    assert shrunk.linearity.r2 > 0.99 > result.linearity.r2


def made(predicted: list[float], measured: list[float], flags: tuple[str, ...], signed: bool = True) -> Any:
    from tl_scopes.results.verification import Verification

    n = len(predicted)
    attribution = tls.Attribution(
        scores=torch.arange(float(n)),
        tokens=torch.arange(n),
        str_tokens=[f"</script><b>{i}</b>\n$" for i in range(n)],
        pos=n - 1,
        method="semantic",
        target=0,
        target_str="a",
        top_predictions=[("a", 1.0)],
    )
    values = torch.tensor(measured)
    return Verification(
        attribution, tuple((i,) for i in range(n)), (None,) * n, torch.tensor(predicted), values, values, values, flags,
        "logit of '<img src=x onerror=alert(1)>'", "logits", signed, "zero", 1.0, 0.5, 1e-6, "a",
    )  # fmt: skip


def test_linearity_by_hand() -> None:
    found = made([1.0, 2.0, -1.0], [2.0, 4.0, 1.0], ("size", "size", "sign")).linearity
    assert found.slope == pytest.approx((2 + 8 - 1) / 6)
    assert found.r2 == pytest.approx(1 - (1 + 4 + 4) / float(np.var([2, 4, 1]) * 3))
    assert found.spearman == pytest.approx(1.0)
    assert found.wrong_sign == pytest.approx(1 / 3)
    assert found.wrong == 1.0
    assert math.isnan(made([1.0, 2.0], [2.0, 4.0], ("", ""), signed=False).linearity.wrong_sign)


def test_nothing_is_read_off_rounding_or_one_removal() -> None:
    rounding = made([1e-9, 2e-9], [-4e-7, -1e-7], ("", "")).linearity
    assert math.isnan(rounding.slope)
    assert "no more than rounding" in rounding.reading
    one = made([1.0], [1.01], ("",)).linearity
    assert one.slope == pytest.approx(1.01)
    assert "one removal alone" in one.reading


@pytest.mark.parametrize(
    ("predicted", "measured", "signed", "flag"),
    [
        (1.0, 1.4, True, ""),
        (1.0, 2.1, True, "size"),
        (0.4, 1.0, True, "size"),
        (1.0, -0.2, True, "sign"),
        (1.0, -1e-9, True, "size"),
        (1e-9, -1e-9, True, ""),
        (1.0, 0.2, False, "size"),
    ],
)
def test_flags_by_hand(predicted: float, measured: float, signed: bool, flag: str) -> None:
    from tl_scopes.results.verification import flag as flag_of

    assert flag_of(predicted, measured, noise=1e-6, bound=0.5, signed=signed) == flag


def test_a_loaded_attribution_is_verified_alike(kind: str, tmp_path) -> None:
    model = families.build("gpt2", kind).model
    for name in ("direction at a later layer", "contrast", "moment_variance"):
        attribution = SIGNED[name](model)
        loaded = tls.Attribution.load(attribution.save(tmp_path / "a.json"))
        first, second = tls.verify(model, attribution), tls.verify(model, loaded)
        assert torch.equal(first.measured, second.measured) and torch.equal(first.predicted, second.predicted)


ROWS: dict[str, tuple[Callable[..., tls.Attribution], dict[str, Any]]] = {
    "semantic": (tls.semantic_scope, {"of": "log_prob"}),
    "contrast": (tls.contrast_scope, {"foil": 3}),
    "fisher": (tls.fisher_scope, {"rank": 3}),
    "temperature": (tls.temperature_scope, {}),
    "total_information": (tls.total_information, {"rank": 3, "n_samples": 32, "rtol": None}),
    "moment": (tls.moment_scope, {"values": {20: 1.0, 21: 2.0, 22: 9.0}}),
    "jacobian": (tls.jacobian_scope, {"direction": torch.eye(families.D_MODEL, dtype=torch.float64)[:2]}),
}


@pytest.mark.parametrize("kind", families.kinds_available())
@pytest.mark.parametrize("method", ROWS)
def test_a_row_of_a_matrix_says_what_it_explains(kind: str, method: str, tmp_path: Path) -> None:
    model, (scope, own) = families.build("gpt2", kind).model, ROWS[method]
    tokens = families.prompt_tokens(12)
    given = {name: value for name, value in own.items() if name != "rtol"}
    matrix = tls.attribution_matrix(model, tokens, method=method, positions=[4, 9], **given)
    matrix = tls.AttributionMatrix.load(matrix.save(tmp_path / "matrix.json"))
    target = {"target": int(tokens[10])} if method in ("semantic", "contrast") else {}
    alone = tls.verify(model, scope(model, tokens, pos=9, **own, **target), step=1e-3, top=3)
    row = tls.verify(model, matrix.row(1), step=1e-3, top=3)
    assert row.scalar == alone.scalar
    torch.testing.assert_close(row.measured, alone.measured, rtol=1e-6, atol=1e-14)
    if method != "total_information":  # whose probes are another position's
        torch.testing.assert_close(row.predicted, alone.predicted, rtol=1e-6, atol=1e-14)
    assert ("nats" in matrix.html()) == (method in ("semantic", "contrast", "total_information"))


@pytest.mark.parametrize("kind", families.kinds_available())
def test_as_many_rows_as_frozen_parts(kind: str) -> None:
    matrix = tls.attribution_matrix(
        families.build("gpt2", kind).model, families.prompt_tokens(12), frozen="all", positions=[3, 4, 5]
    )
    for one in (matrix, matrix.by_unit("word"), matrix.by_unit("word", axis="rows")):
        assert one.row(-1).details["frozen"] == ["norms", "attention", "activations"]
    older = replace(matrix, details={k: v for k, v in matrix.details.items() if k != "by_row"})
    assert older.row(1).details["frozen"] == ["norms", "attention", "activations"]


def test_own_number_values_are_kept(kind: str) -> None:
    model = families.build("gpt2", kind).model
    own = tls.moment_scope(model, PROMPT, values={5: 1.0, 9: 3.0, 20: 7.0})
    assert slope(model, own) == pytest.approx(2, abs=SLOPE)


def test_what_cannot_be_rebuilt_is_refused(kind: str, unchecked: None) -> None:
    model = families.build("gpt2", kind).model
    attribution = tls.semantic_scope(model, PROMPT)
    direction = SIGNED["direction at a later layer"](model)
    for given, words in (
        (attribution.by_word(), "by word"),
        (replace(direction, direction=None), "direction was not kept"),
        (replace(attribution, method="mine"), "does not say which scalar"),
        (attribution.without(range(len(attribution))), "every token is special or hidden"),
        (replace(attribution, top_predictions=[(" king", 0.99), ("a", 0.01)]), "Pass the model that made it"),
    ):
        with pytest.raises(ValueError, match=words):
            tls.verify(model, given)
    for options, words in (
        ({"ablation": "none"}, "ablation='none'"),
        ({"fractions": (0.2, 0.1)}, "expected increasing numbers in"),
        ({"top": 0}, "expected a positive integer"),
        ({"step": 0.0}, "other than 0"),
        ({"bound": -1.0}, "positive relative error"),
    ):
        with pytest.raises(ValueError, match=words):
            tls.verify(model, attribution, **options)


def test_pictures_show_every_token_as_text(kind: str) -> None:
    result = made([1.0, 2.0, -1.0], [2.0, 4.0, 1.0], ("size", "", "sign"))
    page = result.html()
    assert page.count("</script>") == 1 and "<b>0</b>" not in page and "<img" not in page
    assert page.count("<circle") >= 3 and "&lt;img src=x" in page
    axes = result.plot().axes[0]
    shown = sorted(tuple(p) for c in axes.collections for p in c.get_offsets().tolist())
    assert shown == [(-1.0, 1.0), (1.0, 2.0), (2.0, 4.0)]
    assert "slope" in str(result) and "slope" in repr(result)
