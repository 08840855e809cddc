"""Sink figures are what a slow reading of `hook_pattern` gives, and a sink that was planted is found where it is.

Invariants: the kernel's own record and `attention_sinks` agree on residual norms; `without("sinks")` hides and never
changes a score, and says that it is a correction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import pytest
import torch
from families import Pair
from oracles import relative_error
from samples import attribution, matrix
from torch import Tensor

import tl_scopes as tls
import tl_scopes.views.terminal  # rich draws a random number when it is first imported
from tl_scopes.analysis.attention import attention_ratio, mass_on, received_attention
from tl_scopes.kernel.massive_activations import outliers

PROMPT = "German: der Hund sieht die Katze. English: the"
TARGET = families.VOCAB[" house"]
QUIET: dict[str, Any] = {"bos": (), "unrelated": 0, "methods": ("semantic",)}


# -- against hook_pattern ----------------------------------------------------------------------------------


@pytest.mark.on_families("gpt2", "llama", "mistral", "gemma2")
def test_figures_are_those_of_a_slow_reading_of_the_cache(pair: Pair) -> None:
    """gemma2: capped scores and sliding windows; mistral: windows; llama: two key-value heads for four query heads."""
    tokens, pos, n_first = families.prompt_tokens(14), 12, 2
    sinks = tls.attention_sinks(pair.model, tokens, n_first=n_first, pos=pos, target=TARGET, **QUIET)
    _, cache = pair.model.run_with_cache(tokens[None])
    for layer in range(pair.model.cfg.n_layers):
        A = cache[f"blocks.{layer}.attn.hook_pattern"][0].double()
        v = cache[f"blocks.{layer}.attn.hook_v"][0].double()
        for head in range(families.N_HEADS):
            for t in range(pos):
                wanted = sum(float(A[head, q, t]) for q in range(t + 1, pos + 1)) / (pos - t)
                assert float(sinks.received[layer, head, t]) == pytest.approx(wanted, rel=1e-5, abs=1e-7)
            queries = range(n_first, pos + 1)
            wanted = sum(float(A[head, q, :n_first].sum()) for q in queries) / len(queries)
            assert float(sinks.mass["first"][layer, head]) == pytest.approx(wanted, rel=1e-5)
            wanted = sum(float(A[head, q, 0]) for q in range(1, pos + 1)) / pos
            assert float(sinks.mass["bos"][layer, head]) == pytest.approx(wanted, rel=1e-5)
            read = head * v.shape[1] // families.N_HEADS  # grouped queries: consecutive heads share one
            assert relative_error(sinks.value_norms[layer, head], v[: pos + 1, read].norm(dim=-1)) < 1e-5
    for row, hook in zip(sinks.residual_norms, ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"], strict=False):
        assert relative_error(row, cache[hook][0, : pos + 1].norm(dim=-1)) < 1e-5
    scores = tls.semantic_scope(pair.model, tokens, pos=pos, target=TARGET).scores
    assert sinks.share("semantic", "first") == pytest.approx(float(scores[:2].sum() / scores.sum()), rel=1e-5)
    assert torch.equal(sinks.attributions["semantic"].scores, scores)


def test_attention_at_equal_distance_sees_through_causality_and_locality() -> None:
    """A uniform causal pattern and a local one have no sinks, though early or late keys get far more of the mean."""
    n = 40
    uniform = torch.tril(torch.ones(n, n))
    local = uniform - torch.tril(torch.ones(n, n), -4)
    for pattern in (uniform, local, 0.5 * uniform / uniform.sum(1, keepdim=True) + 0.5 * local):
        pattern = pattern / pattern.sum(1, keepdim=True)
        ratios = attention_ratio(pattern, list(range(1, n)))
        assert max(ratios.values(), default=0.0) < 2.2, ratios
        planted = pattern.clone()
        planted[12:, 11] += 0.5
        ratios = attention_ratio(planted / planted.sum(1, keepdim=True), list(range(1, n)))
        assert ratios.pop(11) > 5
        assert max(ratios.values(), default=0.0) < 2.2, ratios
    assert received_attention(uniform / uniform.sum(1, keepdim=True))[0] > 0.07
    assert attention_ratio(uniform, [1, 2, 3]) == {}, "too few to have a median"
    faint = torch.tril(torch.ones(n, n)) * 1e-3  # nearly all on the first token, the rest on one more than on others
    faint[:, 0] = 1.0
    faint[12:, 11] = 0.01
    assert attention_ratio(faint / faint.sum(1, keepdim=True), list(range(1, n))) == {}, "no one has an even share"


def test_mass_leaves_out_queries_that_are_sinks_themselves() -> None:
    pattern = torch.tensor([[1.0, 0, 0, 0], [0.9, 0.1, 0, 0], [0.5, 0.2, 0.3, 0], [0.3, 0.1, 0.2, 0.4]])
    assert float(mass_on(pattern, (0,))) == pytest.approx((0.9 + 0.5 + 0.3) / 3)
    assert float(mass_on(pattern, (0, 1))) == pytest.approx((0.7 + 0.4) / 2)
    assert float(mass_on(pattern, (3,))) == 0.0
    assert float(mass_on(pattern, ())) == 0.0


def test_outlying_is_a_multiple_of_the_median_in_any_row() -> None:
    table = torch.tensor([[9.0, 1, 1, 1, 1, 2], [9.0, 2, 2, 12, 2, 2]])
    assert outliers(table, [1, 2, 3, 4, 5]) == {3: 6.0}
    assert outliers(table, [1, 2, 3, 4, 5], multiple=7.0) == {}
    assert outliers(table, [1, 2, 3]) == {}, "three positions have no median to speak of"


# -- planted -----------------------------------------------------------------------------------------------

SINK = families.VOCAB["!"]


def planted(kind: str, size: float, pull: float) -> Any:
    """gpt2 in which one token's embedding is `size` times as long and every head's keys and queries agree on it."""
    hf: Any = families._hf_model("gpt2", torch.float64)
    generator = torch.Generator().manual_seed(11)
    e = torch.randn(families.D_MODEL, generator=generator, dtype=torch.float64)
    e = (e - e.mean()) / (e - e.mean()).norm()
    with torch.no_grad():
        if size > 0:
            hf.transformer.wte.weight[SINK] = e * size * hf.transformer.wte.weight.norm(dim=1).median()
        for block in hf.transformer.h if pull else ():
            u = torch.randn(families.N_HEADS, families.D_HEAD, generator=generator, dtype=torch.float64)
            u = (u / u.norm(dim=1, keepdim=True)).flatten() * pull
            d = families.D_MODEL
            block.attn.c_attn.weight[:, d : 2 * d] += torch.outer(e / block.ln_1.weight, u)
            block.attn.c_attn.bias[:d] += u
    with torch.random.fork_rng(devices=[]):
        return (families._hooked_model if kind == "hooked" else families._bridge_model)(hf, "gpt2", False)


def prompt_with_sink(seed: int, n: int = 24) -> tuple[Tensor, int]:
    """A prompt in which the planted token stands once, at a seeded position in mid-sequence."""
    tokens = families.prompt_tokens(n, seed=seed)
    tokens[tokens == SINK] = families.VOCAB["."]
    where = int(torch.randint(4, n - 6, (), generator=torch.Generator().manual_seed(seed)))
    tokens[where] = SINK
    return tokens, where


def test_a_planted_sink_is_found_at_its_seeded_position(kind: str) -> None:
    model, plain = planted(kind, size=30.0, pull=1.3), families.build("gpt2", kind).model
    for seed in range(3):
        tokens, where = prompt_with_sink(seed)
        found = tls.attention_sinks(model, tokens, target=TARGET, **QUIET)
        assert set(found.secondary) == {where}
        assert found.secondary[where]["residual"] > 5
        assert found.secondary[where]["attention"] > 5
        assert float(found.mass["secondary"].mean()) > 0.4
        assert found.groups["secondary"] == (where,)
        assert found.attributions["semantic"].sinks == frozenset({0, where})
        # every scope records it by its own forward's residual norms, at no further cost
        attr = tls.semantic_scope(model, tokens, target=TARGET)
        assert attr.sinks == frozenset({where})
        few = float(attr.scores[where]) <= float(attr.scores.mean())
        assert few, "much attention, little influence"
        assert where in attr.without("sinks").shown and f"({where})." in attr.without("sinks").notes[-1]
        assert not tls.attention_sinks(plain, tokens, target=TARGET, **QUIET).secondary
        assert tls.semantic_scope(plain, tokens).sinks == frozenset()


def test_a_sink_of_ordinary_size_is_found_by_attention(kind: str) -> None:
    model = planted(kind, size=1.5, pull=1.5)
    tokens, where = prompt_with_sink(1)
    found = tls.attention_sinks(model, tokens, target=TARGET, **QUIET)
    assert set(found.secondary) == {where}
    assert found.secondary[where]["residual"] < 5 < found.secondary[where]["attention"]
    assert tls.semantic_scope(model, tokens).sinks == frozenset(), "the scope alone sees norms only"
    assert where not in found.attributions["semantic"].without("sinks").shown
    assert not tls.attention_sinks(model, tokens, target=TARGET, multiple=1000.0, **QUIET).secondary


# -- the corrected view ------------------------------------------------------------------------------------


def test_without_sinks_is_a_mask_that_says_so(demo_model: Any, tmp_path: Path) -> None:
    attr = tls.semantic_scope(demo_model, PROMPT, target=" dog")
    assert attr.sinks is not None
    corrected = attr.without("sinks")
    assert torch.equal(corrected.scores, attr.scores)
    even = float(attr.scores.mean())
    assert corrected.hidden == frozenset({0}) | attr.special | {p for p in attr.sinks if attr.scores[p] > even}
    assert any("Sink-corrected view" in note for note in corrected.notes)
    assert "Sink-corrected view" in corrected.html()
    assert corrected.without("sinks").notes == corrected.notes
    back = tls.Attribution.load(corrected.save(tmp_path / "a.json"))
    assert (back.sinks, back.hidden, back.notes) == (corrected.sinks, corrected.hidden, corrected.notes)
    with_positions = tls.semantic_scope(demo_model, PROMPT, prepend_bos=False).without("sinks")
    assert with_positions.hidden >= {0} and with_positions.hidden - {0} <= (with_positions.sinks or frozenset())
    measured = tls.random_attribution(demo_model, PROMPT).without("sinks")
    assert "not looked for" in measured.notes[-1] and 0 in measured.hidden
    matrix = tls.attribution_matrix(demo_model, PROMPT, positions=[-2, -1]).without("sinks")
    assert 0 in matrix.hidden and "not looked for" in matrix.notes[-1]
    words = corrected.by_word()
    assert 0 in words.hidden and words.sinks is not None


def test_the_corrected_view_names_what_it_leaves_out_and_how_much_was_there() -> None:
    scores = torch.tensor([4.0, 0.5, 0.5, 10.0, 5.0, 0.0])
    corrected = attribution(scores=scores, notes=(), sinks=frozenset({0, 2, 3})).without("sinks")
    (note,) = corrected.notes
    assert "Left out: '<bos>' (0) with 20.0% of the influence (an even share is 20.0%)" in note
    assert f"secondary sinks, found by norm or attention: {corrected.str_tokens[3]!r} (3) with 50.0% of" in note
    assert note.endswith("Secondary sinks that stay, each with no more than an even share: ':' (2).")
    assert corrected.hidden == {0, 3}
    assert "'German'" not in note, "the first word is not what is left out"
    corrected = attribution(scores=scores, notes=(), sinks=frozenset({2})).without("sinks")
    assert corrected.hidden == {0} and "(an even share is 20.0%). Secondary sinks that stay, " in corrected.notes[0]
    (note,) = attribution(scores=scores, notes=(), special=frozenset(), sinks=frozenset()).without("sinks").notes
    assert note.endswith("Secondary sinks: none found.")
    (note,) = matrix().without("sinks").notes
    assert "'<bos>' (0). Secondary sinks: not looked for." in note and "%" not in note


def test_a_sink_that_is_left_out_inside_a_word_that_is_shown_is_said() -> None:
    tokens = ["un", "believ", "able", " story", " is", "."]
    words = (
        attribution(tokens, special=frozenset(), sinks=frozenset({2}), scores=torch.tensor([1.0, 1, 5, 1, 1, 1]))
        .without("sinks")
        .by_word()
    )
    assert words.hidden == frozenset()
    assert "their words are shown and count them: 'un' (0) of 'unbelievable', 'able' (2) of" in words.notes[-1]
    whole = (
        attribution(tokens, special=frozenset(), sinks=frozenset({3}), scores=torch.tensor([1.0, 1, 1, 5, 1, 1]))
        .without("sinks")
        .by_word()
    )
    assert whole.hidden == {1} and "'un' (0) of 'unbelievable'." in whole.notes[-1]


def test_sinks_count_positions_up_to_the_explained_one(kind: str) -> None:
    model = planted(kind, size=30.0, pull=1.3)
    tokens, where = prompt_with_sink(0)
    assert tls.semantic_scope(model, tokens, pos=where - 1).sinks == frozenset()
    assert tls.semantic_scope(model, tokens, pos=where).sinks == frozenset({where})
    both = tls.semantic_scope(model, [tokens, tokens[: where - 1]])
    assert [a.sinks for a in both] == [frozenset({where}), frozenset()], "each prompt of a batch has its own"


# -- BOS and the baseline ----------------------------------------------------------------------------------


def test_bos_rows_are_runs_of_the_same_text(kind: str) -> None:
    model = families.build("llama", kind).model
    text = families.prompt_tokens(10)[1:]
    one = torch.cat([torch.tensor([families.BOS_ID]), text])
    sinks = tls.attention_sinks(model, one, methods=("semantic",), target=TARGET, unrelated=0)
    assert [row["n_bos"] for row in sinks.bos_comparison] == [0, 1, 2]
    for row in sinks.bos_comparison:
        n = row["n_bos"]
        tokens = torch.cat([torch.full((n,), families.BOS_ID), text])
        scores = tls.semantic_scope(model, tokens, target=TARGET).scores.double()
        assert row["share_semantic"] == pytest.approx(float(scores[: max(n, 1)].sum() / scores.sum()), rel=1e-4)
        _, cache = model.run_with_cache(tokens[None])
        first = [float(cache[f"blocks.{i}.attn.hook_pattern"][0, :, 1:, 0].mean()) for i in range(2)]
        assert row["attention_first"] == pytest.approx(sum(first) / 2, rel=1e-4)
    assert sinks.bos_comparison[1]["rank_correlation_semantic"] == pytest.approx(1.0)


def test_one_token_behind_its_bos_has_no_rank_correlation(tmp_path: Path) -> None:
    model = families.build("llama", families.kinds_available()[-1]).model
    tokens = torch.tensor([families.BOS_ID, families.BOS_ID, TARGET])
    sinks = tls.attention_sinks(model, tokens, methods=("semantic",), n_first=1, unrelated=0)
    assert [row["n_bos"] for row in sinks.bos_comparison] == [1, 2]
    assert "rank_correlation_semantic" not in sinks.bos_frame()
    assert tls.AttentionSinks.load(sinks.save(tmp_path / "sinks.json")).bos_comparison == sinks.bos_comparison


def test_the_baseline_is_the_mean_share_over_the_prompts(kind: str) -> None:
    model = families.build("gpt2", kind).model
    others = [families.prompt_tokens(n, seed=n) for n in (12, 15, 13)]
    baseline = tls.positional_baseline(model, families.prompt_tokens(12), unrelated=others, pos=9)
    shares = []
    for tokens in others:
        scores = tls.semantic_scope(model, tokens[:10]).scores
        shares.append(scores / scores.sum())
    wanted = torch.stack(shares)
    assert relative_error(baseline.share, wanted.mean(0)) < 1e-6
    assert relative_error(baseline.stderr, wanted.std(0) / 3**0.5) < 1e-6
    attr = tls.semantic_scope(model, others[0][:10])
    assert relative_error(baseline.ratio(attr), shares[0] / wanted.mean(0)) < 1e-6
    for other, says in (
        ({"at": "blocks.1.hook_resid_pre"}, "at='hook_embed', of='logit', the attribution of at='blocks.1"),
        ({"of": "log_prob"}, "of='log_prob'"),
    ):
        with pytest.raises(ValueError, match=says):
            baseline.ratio(tls.semantic_scope(model, others[0][:10], **other))
    with pytest.raises(ValueError, match="of semantic, the attribution of temperature"):
        baseline.ratio(tls.temperature_scope(model, others[0][:10]))
    wide = tls.positional_baseline(model, others[0][:10], method="fisher", rank=2, unrelated=2)
    assert wide.ratio(tls.fisher_scope(model, others[0][:10], rank=2)).shape == (10,)
    with pytest.raises(ValueError, match="rank=2, the attribution of .*rank=1"):
        wide.ratio(tls.fisher_scope(model, others[0][:10]))
    with pytest.raises(ValueError, match="read at position 9"):
        baseline.ratio(tls.semantic_scope(model, others[0]))
    with pytest.raises(ValueError, match="pass longer ones"):
        tls.positional_baseline(model, families.prompt_tokens(12), unrelated=[others[0][:5], others[1]])


@pytest.mark.parametrize("prepend_bos", [True, False])
def test_unrelated_texts_are_read_as_the_prompt_is(kind: str, prepend_bos: bool) -> None:
    model = families.build("gpt2", kind).model
    texts = [families.PROMPT, families.PROMPT[::-1]]
    own = {"pos": 5, "prepend_bos": prepend_bos}
    baseline = tls.positional_baseline(model, families.PROMPT, unrelated=texts, **own)
    scores = torch.stack([a.scores[:6] for a in tls.semantic_scope(model, texts, **own)])
    assert relative_error(baseline.share, (scores / scores.sum(1, keepdim=True)).mean(0)) < 1e-6


def test_what_is_frozen_is_so_for_influence_and_its_baseline(kind: str) -> None:
    model, tokens = families.build("gpt2", kind).model, families.prompt_tokens(9)
    found = tls.attention_sinks(model, tokens, methods=("semantic",), unrelated=2, bos=(), frozen="all")
    wanted = tls.semantic_scope(model, tokens, frozen="all")
    assert torch.equal(found.attributions["semantic"].scores, wanted.scores)
    plain = tls.positional_baseline(model, tokens, unrelated=2)
    frozen = tls.positional_baseline(model, tokens, unrelated=2, frozen="all")
    assert torch.equal(found.baseline["semantic"].share, frozen.share) and not torch.equal(plain.share, frozen.share)
    assert frozen.ratio(wanted).shape == (9,)
    with pytest.raises(ValueError, match=r"frozen=\[\], the attribution with frozen=\['norms'"):
        plain.ratio(wanted)
    raw = frozen.to_dict()
    assert tls.PositionalBaseline.from_dict(raw).frozen == frozen.frozen == ("norms", "attention", "activations")
    del raw["frozen"]
    assert tls.PositionalBaseline.from_dict(raw).frozen == ()
    assert "(everything frozen)" in frozen.view().title and "(everything frozen)" in str(found)


def test_drawn_prompts_depend_on_the_seed_alone(kind: str) -> None:
    model, tokens = families.build("gpt2", kind).model, families.prompt_tokens(9)
    one, same, other = (tls.positional_baseline(model, tokens, unrelated=4, seed=s) for s in (0, 0, 1))
    assert torch.equal(one.share, same.share)
    assert not torch.equal(one.share, other.share)
    with pytest.raises(ValueError, match="at least two prompts"):
        tls.positional_baseline(model, tokens, unrelated=1)


# -- refusals and results ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n_first": 0}, "n_first=0"),
        ({"multiple": 1.0}, "above 1"),
        ({"bos": (1, 1)}, "different numbers"),
        ({"bos": (-1,)}, "different numbers"),
        ({"methods": ()}, "expected different names"),
        ({"methods": ("fisher",), "target": 3}, "does not read it"),
        ({"n_first": 11}, "needs at least 13"),
        ({"pos": 1}, "needs at least 3"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_answered_is_refused(options: dict[str, Any], reason: str) -> None:
    model = families.build("gpt2", families.kinds_available()[-1]).model
    options = {"pos": 0, **options} if reason == "needs at least 3" else options
    with pytest.raises(ValueError, match=reason):
        tls.attention_sinks(model, families.prompt_tokens(12), **options)


@pytest.fixture(scope="module")
def demo_sinks(_demo: Any) -> tls.AttentionSinks:
    return tls.attention_sinks(_demo, PROMPT, target=" dog", unrelated=4)


def test_result_saves_prints_and_tabulates(demo_sinks: tls.AttentionSinks, tmp_path: Path) -> None:
    back = tls.AttentionSinks.load(demo_sinks.save(tmp_path / "s.json"))
    assert back.to_dict() == demo_sinks.to_dict()
    assert torch.equal(back.received, demo_sinks.received)
    n_layers, n_heads, end = demo_sinks.received.shape
    assert len(demo_sinks.to_frame()) == n_layers * n_heads
    shares = demo_sinks.influence_frame().set_index("method")
    for method in ("semantic", "fisher", "temperature"):
        assert 0 < shares.loc[method, "first"] <= shares.loc[method, "all"] < 1
        assert method in str(demo_sinks)
    assert shares.loc["uniform", "first"] == pytest.approx(1 / end)
    frame = demo_sinks.position_frame()
    assert frame.share_semantic.sum() == pytest.approx(1, rel=1e-4)
    assert frame.baseline_fisher.sum() == pytest.approx(1, rel=1e-4)
    assert len(demo_sinks.bos_frame()) == 3


def test_pictures_show_maps_and_influence_with_and_without_sinks(demo_sinks: tls.AttentionSinks) -> None:
    html = demo_sinks.html()
    for text in ("Attention on first tokens", "semantic, sinks left out", "Sink-corrected view", "unrelated prompts"):
        assert text in html
    assert html.count('<table class="tls-map') >= 3
    figure = demo_sinks.plot()
    figure.draw_without_rendering()
    titles = [axes.get_title() or axes.get_title(loc="left") for axes in figure.axes]
    assert any(title.startswith("semantic: ") and "on sinks" in title for title in titles)
