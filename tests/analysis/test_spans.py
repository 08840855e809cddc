"""What is measured of several predictions together is what plain Hugging Face gives for their sum.

Invariant: verdicts, removals, swaps and patches of a span change ``Σ_m log p(a_m)`` as Hugging Face runs on changed
embeddings or tokens do, tokens of the answer stay in place, and first-order predictions meet the measured change as steps
shrink.
"""

from __future__ import annotations

from typing import Any

import families
import oracles
import pytest
import torch
from families import Pair
from torch import Tensor

import tl_scopes as tls

PROMPT, ANSWER = "the dog saw a cat and the old man ran to", " river house"


@pytest.fixture
def found(pair: Pair) -> tls.Attribution:
    return tls.semantic_scope(pair.model, PROMPT, target=ANSWER, prepend_bos=True).without("special")


def log_prob(pair: Pair, attribution: tls.Attribution, x: Tensor) -> float:
    with torch.no_grad():
        logits = oracles.run(pair.hf, x).logits.double().log_softmax(-1)
    return sum(float(logits[p, t]) for p, t in zip(attribution.span, attribution.targets, strict=True))


@pytest.mark.on_families("gpt2", slow=("gemma2",))
def test_removals_for_the_verdict_are_those_of_plain_runs(pair: Pair, found: tls.Attribution) -> None:
    judged = tls.verdict(pair.model, found, k=2, n_random=8)
    x = oracles.embeddings(pair.hf, found.tokens)
    base = log_prob(pair, found, x)
    assert not {p for unit in judged.singles for p in unit} & set(found.answer)
    for unit, effect in zip(judged.singles, judged.single_effects.tolist(), strict=True):
        changed = x.clone()
        changed[list(unit)] = 0
        assert effect == pytest.approx(log_prob(pair, found, changed) - base, abs=1e-5)
    assert judged.target_str == ANSWER
    assert ANSWER in judged.sentence


@pytest.mark.on_families("gpt2")
@pytest.mark.parametrize("name", ["semantic", "contrast", "temperature", "fisher", "total_information"])
def test_predictions_meet_the_measured_change_of_small_steps(pair: Pair, name: str) -> None:
    tokens, span, model = families.prompt_tokens(), [2, 5, 9], pair.model
    own: dict[str, Any] = {"contrast": {"foil": [3, 7, 11]}, "fisher": {"rank": families.D_MODEL}}.get(name, {})
    if name == "total_information":
        attribution = tls.total_information(model, tokens, pos=span, method="exact")
    else:
        attribution = tls.scopes(model, tokens, methods=[name], pos=span, **own)[name]
    for step, most in ((1e-2, 0.1), (1e-3, 0.01)):
        result = tls.verify(model, attribution, step=step, top=4, n_random=4)
        assert oracles.relative_error(result.measured, result.predicted) < most


@pytest.mark.on_families("gpt2")
@pytest.mark.parametrize("moment", ["mean", "variance"])
def test_moments_of_a_span_are_predicted_and_measured_together(pair: Pair, moment: Any) -> None:
    tokens, span, values = families.prompt_tokens(), [2, 5, 9], {5: 1.0, 9: 2.5, 17: 4.0}
    attribution = tls.moment_scope(pair.model, tokens, moment=moment, values=values, pos=span)
    n = torch.tensor(list(values.values()), dtype=torch.float64)

    def moments(x: Tensor) -> Tensor:
        q = oracles.run(pair.hf, x).logits[span][:, list(values)].double().softmax(-1)
        mean = q @ n
        return (mean if moment == "mean" else (q * (n - mean[:, None]).square()).sum(-1)).sum()

    x = oracles.embeddings(pair.hf, tokens)
    with torch.enable_grad():
        leaf = x.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(moments(leaf), leaf)
    for step in (1.0, 1e-3):
        result = tls.verify(pair.model, attribution, step=step, top=4, n_random=4)
        for removed, predicted, measured in zip(result.positions, result.predicted, result.measured, strict=True):
            changed = x.clone()
            changed[list(removed)] *= 1 - step
            with torch.no_grad():
                change = float(moments(changed) - moments(x))
            assert float(predicted) == pytest.approx(-step * float((g * x)[list(removed)].sum()), rel=1e-4, abs=1e-9)
            assert float(measured) == pytest.approx(change, rel=1e-4, abs=1e-7 * step)
    assert oracles.relative_error(result.measured, result.predicted) < 0.01, "as the step shrinks they meet"
    assert f"{moment} of the forecast at 3 positions" in str(result)


@pytest.mark.on_families("gpt2")
def test_swaps_are_measured_by_plain_runs(pair: Pair, found: tls.Attribution) -> None:
    result = tls.substitutions(pair.model, found, k=3)
    base = log_prob(pair, found, oracles.embeddings(pair.hf, found.tokens))
    for token, delta in zip(result.tokens.tolist(), result.delta_log_prob.tolist(), strict=True):
        swapped = found.tokens.clone()
        swapped[result.pos] = token
        changed = log_prob(pair, found, oracles.embeddings(pair.hf, swapped))
        assert delta == pytest.approx(changed - base, abs=1e-5)


@pytest.mark.on_families("gpt2")
def test_patching_everything_restores_the_answers_log_probability(pair: Pair, found: tls.Attribution) -> None:
    corrupt = found.tokens.clone()
    corrupt[3] = families.VOCAB[" city"]
    prompt = slice(found.answer[0])
    result = tls.patch_top(pair.model, found.tokens[prompt], corrupt[prompt], found)
    assert not set(result.positions) & set(found.answer)
    base = log_prob(pair, found, oracles.embeddings(pair.hf, found.tokens))
    assert result.clean == pytest.approx(base, abs=1e-5)
    assert result.corrupt == pytest.approx(log_prob(pair, found, oracles.embeddings(pair.hf, corrupt)), abs=1e-5)


@pytest.mark.on_families("gpt2")
def test_a_comparison_of_two_answers_is_refused_by_name(pair: Pair) -> None:
    both = tls.contrast_scope(pair.model, PROMPT, target=ANSWER, foil=" city")
    with pytest.raises(ValueError, match=r"verdict\(attribution=\.\.\.\): it compares two answers"):
        tls.verdict(pair.model, both)
