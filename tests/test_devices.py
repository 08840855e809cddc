"""Invariant: the scores on an accelerator are those on the CPU, and nothing is left on the wrong device.

Machines without a CUDA device skip all but the float64 rule, whose one place is checked in the source as well: Apple's
MPS has no float64, and code that forgot would fail there only.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import families
import oracles
import pytest
import torch

import tl_scopes as tls
from tl_scopes import precision

TOKENS = families.prompt_tokens()
FOIL = families.VOCAB[" city"]
KERNEL = (
    "model", "fisher", "eigensolver", "scores", "moments", "directions", "information", "kernel", "capture",
)  # fmt: skip
"""Modules that compute on the model's own device."""


def test_float64_is_made_in_one_place() -> None:
    for name in KERNEL:
        path = Path(precision.__file__).with_name(f"{name}.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr != "double", f"{name}.py:{node.lineno}: use precision.wide"


def test_a_device_without_float64_is_left_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # the meta device stands for one that is not the CPU; values are not needed to see where a tensor goes
    half = torch.empty(3, device="meta", dtype=torch.float16)
    assert precision.wide(half).device.type == "meta"
    assert precision.wide(torch.ones(2)).dtype == torch.float64
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", ("meta",))
    moved: list[torch.Tensor] = []
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda self: moved.append(self) or torch.zeros(self.shape, dtype=self.dtype)
    )
    assert precision.wide(half).device.type == "cpu"
    assert precision.wide(half).dtype == torch.float64
    assert len(moved) == 2


# -- CUDA --------------------------------------------------------------------------------------------

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


def every_scope(model: Any) -> dict[str, torch.Tensor]:
    """Scores of every scope on both paths of the eigensolver."""
    scores = {name: attr.scores for name, attr in tls.scopes(model, TOKENS, foil=FOIL, methods=METHODS).items()}
    scores["batch"] = tls.semantic_scope(model, [TOKENS, TOKENS[:5]], target=7)[1].scores
    scores["rank 4"] = tls.fisher_scope(model, TOKENS, rank=4).scores
    scores["total"] = tls.total_information(model, TOKENS, rtol=0.2).scores
    scores["exact"] = tls.total_information(model, TOKENS, method="exact").scores
    scores["moment"] = tls.moment_scope(model, TOKENS, values={5: 1.0, 6: 2.0, 7: 4.0}).scores
    scores["matrix"] = tls.attribution_matrix(model, TOKENS).scores
    scores["checkpointed"] = tls.semantic_scope(model, TOKENS, target=7, checkpoint=True).scores
    scores["eigenvalues"] = tls.fisher_spectrum(model, TOKENS, k=3).eigenvalues
    return scores


METHODS = ("semantic", "contrast", "fisher", "temperature")


@pytest.mark.gpu
@cuda
@pytest.mark.families("gpt2", "llama", "gemma2")
@pytest.mark.parametrize("solver", ["dense", "iterative"])
def test_scores_on_cuda_are_those_on_the_cpu(pair: families.Pair, solver: str, monkeypatch: Any) -> None:
    if solver == "iterative":
        monkeypatch.setattr("tl_scopes.fisher.DENSE_COST", 0)
    expected = every_scope(pair.model)
    model = families.build(pair.family, pair.kind, fresh=True).model.to("cuda")
    found = every_scope(model)
    for name, scores in found.items():
        assert scores.device.type == "cpu", name
        assert oracles.relative_error(scores, expected[name]) < 1e-5, name
    attr = tls.semantic_scope(model, TOKENS, target=7, keep_gradient=True)
    assert attr.gradient.device.type == attr.tokens.device.type == "cpu"
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    assert tls.check_model(model).ok


@pytest.mark.gpu
@cuda
def test_memory_on_cuda_is_counted_and_estimated(kind: str) -> None:
    from tl_scopes.capture import differentiable
    from tl_scopes.memory import Memory, Run
    from tl_scopes.model import available_memory

    model = families.build("gpt2", kind, torch.float32, fresh=True).model.to("cuda")
    free = available_memory(model)
    assert 0 < free <= torch.cuda.mem_get_info()[1]
    tokens = families.prompt_tokens(120)
    memory = Memory(
        model, source="hook_embed", target="unembed.hook_in", checkpoint=None, budget=1, call="test"
    )  # fmt: skip
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
    import accelerate
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
