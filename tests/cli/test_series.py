"""Invariant: ``series`` answers offline, writes what it is told to, and a mistake is one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tl_scopes as tls
from tl_scopes.cli.options import System


@pytest.mark.slow
@pytest.mark.one_lens
def test_several_scopes_with_figure_page_and_json(answer: Callable[..., str], demo_model: Any, tmp_path: Path) -> None:
    svg, page, data = (tmp_path / name for name in ("f.svg", "f.html", "f.json"))
    chosen = ["--method", "temperature", "--method", "semantic"]
    out = answer("series", "--length", "20", *chosen, "--plot", str(svg), "--html", str(page), "--json", str(data))
    values = tls.timeseries.lorenz(21, seed=0)
    wanted = tls.timeseries.forecast_scope(
        demo_model, values[:-1], truth=values[-1], methods=("temperature", "semantic")
    )
    assert out == f"{wanted}\n"
    assert data.read_bytes() == wanted.save(tmp_path / "w.json").read_bytes()
    assert page.read_text(encoding="utf-8") == wanted.html()
    assert svg.stat().st_size > 10_000


@pytest.mark.parametrize("system", [s.value for s in System])
def test_every_system(answer: Callable[..., str], system: str) -> None:
    read = json.loads(answer("series", "--system", system, "--length", "12", "--seed", "5", "--json", "-"))
    make = getattr(tls.timeseries, System(system).name)
    assert read["series"] == make(13, seed=5)[:-1].tolist()
    assert read["truth"] == make(13, seed=5)[-1]


def test_a_column_of_a_file(answer: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b\n" + "".join(f"{i},{(i * 7) % 5}\n" for i in range(12)), encoding="utf-8")
    of_file = ["series", "--data", str(file), "--column", "b", "--json", "-"]
    whole = json.loads(answer(*of_file))
    assert (len(whole["series"]), whole["truth"]) == (11, float(11 * 7 % 5))
    part = json.loads(answer(*of_file, "--length", "6"))
    assert (part["series"], part["truth"]) == (whole["series"][:6], whole["series"][6])


def test_the_old_name_of_data_still_reads_and_says_so(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    text = "a\n" + "".join(f"{(i * 7) % 5}\n" for i in range(12))
    file.write_text(text, encoding="utf-8")
    code, out, err = run("series", "--csv", str(file), "--json", "-")
    assert (code, err) == (
        0,
        f"tl-scopes series: --csv {file} is read, as before --data was there; from now on: --data\n",
    )
    assert run("series", "--data", str(file), "--json", "-") == (0, out, "")
    assert file.read_text(encoding="utf-8") == text, "a file that an old command line reads is not written"


def test_the_table_is_written_and_written_again(answer: Callable[..., str], demo_model: Any, tmp_path: Path) -> None:
    for given, own in (([], "index,pos,value,number"), (["--rolling"], "index,number,mean")):
        file = tmp_path / f"{len(given)}.csv"
        command = ["series", "--length", "12", *given]
        for _ in range(2):
            answer(*command, "--csv", str(file))
            assert file.read_text(encoding="utf-8").startswith(own)
        assert answer(*command, "--csv", "-") == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("seed", ["1", "6"])
def test_a_truth_outside_the_scale_is_an_answer(answer: Callable[..., str], seed: str) -> None:
    out = answer("series", "--system", "geometric-brownian", "--length", "20", "--seed", seed)
    assert "outside 10 … 99" in out
    assert "Forecast: " in out


def test_a_series_is_never_written_over(refused: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a\n1\n2\n3\n4\n", encoding="utf-8")
    assert "this is the file of --data" in refused("series", "--data", str(file), "--csv", str(file))


def test_rolling(answer: Callable[..., str], tmp_path: Path) -> None:
    out = answer("series", "--system", "periodic", "--length", "14", "--rolling", "--plot", str(tmp_path / "r.png"))
    assert "persistence" in out
    assert len([line for line in out.splitlines() if line.split()[:1] and line.split()[0].isdigit()]) == 8
    assert (tmp_path / "r.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--length", "1"], "--length"),
        (["--column", "b"], "give both"),
        (["--rolling", "--length", "7"], "--rolling forecasts the numbers after the first 8, and these are 8"),
        (["--rolling", "--method", "moment_mean"], "unknown method 'moment_mean'"),
        (["--data", "nowhere.csv"], "'nowhere.csv': there is no such file"),
        (["--rolling", "--method", "fisher", "--method", "semantic"], "--rolling takes one --method"),
        (["--method", "magic"], "unknown method 'magic'; expected temperature"),
    ],
)
def test_a_mistake_is_seen_before_a_model_is_loaded(
    refused: Callable[..., str], arguments: list[str], reason: str
) -> None:
    assert reason in refused("series", *arguments)


def test_what_the_library_refuses_is_one_line(refused: Callable[..., str]) -> None:
    assert "more than the model's context" in refused("series", "--length", "200", loads=True)


def test_too_short_a_column_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a\n1\n2\n", encoding="utf-8")
    assert "need at least 3" in refused("series", "--data", str(file))
    file.write_text("a\n1\n2\n3\n4\n", encoding="utf-8")
    assert "at most 3 to see" in refused("series", "--data", str(file), "--length", "4")
