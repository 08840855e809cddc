"""Invariant: an adapter of another package scores our own ids on a plain copy of the same weights, and means what its file
says: where the package computes what this one does, or what a few plain forwards do, the figures are the same."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import tl_scopes as tls
from tl_scopes.demo import DEMO_PROMPTS

pytestmark = pytest.mark.one_lens
PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
SHOWN = DEMO_PROMPTS["translation"]
SHORTER = "German: die Katze sieht den Hund. English: the"
FLOAT32 = 2e-5
"""Of the largest score: two forwards in float32, and in feature ablation a difference of two log-probabilities."""


@pytest.fixture(scope="module")
def peers() -> Iterator[SimpleNamespace]:
    """The folder's modules, by name."""
    names = ("plain", "with_captum", "with_lxt", "with_flashtrace", "with_inseq", "gold")
    sys.path.insert(0, str(PEERS))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(PEERS))
        for name in names:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("answer", [" dog", " dog sees the"])
def test_captum_means_what_its_adapter_says(peers, demo_model, answer: str) -> None:
    (one,) = peers.plain.read(demo_model, [SHOWN.prompt], [answer])
    hf = peers.plain.plain_model(peers.plain.folder_of("demo"))
    errors = peers.with_captum.PEER.check(demo_model, hf, one)
    assert len(errors) == 3
    assert max(errors.values()) < FLOAT32, errors
    assert not any(p.requires_grad for p in hf.parameters())


def test_captums_path_ends_at_the_difference_from_the_blank_prompt(peers, demo_model) -> None:
    """Completeness: with many steps the scores add up to log p less that of the prompt with all tokens but BOS blank."""
    (one,) = peers.plain.read(demo_model, [SHOWN.prompt], [SHOWN.target])
    hf = peers.plain.plain_model(peers.plain.folder_of("demo"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers.with_captum, "STEPS", 200)
        scores = peers.with_captum.integrated_gradients(hf, demo_model.tokenizer, one)
    blanked = torch.full_like(one.whole, peers.with_captum.blank(demo_model.tokenizer))
    blanked[0] = one.whole[0]
    with torch.no_grad():
        full, none = (hf(ids[None]).logits[0, -1].log_softmax(-1)[one.answer[0]] for ids in (one.whole, blanked))
    assert scores[0] == 0
    assert float(scores.sum()) == pytest.approx(float(full - none), rel=0.05)


def test_a_peer_is_scored_as_our_own_method_where_it_is_the_same(peers, demo_model) -> None:
    (label, theirs), *_ = peers.with_captum.PEER.methods(peers.plain.folder_of("demo")).items()
    result = tls.gold_alignment(demo_model, {label: theirs, "semantic": "semantic"}, corpora=["binding"], n=6)
    ranks = {m: [r.rank for r in result.records if r.method == m] for m in (label, "semantic")}
    assert len(ranks[label]) > 3
    assert ranks[label] == ranks["semantic"]


def test_results_are_of_our_tokens_and_of_the_plain_models_predictions(peers, demo_model) -> None:
    method = peers.with_captum.PEER.methods(peers.plain.folder_of("demo"))["captum/saliency"]
    prompts, answers = [SHOWN.prompt, SHORTER], [SHOWN.target, " cat sees the"]
    found = method(demo_model, prompts, answers)
    own = tls.semantic_scope(demo_model, prompts, target=answers)
    for theirs, ours in zip(found, own, strict=True):
        assert theirs.method == "captum/saliency"
        for name in ("pos", "span", "answer", "special", "str_tokens", "target", "top_tokens"):
            assert getattr(theirs, name) == getattr(ours, name), name
        assert torch.equal(theirs.tokens, ours.tokens)
        start = ours.answer[0] if ours.answer else len(ours.tokens)
        assert torch.allclose(theirs.scores[:start], ours.scores[:start], rtol=1e-3)
        assert not theirs.scores[start:].any()  # no candidates


def test_other_tokens_than_ours_are_refused(peers, demo_model) -> None:
    (one,) = peers.plain.read(demo_model, [SHOWN.prompt], [SHOWN.target])
    other = replace(one, text=f"{SHOWN.prompt} big")
    hf = peers.plain.plain_model(peers.plain.folder_of("demo"))
    with pytest.raises(ValueError, match="captum reads other tokens"):
        peers.with_captum.feature_ablation(hf, demo_model.tokenizer, other)


@pytest.mark.parametrize("broken", [lambda n: torch.zeros(n + 1), lambda n: torch.full((n,), torch.nan)])
def test_scores_that_are_none_are_refused(peers, demo_model, broken: Any) -> None:
    peer = peers.plain.Peer("captum", {"broken": lambda _hf, _tokenizer, one: broken(len(one.prompt))}, dict)
    method = peer.methods(peers.plain.folder_of("demo"))["broken"]
    with pytest.raises(ValueError, match="broken: .* scores of .* tokens, or not all finite"):
        method(demo_model, [SHOWN.prompt], [SHOWN.target])


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_package_patches_is_given_back(peers, fails: bool) -> None:
    class Norm(nn.Module):
        def forward(self, x: Any) -> Any:
            return x

    before = dict(vars(Norm))
    try:
        with peers.plain.given_back([Norm]):
            Norm.forward = Norm.original_forward = lambda self, x: 2 * x
            assert Norm()(1) == 2
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert Norm()(1) == 1
    assert dict(vars(Norm)) == before


def test_no_adapter_imports_its_package_before_it_is_asked_for() -> None:
    for path in PEERS.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {a.name for node in top if isinstance(node, ast.Import) for a in node.names}
        names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
        assert not {name.partition(".")[0] for name in names} & {"captum", "lxt", "flashtrace", "inseq"}, path.name


def test_what_cannot_be_run_is_named(peers, monkeypatch) -> None:
    folder = peers.plain.folder_of("demo")
    assert "made for llama, qwen2, qwen3, and this is gpt2" in str(
        replace(peers.with_flashtrace.PEER, package="torch").why_not(folder)
    )
    assert peers.with_captum.PEER.why_not(folder) is None

    def nowhere(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(peers.plain, "version", nowhere)
    assert "not installed" in peers.with_captum.PEER.why_not(folder)


@pytest.mark.slow
def test_the_script_prints_ours_beside_theirs(peers, monkeypatch, capsys) -> None:
    others = [option for name in ("lxt", "flashtrace", "inseq") for option in ("--without", name)]
    asked = ["--corpus", "binding", "-n", "4", "--method", "semantic", "--method", "random", *others]
    monkeypatch.setattr(sys, "argv", ["gold.py", *asked])
    threads = torch.get_num_threads()
    try:
        peers.gold.main()
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    same = next(line for line in out.splitlines() if line.startswith("captum/saliency") and "[" in line)
    assert "+0.0" in same
    assert "captum 0." in out
    for label in ("semantic", "random", *peers.with_captum.PEER.scores):
        assert f"\n{label} " in out


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--task", "hint", "--corpus", "binding"], "give one of them"),
        (["--corpus", "binding", "--out", "x"], "--out is for runs of --task"),
        (["--without", "nobody"], "expected one of captum"),
    ],
)
def test_the_script_refuses_before_any_work(peers, monkeypatch, capsys, options: list[str], match: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gold.py", *options])
    with pytest.raises(SystemExit):
        peers.gold.arguments()
    assert match in capsys.readouterr().err
