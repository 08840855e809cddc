"""Invariant: a run goes on only with the model and the functions that it was begun with, to the bit, and what is broken in
its folder is named with its place and its remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import families
import pytest
import torch

from tl_scopes import aopc
from tl_scopes.evaluation.aopc import load_aopc
from tl_scopes.evaluation.fingerprint import function_fingerprint, model_fingerprint
from tl_scopes.evaluation.records import RecordStore, read_records
from tl_scopes.jacobian_scopes.jacobian import semantic_scope

STRENGTH = 2.0


@pytest.fixture
def model(kind: str) -> Any:
    return families.build("gpt2", kind).model


def weights_edited(model: Any) -> Iterator[None]:
    parameter = dict(model.named_parameters())[next(n for n, _ in model.named_parameters() if "mlp" in n)]
    parameter.data[(0,) * parameter.ndim] += 1e-3
    yield
    parameter.data[(0,) * parameter.ndim] -= 1e-3


def buffer_added(model: Any) -> Iterator[None]:
    model.blocks[0].register_buffer("steering", torch.ones(3))
    yield
    del model.blocks[0].steering


def hook_attached(model: Any) -> Iterator[None]:
    model.add_hook("blocks.0.hook_resid_pre", lambda x, hook: STRENGTH * x)
    yield
    model.reset_hooks()


def torch_hook_attached(model: Any) -> Iterator[None]:
    handle = model.blocks[0].register_forward_hook(lambda module, given, out: None)
    yield
    handle.remove()


def number_changed(model: Any) -> Iterator[None]:
    model.blocks[0].scaling = {"default": 2.0}
    yield
    del model.blocks[0].scaling


@pytest.mark.parametrize("change", [weights_edited, buffer_added, hook_attached, torch_hook_attached, number_changed])
def test_another_model_is_told_apart(change: Callable[[Any], Iterator[None]], model: Any) -> None:
    before = model_fingerprint(model, weights=True)
    for _ in change(model):
        assert model_fingerprint(model, weights=True) != before


def test_a_model_is_itself_after_it_ran(model: Any) -> None:
    before = model_fingerprint(model, weights=True)
    semantic_scope(model, torch.tensor([1, 2, 5]))
    model.run_with_cache(torch.tensor([[1, 2, 5]]))
    assert model_fingerprint(model, weights=True) == before
    assert before["hooks"] == {}


def scaled(strength: float) -> Callable[[float], float]:
    return lambda x: strength * x


def default(x: float, strength: float = 1.0) -> float:
    return strength * x


def other_default(x: float, strength: float = 2.0) -> float:
    return strength * x


other_default.__qualname__ = "default"


class Scaled:
    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, x: float) -> float:
        return self.strength * x


@pytest.mark.one_lens
@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (scaled(1.0), scaled(1.0), scaled(2.0)),
        (default, default, other_default),
        (partial(default, strength=1.0), partial(default, strength=1.0), partial(default, strength=2.0)),
        (Scaled(1.0), Scaled(1.0), Scaled(2.0)),
        (Scaled(1.0).__call__, Scaled(1.0).__call__, Scaled(2.0).__call__),
        (partial(max, torch.ones(2)), partial(max, torch.ones(2)), partial(max, torch.zeros(2))),
    ],
)
def test_functions_that_compute_something_else_are_told_apart(one: Any, same: Any, other: Any) -> None:
    assert function_fingerprint(one) == function_fingerprint(same) != function_fingerprint(other)


@pytest.mark.one_lens
def test_a_value_of_the_module_is_part_of_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def steered(x: float) -> float:
        return sum(STRENGTH * x for _ in range(1))

    before = function_fingerprint(steered)
    monkeypatch.setitem(globals(), "STRENGTH", 3.0)
    assert function_fingerprint(steered) != before


def test_a_run_is_not_continued_with_a_hook_or_other_weights(demo_model: Any, tmp_path: Path) -> None:
    texts = ["German: der Hund sieht die Katze. English: the dog"]
    aopc(demo_model, texts, ["semantic"], out=tmp_path)
    demo_model.add_hook("blocks.0.hook_resid_pre", lambda x, hook: 2 * x)
    with pytest.raises(
        ValueError, match=r"other settings: model\.hooks\.blocks\.0\.hook_\w+ was null, now \[\".*lambda"
    ):
        aopc(demo_model, texts, ["semantic"], out=tmp_path)
    demo_model.reset_hooks()
    for _ in weights_edited(demo_model):
        with pytest.raises(ValueError, match=r"other settings: model\.weights was \"\w{16}\", now \"\w{16}\""):
            aopc(demo_model, texts, ["semantic"], out=tmp_path)


# -- folders -----------------------------------------------------------------------------------------------

SETTINGS = {"prompts": {"n": 3}, "methods": {"a": "a"}, "protocol": {"fractions": [0.1, 0.2]}}


def record(index: int, **changes: Any) -> dict[str, Any]:
    return {"index": index, "n": 9, "truth": 1, "top": 1, "deltas": {"a": [-1.0, -2.0]}, **changes}


def filled(folder: Path) -> Path:
    store = RecordStore(folder, SETTINGS, 0)
    for i in range(3):
        store.append(record(i))
    return store.shard


BAD = {
    "garbage": b"garbage", "NUL": b"\0" * 20, "cut": json.dumps(record(1)).encode()[:-9], "bytes": b"\xff",
    "no object": b"[1]", "deep": b"[" * 100_000, "blank": b"",
    "no index": b'{"n": 9}', "index 3": json.dumps(record(3)).encode(), "index -1": json.dumps(record(-1)).encode(),
    "index true": json.dumps({**record(1), "index": True}).encode(),
    "no deltas": b'{"index": 1, "n": 9, "truth": 1, "top": 1}', "short": json.dumps(record(1, deltas={"a": [1.0]})).encode(),
    "nan": json.dumps(record(1, deltas={"a": [1.0, float("nan")]})).encode(),
    "method": json.dumps(record(1, deltas={"b": [1.0, 2.0]})).encode(), "error": b'{"index": 1, "error": 3}',
}  # fmt: skip


@pytest.mark.one_lens
@pytest.mark.parametrize("line", BAD.values(), ids=BAD)
def test_a_broken_line_is_named_and_without_it_the_others_count(line: bytes, tmp_path: Path) -> None:
    shard = filled(tmp_path)
    lines = shard.read_bytes().split(b"\n")
    shard.write_bytes(b"\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(ValueError, match=r"shard-00000\.jsonl, line 2: .*Delete this line"):
        load_aopc(tmp_path)
    shard.write_bytes(b"\n".join([lines[0], *lines[2:]]))
    assert list(read_records(tmp_path, SETTINGS)) == [0, 2]
    RecordStore(tmp_path, SETTINGS, 0).append(record(1))
    assert list(read_records(tmp_path, SETTINGS)) == [0, 1, 2]


@pytest.mark.one_lens
def test_other_settings_are_named_with_both_values(tmp_path: Path) -> None:
    filled(tmp_path)
    other = {**SETTINGS, "protocol": {"fractions": [0.1, 0.3]}}
    with pytest.raises(ValueError, match=r"protocol\.fractions was \[0\.1, 0\.2\], now \[0\.1, 0\.3\]"):
        RecordStore(tmp_path, other, 0)


@pytest.mark.one_lens
def test_a_folder_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"editor": 1}')
    with pytest.raises(ValueError, match="is not a run's settings"):
        RecordStore(tmp_path, SETTINGS, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["settings.json"]
    with pytest.raises(ValueError, match="this is a file"):
        RecordStore(tmp_path / "settings.json", SETTINGS, 0)
