"""Invariant: what is read off final hidden states in blocks of the vocabulary is what the whole table of logits says.

The oracle is that table: the model's own logits at every position, softmax in float64, gradients by autograd. Calls are
compared with themselves where the model makes the table, and watched for tensors of its size.
"""

from __future__ import annotations

import weakref
from typing import Any

import families
import pytest
import torch
from families import Pair
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import tl_scopes as tls
from tl_scopes.evaluation.aopc import aopc
from tl_scopes.model import forward, predictions, probe_runs
from tl_scopes.model.followed import followed
from tl_scopes.model.forward import RECORDING, Recording, forward_pass
from tl_scopes.model.hooks import RAW_LOGITS_HOOK, differentiable
from tl_scopes.model.memory import Memory
from tl_scopes.model.predictions import Predictions, Table, Unembedded
from tl_scopes.model.probe_runs import Run

TOKENS = families.prompt_tokens(24)
READ = torch.arange(4, 24)
TARGET = families.VOCAB[" house"]
EXACT = 1e-9
"""Both sides in float64."""


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No table is made, and a block is a few tokens of the vocabulary."""
    monkeypatch.setattr(forward, "TABLE", 0)
    monkeypatch.setattr(predictions, "BLOCK", 7 * len(READ))


def read_from(lens: Any) -> forward.ForwardPass:
    with differentiable(lens):
        return forward_pass(lens, TOKENS[None], READ, rows=torch.zeros_like(READ))


@pytest.mark.on_families("gpt2", "llama", "gemma2", "cohere", "granite")
def test_every_reading_is_that_of_the_whole_table(pair: Pair, in_blocks: None) -> None:
    with torch.no_grad():
        z = pair.model(TOKENS[None], return_type="logits")[0, READ].double()
    run = read_from(pair.model)
    found, log_p = run.predictions, z.log_softmax(-1)
    assert isinstance(found.of.source, Unembedded)
    targets = TOKENS[(READ + 1) % 24].tolist()
    each = torch.arange(len(READ))
    torch.testing.assert_close(found.logits.double(), z, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(found.log_prob(targets), log_p[each, targets], rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(found.entropy(), -(log_p.exp() * log_p).sum(-1), rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(found.mean_logit(log_p[3].exp()), z @ log_p[3].exp(), rtol=EXACT, atol=EXACT)
    assert torch.equal(found.top, z.argmax(-1))
    assert torch.equal(found.leading()[0], z.topk(7).indices)
    torch.testing.assert_close(found.leading()[1], log_p.exp().topk(7).values, rtol=EXACT, atol=EXACT)
    assert found[5:7].ranks([TARGET, 3]) == [int((z[5] > z[5, TARGET]).sum()) + 1, int((z[6] > z[6, 3]).sum()) + 1]


@pytest.mark.on_families("gpt2", "gemma2", "cohere")
def test_rows_of_log_probabilities_are_gradients_at_y(pair: Pair, in_blocks: None) -> None:
    source = read_from(pair.model).predictions.of.source
    assert isinstance(source, Unembedded)
    targets = TOKENS[(READ + 1) % 24].tolist()
    y, b_U = source.y.clone().requires_grad_(True), torch.linspace(-1, 1, source.W_U.shape[1], dtype=torch.float64)
    b_U.requires_grad_(True)
    biased = Unembedded(y, source.W_U, b_U, source.steps)
    total = biased.logits.log_softmax(-1)[torch.arange(len(READ)), targets].sum()
    of_y, of_b = torch.autograd.grad(total, [y, b_U])
    found = Predictions.all_of(Unembedded(y.detach(), source.W_U, b_U.detach(), source.steps))
    rows, offsets = found.log_prob_rows(targets, b_U.detach())
    torch.testing.assert_close(rows, of_y, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(offsets.sum(), of_b @ b_U.detach(), rtol=EXACT, atol=EXACT)


CALLS: dict[str, Any] = {
    "span of logits": lambda m: tls.semantic_scope(m, TOKENS, pos=READ.tolist(), of="logit").scores,
    "span of log p": lambda m: tls.semantic_scope(m, TOKENS, pos=READ.tolist(), of="log_prob").scores,
    "input x gradient": lambda m: tls.input_x_gradient(m, TOKENS, pos=READ.tolist()).scores,
    "rollout": lambda m: tls.attention_rollout(m, TOKENS, pos=READ.tolist()).scores,
    "leave one out": lambda m: tls.leave_one_out(m, TOKENS, pos=READ.tolist()).scores,
    "integrated": lambda m: tls.integrated_gradients(m, TOKENS, pos=READ.tolist(), n_steps=4).scores,
    "verdict": lambda m: tls.verdict(m, tls.semantic_scope(m, TOKENS, target=TARGET), n_random=5).drawn,
    "verdict of fisher": lambda m: tls.verdict(m, tls.fisher_scope(m, TOKENS), n_random=5).scalar_drawn,
    "matrix": lambda m: tls.attribution_matrix(m, TOKENS).scores,
    "aopc": lambda m: torch.tensor(
        aopc(m, [TOKENS], ["semantic"], prepend_bos=False).records[0]["deltas"]["semantic"], dtype=torch.float64
    ),
}
WHOLE: dict[str, Any] = {
    "fisher": lambda m: tls.fisher_scope(m, TOKENS, pos=READ.tolist()).scores,
    "fisher's matrix": lambda m: tls.attribution_matrix(m, TOKENS, method="fisher").scores,
}
"""What needs whole distributions, and makes a table of them."""


@pytest.mark.on_families("gpt2", "gemma2")
def test_calls_give_the_same_numbers_without_the_table(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {name: call(pair.model) for name, call in (CALLS | WHOLE).items()}
    monkeypatch.setattr(forward, "TABLE", 0)
    monkeypatch.setattr(predictions, "BLOCK", 7 * len(READ))
    for name, call in (CALLS | WHOLE).items():
        torch.testing.assert_close(call(pair.model), whole[name], rtol=1e-8, atol=1e-10, msg=name)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most rows of a tensor ``[..., d_vocab]`` that is made."""

    def __init__(self, d_vocab: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.d_vocab, self.rows = d_vocab, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for t in tree_leaves(result):
            if isinstance(t, Tensor) and t.ndim > 1 and t.shape[-1] == self.d_vocab:
                self.rows = max(self.rows, t.shape[:-1].numel())
        return result


@pytest.mark.one_lens
@pytest.mark.on_families("gpt2")
def test_no_table_of_logits_is_made(pair: Pair, in_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    lens = pair.model
    for name, call in CALLS.items():
        call(lens)  # what is found out about a model once
        with Largest(lens.cfg.d_vocab) as watch:
            call(lens)
        assert watch.rows <= 1 or watch.rows == lens.cfg.d_model, f"{name}: {watch.rows} rows of all logits"
    monkeypatch.setattr(forward, "TABLE", 2**22)
    with Largest(lens.cfg.d_vocab) as watch:
        CALLS["span of log p"](lens)
    assert watch.rows >= len(READ), "the watch sees a table where one is made"


@pytest.mark.on_families("gpt2")
def test_logits_that_somebody_changes_are_read_as_a_table(pair: Pair, in_blocks: None) -> None:
    def turned(activation: Tensor, hook: Any) -> Tensor:
        return activation.flip(-1)

    plain = read_from(pair.model).predictions
    with pair.model.hooks(fwd_hooks=[(RAW_LOGITS_HOOK, turned)]):
        hooked = read_from(pair.model).predictions
    assert isinstance(hooked.of.source, Table)
    torch.testing.assert_close(hooked.logits, plain.logits.flip(-1), rtol=EXACT, atol=EXACT)
    handle = getattr(pair.model.unembed, "original_component", pair.model.unembed).register_forward_hook(
        lambda module, given, result: result.flip(-1)
    )
    try:
        hooked = read_from(pair.model).predictions
    finally:
        handle.remove()
    torch.testing.assert_close(hooked.logits, plain.logits.flip(-1), rtol=EXACT, atol=EXACT)
    assert isinstance(read_from(pair.model).predictions.of.source, Unembedded), "nothing is remembered of a hook"


@pytest.mark.one_lens
@pytest.mark.on_families("gpt2")
def test_logits_that_are_mixed_are_read_as_a_table(
    pair: Pair, in_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = forward.run_with_hooks
    monkeypatch.setattr(forward, "_WITH_TABLES", weakref.WeakSet())
    monkeypatch.setattr(forward, "run_with_hooks", lambda *args, **own: real(*args, **own).log_softmax(-1))
    run = read_from(pair.model)
    assert isinstance(run.predictions.of.source, Table)
    torch.testing.assert_close(run.logits.exp().sum(-1), torch.ones(len(READ)).to(run.logits), rtol=EXACT, atol=EXACT)


@pytest.mark.one_lens
def test_elementwise_functions_are_followed_and_others_are_not() -> None:
    z = torch.linspace(-3, 3, 12).reshape(3, 4)
    capped = followed(z[:0].clone())
    capped = 30.0 * torch.tanh(capped / 30.0).mul_(2.0).float()
    assert capped.steps is not None
    again = z
    for step in capped.steps:
        again = step.func(again, *step.args, **step.kwargs)
    assert torch.equal(again, 30.0 * torch.tanh(z / 30.0) * 2.0)
    assert followed(z).softmax(-1).steps is None
    assert (followed(z) + torch.arange(4)).steps is None
    assert followed(z)[:, :2].tanh().steps is None


WRITES: dict[str, Any] = {
    "tanh_": lambda z: z.tanh_(),
    "clamp_": lambda z: z.clamp_(max=1.0),
    "neg_": lambda z: z.neg_(),
    "an item": lambda z: z.__setitem__((..., 0), -9.0),
    "a view": lambda z: z.view(-1).mul_(2.0),
    "an alias": lambda z: z.contiguous().mul_(2.0),
    "out": lambda z: torch.mul(z, 2.0, out=z),
    "the data": lambda z: z.data.mul_(2.0),
    "memory": lambda z: z.numpy().fill(0.0),
    "a plain view": lambda z: z.as_subclass(Tensor).mul_(2.0),
}


@pytest.mark.one_lens
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_logits_that_somebody_writes_to_are_not_followed(write: Any) -> None:
    z = followed(torch.linspace(-3, 3, 12).reshape(3, 4))
    before = z.as_subclass(Tensor).clone()
    write(z)
    assert z.noted is None
    assert not torch.equal(z.as_subclass(Tensor), before), "a write"


@pytest.mark.one_lens
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_lowest_logits_are_finite(dtype: torch.dtype) -> None:
    logits, W_U = torch.zeros(3, 8, dtype=dtype), torch.zeros(2, 8, dtype=dtype)
    logits[:, 2:7] = torch.finfo(dtype).min
    found = Predictions.all_of(Table(logits, None, W_U))
    assert found.finite
    torch.testing.assert_close(found.normaliser, torch.full((3,), 3.0, dtype=torch.float64).log())
    for bad in (torch.nan, torch.inf, -torch.inf):
        logits[1, 3] = bad
        assert not Predictions.all_of(Table(logits, None, W_U)).finite


@pytest.mark.one_lens
@pytest.mark.on_families("gpt2")
def test_the_estimate_counts_a_table_where_the_run_makes_one(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_runs, "TABLE", 1000)
    monkeypatch.setattr(probe_runs, "BLOCK", 10)
    reads = 2000  # so that the table is what is largest
    table = (reads - 1) * pair.model.cfg.d_vocab * 8
    beside = (reads - 1) * pair.model.cfg.d_model * 8 * 2  # its final state, and its cotangent

    def spared(recording: Recording) -> int:
        with differentiable(pair.model):
            without, made = (Memory(pair.model, recording, held=held) for held in (None, probe_runs.nothing))
            return made.peak(Run(1, 20, reads)) - without.peak(Run(1, 20, reads))

    assert table < spared(RECORDING) < table + beside
    assert spared(Recording(frozen=("attention",))) == 0
    with pair.model.hooks(fwd_hooks=[(RAW_LOGITS_HOOK, lambda activation, hook: activation)]):
        assert spared(RECORDING) == 0
    assert table < spared(RECORDING) < table + beside


def unembedded(steps: Any, dtype: torch.dtype = torch.float64, n: int = 64) -> Predictions:
    draw = torch.Generator().manual_seed(0)
    y, W_U, b_U = (torch.randn(*shape, generator=draw).to(dtype) for shape in ((n, 32), (32, 50), (50,)))
    return Predictions.all_of(Unembedded(y, W_U, b_U, steps))


@pytest.mark.one_lens
def test_logits_are_raw_where_their_slope_is_1() -> None:
    z = followed(torch.zeros(0, 50, dtype=torch.float64))
    for same in (z, z.double() * 1.0, z / 1, 1.0 * z, z + 2.0):
        found = unembedded(same.noted)
        assert found.linear
    for other in (z * 2.0, z.tanh(), 30.0 * torch.tanh(z / 30.0)):
        found = unembedded(other.noted)
        assert not found.linear
        raw = logits = unembedded(()).logits.requires_grad_(True)
        for step in other.noted or ():
            logits = step.func(logits, *step.args, **step.kwargs)
        (slope,) = torch.autograd.grad(logits.sum(), raw)
        assert found.slope is not None
        torch.testing.assert_close(found.slope, slope, rtol=EXACT, atol=EXACT)
        torch.testing.assert_close(found.own_slopes([3] * 64), slope[:, 3], rtol=EXACT, atol=EXACT)


@pytest.mark.one_lens
def test_rows_of_a_certain_token_keep_their_digits() -> None:
    generator = torch.Generator().manual_seed(0)
    z, W = torch.randn(2, 50, generator=generator), torch.randn(6, 50, generator=generator)
    z[:, 7] += 25
    rows, _ = Predictions.all_of(Table(z, None, W)).log_prob_rows([7, 7])
    p = z.double().softmax(1)
    others = p.index_fill(1, torch.tensor([7]), 0)
    exact = others.sum(1, keepdim=True) * W.double()[:, 7] - others @ W.double().T
    torch.testing.assert_close(rows.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.one_lens
@pytest.mark.parametrize("size", [3, 448, 449, 512, 2000])
@pytest.mark.parametrize("different", [2, 40, 10**6], ids="{} values".format)
def test_the_largest_logits_of_many_are_those_of_a_whole_sort(size: int, different: int) -> None:
    z = torch.randint(different, (9, size), generator=torch.Generator().manual_seed(size)).float()
    order = z.sort(dim=1, descending=True, stable=True)
    found = Predictions.all_of(Table(z, None, torch.eye(size)))
    ids, p = found.leading()
    assert torch.equal(found.top, order.indices[:, 0]), "of equal ones the first"
    assert torch.equal(z.gather(1, ids), order.values[:, :7])
    assert all(len(set(row)) == len(row) for row in ids.tolist())
    torch.testing.assert_close(p, z.double().softmax(1).gather(1, ids), rtol=1e-6, atol=0)


@pytest.mark.one_lens
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_top_token_has_one_probability_and_rank_1(dtype: torch.dtype) -> None:
    found = unembedded((), dtype)
    top = found.top.tolist()
    assert torch.equal(found.log_prob(top).exp(), found.leading()[1][:, 0])
    assert found.ranks(top) == [1] * 64
    backwards = found[torch.arange(63, -1, -1)]
    assert torch.equal(backwards.logits, found.logits.flip(0))
    z = found.logits.to(found.dtype)
    if dtype == torch.float32:
        assert backwards.ranks([7] * 64) == ((z > z[:, 7:8]).sum(1) + 1).flip(0).tolist()
