"""Invariant: the scores on an accelerator are those on the CPU, and nothing is left on the wrong device.

A device made of the CPU (`elsewhere`) shows it on any machine: there a tensor left on the wrong device is an error, as on a
GPU. Machines without a CUDA device skip what needs a real one.
"""

from __future__ import annotations

import copy
from typing import Any

import accelerate
import families
import oracles
import pytest
import torch
import transformers
from elsewhere import FIRST, SECOND, move, reachable
from torch import Tensor

import tl_scopes as tls
from tl_scopes.model import attention_plan, forward, predictions
from tl_scopes.numerics import precision
from tl_scopes.numerics.statistics import spearman

TOKENS = families.prompt_tokens()
FOIL = families.VOCAB[" city"]


def test_a_device_without_float64_is_left_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # the meta device stands for one that is not the CPU; values are not needed to see where a tensor goes
    half = torch.empty(3, device="meta", dtype=torch.float16)
    assert precision.to_float64(half).device.type == "meta"
    assert precision.to_float64(torch.ones(2)).dtype == torch.float64
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", ("meta",))
    moved: list[Tensor] = []
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda self: moved.append(self) or torch.zeros(self.shape, dtype=self.dtype)
    )
    assert precision.to_float64(half).device.type == "cpu"
    assert precision.to_float64(half).dtype == torch.float64
    assert len(moved) == 2


# -- the same calls, wherever the model is ---------------------------------------------------------------


def every_scope(model: Any) -> dict[str, Tensor]:
    """Scores of every scope."""
    scores = {name: attr.scores for name, attr in tls.scopes(model, TOKENS, foil=FOIL, methods=METHODS).items()}
    scores["batch"] = tls.semantic_scope(model, [TOKENS, TOKENS[:5]], target=7)[1].scores
    scores["rank 4"] = tls.fisher_scope(model, TOKENS, rank=4).scores
    scores["total"] = tls.total_information(model, TOKENS, rtol=0.2).scores
    scores["exact"] = tls.total_information(model, TOKENS, method="exact").scores
    scores["moment"] = tls.moment_scope(model, TOKENS, values={5: 1.0, 6: 2.0, 7: 4.0}).scores
    scores["matrix"] = tls.attribution_matrix(model, TOKENS).scores
    scores["matrix of rank 2"] = tls.attribution_matrix(model, TOKENS, method="fisher", rank=2).scores
    scores["checkpointed"] = tls.semantic_scope(model, TOKENS, target=7, checkpoint=True).scores
    scores["eigenvalues"] = tls.fisher_spectrum(model, TOKENS, k=3).eigenvalues
    scores["span"] = tls.semantic_scope(model, TOKENS, pos=range(1, 5), combine="norm").scores
    scores["fisher of a span"] = tls.fisher_scope(model, TOKENS, pos=range(1, 5), rank=2).scores
    scores["answer"] = tls.semantic_scope(model, TOKENS, target=[7, 8], pos=[2, 4]).scores
    asked = tls.semantic_scope(model, [TOKENS] * 3, pos=[2, 3, 5], target=[7, 8, 9])
    scores["questions"] = torch.stack([one.scores for one in asked])
    for frozen in ("norms", "attention", "all"):
        held = tls.scopes(model, TOKENS, methods=METHODS[2:], frozen=frozen)
        scores[f"frozen {frozen}"] = torch.stack([one.scores for one in held.values()])
    direction = torch.linspace(-1, 1, families.D_MODEL, dtype=torch.float64)
    within = tls.jacobian_scope(
        model, TOKENS, direction=direction, target_hook="blocks.0.hook_resid_post", cache=True, keep_gradient=True,
        grads_at="blocks.0.hook_resid_pre",
    )  # fmt: skip
    scores["within"], scores["gradient"] = within.scores, within.gradient
    scores["gradient kept"] = within.cache["blocks.0.hook_resid_pre_grad"].cpu()
    return scores


def everything_around(model: Any) -> dict[str, Tensor]:
    """All but the scopes: baselines, paths, follow-up, interventions, sinks."""
    attr = tls.semantic_scope(model, TOKENS, target=7)
    baselines = (tls.integrated_gradients, tls.smoothgrad, tls.leave_one_out, tls.input_x_gradient, tls.gradient_norm)
    scores = {method.__name__: method(model, TOKENS, target=7).scores for method in baselines}
    signed = tls.input_x_gradient(model, TOKENS, target=7, frozen="all").signed
    assert signed is not None
    scores["signed"] = signed
    for checkpoint in (False, True):
        parts = tls.split(model, TOKENS, target=7, checkpoint=checkpoint)
        scores[f"split {checkpoint}"] = torch.stack([parts.exact.scores, parts.frozen.scores, parts.difference.scores])
    scores["rollout"] = tls.attention_rollout(model, TOKENS).scores
    scores["layers"] = tls.layer_influence(model, TOKENS, target=7).scores
    scores["heads"] = tls.head_influence(model, TOKENS, target=7).scores
    scores["path"] = tls.ig_path(model, TOKENS, target=7).grad_norms
    patched = tls.patch_top(model, TOKENS, TOKENS.roll(1), attr, k=2)
    scores["patched"] = torch.cat([patched.cells, patched.random], 1)
    scores["verified"] = tls.verify(model, attr).measured
    scores["verdict"] = torch.tensor(tls.verdict(model, attr).effect)[None]
    tls.substitutions(model, attr)
    tls.attention_sinks(model, TOKENS)
    scores["checked"] = torch.tensor([float(finding.ok) for finding in tls.check_model(model).findings])
    return scores


METHODS = ("semantic", "contrast", "fisher", "temperature")


# -- a device made of the CPU ------------------------------------------------------------------------


def test_the_device_made_of_the_cpu_tells_devices_apart() -> None:
    with reachable():
        one, two = torch.ones(3, device=FIRST), torch.ones(3).to(SECOND)
        assert (one.device, two.device, (one * 2).device) == (FIRST, SECOND, FIRST)
        assert (one + 1 + torch.tensor(2.0)).tolist() == [4, 4, 4]
        assert one[torch.tensor([0, 1])].shape == (2,)
        assert one.cpu().numpy().sum() == 3
        for wrong in (
            lambda: one + torch.ones(3),
            lambda: one + two,
            lambda: torch.cat([one, torch.ones(1)]),
            lambda: torch.ones(3)[torch.zeros(1, dtype=torch.long, device=FIRST)],
            lambda: one.index_put((torch.tensor([0]),), torch.ones(1)),
        ):
            with pytest.raises(RuntimeError, match="on the same device"):
                wrong()
        with pytest.raises(TypeError, match="convert"):
            one.numpy()
        with pytest.raises(RuntimeError, match="for generator"):
            torch.randn(3, generator=torch.Generator(), device=FIRST)


@pytest.mark.on_families("gpt2")
def test_a_matrix_elsewhere_is_that_on_the_cpu(pair: families.Pair) -> None:
    """One call in the fast tier; the next test makes them all."""
    model = families.build(pair.family, pair.kind, fresh=True).model
    move(model)
    model.cfg.device = FIRST
    with reachable():
        found = tls.attribution_matrix(model, TOKENS, method="fisher", positions=[3, -1]).scores
    expected = tls.attribution_matrix(pair.model, TOKENS, method="fisher", positions=[3, -1]).scores
    assert oracles.relative_error(found, expected) < 1e-12


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.on_families("gpt2", "gemma2")
@pytest.mark.parametrize("solver", ["dense", "iterative"])
def test_scores_elsewhere_are_those_on_the_cpu(pair: families.Pair, solver: str, monkeypatch: Any) -> None:
    if solver == "iterative":
        monkeypatch.setattr("tl_scopes.numerics.fisher_information.DENSE_COST", 0)
    model = families.build(pair.family, pair.kind, fresh=True).model
    move(model)
    model.cfg.device = FIRST
    calls = [every_scope] if solver == "iterative" else [every_scope, everything_around]
    for call in calls:
        expected = call(pair.model)
        with reachable():
            found = call(model)
        for name, scores in found.items():
            assert scores.device.type == "cpu", name
            assert oracles.relative_error(scores, expected[name]) < 1e-12, name
    with reachable():
        attr = tls.semantic_scope(model, TOKENS.to(FIRST), target=7, keep_gradient=True)
    assert attr.gradient.device.type == attr.tokens.device.type == "cpu"
    assert {parameter.device for parameter in model.parameters()} == {FIRST}


@pytest.mark.slow
def test_a_bridge_spread_over_two_devices_gives_the_same_scores() -> None:
    """By accelerate's ``dispatch_model``, as ``device_map=`` does it."""
    pair = families.build("llama", "bridge")
    where = {"model.embed_tokens": FIRST, "model.rotary_emb": FIRST, "model.layers.0": FIRST, "lm_head": FIRST}
    where |= {"model.layers.1": SECOND, "model.norm": SECOND}
    with reachable():
        hf = copy.deepcopy(pair.hf)
        move(hf, lambda name: SECOND if name.startswith(("model.layers.1", "model.norm")) else FIRST)
        spread = accelerate.dispatch_model(hf, where, force_hooks=True)
        model = families.TransformerBridge.boot_transformers("tiny", hf_model=spread, tokenizer=pair.tokenizer)
        assert {parameter.device for parameter in model.parameters()} == {FIRST, SECOND}
        found = every_scope(model)
    expected = every_scope(pair.model)
    for name, scores in found.items():
        assert oracles.relative_error(scores, expected[name]) < 1e-12, name


# -- CUDA --------------------------------------------------------------------------------------------

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@pytest.mark.gpu
@cuda
@pytest.mark.on_families("gpt2", "llama", "gemma2")
@pytest.mark.parametrize("solver", ["dense", "iterative"])
def test_scores_on_cuda_are_those_on_the_cpu(pair: families.Pair, solver: str, monkeypatch: Any) -> None:
    if solver == "iterative":
        monkeypatch.setattr("tl_scopes.numerics.fisher_information.DENSE_COST", 0)
    model = families.build(pair.family, pair.kind, fresh=True).model.to("cuda")
    for call in (every_scope, everything_around):
        expected, found = call(pair.model), call(model)
        for name, scores in found.items():
            assert scores.device.type == "cpu", name
            assert oracles.relative_error(scores, expected[name]) < 1e-5, name
    attr = tls.semantic_scope(model, TOKENS, target=7, keep_gradient=True)
    assert attr.gradient.device.type == attr.tokens.device.type == "cpu"
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}


@pytest.mark.gpu
@cuda
@pytest.mark.on_families("gpt2", "llama", "gemma2", "gemma3")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_on_cuda_however_computed_is_that_on_the_cpu(
    pair: families.Pair, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(model: Any, **options: Any) -> tuple[Tensor, list[str]]:
        attr = tls.semantic_scope(model, TOKENS, target=7, keep_gradient=True, **options)
        return attr.gradient, attr.details.get("attention", [])

    expected, _ = found(pair.model)
    model = families.build(pair.family, pair.kind, dtype, fresh=True).model.to("cuda")
    for name, value in (("SHORTEST", 2), ("CELLS", 0), ("FEWEST", 5)):
        monkeypatch.setattr(attention_plan, name, value)
    exact = 1e-12 if pair.family == "gpt2" else 1e-6  # the others' softmaxes are in float32
    for checkpoint in (False, True):
        gradient, paths = found(model, checkpoint=checkpoint)
        assert oracles.relative_error(gradient, expected) < (1e-5 if dtype == torch.float32 else exact)
        assert "eager" not in paths
        if pair.family in ("gpt2", "llama"):
            assert set(paths) == {"fused" if dtype == torch.float32 else "blocks"}


@pytest.mark.gpu
@cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_long_text_on_cuda_takes_what_was_estimated_and_no_square(dtype: torch.dtype, checkpoint: bool) -> None:
    from tl_scopes.model.hooks import differentiable
    from tl_scopes.model.memory import Memory
    from tl_scopes.model.probe_runs import Run

    length, heads = 8192, 4
    config = transformers.GPT2Config(
        n_embd=128, n_head=heads, n_layer=2, n_positions=length, vocab_size=500, attn_implementation="eager"
    )
    tokenizer = families.build("gpt2", "bridge").tokenizer
    with torch.random.fork_rng():
        hf = transformers.GPT2LMHeadModel(config).eval().to("cuda", dtype)
        model = families.TransformerBridge.boot_transformers(
            "tiny", hf_model=hf, tokenizer=tokenizer, device="cuda", dtype=dtype
        )
    tokens = torch.randint(500, (length,), generator=torch.Generator().manual_seed(1))
    tls.semantic_scope(model, tokens[:300], target=7)  # what is made once
    memory = Memory(model, checkpoint=checkpoint, budget=1)
    with differentiable(model):
        estimate = memory.peak(Run(1, length, 1, 1, checkpoint))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    attr = tls.semantic_scope(model, tokens, target=7, checkpoint=checkpoint)
    peak = torch.cuda.max_memory_allocated() - before
    assert attr.details["attention"] == ["fused"] * 2
    assert peak < heads * length**2 * dtype.itemsize / 2
    assert peak / 1.2 < estimate < peak * 1.2


@pytest.mark.gpu
@cuda
def test_predictions_in_blocks_on_cuda_are_those_of_a_table_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = families.build("gemma2", "bridge")  # it caps its logits
    model = families.build("gemma2", "bridge", fresh=True).model.to("cuda")

    def found(lens: Any) -> list[Tensor]:
        attr = tls.semantic_scope(lens, TOKENS, target=7)
        return [
            attr.scores,
            tls.semantic_scope(lens, TOKENS, pos=range(1, 8)).scores,
            tls.fisher_scope(lens, TOKENS, pos=range(1, 8)).scores,
            tls.leave_one_out(lens, TOKENS, target=7).scores,
            torch.tensor(tls.verdict(lens, attr).effect)[None],
        ]

    expected = found(pair.model)
    monkeypatch.setattr(forward, "TABLE", 0)
    monkeypatch.setattr(predictions, "BLOCK", 40)
    for blocks, table in zip(found(model), expected, strict=True):
        assert oracles.relative_error(blocks, table) < 1e-5


@pytest.mark.gpu
@cuda
@pytest.mark.parametrize("name", ["semantic", "temperature", "fisher", "total_information", "input_x_gradient"])
def test_bfloat16_on_cuda_ranks_tokens_as_float32_does(name: str) -> None:
    text = " ".join(tls.load_passages("demo", 10))
    full, half = (tls.load_model("demo-llama", device="cuda", dtype=d) for d in (torch.float32, torch.bfloat16))
    tokens = full.to_tokens(text)[0, :80]
    target = tls.semantic_scope(full, tokens).target
    keywords = {"target": target} if name in ("semantic", "input_x_gradient") else {}
    scope = getattr(tls, name, None) or getattr(tls, f"{name}_scope")
    a, b = (scope(model, tokens, **keywords).scores[1:].tolist() for model in (full, half))
    assert spearman(a, b) > 0.95


@pytest.mark.gpu
@cuda
def test_memory_on_cuda_is_counted_and_estimated(kind: str) -> None:
    from tl_scopes.model.hooks import differentiable
    from tl_scopes.model.memory import Memory, available_memory
    from tl_scopes.model.probe_runs import Run

    model = families.build("gpt2", kind, torch.float32, fresh=True).model.to("cuda")
    free = available_memory(model)
    assert 0 < free <= torch.cuda.mem_get_info()[1]
    tokens = families.prompt_tokens(120)
    memory = Memory(model, budget=1)
    with differentiable(model):
        estimate = memory.peak(Run(1, 120, 1))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    tls.semantic_scope(model, tokens)
    peak = torch.cuda.max_memory_allocated() - before
    assert estimate / 1.3 < peak < estimate * 1.3


@pytest.mark.gpu
@two
def test_a_model_spread_over_two_devices_gives_the_same_scores() -> None:
    pair = families.build("llama", "bridge")
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_config(pair.hf.config, attn_implementation="eager").double()
    hf.load_state_dict(pair.hf.state_dict())
    device_map = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 1, "model.norm": 1, "lm_head": 0}
    device_map["model.rotary_emb"] = 0
    spread = accelerate.dispatch_model(hf.eval(), device_map)
    model = families.TransformerBridge.boot_transformers("tiny", hf_model=spread, tokenizer=pair.tokenizer)
    expected, found = every_scope(pair.model), every_scope(model)
    for name, scores in found.items():
        assert oracles.relative_error(scores, expected[name]) < 1e-5, name
