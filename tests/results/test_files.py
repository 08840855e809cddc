"""Invariant: a file is replaced whole or stays as it was, nothing else is left or lost, and tensors are only ever read as
those of the result that they were saved with."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import every_result
import pytest
import torch
from safetensors.torch import load_file, save_file

from tl_scopes import Attribution
from tl_scopes.results.files import write_file, write_files
from tl_scopes.views.canvas.figures import Figure

pytestmark = pytest.mark.one_lens


def broken(*_: Any) -> None:
    raise OSError(28, "No space left on device")


WRITERS = {
    "result": lambda path: every_result.single().save(path),
    "page": lambda path: every_result.report().view().save(path),
    "figure": lambda path: Figure().savefig(path, format="png"),
    "text": lambda path: write_file(path, "new"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = '{"format": "tl_scopes.old"}'
    (tmp_path / "x.json").write_text(old)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space left"):
        WRITERS[name](tmp_path / "x.json")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"x.json": old}


def test_who_has_the_old_file_open_reads_it_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_file(path, b"old and whole")
    with path.open("rb") as reader:
        write_file(path, b"new")
        assert reader.read() == b"old and whole"
    assert path.read_bytes() == b"new"


def test_files_that_belong_together_are_replaced_after_all_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {tmp_path / "a": "1", tmp_path / "b": "1"}
    write_files(files)
    calls: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: calls.append(d) or (broken() if len(calls) == 2 else real(d)))
    with pytest.raises(OSError, match="No space left"):
        write_files(dict.fromkeys(files, "2"))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "1", "b": "1"}


def test_half_a_character_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = every_result.plain().save(tmp_path / "x.json")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"x\.json: not written, .* half of a character"):
        replace(every_result.single(), notes=("\ud800",)).save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert path.read_bytes() == before


def test_permissions_are_as_open_makes_them_or_those_of_the_old_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = write_file(tmp_path / "x", "1")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)
    write_file(path, "2")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("2", 0o600)


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to("data/real.json")
    every_result.single().save(link)
    assert link.is_symlink()
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["real.json", "real.json.tensors.safetensors"]
    for path in (link, tmp_path / "data" / "real.json"):
        assert Attribution.load(path).gradient is not None


def test_what_is_no_regular_file_is_written_to(tmp_path: Path) -> None:
    write_file("/dev/null", "x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    every_result.single().save(pipe)
    assert json.loads(os.read(reader, 1 << 16))["format"] == "tl_scopes.Attribution"
    os.close(reader)
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_standard_output_that_goes_to_a_file_is_not_cut(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "from tl_scopes.results.files import write_file; print('a'); write_file('/dev/stdout', 'b\\n'); print('c')"
    with log.open("w") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert log.read_text() == "a\nb\nc\n"


# -- tensors beside a result -------------------------------------------------------------------------------


def test_weights_with_a_like_name_are_not_touched(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    every_result.single().save(tmp_path / "model.json")
    assert list(load_file(tmp_path / "model.safetensors")) == ["w"]


@pytest.mark.parametrize(("first", "second"), [("a.alpha0.1", "a.alpha0.2"), ("x.json", "x.txt"), ("x", "x.json")])
def test_results_with_like_names_keep_their_own_gradients(first: str, second: str, tmp_path: Path) -> None:
    one = every_result.single()
    assert one.gradient is not None
    other = replace(one, gradient=2 * one.gradient)
    one.save(tmp_path / first), other.save(tmp_path / second)
    for name, saved in ((first, one), (second, other)):
        assert torch.equal(Attribution.load(tmp_path / name).gradient, saved.gradient)


def test_what_is_no_result_is_not_replaced(tmp_path: Path) -> None:
    weights = tmp_path / "x.safetensors"
    save_file({"w": torch.ones(2)}, weights)
    with pytest.raises(ValueError, match="a result is saved as JSON"):
        every_result.plain().save(weights)
    notes = tmp_path / "notes.json"
    notes.write_text("{}")
    with pytest.raises(ValueError, match="holds something else than a result"):
        every_result.plain().save(notes)
    os.rename(weights, tmp_path / "y.json.tensors.safetensors")
    with pytest.raises(ValueError, match="would replace this file, which is not a saved result's"):
        every_result.single().save(tmp_path / "y.json")
    assert not (tmp_path / "y.json").exists()
    assert list(load_file(tmp_path / "y.json.tensors.safetensors")) == ["w"]


def test_tensors_of_another_result_are_refused(tmp_path: Path) -> None:
    one = every_result.single()
    replace(one, notes=("other",)).save(tmp_path / "b.json")
    path = one.save(tmp_path / "a.json")
    os.replace(tmp_path / "b.json.tensors.safetensors", tmp_path / "a.json.tensors.safetensors")
    with pytest.raises(ValueError, match=r"a\.json.*gradient_file: .* holds tensors of another result"):
        Attribution.load(path)


@pytest.mark.parametrize("name", ["..", "", "a\0b", "/etc/passwd", "../x", "gone", "folder", "loop", 3, None])
def test_a_gradient_file_is_a_file_of_the_same_folder(name: Any, tmp_path: Path) -> None:
    path = every_result.single().save(tmp_path / "x.json")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    path.write_text(json.dumps({**json.loads(path.read_text()), "gradient_file": name}))
    with pytest.raises(ValueError, match=r"x\.json'\): not as Attribution\.save writes it \(gradient_file"):
        Attribution.load(path)


@pytest.mark.parametrize("version", [0, -1, "1", 1.5, True, None])
def test_a_version_is_a_positive_integer(version: Any, tmp_path: Path) -> None:
    path = every_result.plain().save(tmp_path / "x.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": version}))
    with pytest.raises(ValueError, match="format_version"):
        Attribution.load(path)


def test_scores_of_a_norm_are_not_negative() -> None:
    one = every_result.plain()
    with pytest.raises(ValueError, match="scores: semantic has none below 0"):
        replace(one, scores=-one.scores)
    assert replace(one, scores=-one.scores, method="my own").method == "my own"
