"""One small result of every class, made by hand: for tests of what all results do alike."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from samples import attribution, matrix

from tl_scopes import Attribution, timeseries
from tl_scopes.model.units import Unit
from tl_scopes.results.aopc import AOPCTable
from tl_scopes.results.chain import Chain
from tl_scopes.results.chain_units import TextUnit
from tl_scopes.results.chain_verification import ChainVerification
from tl_scopes.results.generation import Generation
from tl_scopes.results.gold import GoldAlignment, GoldRecord
from tl_scopes.results.ig_path import IGPath
from tl_scopes.results.influence import HeadInfluence, LayerInfluence
from tl_scopes.results.matrix import AttributionMatrix
from tl_scopes.results.model_report import Finding, ModelReport
from tl_scopes.results.patching import PatchTop
from tl_scopes.results.run import MethodSummary, RunReport, Strongest
from tl_scopes.results.sinks import AttentionSinks, PositionalBaseline
from tl_scopes.results.spectrum import FisherSpectrum
from tl_scopes.results.split import Split
from tl_scopes.results.substitutions import Substitutions
from tl_scopes.results.verdict import Verdict
from tl_scopes.results.verification import Verification
from tl_scopes.timeseries.encoding import TokenPlaces
from tl_scopes.timeseries.gaussian import GaussianCheck
from tl_scopes.timeseries.prediction import NumberDistribution

TOKENS = ["<bos>", "German", ":", " Hund", "\n", " later"]


def values(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Positive numbers whose digits run to the end."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype) / 3


def single(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> Attribution:
    """With everything that is kept on request, and nothing that only a model has."""
    tokens = tokens or TOKENS
    n = len(tokens)
    scores = values(n, dtype=dtype)
    scores[-1] = 0
    return attribution(
        tokens,
        scores=scores,
        top_tokens=(3, 4, 5),
        stderr=values(n, seed=1, dtype=dtype),
        gradient=values(n, 3, seed=2, dtype=dtype) - 0.1,
        direction=values(2, 3, seed=3, dtype=dtype),
        details={"target_probability": 0.1 + 0.2, "at": "hook_embed", "lambdas": [1.5, None], "rank": 2},
        provenance={"model_name": "demo", "folded_norm": True, "versions": {"torch": "2"}},
        text="x" * n,
        offsets=tuple((i, i + 1) for i in range(n)),
        sinks=frozenset({2}),
        hidden=frozenset({0, 1}),
    )


def plain(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> Attribution:
    """Without the tensors that lie beside a file."""
    return replace(single(dtype, tokens), gradient=None, direction=None)


def rows(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> AttributionMatrix:
    tokens = tokens or TOKENS
    n = len(tokens)
    return matrix(
        tokens,
        scores=torch.tril(values(n, n, seed=4, dtype=dtype)),
        targets=(*range(1, n), None),
        target_strs=(*tokens[1:], None),
        top_predictions=tuple([(f" w{i}", 0.5), (" x", 0.1 + 0.2)] for i in range(n)),
        notes=("a note <b>",),
        provenance={"model_name": "demo"},
        hidden=frozenset({0}),
    )


def layers(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> LayerInfluence:
    attr = plain(dtype, tokens)
    n = len(attr)
    hooks = ("blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post")
    norms = values(3, n, seed=5, dtype=dtype)
    return LayerInfluence(values(3, n, seed=6, dtype=dtype), attr, hooks, norms, 1.25, True)


def heads(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> HeadInfluence:
    attr = plain(dtype, tokens)
    return HeadInfluence(values(2, 3, len(attr), seed=7, dtype=dtype) - 0.15, attr)


def split(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> Split:
    exact = plain(dtype, tokens)
    n = len(exact)
    frozen = replace(exact, scores=exact.scores * 0.75, details={**exact.details, "frozen": ["attention"]})
    difference = replace(exact, scores=exact.scores * 0.5, details={**exact.details, "through": ["attention"]})
    hooks = ("blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post")
    signed, heads = values(3, n, seed=24, dtype=dtype) - 0.15, values(3, 2, 3, n, seed=25, dtype=dtype) - 0.15
    by_layer = values(3, 3, n, seed=26, dtype=dtype)
    return Split(exact, frozen, difference, by_layer, hooks, signed, heads, (0, 1), "signed", ("a note <b>",))


def baseline(dtype: torch.dtype = torch.float32, n: int = 5) -> PositionalBaseline:
    share = values(n, seed=8, dtype=dtype)
    return PositionalBaseline(share / share.sum(), values(n, seed=9, dtype=dtype) / 20, "semantic", 12)


def sinks(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> AttentionSinks:
    attr = plain(dtype, tokens)
    end = attr.pos + 1
    groups = {"bos": (0,), "first": (0,), "secondary": (2,)}
    return AttentionSinks(
        received=values(2, 3, end, seed=10, dtype=dtype),
        value_norms=values(2, 3, end, seed=11, dtype=dtype),
        residual_norms=values(3, end, seed=12, dtype=dtype),
        groups=groups,
        mass={name: values(2, 3, seed=13 + i, dtype=dtype) for i, name in enumerate(groups)},
        secondary={2: {"residual": 9.0, "attention": 7.5}},
        attributions={"semantic": attr, "fisher": replace(attr, method="fisher", target=None, target_str=None)},
        bos_comparison=({"n_bos": 0, "top_prediction": " dog", "share_semantic": 0.25},),
        baseline={"semantic": baseline(dtype, end)},
        notes=("a note <b>",),
    )


def forecast(dtype: torch.dtype = torch.float32, *, peaked: bool = True) -> timeseries.Forecast:
    """Four numbers, each a token, with commas and BOS; the fit has no peak unless it is asked for."""
    encoded = timeseries.encode([0.1, 0.7, 0.4, 1.0 / 3])
    strings = ["<bos>", *(s for number in encoded.numbers.tolist() for s in (str(number), ","))]
    n = len(strings)
    attr = attribution(
        strings, scores=values(n, seed=16, dtype=dtype), pos=n - 1, target=None, target_str=None, method="temperature"
    )
    numbers = np.arange(10.0, 100.0)
    weight = np.array(
        [math.exp(-((n - 40) ** 2) / 50) for n in numbers.tolist()]
    )  # NumPy's last digit is the processor's
    check = GaussianCheck(20.0, 0.001, 40.0, 5.0, 0.99, 25.0, 12.0, 0.9, 1.1)
    flat = GaussianCheck(20.0, -0.001, 40.0, 5.0, float("nan"), 25.0, 12.0)
    return timeseries.Forecast(
        encoded=encoded,
        attributions={"temperature": attr, "fisher": replace(attr, method="fisher", scores=attr.scores.flip(0))},
        places=TokenPlaces(tuple((i,) for i in range(1, n, 2)), tuple(range(2, n, 2)), (0,)),
        prediction=NumberDistribution(0.9 * weight / weight.sum(), 0.8),
        truth=0.5,
        truth_number=encoded.number(0.5),
        gaussian=check if peaked else flat,
        notes=("a note <b>",),
    )


def verification(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> Verification:
    attr = single(dtype, tokens)
    n = len(attr)
    predicted = torch.linspace(-2.0, 3.0, n + 1, dtype=dtype)
    flags = tuple("sign" if i == 0 else "size" if i == 1 else "" for i in range(n + 1))
    measured = 0.5 * predicted + 0.25
    return Verification(
        attr, (*((i,) for i in range(n)), (1, 3)), (*[None] * n, 0.4), predicted, measured, measured / 3, measured / 7,
        flags, "logit of ' dog'", "logits", True, "zero", 1.0, 0.5, 1e-6, " dog", judged(dtype, tokens),
    )  # fmt: skip


def judged(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> Verdict:
    """A verdict with all its parts; of so few tokens no real call would give one."""
    attr = single(dtype, tokens)
    n = len(attr)
    return Verdict(
        attr, 2, "token", 9, ((1,), (3,)), -2.5, -values(20, seed=5, dtype=dtype), False, tuple((i,) for i in range(n)),
        values(n, seed=6, dtype=dtype), -values(n, seed=7, dtype=dtype), "KL(p ‖ p′)", "nats", 0.5,
        values(20, seed=8, dtype=dtype), "mean", 3, " dog",
    )  # fmt: skip


def swaps(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> Substitutions:
    attr = single(dtype, tokens)
    predicted = torch.linspace(3.0, -1.0, len(attr), dtype=dtype)
    return Substitutions(
        attr, 1, attr.str_tokens[1], torch.arange(len(attr)), tuple(attr.str_tokens), predicted, 2 * predicted,
        predicted / 3, predicted / 7, "logit of ' dog'", "logits",
    )  # fmt: skip


def patch(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> PatchTop:
    attr = single(dtype, tokens)
    cells = torch.tensor([[0.5, 1.0, 0.1], [0.25, 2.0, 0.0]], dtype=dtype)
    return PatchTop(
        attr, (2, 0, 1), (0, 1), "resid_pre", "logit of ' dog'", 2.0, 0.0, cells, None, cells.sum(1),
        values(2, 5, dtype=dtype), ((0, 1, 2),) * 5, 20,
    )  # fmt: skip


def path(dtype: torch.dtype = torch.float32, tokens: list[str] | None = None) -> IGPath:
    """Five α, uneven; token t is the strongest at α number t. As the package makes it: only the norms have the dtype."""
    tokens = tokens or TOKENS
    n = len(tokens)
    distance = (torch.arange(n)[None] - torch.arange(5)[:, None]).abs()
    norms = 8.0 / (1 + distance).double() ** 2
    norms[:, n - 1 :] = 0
    return IGPath(
        alphas=torch.tensor([0.0, 0.1, 0.3, 0.6, 1.0], dtype=torch.float64),
        grad_norms=norms.to(dtype),
        logits=torch.tensor([0.5, 3.0, 2.0, 7.25, 6.0], dtype=torch.float64),
        entropy=torch.tensor([5.0, 4.0, 2.5, 1.0, 0.25], dtype=torch.float64),
        sink_share=torch.tensor([0.9, 0.5, 0.25, 0.1, 0.05], dtype=torch.float64),
        slopes=torch.ones(5, dtype=torch.float64),
        tokens=torch.arange(n),
        str_tokens=tokens,
        pos=n - 2,
        target=3,
        target_str=" c",
    )


def spectrum(dtype: torch.dtype = torch.float32) -> FisherSpectrum:
    eigenvalues = values(2, 4, seed=20, dtype=dtype).sort(dim=1, descending=True).values
    moved = [[([" a", "<b>"], [" c"]), ([" d"], [])], [([" e"], [" f"])]]
    return FisherSpectrum(eigenvalues, eigenvalues.sum(1) * 1.1, values(2, seed=21, dtype=dtype), moved, ["one", "two"])


def curves() -> AOPCTable:
    """Three methods on four passages, one of which failed; a method whose name is markup."""
    methods, generator = ("semantic", "<img src=x onerror=alert(1)>", "random"), torch.Generator().manual_seed(0)
    records = [
        {
            "index": i, "n": 9, "truth": 1, "top": 1, "target": 1, "scored": 1, "log_prob": -1.0,
            "deltas": {m: (-torch.rand(3, generator=generator) * (3 - j)).tolist() for j, m in enumerate(methods)},
            "loo_spearman": {m: None for m in methods},
        }
        for i in range(4)
    ]  # fmt: skip
    return AOPCTable(tuple(records), {4: "ValueError: <too> long"}, methods, (0.05, 0.1, 0.2), {"seed": 0}, 5)


def gold() -> GoldAlignment:
    ranks = {"semantic": (1, 1, 2), "random": (3, 1, 2)}
    records = [
        GoldRecord(("binding", "bias")[i % 2], i, method, rank, 1, 0.1, 0.25)
        for method, of in ranks.items()
        for i, rank in enumerate(of)
    ]
    return GoldAlignment(tuple(records), {"binding": 1.0, "bias": 2 / 3}, 3, 0)


def generation() -> Generation:
    return Generation(
        prompt="a <b>", answer=" c\n", tokens=torch.arange(4), str_tokens=["a", " <b>", " c", "\n"], answer_start=2,
        stopped="stop", offsets=((0, 1), (1, 5), (5, 7), (7, 8)), units=(Unit("user", 0, 5), Unit("assistant", 5, 8)),
        settings={"seed": 3, "stop": ["x"]}, provenance={"model_name": "demo"},
    )  # fmt: skip


def chain(dtype: torch.dtype = torch.float32) -> Chain:
    """Two prompt units, one with a name, and three steps of one token, behind BOS; the last is the answer."""
    strings, spans = ["<bos>", "a", " <b>", " c", "\n", " so"], ((0, 0), (0, 1), (1, 5), (5, 7), (7, 8), (8, 11))
    scores = torch.tril(values(3, 6, seed=27, dtype=dtype), diagonal=2)
    return Chain(
        scores=scores, steps=tuple(TextUnit(strings[p], (p,)) for p in (3, 4, 5)),
        sources=(TextUnit("a", (1,), "user"), TextUnit(" <b>", (2,))),
        weights=torch.tensor([0.0, 0.25, 0.75], dtype=torch.float64), tokens=torch.arange(6), str_tokens=strings,
        answer_start=3, method="semantic", unit="word", special=frozenset({0}), text="a <b> c\n so", offsets=spans,
        units=(Unit("user", 0, 1),), details={"at": "hook_embed", "frozen": ["norms"]}, notes=("a note <b>",),
        provenance={"model_name": "demo"},
    )  # fmt: skip


def regenerated(dtype: torch.dtype = torch.float32) -> ChainVerification:
    return ChainVerification(
        chain(dtype), 1, "swap", 2, (1,), ((0,),), True, (" c\n so", " <i>x</i>", " c\n so"), 3, 3
    )  # fmt: skip


def report() -> ModelReport:
    return ModelReport((Finding("model", True, "a <model>"), Finding("fisher_scope", False, "no", "load it otherwise")))


def rolling(dtype: torch.dtype = torch.float32) -> timeseries.RollingForecast:
    """Four numbers, of which the last two and the one after them are forecast."""
    whole = forecast(dtype)
    scores = torch.tril(values(3, 9, seed=22, dtype=dtype), diagonal=4)
    strings = whole.attributions["temperature"].str_tokens
    token_level = matrix(
        strings, scores=scores, positions=(4, 6, 8), targets=(None,) * 3, target_strs=(None,) * 3,
        top_target_flagged=False, method="temperature", details={},
    )  # fmt: skip
    return timeseries.RollingForecast(whole.encoded, 2, scores[:, 1::2], (whole.prediction,) * 3, token_level)


def many() -> RunReport:
    """A run with markup in all that comes from outside."""
    strongest = (Strongest(" <b>", 3, 0.5), Strongest(" dog", 2, 0.25))
    methods = tuple(
        MethodSummary(name, 5, 50, 0.4, (0.1,) * 8 + (0.2, 0.0), strongest, i)
        for i, name in enumerate(("semantic", "<img src=x onerror=alert(1)>"))
    )
    failed = ((3, "<i>", "ValueError: <too> long"), (7, None, "ValueError: <too> long"))
    return RunReport(9, 5, 2, 1, 1, 1.5, {"ValueError: <too> long": 2}, failed, methods, {"unit": "token"})


def every_result(dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """One of every class, by its name."""
    made = (
        single(dtype), rows(dtype), layers(dtype), heads(dtype), split(dtype), sinks(dtype), baseline(dtype), patch(dtype),
        judged(dtype), verification(dtype), swaps(dtype), path(dtype), spectrum(dtype), curves(),
        curves()["semantic"], gold(), generation(), chain(dtype), regenerated(dtype), report(), many(),
        forecast(dtype), rolling(dtype),
    )  # fmt: skip
    return {type(result).__name__: result for result in made}


def classes(cls: type) -> set[str]:
    """The names of a class and of all below it, but of private ones."""
    found = set[str]().union(*(classes(c) for c in cls.__subclasses__()))
    return found if cls.__name__.startswith("_") else found | {cls.__name__}
