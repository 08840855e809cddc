"""Invariant: every result is saved as JSON and comes back bit for bit; what was not written by it is a ``ValueError``.

``version_1/`` holds files as the package wrote them before all results were saved by their fields; they are never
written again. What they hold is what ``every_result`` makes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import every_result
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tl_scopes import AOPCTable, Attribution, FisherSpectrum, IGPath, ModelReport, Verification, timeseries
from tl_scopes.results.base import Serializable
from tl_scopes.results.lossless import Archive

pytestmark = pytest.mark.one_lens

OLD = Path(__file__).with_name("version_1")
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
CLASSES = list(every_result.every_result())


def differences(a: Any, b: Any, at: str = "") -> list[str]:
    """Where two values are not the same, bit for bit and kind for kind; an activation cache is never saved."""
    if type(a) is not type(b):
        return [f"{at}: {type(a).__name__} and {type(b).__name__}"]
    if isinstance(a, torch.Tensor):
        bits = [t.contiguous().reshape(-1).view(torch.uint8).tolist() for t in (a, b)]
        return [] if (a.dtype, a.shape) == (b.dtype, b.shape) and bits[0] == bits[1] else [f"{at}: {a} and {b}"]
    if isinstance(a, np.ndarray):
        return [] if (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) else [f"{at}: {a} and {b}"]
    if dataclasses.is_dataclass(a):
        names = [f.name for f in dataclasses.fields(a) if f.name != "cache"]
        return [d for n in names for d in differences(getattr(a, n), getattr(b, n), f"{at}.{n}")]
    if isinstance(a, dict):
        keys = [] if [(type(k), k) for k in a] == [(type(k), k) for k in b] else [f"{at}: keys {list(a)}, {list(b)}"]
        return keys or [d for k in a for d in differences(a[k], b[k], f"{at}[{k!r}]")]
    if isinstance(a, list | tuple):
        length = [] if len(a) == len(b) else [f"{at}: {len(a)} and {len(b)} entries"]
        return length or [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{at}[{i}]")]
    if isinstance(a, float):
        return [] if a.hex() == b.hex() else [f"{at}: {a!r} and {b!r}"]
    return [] if a == b else [f"{at}: {a!r} and {b!r}"]


def test_differences_are_found() -> None:
    one = every_result.single()
    assert differences(one, replace(one)) == []
    assert differences(one, replace(one, scores=one.scores.clone().index_fill(0, torch.tensor(0), 0.5)))
    assert differences({"a": (1,)}, {"a": [1]}) and differences(1, True) and differences(0.0, -0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CLASSES)
def test_every_result_comes_back_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    before = every_result.every_result(dtype)[name]
    after = type(before).load(before.save(tmp_path / "saved.json"))
    assert differences(before, after) == []
    assert differences(after.to_dict(), before.to_dict()) == []
    assert str(after) == str(before)
    head = json.loads((tmp_path / "saved.json").read_text(encoding="utf-8"))
    assert (head["format"], head["format_version"]) == (f"tl_scopes.{name}", before.format_version)


def test_every_class_of_result_is_in_the_list() -> None:
    assert every_result.classes(Serializable) == {*CLASSES, "Serializable"}


ODD = (
    replace(every_result.path(), logits=torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-320], dtype=torch.float64)),
    replace(every_result.verification(), predicted=torch.full((7,), math.nan), step=math.inf, noise=math.nan),
    replace(every_result.patch(), estimate=torch.zeros(2, 3, dtype=torch.float64)),
    replace(every_result.patch(), random=torch.zeros(2, 0), random_positions=()),
    replace(every_result.curves(), records=(), failures={}, methods=("b",), settings={"a": (1, [2.0, math.nan])}, total=0),
    replace(every_result.spectrum(), moved=[], prompts=[]),
    replace(every_result.single(), details={"t": torch.tensor([1, 2]), "n": math.nan, "k": {3: (None, "x")}, "$float": 1}),
    replace(every_result.rows(), details={"words": (frozenset({10, 9}), [True])}, top_predictions=()),
    replace(every_result.forecast(), gaussian=timeseries.GaussianCheck(*[math.inf] * 7, math.nan, None), truth=math.nan),
    replace(every_result.forecast(), gaussian=None, truth=None, truth_number=None),
    replace(every_result.sinks(), bos_comparison=[{"n_bos": 1}], secondary={}, baseline={}),
    ModelReport(()),
)  # fmt: skip


@pytest.mark.parametrize("before", ODD, ids=lambda r: type(r).__name__)
def test_what_json_does_not_know_comes_back_too(before: Any, tmp_path: Path) -> None:
    after = type(before).load(before.save(tmp_path / "saved.json"))
    assert differences(before, after) == []


def test_a_gradient_of_a_result_inside_another_lies_beside_the_file(tmp_path: Path) -> None:
    before = every_result.verification()
    assert before.attribution.gradient is not None
    path = before.save(tmp_path / "saved.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["saved.json", "saved.json.tensors.safetensors"]
    assert differences(before.attribution.gradient, Verification.load(path).attribution.gradient) == []
    assert Verification.from_dict(before.to_dict()).attribution.gradient is None


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
hashable = st.integers() | st.text(max_size=3)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(hashable, max_size=3)
        | st.dictionaries(hashable | st.sampled_from(["$float", "$"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(anything)
def test_any_value_comes_back(value: Any) -> None:
    archive = Archive()
    assert (
        differences(archive.read(json.loads(json.dumps(archive.write(value, Any), allow_nan=False)), Any), value) == []
    )


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"details\.x: a set cannot be saved"):
        replace(every_result.plain(), details={"x": {1}}).save(tmp_path / "saved.json")


# -- files of before ---------------------------------------------------------------------------------------

MAKERS = {
    "Attribution": every_result.single,
    "AttributionMatrix": every_result.rows,
    "LayerInfluence": every_result.layers,
    "HeadInfluence": every_result.heads,
    "AttentionSinks": every_result.sinks,
    "Forecast": every_result.forecast,
}


@pytest.mark.parametrize("path", sorted(OLD.glob("*.json")), ids=lambda p: p.stem)
def test_files_of_version_1_are_read(path: Path) -> None:
    name, kind = path.stem.split("-")
    assert json.loads(path.read_text(encoding="utf-8"))["format_version"] == 1
    if kind == "words":
        now = every_result.single().by_word()
        details = {k: v for k, v in now.details.items() if k not in ("read_at", "read_token")}
        wanted: Any = replace(now, stderr=None, text=None, offsets=None, details=details)  # not kept then
    elif kind == "flat":
        wanted = every_result.forecast(peaked=False)
    else:
        wanted = MAKERS[name](getattr(torch, kind))
    assert differences(type(wanted).load(path), wanted) == []


def _as_older(found: dict[str, Any]) -> dict[str, Any]:
    """What older files have of an attribution."""
    return {
        name: value for name, value in found.items() if name not in ("span", "targets", "answer", "units", "signed")
    }


def test_plain_values_are_still_plain(tmp_path: Path) -> None:
    saved = json.loads(every_result.single().save(tmp_path / "Attribution-float32.json").read_text(encoding="utf-8"))
    old = json.loads((OLD / "Attribution-float32.json").read_text(encoding="utf-8"))
    assert {"gradient_file", "gradient_owner"} <= set(saved), "the tensors have a file of their own"
    assert {**saved, "gradient_file": 0} == {
        **old,
        **{"gradient_file": 0, "gradient_owner": saved["gradient_owner"]},
        **{"units": [], "span": [], "targets": [], "answer": [], "signed": None},
    }
    rows = every_result.rows(torch.float64).to_dict()
    old = json.loads((OLD / "AttributionMatrix-float64.json").read_text(encoding="utf-8"))
    assert rows == {**old, "text": None, "offsets": None, "units": []}
    for make in (every_result.layers, every_result.sinks, every_result.forecast):
        result = make()
        old = json.loads((OLD / f"{type(result).__name__}-float32.json").read_text(encoding="utf-8"))
        new = json.loads(json.dumps(result.to_dict()), object_hook=_as_older)
        apart = ("format_version", "prediction", "baseline", "in_units_of_series")
        assert {k: v for k, v in new.items() if k in old and k not in apart} == {
            k: v for k, v in old.items() if k not in apart
        }
        assert new.get("in_units_of_series", {}) == pytest.approx(old.get("in_units_of_series", {}), rel=1e-12)


# -- files of others ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_of_another_class_is_refused(name: str, tmp_path: Path) -> None:
    cls = type(every_result.every_result()[name])
    path = tmp_path / "x.json"
    path.write_text('{"format": "tl_scopes.Other"}', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name}\.load\(.*not written by {name}\.save"):
        cls.load(path)
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match="not a JSON file"):
        cls.load(path)
    path.write_text(json.dumps({"format": f"tl_scopes.{name}", "format_version": 99}), encoding="utf-8")
    with pytest.raises(ValueError, match="upgrade tl_scopes"):
        cls.load(path)


BROKEN = ("gone", None, 5, "x", {"a": 1}, [[1], [2, 3]], {"$tensor": [1.0], "dtype": "no", "shape": [1]}, {"$set": 3})


@pytest.mark.parametrize("value", BROKEN, ids=str)
@pytest.mark.parametrize(
    "cls", [Attribution, Verification, IGPath, AOPCTable, FisherSpectrum, timeseries.RollingForecast]
)
@pytest.mark.usefixtures("unchecked")
def test_a_broken_field_is_a_value_error(cls: Any, value: Any, tmp_path: Path) -> None:
    before = every_result.every_result()[cls.__name__]
    raw = json.loads(before.save(tmp_path / "x.json").read_text(encoding="utf-8"))
    first = next(f.name for f in dataclasses.fields(before))
    for name in {first, "str_tokens", "fractions", "prompts", "encoded", "attribution"} & set(raw):
        changed = {k: v for k, v in raw.items() if k != name} if value == "gone" else {**raw, name: value}
        (tmp_path / "x.json").write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(ValueError, match=f"not as {cls.__name__}.save writes it"):
            cls.load(tmp_path / "x.json")


def test_a_torn_file_beside_is_a_value_error(tmp_path: Path) -> None:
    path = every_result.single().save(tmp_path / "x.json")
    (tmp_path / "x.json.tensors.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"not as Attribution\.save writes it \(gradient_file: x\.json\."):
        Attribution.load(path)
