"""Invariant: each row of a chain is the scope's own single call on that unit, and the shares that are followed back are the
rows' squares divided as the definition says, written out with loops."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import every_result
import families
import pytest
import torch

import tl_scopes as tls
from tl_scopes import Chain
from tl_scopes.evaluation.chain import BLOCK
from tl_scopes.model.hooks import differentiable
from tl_scopes.model.memory import Memory
from tl_scopes.model.probe_runs import BytesAlive, Run
from tl_scopes.results.chain_units import TextUnit
from tl_scopes.results.generation import Generation

PROMPT, TEXT = "the dog saw a cat. the old man ran", " to the river. the king sat in the city. the ship was not new"
CHAT = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": TEXT.strip()}]
TEMPLATE = "{% for m in messages %}{{ m.role[:0] }}{{ m.content }};{% endfor %}"
WITHIN = 5e-6
"""Plain Hugging Face computes norms and rotary positions in float32, so that a shorter text has other last digits."""
METHODS: dict[str, dict[str, Any]] = {
    "semantic": {},
    "fisher": {"rank": 2},
    "temperature": {"frozen": "all"},
    "input_x_gradient": {"frozen": "attention"},
}


def followed(model: Any, **options: Any) -> Chain:
    return tls.chain(model, (PROMPT, TEXT), **options)


def single(model: Any, method: str, tokens: torch.Tensor, span: range, **options: Any) -> tls.Attribution:
    if method == "input_x_gradient":
        return tls.input_x_gradient(model, tokens, pos=span, **options)
    return tls.scopes(model, tokens, methods=[method], pos=span, **options)[method]


def slow_shares(chain: Chain, additive: bool) -> tuple[list[list[float]], list[list[float]], list[float], list[float]]:
    """G, P, the own and the special shares of every row, entry by entry."""
    G, P, own, special = [], [], [], []
    for u, step in enumerate(chain.steps):
        values = [float(s) if additive else float(s) ** 2 for s in chain.scores[u]]
        here = sum(values[p] for p in step.positions)
        of_special = sum(values[p] for p in chain.special)
        rest = sum(values) - of_special - here
        G.append(
            [sum(values[p] for p in other.positions) / rest if v < u else 0.0 for v, other in enumerate(chain.steps)]
        )
        P.append([sum(values[p] for p in source.positions) / rest for source in chain.sources])
        own.append(here / (here + rest))
        special.append(of_special / sum(values))
    return G, P, own, special


def assert_shares(chain: Chain, additive: bool = False) -> None:
    G, P, own, special = slow_shares(chain, additive)
    found = (chain.graph, chain.from_prompt, chain.self_share, chain.special_share)
    for fast, slow in zip(found, (G, P, own, special), strict=True):
        assert torch.allclose(fast, torch.tensor(slow, dtype=torch.float64), rtol=1e-12, atol=1e-15), chain.method


# -- rows --------------------------------------------------------------------------------------------------


@pytest.mark.on_families("llama", slow=("gpt2", "gemma2"))
def test_rows_are_single_calls_and_shares_their_squares(pair: families.Pair) -> None:
    for method, options in METHODS.items():
        chain = followed(pair.model, method=method, **options)
        assert [step.text for step in chain.steps] == [
            " to the river.",
            " the king sat in the city.",
            " the ship was not new",
        ]
        for u, step in enumerate(chain.steps):
            span = range(step.positions[0] - 1, step.positions[-1])
            alone = single(pair.model, method, chain.tokens, span, **options)
            assert torch.allclose(chain.scores[u], alone.scores, rtol=WITHIN, atol=WITHIN * float(alone.scores.max()))
        assert_shares(chain)
        assert float(chain.special_share.min()) > 0, "BOS has a share, which is left out"
        assert torch.allclose(chain.by_hop.sum(0), chain.total)
        assert float(chain.total.sum()) == pytest.approx(1, abs=1e-12)
        assert chain.details.get("rank") == alone.details.get("rank")
        assert chain.details.get("frozen", []) == alone.details.get("frozen", [])


@pytest.fixture
def model(kind: str) -> Any:
    return families.build("llama", kind).model


def test_norms_are_those_of_the_single_calls_and_probes_near_them(model: Any) -> None:
    chain, probed = followed(model, combine="norm"), followed(model, combine="norm", n_probes=5)
    for u, step in enumerate(chain.steps):
        span = range(step.positions[0] - 1, step.positions[-1])
        alone = tls.semantic_scope(model, chain.tokens, pos=span, combine="norm").scores
        assert torch.allclose(chain.scores[u], alone, rtol=WITHIN, atol=WITHIN)
    whole, drawn = (one.scores.square().sum(1) for one in (chain, probed))
    assert torch.allclose(drawn, whole, rtol=0.5) and not torch.allclose(drawn, whole, rtol=1e-3)
    assert probed.details["n_probes"] == 5


def test_rows_do_not_depend_on_the_block_that_they_run_in(model: Any) -> None:
    whole = followed(model, units="word")
    with mock.patch("tl_scopes.evaluation.chain.BLOCK", 1):
        alone = followed(model, units="word")
    assert torch.allclose(whole.scores, alone.scores, rtol=WITHIN, atol=WITHIN)
    assert len(whole.steps) > 8


def test_a_block_of_units_stays_within_its_budget(kind: str) -> None:
    lens, start, size = families.build("gpt2", kind, torch.float32).model, 40, 10
    tokens = families.prompt_tokens(start + BLOCK * size)
    words, ends = ["word."] * len(tokens), [5 * i for i in range(len(tokens) + 1)]
    said = Generation(
        "".join(words[:start]), "".join(words[start:]), tokens, words, start, offsets=tuple(pairwise(ends))
    )
    units = {f"{a}": (5 * a, 5 * (a + size)) for a in range(start, len(tokens), size)}
    with differentiable(lens):
        budget = Memory(lens, budget=1).peak(Run(1, len(tokens), BLOCK * size, BLOCK))
    for how in ({}, {"combine": "norm"}, {"method": "fisher"}):
        with BytesAlive() as watch:
            tls.chain(lens, said, units=units, prompt_units="sentence", memory_budget=budget, **how)
        assert 0.9 * budget < max(watch.timeline) <= budget, (how, "all rows at once, and no more than was said")


def test_units_of_the_prompt_are_sums_of_their_words(model: Any) -> None:
    words = followed(model, prompt_units="word")
    sentences = words.by_unit("sentence")
    assert [s.text for s in sentences.sources] == ["the dog saw a cat.", " the old man ran"]
    assert torch.equal(sentences.scores, words.scores)
    inside = [
        [w for w, word in enumerate(words.sources) if {*word.positions} <= {*s.positions}] for s in sentences.sources
    ]
    for name in ("direct", "total"):
        summed = torch.stack([getattr(words, name)[group].sum() for group in inside])
        assert torch.allclose(getattr(sentences, name), summed, rtol=1e-12)
    named = words.by_unit([("first", "the dog saw a cat.")])
    assert named.shares() == pytest.approx({"first": float(sentences.total[0]), "rest": float(sentences.total[1])})


# -- texts and answers -------------------------------------------------------------------------------------


def test_what_was_generated_a_pair_and_a_chat_are_the_same_text(model: Any) -> None:
    pair = followed(model, units="word")
    own = {"tokens": pair.tokens, "str_tokens": pair.str_tokens, "offsets": pair.offsets, "answer": TEXT}
    said = replace(tls.generate(model, PROMPT, 1), **own)
    assert tls.chain(model, said, units="word").to_dict() == pair.to_dict()
    tokens = torch.tensor(pair.tokens[: pair.answer_start].tolist())
    assert torch.equal(tls.chain(model, (tokens, TEXT), units="word").scores, pair.scores)
    chat = tls.chain(model, CHAT, chat_options={"chat_template": TEMPLATE}, prompt_units="turn", prepend_bos=True)
    assert (chat.steps[0].text, chat.steps[-1].text) == ("to the river.", " the ship was not new")
    assert [s.name for s in chat.sources] == ["user", "template"]
    assert chat.text.endswith(CHAT[1]["content"]), "what the template writes behind is left off"
    assert chat.shares()["user"] > 0


@pytest.mark.one_lens
def test_a_text_that_ends_at_once_has_no_chain(demo_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    eos = torch.tensor([[demo_model.tokenizer.eos_token_id]])
    monkeypatch.setattr(demo_model, "generate", lambda tokens, **how: torch.cat([tokens, eos], 1))
    said = tls.generate(demo_model, PROMPT, 4)
    assert (said.answer, said.stopped, len(said.tokens)) == ("", "eos", said.answer_start)
    with pytest.raises(ValueError, match=r"chain\(text=\.\.\.\): nothing was written.*nothing to follow"):
        tls.chain(demo_model, said)


def test_an_answer_is_the_last_unit_a_number_weights_or_a_text(model: Any) -> None:
    last = followed(model)
    assert last.answer == (2,) and torch.equal(last.total, followed(model, answer=-1).total)
    first = followed(model, answer=0)
    assert torch.equal(first.total, last.of(0).total)
    mixed = followed(model, answer={0: 1.0, 2: 3.0})
    assert torch.allclose(mixed.total, 0.25 * first.total + 0.75 * last.total, rtol=1e-12)
    cut = followed(model, answer="the city")
    assert [s.text for s in cut.steps][1:4] == [" the king sat in", " the city", "."]
    assert cut.answer_text == " the city"
    pair = (PROMPT, " to the river. in the city at a river, the rivers")
    whole = tls.chain(model, pair, answer="river")
    assert whole.text[: whole.offsets[whole.steps[whole.answer[0]].positions[-1]][1]].endswith("at a river")
    span = range(cut.steps[2].positions[0] - 1, cut.steps[2].positions[-1])
    assert torch.allclose(
        cut.scores[2], tls.semantic_scope(model, cut.tokens, pos=span).scores, rtol=WITHIN, atol=WITHIN
    )


def test_hops_that_are_asked_for_are_the_first_of_all(model: Any) -> None:
    every, two = followed(model, units="word"), followed(model, units="word", hops=2)
    assert torch.equal(two.by_hop, every.by_hop[:3])
    assert torch.equal(two.total, every.total)
    assert len(every.by_hop) == len(every.steps)


def test_the_path_is_the_largest_product_and_its_links_are_shares(model: Any) -> None:
    chain = followed(model, units="word")
    *steps, source = chain.path
    assert (steps[0].part, source.part) == ("step", "prompt")
    assert [link.share for link in steps[1:]] == [float(chain.graph[a.number, b.number]) for a, b in pairwise(steps)]
    assert source.share == float(chain.from_prompt[steps[-1].number, source.number])


# -- the disk ----------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_gives_the_same_bits(model: Any, tmp_path: Path) -> None:
    whole = followed(model, units="word", out=tmp_path / "whole")
    assert torch.equal(whole.scores, followed(model, units="word").scores)
    from tl_scopes.evaluation import chain as module

    explain, ran = module.explain, []

    def killed(*args: Any) -> Any:
        ran.append(len(args[1]))
        if len(ran) == 2:
            raise KeyboardInterrupt
        return explain(*args)

    with mock.patch.object(module, "explain", killed), pytest.raises(KeyboardInterrupt):
        followed(model, units="word", out=tmp_path / "half")
    (shard,) = (tmp_path / "half").glob("shard-*.jsonl")
    shard.write_bytes(shard.read_bytes() + b'{"index": 0, "sco')
    with mock.patch.object(module, "explain", side_effect=explain) as again:
        half = followed(model, units="word", out=tmp_path / "half")
    assert sum(len(call.args[1]) for call in again.call_args_list) == len(whole.steps) - ran[0]
    assert half.to_dict() == whole.to_dict()


def test_a_folder_of_another_run_and_broken_rows_are_refused(model: Any, tmp_path: Path) -> None:
    followed(model, out=tmp_path / "x")
    with pytest.raises(ValueError, match=r"^chain\(out=.*other settings: method was"):
        followed(model, method="temperature", out=tmp_path / "x")
    (shard,) = (tmp_path / "x").glob("shard-*.jsonl")
    good = [json.loads(line) for line in shard.read_text().splitlines()]
    for broken in (
        {"scores": good[0]["scores"][:-1]},
        {"scores": [-1.0] * len(good[0]["scores"])},
        {"notes": 3},
        {"method": "temperature"},
        {"details": []},
    ):
        shard.write_text(json.dumps(good[0] | broken) + "\n")
        with pytest.raises(ValueError, match=rf"line 1: not a record of this run \({next(iter(broken))}"):
            followed(model, out=tmp_path / "x")
    shard.write_text('{"index": 0, "error": "no room"}\n')
    with pytest.raises(ValueError, match=r"line 1: not a record of this run \('scores'\)"):
        followed(model, out=tmp_path / "x")


# -- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (PROMPT, {}, r"chain\(text=\.\.\.\): expected what generate\(\) gave, a pair .*got str"),
        ((PROMPT, TEXT, TEXT), {}, r"got tuple of 3"),
        ((PROMPT, ""), {}, r"nothing was written after the prompt"),
        (CHAT[:1], {"chat_options": {"chat_template": TEMPLATE}}, r"the last message is the user's"),
        ((PROMPT, TEXT), {"method": "random"}, r"chain\(method='random'\): expected one of"),
        ((PROMPT, TEXT), {"answer": "a queen"}, r"chain\(answer='a queen'\): this is not in the written text"),
        ((PROMPT, TEXT), {"answer": "hip"}, r"chain\(answer='hip'\): in the written text, .* only inside longer words"),
        ((PROMPT, TEXT), {"answer": 3}, r"chain\(answer=3\): there are 3 steps"),
        ((PROMPT, TEXT), {"answer": {0: -1.0}}, r"weights are 0 or more"),
        ((PROMPT, TEXT), {"units": "turn"}, r"the turns of this prompt are not known"),
        ((PROMPT, TEXT), {"rank": 2}, r"chain\(rank=\.\.\.\): method 'semantic' does not read it"),
        ((PROMPT, TEXT), {"target": 5}, r"chain\(\) got an unexpected keyword argument 'target'"),
        ((PROMPT, TEXT), {"pos": 3}, r"chain\(\) got an unexpected keyword argument 'pos'"),
        ((PROMPT, TEXT), {"method": "contrast", "foil": " river"}, r"are the same token, so there is nothing to contrast$"),
        *(
            ((PROMPT, TEXT), {"method": "leave_one_out", **one}, rf"chain\({next(iter(one))}=...\): method 'leave_one_out' d")
            for one in ({"frozen": "all"}, {"combine": "norm"}, {"checkpoint": True}, {"memory_budget": 9}, {"foil": 5})
        ),
        ((PROMPT, TEXT), {"method": "attention_rollout", "at": "hook_embed"}, r"chain\(at=...\): method 'attention"),
        ((PROMPT, TEXT), {"hops": -1}, r"hops"),
        ((PROMPT, TEXT), {"memory_budget": 1000}, r"memory_budget=1000 allows"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_before_any_row(
    model: Any, text: Any, options: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        tls.chain(model, text, out=tmp_path / "x", **options)
    assert not list(tmp_path.glob("x/shard*")), "nothing was computed"


@pytest.mark.one_lens
@pytest.mark.usefixtures("unchecked")
def test_a_chain_whose_parts_do_not_fit_cannot_be_made() -> None:
    from dataclasses import replace

    import every_result

    chain = every_result.chain()
    late = chain.scores.clone()
    late[0, 4] = 1.0
    step = TextUnit("x", (3,))
    for changes, says in (
        ({"weights": chain.weights / 2}, "weights: they add up to 0.5"),
        ({"scores": late}, "scores: row 0 has influence from its own last token or later"),
        ({"steps": (step, step, step)}, "steps: a token is in two units"),
        ({"steps": chain.steps[::-1]}, "steps: not in their order"),
        ({"sources": ()}, "sources: none"),
        ({"answer_start": 2}, "sources: positions outside"),
    ):
        with pytest.raises(ValueError, match=f"^Chain: {says}"):
            replace(chain, **changes)
    with pytest.raises(
        ValueError, match=r"^Chain\.top\(among=\.\.\.\): no unit of the prompt is called 'zz'; there are: 'user'"
    ):
        chain.top(among=["zz"])
    with pytest.raises(ValueError, match=r"^Chain\.shares: the prompt's units have no names"):
        replace(chain, sources=(TextUnit("a", (1,)),)).shares()


@pytest.mark.one_lens
def test_scores_that_add_have_shares_of_themselves() -> None:
    chain = replace(every_result.chain(torch.float64), method="total_information")
    assert_shares(chain, additive=True)
    assert not torch.allclose(chain.graph, every_result.chain(torch.float64).graph)


@pytest.mark.one_lens
def test_a_row_of_nothing_has_no_shares_and_leads_nowhere() -> None:
    from dataclasses import replace

    import every_result

    chain = every_result.chain()
    nothing = replace(chain, scores=torch.zeros_like(chain.scores))
    assert not nothing.graph.any() and not nothing.total.any() and nothing.path == ()
    assert "Nothing leads back" in str(nothing)
    assert nothing.rootless == (0, 1, 2) and chain.rootless == ()
    said = (
        "No unit before step 3 has a share in it, so nothing leads on from there, and the shares of the prompt add up"
    )
    nothing = nothing.of(-1)
    assert all(f"{said} to 0." in " ".join(text.split()) for text in (str(nothing), nothing.html()))
    assert said not in " ".join(str(chain).split())
    assert nothing.html() and nothing.plot()
