"""Invariant: what `patch_top` says of a cell is what TransformerLens' full sweep says of it.

Joint patches are checked against a run with hand-written hooks, the estimate against central differences of such runs.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from html import escape
from typing import Any

import every_result
import families
import pytest
import torch
from transformer_lens import patching

import tl_scopes as tls
from tl_scopes.demo.corpora import examples
from tl_scopes.demo.corpora.passages import token_positions

CLEAN = "the dog saw a cat and the old man ran to"
CORRUPT = "the king saw a cat and the big man ran to"
CORPUS = "binding"
"""Demo corpus of the last test; any whose examples the bundled model answers right."""
N_PROMPTS = 5
FLOAT32 = 1e-6
"""TransformerLens stores the values of a sweep in float32."""


def logit(logits: torch.Tensor, target: int) -> torch.Tensor:
    return logits[0, -1, target]


def setting(model: Any, **options: Any) -> tuple[Any, torch.Tensor, torch.Tensor, int]:
    attribution = tls.semantic_scope(model, CLEAN, target=" king", **options)
    corrupt = model.to_tokens(CORRUPT, prepend_bos=len(attribution) > len(CLEAN.split()))
    return attribution, attribution.tokens[None], corrupt, attribution.target


@pytest.mark.on_families("llama", "neox", slow=("gpt2",))
@pytest.mark.parametrize("component", ["resid_pre", "attn_out"])
def test_cells_are_those_of_the_full_sweep(pair: families.Pair, component: str) -> None:
    model = pair.model
    attribution, clean, corrupt, target = setting(model)
    result = tls.patch_top(model, clean, corrupt, attribution, k=3, component=component, n_random=2)
    with torch.no_grad():
        _, cache = model.run_with_cache(clean)
        sweep = getattr(patching, f"get_act_patch_{component}")
        full = sweep(model, corrupt, cache, partial(logit, target=target))
    assert result.cells.shape == (model.cfg.n_layers, 3) and result.full_cells == full.numel()
    assert torch.allclose(result.cells.float(), full[:, list(result.positions)], rtol=FLOAT32, atol=FLOAT32)
    assert float(full.std()) > 1e-3, "the sweep must be able to tell cells apart"


def patched(model: Any, clean: torch.Tensor, corrupt: torch.Tensor, layer: int, positions: list[int], share: float):
    """Logits at the last position with a share of the clean activation put in."""
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = model.run_with_cache(clean)

    def hook(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        out = activation.clone()
        out[:, positions] += share * (cache[name] - activation)[:, positions]
        return out

    return model.run_with_hooks(corrupt, fwd_hooks=[(name, hook)])[0, -1]


@pytest.mark.on_families("gpt2", "llama")
def test_joint_random_and_estimate_against_own_hooks(pair: families.Pair) -> None:
    model = pair.model
    attribution, clean, corrupt, target = setting(model)
    result = tls.patch_top(model, clean, corrupt, attribution, k=2, n_random=3)
    with torch.no_grad():
        run = partial(patched, model, clean, corrupt)
        for layer in result.layers:
            joint = run(layer, list(result.positions), 1.0)[target]
            assert float(result.joint[layer]) == pytest.approx(float(joint), rel=1e-6)
            for i, drawn in enumerate(result.random_positions):
                assert float(result.random[layer, i]) == pytest.approx(
                    float(run(layer, list(drawn), 1.0)[target]), rel=1e-6
                )
            for j, pos in enumerate(result.positions):
                up, down = (float(run(layer, [pos], s)[target]) for s in (1e-3, -1e-3))
                slope = float(result.estimate[layer, j]) - result.corrupt
                assert slope == pytest.approx((up - down) / 2e-3, rel=2e-3, abs=1e-4)
        assert result.clean == pytest.approx(float(model(clean)[0, -1, target]), rel=1e-6)
        assert result.corrupt == pytest.approx(float(model(corrupt)[0, -1, target]), rel=1e-6)


@pytest.mark.parametrize("own", [False, True])
def test_logits_exist_at_the_explained_position_alone_unless_a_metric_reads_all(own: bool, kind: str) -> None:
    model = families.build("llama", kind).model
    attribution, clean, corrupt, target = setting(model, pos=5)
    shapes = []
    model.add_hook("unembed.hook_out", lambda logits, hook: shapes.append(tuple(logits.shape[:2])))
    metric = partial(logit, target=target) if own else None
    result = tls.patch_top(model, clean, corrupt, attribution, k=2, n_random=3, metric=metric)
    model.reset_hooks(including_permanent=True)
    n = clean.shape[1]
    assert {read for _, read in shapes} == ({n} if own else {1})
    looks = model.cfg.n_layers - 1  # at whether a run may begin at a layer
    assert sum(rows for rows, _ in shapes[-model.cfg.n_layers - looks :]) == result.cells.shape[0] * (2 + 1 + 3) + looks


@pytest.mark.parametrize("component", ["resid_pre", "mlp_out"])
def test_patched_runs_begin_at_their_layer(component: str, kind: str) -> None:
    """Rows that pass the first block and the last: those of the first layer pass both, all others and the looks the last."""
    model = families.build("llama", kind, fresh=True).model
    attribution, clean, corrupt, _ = setting(model)
    rows: dict[str, list[int]] = {}
    last = model.cfg.n_layers - 1
    for layer in (0, last):
        name = f"blocks.{layer}.hook_resid_post"
        model.add_hook(name, lambda activation, hook: rows.setdefault(hook.name, []).append(len(activation)))
    tls.patch_top(model, clean, corrupt, attribution, k=2, n_random=3, component=component)
    first, all_rows = (sum(n) for n in rows.values())
    assert all_rows - first == (last * (2 + 1 + 3)) + last


@pytest.mark.parametrize("fails", [False, True])
def test_where_later_blocks_need_more_of_earlier_ones_than_the_stream_all_blocks_run(fails: bool, kind: str) -> None:
    """Block 1 adds what block 0 gave in the same run, or in the last one, or raises where it gave nothing."""
    model = families.build("llama", kind, fresh=True).model
    attribution, clean, corrupt, target = setting(model)
    given: list[torch.Tensor] = []

    def keep(activation: torch.Tensor, hook: Any) -> None:
        given[:] = [activation.detach()]

    def add(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        kept = given.pop() if fails else given[0]
        return activation + (kept if len(kept) == len(activation) else kept[:1]).cumsum(1)

    name = "blocks.1.hook_resid_pre"
    model.add_hook("blocks.0.hook_mlp_out", keep)
    model.add_hook("blocks.1.hook_mlp_out", add)
    attribution = tls.semantic_scope(model, CLEAN, target=" king")
    result = tls.patch_top(model, clean, corrupt, attribution, k=clean.shape[1] - 1, n_random=2)
    cells = dict(zip(result.positions, result.cells[1].tolist(), strict=True))
    with torch.no_grad():
        _, cache = model.run_with_cache(clean, names_filter=name)
        for pos, cell in cells.items():

            def put(activation: torch.Tensor, hook: Any, pos: int = pos) -> torch.Tensor:
                activation[:, pos] = cache[name][:, pos]
                return activation

            expected = model.run_with_hooks(corrupt, fwd_hooks=[(name, put)])[0, -1, target]
            assert cell == pytest.approx(float(expected), rel=1e-6)


def test_own_metric_gives_the_same_as_the_explained_scalar(kind: str) -> None:
    model = families.build("gemma2", kind).model
    attribution, clean, corrupt, target = setting(model)
    own = tls.patch_top(model, clean, corrupt, attribution, k=2, n_random=2, metric=partial(logit, target=target))
    default = tls.patch_top(model, clean, corrupt, attribution, k=2, n_random=2)
    for name in ("cells", "estimate", "joint", "random"):
        assert torch.allclose(getattr(own, name).double(), getattr(default, name).double(), rtol=1e-5), name
    flat = tls.patch_top(
        model, clean, corrupt, attribution, k=2, n_random=2, metric=lambda z: z.detach()[0, -1, target]
    )
    assert flat.estimate is None and torch.allclose(flat.joint, own.joint)


@pytest.mark.parametrize("scope", [tls.temperature_scope, tls.fisher_scope])
def test_scalars_that_are_no_logit(scope: Any, kind: str) -> None:
    """All tokens at layer 0 restore everything, whatever is explained; and nothing is below the corrupt run's divergence."""
    model = families.build("gpt2", kind).model
    attribution = scope(model, CLEAN)
    n = len(attribution.without("special").shown)
    result = tls.patch_top(model, CLEAN, CORRUPT, attribution, k=n, layers=[0], n_random=1)
    assert float(result.recovered(result.joint)[0]) == pytest.approx(1, abs=1e-6)
    if scope is tls.fisher_scope:
        assert result.clean == 0 > result.corrupt


def test_target_inside_the_model_leaves_out_later_layers(kind: str) -> None:
    model = families.build("gemma2", kind).model
    v = torch.ones(families.D_MODEL, dtype=torch.float64)
    attribution = tls.jacobian_scope(model, CLEAN, direction=v, target_hook="blocks.1.hook_resid_post")
    result = tls.patch_top(model, CLEAN, CORRUPT, attribution, k=2, n_random=1)
    assert result.layers == (0, 1)
    with pytest.raises(ValueError, match=r"different layers among 0\.\.1"):
        tls.patch_top(model, CLEAN, CORRUPT, attribution, k=2, layers=[2])


def test_random_tokens_are_of_the_seed(kind: str) -> None:
    model = families.build("gpt2", kind).model
    attribution = tls.semantic_scope(model, CLEAN).without([5])
    first, again, other = (
        tls.patch_top(model, CLEAN, CORRUPT, attribution, k=3, layers=[0], n_random=6, seed=s).random_positions
        for s in (0, 0, 1)
    )
    assert first == again != other
    assert all(len(set(d)) == 3 and not {0, 5} & set(d) for d in first)


def test_what_does_not_fit_is_refused(kind: str, unchecked: None) -> None:
    model = families.build("neox", kind).model
    attribution = tls.semantic_scope(model, CLEAN)
    for corrupt, options, words in (
        (CORRUPT + " the", {}, "positions must correspond"),
        (CLEAN, {}, "nothing to recover"),
        (CORRUPT, {"k": 0}, "k must be in"),
        (CORRUPT, {"k": 99}, "k must be in"),
        (CORRUPT, {"layers": [9]}, "different layers among"),
        (CORRUPT, {"component": "z"}, "expected 'resid_pre', "),
        (CORRUPT, {"component": "resid_mid"}, "shows no hook_resid_mid in any layer of GPTNeoXForCausalLM. Use one of"),
        (CORRUPT, {"n_random": 0}, "n_random=0.*positive integer"),
    ):
        with pytest.raises(ValueError, match=words):
            tls.patch_top(model, CLEAN, corrupt, attribution, **{"k": 2, **options})
    with pytest.raises(ValueError, match="of another prompt"):
        tls.patch_top(model, CORRUPT, CORRUPT, attribution)
    inner = tls.jacobian_scope(model, CLEAN, direction=torch.ones(32), target_hook="blocks.0.hook_resid_pre")
    with pytest.raises(ValueError, match=r"component='attn_out'\): no hook_attn_out stands before blocks\.0"):
        tls.patch_top(model, CLEAN, CORRUPT, inner, k=2, component="attn_out")
    if kind == "bridge":
        model = families.build("gpt2", kind).model
        with pytest.raises(ValueError, match="on a TransformerBridge this hook is the input of the MLP's branch alone"):
            tls.patch_top(model, CLEAN, CORRUPT, tls.semantic_scope(model, CLEAN), k=2, component="resid_mid")


@pytest.mark.slow
def test_gold_tokens_on_the_demo_task_beside_random_ones(demo_model: Any) -> None:
    """k is the number of known causes; the corrupt prompt has another word in the place of one of them."""
    recovered, random = [], []
    for example in examples(CORPUS, 4 * N_PROMPTS, seed=5):
        clean, corrupt = example.prompt, example.swapped(example.causes[0])
        same = [len(demo_model.to_tokens(p)[0]) for p in (clean, corrupt)]
        attribution = tls.semantic_scope(demo_model, clean, target=example.answer)
        if same[0] != same[1] or attribution.top_predictions[0][0] != example.answer or len(recovered) == N_PROMPTS:
            continue
        k = len(
            token_positions(demo_model.tokenizer, clean, [s.span for s in example.causes], 0 in attribution.special)
        )
        result = tls.patch_top(demo_model, clean, corrupt, attribution, k=k, layers=[0], n_random=10)
        row = result.by_layer().iloc[0]
        recovered.append(row.recovered)
        random.append(row.random_mean)
    assert len(recovered) == N_PROMPTS
    difference = torch.tensor(recovered) - torch.tensor(random)
    print(f"{CORPUS}: recovered {sum(recovered) / N_PROMPTS:.2f}, random {sum(random) / N_PROMPTS:.2f}")
    assert float(difference.mean()) > 3 * float(difference.std() / N_PROMPTS**0.5)
    assert sum(recovered) / N_PROMPTS > 0.5


def test_the_range_of_random_draws_is_of_draws() -> None:
    result = every_result.patch()
    frame, random = result.by_layer(), result.recovered(result.random)
    for row, draws in zip(frame.itertuples(), random, strict=True):
        assert (row.random_low, row.random_high) == (float(draws.double().min()), float(draws.double().max()))
        assert row.random_mean == pytest.approx(float(draws.double().mean()))


def test_pictures_and_words(kind: str) -> None:
    model = families.build("gpt2", kind).model
    result = tls.patch_top(model, CLEAN, CORRUPT, tls.semantic_scope(model, CLEAN), k=2, n_random=2)
    assert "recover" in result.summary and result.summary in str(result)
    assert result.cost == pytest.approx(2 / len(result.attribution))
    curve = result.plot().axes[0].lines
    assert any(torch.allclose(torch.tensor(c.get_ydata()).double(), result.recovered(result.joint)) for c in curve)
    assert result.html().startswith("<!doctype html>") and escape(result.summary) in result.html()
    few = tls.semantic_scope(model, CLEAN).without("special")
    short = tls.patch_top(model, CLEAN, CORRUPT, few, k=len(few.shown), n_random=4)
    (note,) = short.notes
    assert "4 of 4 random draws are the attributed tokens themselves" in note and note in str(short)
    close = replace(
        result, cells=torch.full_like(result.cells, result.corrupt + 34.4 * (result.clean - result.corrupt))
    )
    (note,) = close.notes
    assert "by up to 34 times the difference" in note and escape(note) in close.html() and note in str(close)
    assert not replace(
        close, cells=torch.full_like(close.cells, close.clean), random=close.random * 0 + close.clean
    ).notes
