"""Several predictions explained together are what plain Hugging Face autograd gives for their sum, or for each of them.

Invariant: a span's scores are the norm of the gradient of the sum of its scalars (``sum``), or the root of the sum of the
squared norms of each one's gradient (``norm``), by one Hugging Face forward and autograd; a span of one position is the
single scope to the bit; gradients of disjoint spans add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import families
import oracles
import pytest
import torch
from families import Pair
from oracles import relative_error
from torch import Tensor

import tl_scopes as tls

SPAN = [1, 4, 5, 9]
TOKENS = families.prompt_tokens()
FOILS = [families.VOCAB[piece] for piece in (" house", " city", " dog", " man")]
FOLLOWING = [int(TOKENS[p + 1]) for p in SPAN]
ROWS = torch.randn(3, families.D_MODEL, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def bound(pair: Pair) -> float:
    """As far as float32 steps inside Hugging Face's models go, which round otherwise for a sum than for each of its parts."""
    return max(families.rtol(pair), 1e-9 if pair.family == "gpt2" else 5e-6)


def logit(out: oracles.Run, m: int) -> Tensor:
    return out.logits[m, int(TOKENS[m + 1])]


def log_prob(out: oracles.Run, m: int) -> Tensor:
    return out.logits[m].log_softmax(-1)[int(TOKENS[m + 1])]


def difference(out: oracles.Run, m: int) -> Tensor:
    return logit(out, m) - out.logits[m, FOILS[SPAN.index(m)]]


def confidence(out: oracles.Run, m: int) -> Tensor:
    return out.y[m].norm()


def projection(out: oracles.Run, m: int) -> Tensor:
    return out.y[m] @ ROWS[0].to(out.y)


SCALARS: dict[str, tuple[Callable[..., tls.Attribution], Callable[[oracles.Run, int], Tensor]]] = {
    "semantic": (tls.semantic_scope, logit),
    "log_prob": (lambda m, t, **kw: tls.semantic_scope(m, t, of="log_prob", **kw), log_prob),
    "contrast": (lambda m, t, **kw: tls.contrast_scope(m, t, foil=FOILS, **kw), difference),
    "temperature": (tls.temperature_scope, confidence),
    "jacobian": (lambda m, t, **kw: tls.jacobian_scope(m, t, direction=ROWS[0], **kw), projection),
}
every_family = pytest.mark.on_families(
    "gpt2",
    "gemma2",
    slow=("neox", "neox_sequential", "llama", "mistral", "qwen2", "qwen2_tied", "gemma3", "granite", "cohere"),
)
each_scalar = pytest.mark.parametrize("name", SCALARS)


def gradients(pair: Pair, scalar: Callable[[oracles.Run, int], Tensor], tokens: Tensor = TOKENS) -> Tensor:
    """∂ scalar_m / ∂x of each position of the span, one backward each, [span, T, d]."""
    with torch.enable_grad():
        out = oracles.run_tokens(pair.hf, tokens)
        return torch.stack([torch.autograd.grad(scalar(out, m), out.x, retain_graph=True)[0] for m in SPAN])


# -- the definition --------------------------------------------------------------------------------


@every_family
@each_scalar
def test_a_sum_is_the_gradient_of_the_sum(pair: Pair, name: str) -> None:
    scope, scalar = SCALARS[name]
    expected = gradients(pair, scalar).sum(0).norm(dim=-1)
    assert relative_error(scope(pair.model, TOKENS, pos=SPAN).scores, expected) < bound(pair)


@every_family
@each_scalar
def test_the_norm_is_the_root_of_the_sum_of_squares_of_each(pair: Pair, name: str) -> None:
    scope, scalar = SCALARS[name]
    expected = gradients(pair, scalar).square().sum((0, 2)).sqrt()
    assert relative_error(scope(pair.model, TOKENS, pos=SPAN, combine="norm").scores, expected) < bound(pair)


@every_family
def test_several_rows_are_joined_after_the_sum_over_positions(pair: Pair) -> None:
    each = [gradients(pair, lambda out, m, v=v: out.y[m] @ v.to(out.y)) for v in ROWS]
    found = tls.jacobian_scope(pair.model, TOKENS, direction=ROWS, pos=SPAN)
    summed = torch.stack([g.sum(0) for g in each]).square().sum((0, 2)).sqrt()
    assert relative_error(found.scores, summed) < bound(pair)
    apart = tls.jacobian_scope(pair.model, TOKENS, direction=ROWS, pos=SPAN, combine="norm")
    squares = torch.stack(each).square().sum((0, 1, 3)).sqrt()
    assert relative_error(apart.scores, squares) < bound(pair)


@every_family
@pytest.mark.parametrize("rank", [1, 3])
def test_fisher_weighs_each_position_by_its_own_eigenvalues(pair: Pair, rank: int) -> None:
    total, first = torch.zeros(len(TOKENS), dtype=torch.float64), 0.0
    for m in SPAN:
        values, vectors = torch.linalg.eigh(oracles.dense_fisher(pair.hf, TOKENS, m))
        rows = oracles.vjp_rows(pair.hf, TOKENS, m, vectors.flip(1)[:, :rank].T).double()
        total += torch.einsum("i,itd->t", values.flip(0)[:rank], rows**2)
        first += float(values[-1])
    found = tls.fisher_scope(pair.model, TOKENS, pos=SPAN, rank=rank, tol=1e-9)
    assert relative_error(found.scores, (total / first).sqrt()) < max(bound(pair), 1e-8)


@pytest.mark.slow
@pytest.mark.on_families("gpt2", "llama", "gemma2")
def test_total_information_is_the_sum_of_traces(pair: Pair) -> None:
    expected = sum(oracles.total_information(pair.hf, TOKENS, m) for m in SPAN)
    exact = tls.total_information(pair.model, TOKENS, pos=SPAN, method="exact")
    assert relative_error(exact.scores, expected) < bound(pair)
    sampled = tls.total_information(pair.model, TOKENS, pos=SPAN, n_samples=512, rtol=None)
    away = (sampled.scores - expected).abs() / sampled.stderr.clamp_min(1e-12)
    assert float(away[: SPAN[-1] + 1].max()) < 4


@pytest.mark.on_families("gpt2", "llama")
def test_gradient_baselines_of_a_span(pair: Pair) -> None:
    each = gradients(pair, logit)
    x = oracles.embeddings(pair.hf, TOKENS)
    found = tls.input_x_gradient(pair.model, TOKENS, pos=SPAN)
    assert relative_error(found.scores, (each.sum(0) * x).norm(dim=-1)) < bound(pair)
    signed = torch.tensor(found.details["signed"], dtype=torch.float64)
    assert relative_error(signed, (each.sum(0) * x).sum(-1)[: len(signed)]) < bound(pair)
    apart = tls.input_x_gradient(pair.model, TOKENS, pos=SPAN, combine="norm")
    assert relative_error(apart.scores, (each * x).square().sum((0, 2)).sqrt()) < bound(pair)
    saliency = tls.gradient_norm(pair.model, TOKENS, pos=SPAN)
    assert relative_error(saliency.scores, gradients(pair, log_prob).sum(0).norm(dim=-1)) < bound(pair)


@pytest.mark.on_families("gpt2")
def test_paths_and_noise_explain_the_sum_too(pair: Pair) -> None:
    found = tls.integrated_gradients(pair.model, TOKENS, pos=SPAN, n_steps=20)
    x = oracles.embeddings(pair.hf, TOKENS)
    with torch.no_grad():
        ends = [sum(float(logit(oracles.run(pair.hf, start), m)) for m in SPAN) for start in (x, torch.zeros_like(x))]
    assert found.details["change"] == pytest.approx(ends[0] - ends[1], rel=1e-6)
    assert abs(found.details["completeness_gap"]) < 0.2 * abs(ends[0] - ends[1])
    assert (found.span, found.targets) == (tuple(SPAN), tuple(FOLLOWING))
    still = tls.smoothgrad(pair.model, TOKENS, pos=SPAN, n_samples=2, sigma=0.0)
    assert relative_error(still.scores, gradients(pair, logit).sum(0).norm(dim=-1)) < bound(pair)
    answer = tls.integrated_gradients(pair.model, QUESTION, target=ANSWER, n_steps=4, prepend_bos=True)
    assert (answer.target_str, answer.details["of"]) == (ANSWER, "log_prob")


@pytest.mark.on_families("gpt2", "llama")
def test_layers_and_heads_of_a_span_are_those_of_its_sum(pair: Pair) -> None:
    layers = tls.layer_influence(pair.model, TOKENS, pos=SPAN)
    whole = tls.semantic_scope(pair.model, TOKENS, pos=SPAN, at="blocks.0.hook_resid_pre")
    assert relative_error(layers.scores[0], whole.scores) < 1e-12
    read_out = pair.hf.get_output_embeddings().weight[FOLLOWING].detach().norm()
    assert layers.read_out_norm == pytest.approx(float(read_out), rel=1e-6)
    heads = tls.head_influence(pair.model, TOKENS, pos=SPAN).scores
    each = [
        tls.head_influence(pair.model, TOKENS, pos=m, target=t).scores for m, t in zip(SPAN, FOLLOWING, strict=True)
    ]
    assert relative_error(heads, sum(each)) < 1e-6


# -- one position, several spans -------------------------------------------------------------------


@pytest.mark.on_families("gpt2", "gemma3")
@pytest.mark.parametrize("name", ["semantic", "temperature", "fisher", "total_information"])
def test_a_span_of_one_is_the_single_scope_to_the_bit(pair: Pair, name: str) -> None:
    scopes = tls.scopes(pair.model, TOKENS, methods=[name], pos=range(4, 5))
    target = {"target": FOLLOWING[1]} if name == "semantic" else {}
    assert torch.equal(
        scopes[name].scores, tls.scopes(pair.model, TOKENS, methods=[name], pos=4, **target)[name].scores
    )


@pytest.mark.on_families("gpt2", "llama")
def test_gradients_of_disjoint_spans_add(pair: Pair) -> None:
    def gradient(span: Sequence[int]) -> Tensor:
        found = tls.semantic_scope(pair.model, TOKENS, pos=span, keep_gradient=True).gradient
        assert found is not None
        return found

    assert relative_error(gradient(SPAN[:2]) + gradient(SPAN[2:]), gradient(SPAN)) < 1e-6


@pytest.mark.on_families("gpt2", "qwen2")
@pytest.mark.parametrize("combine", ["sum", "norm"])
def test_prompts_of_a_list_have_a_position_or_a_span_each(pair: Pair, combine: str) -> None:
    prompts = [families.prompt_tokens(n, seed=n) for n in (12, 7, 9)]
    pos = [range(3, 8), -1, [0, 8]]
    together = tls.semantic_scope(pair.model, prompts, pos=pos, combine=combine)
    for one, prompt, p in zip(together, prompts, pos, strict=True):
        alone = tls.semantic_scope(pair.model, prompt, pos=p, combine=combine)
        assert relative_error(one.scores, alone.scores) < 5e-6
        assert (one.span, one.targets) == (alone.span, alone.targets)


def test_the_last_token_of_a_text_is_explained_for_the_top_prediction() -> None:
    model = families.build("gpt2", "bridge").model
    found = tls.semantic_scope(model, TOKENS, pos=[-2, -1])
    assert found.span == (10, 11)
    assert found.targets == (int(TOKENS[11]), found.top_tokens[0])
    assert any("top prediction" in note for note in found.notes)


# -- answers ---------------------------------------------------------------------------------------

QUESTION, ANSWER, OTHER = "the dog saw a cat and the", " old man ran", " city to"


def ids(text: str) -> list[int]:
    return list(families.tokenizer()(text, add_special_tokens=False).input_ids)


@every_family
def test_an_answer_is_put_behind_the_prompt_and_its_log_probability_explained(pair: Pair) -> None:
    found = tls.semantic_scope(pair.model, QUESTION, prepend_bos=True, target=ANSWER)
    n, m = len(ids(QUESTION)) + 1, len(ids(ANSWER))
    assert found.answer == tuple(range(n, n + m))
    assert found.span == tuple(range(n - 1, n + m - 1))
    assert (found.target, found.target_str, found.targets) == (None, ANSWER, tuple(ids(ANSWER)))
    tokens = torch.tensor([families.BOS_ID, *ids(QUESTION), *ids(ANSWER)])
    with torch.enable_grad():
        out = oracles.run_tokens(pair.hf, tokens)
        log_p = sum(out.logits[p].log_softmax(-1)[int(tokens[p + 1])] for p in found.span)
        (g,) = torch.autograd.grad(log_p, out.x)
    assert relative_error(found.scores, g.norm(dim=-1)) < bound(pair)
    assert found.details["log_prob"] == pytest.approx(float(log_p), rel=1e-5)
    logits = tls.semantic_scope(pair.model, QUESTION, prepend_bos=True, target=ANSWER, of="logit")
    assert relative_error(logits.scores, tls.semantic_scope(pair.model, tokens, pos=found.span).scores) < 1e-12


@pytest.mark.on_families("gpt2")
def test_a_token_left_out_changes_an_answers_log_probability_and_rollout_is_the_mean_over_its_predictions(
    pair: Pair,
) -> None:
    found = tls.leave_one_out(pair.model, QUESTION, prepend_bos=True, target=ANSWER)
    tokens, span = found.tokens, found.span
    assert (found.target_str, [p + 1 for p in span]) == (ANSWER, list(found.answer))

    def log_p(removed: int | None) -> float:
        x = pair.hf.get_input_embeddings()(tokens[None]).clone()
        if removed is not None:
            x[0, removed] = 0
        log_probs = pair.hf(inputs_embeds=x).logits[0].log_softmax(-1)
        return float(log_probs[list(span), tokens[list(found.answer)]].sum().detach())

    whole = log_p(None)
    expected = torch.tensor([abs(log_p(p) - whole) for p in range(found.pos + 1)], dtype=torch.float64)
    assert relative_error(found.scores[: found.pos + 1], expected) < bound(pair)
    assert found.details["log_prob"] == pytest.approx(whole, rel=1e-5)
    flow = tls.attention_rollout(pair.model, QUESTION, prepend_bos=True, target=ANSWER)
    each = [tls.attention_rollout(pair.model, tokens, pos=p).scores for p in span]
    assert relative_error(flow.scores, torch.stack(each).mean(0)) < 1e-6
    noise = tls.random_attribution(pair.model, QUESTION, prepend_bos=True, target=ANSWER)
    assert torch.equal(noise.scores, tls.random_attribution(pair.model, tokens, pos=found.pos).scores)
    for blind in (flow, noise):
        assert (blind.answer, blind.targets, blind.span) == (found.answer, found.targets, found.span)
        assert blind.details["log_prob"] == pytest.approx(whole, rel=1e-5)


@every_family
def test_two_answers_of_different_lengths_are_compared_on_the_prompt(pair: Pair) -> None:
    found = tls.contrast_scope(pair.model, QUESTION, prepend_bos=True, target=ANSWER, foil=OTHER)
    question = [families.BOS_ID, *ids(QUESTION)]
    n, total = len(question), torch.tensor(0.0)
    expected: Tensor | float = 0.0
    for sign, text in ((1, ANSWER), (-1, OTHER)):
        tokens = torch.tensor([*question, *ids(text)])
        with torch.enable_grad():
            out = oracles.run_tokens(pair.hf, tokens)
            positions = range(n - 1, len(tokens) - 1)
            log_p = sign * sum(out.logits[p].log_softmax(-1)[int(tokens[p + 1])] for p in positions)
            (g,) = torch.autograd.grad(log_p, out.x)
        expected = expected + g[:n]
        total = total + float(log_p)
    assert isinstance(expected, Tensor)
    assert relative_error(found.scores[:n], expected.norm(dim=-1)) < bound(pair)
    assert not found.scores[n:].any()
    assert found.details["log_prob_difference"] == pytest.approx(float(total), rel=1e-5)
    assert (found.pos, found.details["foil_str"]) == (n - 1, OTHER)


@pytest.mark.on_families("gpt2")
def test_a_list_may_mix_tokens_and_answers(pair: Pair) -> None:
    targets = [" dog", ANSWER, None]
    for one, target in zip(
        tls.semantic_scope(pair.model, [QUESTION] * 3, target=targets, batch_size=3), targets, strict=True
    ):
        alone = tls.semantic_scope(pair.model, QUESTION, prepend_bos=True, target=target)
        assert relative_error(one.scores, alone.scores) < 1e-12
        assert one.details["of"] == ("log_prob" if target == ANSWER else "logit")
    foils = [" cat", OTHER]
    for one, foil in zip(
        tls.contrast_scope(pair.model, [QUESTION] * 2, target=[" dog", ANSWER], foil=foils), foils, strict=True
    ):
        target = ANSWER if foil == OTHER else " dog"
        alone = tls.contrast_scope(pair.model, QUESTION, prepend_bos=True, target=target, foil=foil)
        assert relative_error(one.scores, alone.scores) < 1e-12


@pytest.mark.on_families("gpt2")
def test_several_scopes_explain_one_answer(pair: Pair) -> None:
    found = tls.scopes(pair.model, QUESTION, methods=["semantic", "fisher", "temperature"], target=ANSWER)
    assert {one.span for one in found.values()} == {found["semantic"].span}
    joined = torch.tensor([families.BOS_ID, *ids(QUESTION), *ids(ANSWER)])
    alone = tls.fisher_scope(pair.model, joined, pos=found["semantic"].span)
    assert relative_error(found["fisher"].scores, alone.scores) < 1e-12


@pytest.mark.on_families("gpt2")
def test_a_span_is_saved_and_loaded(pair: Pair, tmp_path) -> None:
    found = tls.semantic_scope(pair.model, QUESTION, prepend_bos=True, target=ANSWER)
    found.save(tmp_path / "a.json")
    again = tls.Attribution.load(tmp_path / "a.json")
    assert (again.span, again.answer, again.targets) == (found.span, found.answer, found.targets)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.on_families("gpt2")
def test_what_makes_no_sense_is_refused_before_the_model_runs(pair: Pair) -> None:
    model = pair.model
    refused: list[tuple[str, Callable[[], object]]] = [
        ("in their order", lambda: tls.semantic_scope(model, TOKENS, pos=[4, 2])),
        ("no position", lambda: tls.semantic_scope(model, TOKENS, pos=[])),
        ("pos must be in", lambda: tls.semantic_scope(model, TOKENS, pos=range(5, 40))),
        ("names 4 positions", lambda: tls.semantic_scope(model, TOKENS, pos=SPAN, target=" dog")),
        ("3 given for 4 positions", lambda: tls.semantic_scope(model, TOKENS, pos=SPAN, target=[1, 2, 3])),
        ("for the positions that pos= names", lambda: tls.semantic_scope(model, TOKENS, target=[[5]])),
        ("'norm' only", lambda: tls.fisher_scope(model, TOKENS, pos=SPAN, combine="sum")),
        (
            "'sum' only",
            lambda: tls.scopes(model, TOKENS, methods=["total_information"], pos=SPAN, combine="norm"),
        ),
        (
            "sum of their log-probabilities",
            lambda: tls.contrast_scope(model, QUESTION, target=ANSWER, foil=OTHER, of="logit"),
        ),
        (
            "sum of their log-probabilities",
            lambda: tls.contrast_scope(model, QUESTION, target=ANSWER, foil=OTHER, combine="norm"),
        ),
        ("pass target=", lambda: tls.contrast_scope(model, QUESTION, foil=OTHER)),
        ("follows the prompt's last token", lambda: tls.semantic_scope(model, QUESTION, target=ANSWER, pos=3)),
        ("one position is explained here", lambda: tls.ig_path(model, TOKENS, pos=SPAN)),
        ("expected 'logit', 'log_prob' or None", lambda: tls.semantic_scope(model, TOKENS, of="odds")),  # type: ignore[arg-type]
        ("context", lambda: tls.semantic_scope(model, families.prompt_tokens(families.N_CTX), target=ANSWER)),
    ]
    for words, call in refused:
        with pytest.raises((ValueError, TypeError), match=words):
            call()
