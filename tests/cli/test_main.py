"""Invariant: over all commands one word means one thing, each option is written once, every file that cannot be written is
refused before a model is loaded, and calling the program costs nothing until a command runs."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import families
import forked_commands
import pytest
import typer

import tl_scopes as tls
from tl_scopes.cli import options
from tl_scopes.cli.main import COMMANDS, app
from tl_scopes.cli.trace import _Together

FOLDER = Path(options.__file__).parent
WRITES = {"--html": "html", "--plot": "plot", "--csv": "to_frame", "--json": "to_dict"}
"""What each option writes, by the method of a result."""
RESULTS = {
    "trace": _Together,
    "matrix": tls.AttributionMatrix,
    "chain": tls.Chain,
    "layers": tls.LayerInfluence,
    "sinks": tls.AttentionSinks,
    "spectrum": tls.FisherSpectrum,
    "ig-path": tls.IGPath,
    "verify": tls.Verification,
    "patch": tls.PatchTop,
    "gold": tls.GoldAlignment,
    "aopc": tls.AOPCTable,
    "run": tls.RunReport,
    "series": tls.timeseries.Forecast,
    "check": tls.ModelReport,
}
MANY_MEANINGS = {"--method", "--model", "--target", "--rank", "--k", "--n", "--generate"}
"""One or several, of passages in place of prompts, or how many of what: the help of a command says which."""
OWN_DEFAULT = {"--n"}
"""How many differs with what one costs."""
Walk = list[tuple[str, Any]]


def parameters() -> Walk:
    """Every command with each of its options and arguments."""
    found: Any = typer.main.get_command(app)
    return [(name, p) for name, command in found.commands.items() for p in command.params if p.name != "help"]


def visible() -> Walk:
    return [(name, p) for name, p in parameters() if not getattr(p, "hidden", False)]


def written(name: str) -> set[str]:
    """The options of a command that write."""
    return {p.opts[0] for command, p in visible() if command == name and p.opts[0] in WRITES}


def test_every_command_is_in_the_program() -> None:
    assert {name for name, _ in parameters()} == set(COMMANDS)
    names = {"trace", "matrix", "gold", "spectrum", "aopc", "ig-path", "layers", "sinks", "series", "app"}
    assert names <= set(COMMANDS), "names are public"


# -- options -----------------------------------------------------------------------------------------------


def declarations() -> dict[str, ast.Call]:
    """`typer.Option(...)` and `typer.Argument(...)` of the package, by the file and alias they stand in."""
    found = {}
    for file in sorted(FOLDER.glob("*.py")):
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Option", "typer.Argument"):
                    alias = ast.unparse(statement.targets[0]) if isinstance(statement, ast.Assign) else "?"
                    found[f"{file.name}:{alias}"] = node
    return found


def test_options_are_written_in_one_file_each_help_text_once() -> None:
    found = declarations()
    assert len(found) > 40
    assert {name.split(":")[0] for name in found} == {"options.py"}
    texts = [ast.unparse(k.value) for call in found.values() for k in call.keywords if k.arg == "help"]
    assert len(texts) == len(found), "every option has a help text"
    assert len(set(texts)) == len(texts)


def test_every_option_is_one_that_a_command_has() -> None:
    text = "".join(f.read_text(encoding="utf-8") for f in FOLDER.glob("*.py") if f.name != "options.py")
    used = set(re.findall(r": options\.(\w+) =", text))
    assert used == {name.split(":")[1] for name in declarations()}


def test_one_word_means_one_thing_with_one_default() -> None:
    helps, names, defaults = defaultdict(set), defaultdict(set), defaultdict(set)
    for _, p in visible():
        if p.opts[0].startswith("--"):
            helps[p.opts[0]].add(p.help)
        names[p.help].add((p.name, tuple(p.opts)))
        defaults[p.help].add((p.opts[0], repr(p.default)))
    assert {word for word, texts in helps.items() if len(texts) > 1} <= MANY_MEANINGS
    assert [found for found in names.values() if len(found) > 1] == []
    assert {next(iter(found))[0] for found in defaults.values() if len(found) > 1} == OWN_DEFAULT


def test_what_is_written_has_names_of_its_own() -> None:
    writing = {p.opts[0] for _, p in visible() if getattr(p, "rich_help_panel", None) == "Output"}
    assert writing == {*WRITES, "--out", "--rank-plot"}
    reading = {p.opts[0] for _, p in visible() if getattr(p, "rich_help_panel", None) != "Output"}
    assert not writing & reading
    assert [(name, p.opts) for name, p in parameters() if getattr(p, "hidden", False)] == []


def test_no_command_lists_the_scopes() -> None:
    from tl_scopes.directions.by_name import SCOPES

    for file in FOLDER.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        words = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        assert {w for w in words if isinstance(w, str)} & set(SCOPES) <= {"semantic"}, f"{file.name}: only a default"


@pytest.mark.parametrize(
    "name", [c for c in COMMANDS if any(command == c and p.name == "method" for command, p in visible())]
)
def test_scope_is_an_older_word_for_method(name: str, refused: Callable[..., str]) -> None:
    given = [name, *{"gold": [], "aopc": [], "series": [], "patch": ["x", "y"]}.get(name, ["x"])]
    assert refused(*given, "--scope", "magic") == refused(*given, "--method", "magic")


# -- what is written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESULTS)
def test_what_a_result_can_write_is_offered(name: str) -> None:
    able = {option for option, method in WRITES.items() if hasattr(RESULTS[name], method)}
    assert written(name) == able


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, p.opts[0]) for name, p in visible() if p.opts[0] in {*WRITES, "--rank-plot"}],
)
def test_a_missing_folder_is_refused_before_a_model_is_loaded(
    name: str, option: str, refused: Callable[..., str]
) -> None:
    assert "there is no folder /no/such/folder" in refused(name, option, "/no/such/folder/x.png")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["trace", "--html", "-"], "--html -: only --csv and --json can go to standard output"),
        (["matrix", "--csv", "-", "--json", "-"], "one of them"),
        (["gold", "--plot", "x.magic"], "a figure's name ends with one of ."),
        (["matrix", "--plot", "x"], "--plot x: a figure's name ends with one of ."),
        (["gold", "--csv", "."], "--csv .: this is a folder"),
        (["check", "--html", "/dev/null/x"], "--html /dev/null/x: there is no folder /dev/null"),
        (["aopc", "--out", __file__], "is a file; give a folder"),
        (["aopc", "--rank", "2", "--rank-plot", "x.magic"], "a figure's name ends with one of ."),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    arguments: list[str], reason: str, refused: Callable[..., str]
) -> None:
    assert reason in refused(*arguments)


@pytest.mark.parametrize("option", [*WRITES, "--rank-plot"])
def test_a_file_without_permission_is_refused_before_a_model_is_loaded(
    option: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.png"
    monkeypatch.setattr(
        os, "access", lambda path, mode: mode != os.W_OK or Path(path) != tmp_path
    )  # root may write everywhere
    assert f"{option} {file}: no permission to write {tmp_path}" in refused("aopc", "--rank", "2", option, str(file))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or Path(path) != file)
    file.touch()
    assert f"no permission to write {file}" in refused("aopc", "--rank", "2", option, str(file))


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="a system without /dev/full")
@pytest.mark.parametrize("option", WRITES)
def test_a_full_disk_is_one_line_that_names_the_option_and_the_rest_is_written(
    option: str, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    full, other = tmp_path / "full.png", tmp_path / "other"
    full.symlink_to(FULL)
    beside = "--json" if option != "--json" else "--csv"
    code, out, err = run("matrix", "the dog", option, str(full), beside, str(other))
    assert (code, err) == (2, f"tl-scopes matrix: {option} {full}: No space left on device\n")
    assert "sources of" in out
    assert other.stat().st_size > 50


@pytest.mark.slow
@pytest.mark.one_lens
@pytest.mark.parametrize("given", [["--html", "x.html"], []], ids=["a file", "standard output"])
def test_what_is_printed_is_what_print_shows(
    given: list[str], answer: Callable[..., str], demo_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "German: der Hund sieht die Katze. English: the"
    shown = {
        "matrix": tls.attribution_matrix(demo_model, text).without("special"),
        "layers": tls.layer_influence(demo_model, text, relative=True).without("special"),
        "ig-path": tls.ig_path(demo_model, text, alphas=[i / 50 for i in range(51)]),
    }
    for name, result in shown.items():
        assert answer(name, text, *given) == f"{result}\n" == f"{result.view().plain()}\n"
    single = tls.semantic_scope(demo_model, text).without("special")
    assert answer("trace", text, "--method", "semantic", "--no-verdict") == f"{single}\n"


@pytest.mark.parametrize("name", ["trace", "matrix", "layers", "spectrum"])
def test_tables_are_not_padded_where_nobody_looks(name: str, answer: Callable[..., str]) -> None:
    assert [line for line in answer(name, *QUICK[name]).splitlines() if line != line.rstrip()] == []


# -- the program -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, answer: Callable[..., str]) -> None:
    text = answer(name, "--help")
    assert str(COMMANDS[name].__doc__).split()[0] in text
    for option in {p.opts[0] for command, p in visible() if command == name and p.opts[0].startswith("--")}:
        assert option in text
    assert "--scope" not in text


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; import tl_scopes.cli.main as c\n"
        f"for arguments in {[['--version'], [], ['--help'], *([name, '--help'] for name in COMMANDS)]}:\n"
        "    sys.argv = ['tl-scopes', *arguments]\n"
        "    try:\n        c.main()\n    except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'torch', 'transformer_lens', 'matplotlib', 'pandas', 'numpy', 'starlette'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.one_lens
@pytest.mark.parametrize(("typed", "word"), [("tl-scopes ma", "matrix"), ("tl-scopes trace --met", "--method")])
def test_a_shell_completes_commands_and_options(typed: str, word: str) -> None:
    code = "import sys; import tl_scopes.cli.main as c; sys.argv = ['tl-scopes']; c.main()"
    asked = {"_TL_SCOPES_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.returncode) == ([word], 0), done.stderr


def test_version_names_what_an_error_depends_on(answer: Callable[..., str]) -> None:
    lens, torch = version("transformer_lens"), version("torch")
    assert answer("--version") == f"tl_scopes {tls.__version__} (transformer_lens {lens}, torch {torch})\n"


def test_without_a_command_it_prints_help_and_exits_with_0(run: Callable[..., tuple[int, str, str]]) -> None:
    assert run() == run("--help")
    code, out, err = run()
    assert (code, err) == (0, "")
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [
        (["trace", "--nonsense"], "tl-scopes trace: "),
        (["series", "--system", "nonsense"], "tl-scopes series: "),
        (["nonsense"], "tl-scopes: "),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], begins: str, refused: Callable[..., str]) -> None:
    assert refused(*arguments).startswith(begins)
    assert "nonsense" in refused(*arguments)


@pytest.mark.parametrize("kind", [ValueError, TypeError, NotImplementedError, OSError])
def test_what_the_library_refuses_begins_with_the_command(
    kind: type[Exception], run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise kind("scopes(x=1): not so,\n  but so")

    monkeypatch.setattr(tls, "load_model", refuse)
    assert run("trace", "a text") == (2, "", "tl-scopes trace: scopes(x=1): not so, but so\n")


def test_a_defect_is_not_a_users_mistake(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "load_model", lambda name, **options: {}["nothing"])
    with pytest.raises(KeyError):
        run("trace", "a text")


@pytest.mark.parametrize(
    "arguments",
    [
        ["trace", "x", "--device", "banana"],
        ["check", "--device", "banana"],
        ["gold", "--kind", "banana"],
        ["verify", "x", "--model", "/no/such/folder"],
        ["aopc", "--model", "demo", "--model", "/no/such/folder"],
        ["app", "--model", "demo", "--model", "/no/such/folder"],
        ["series", "--data", "/no/such/file.csv"],
    ],
    ids=" ".join,
)
def test_a_device_or_a_model_that_is_not_there_is_one_line(
    arguments: list[str], run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tl_scopes.model import loading

    monkeypatch.setattr(tls, "load_model", loading.load_model)
    monkeypatch.setattr(loading, "bridge_class", lambda: pytest.fail("the model was loaded"))
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "banana" in err or "there is no such" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["trace", ""], "the prompt is empty"),
        (["spectrum", ""], "a prompt is empty"),
        (["trace", "x", "--method", "fisher", "--method", "fisher"], "method 'fisher' is given twice"),
        *(
            ([name, "x", "--method", "contrast"], "needs a foil: give --foil")
            for name in ("trace", "matrix", "layers", "sinks", "verify")
        ),
        (["patch", "x", "y", "--method", "contrast"], "needs a foil: give --foil"),
        (["patch", "x"], "give two prompts"),
        (["patch", "x", ""], "give two prompts"),
        (["patch", "x", "y", "--k", "0"], "--k"),
        *(([name, "x", "--rank", "2"], "does not read it") for name in ("matrix", "layers", "verify")),
        (["trace", "x", "--method", "semantic", "--rank", "2"], "does not read it"),
        (["sinks", "x", "--multiple", "nan"], "--multiple"),
        (["verify", "x", "--step", "inf"], "--step"),
        (["verify", "x", "--step", "0"], "--step"),
        (["ig-path", "x", "--sink-tokens", "0"], "--sink-tokens"),
        (["gold", "--corpus", "magic"], "unknown corpus 'magic'"),
        (["gold", "--seed", "-1"], "--seed"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_before_a_model_is_loaded(
    arguments: list[str], reason: str, refused: Callable[..., str]
) -> None:
    assert reason in refused(*arguments)


QUICK = {
    "trace": [],
    "matrix": [],
    "chain": [],
    "layers": ["--heads"],
    "sinks": ["--unrelated", "0"],
    "spectrum": ["-n", "1"],
    "ig-path": ["--points", "5"],
    "verify": ["--top", "3"],
    "patch": ["-k", "2", "--layer", "0", "--n-random", "2"],
    "gold": ["-n", "3", "--corpus", "translation"],
    "aopc": ["demo:translation", "-n", "2", "--method", "random"],
    "series": ["--length", "12"],
    "check": [],
}
BLOCKED = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(families.__file__).parent / "no_network"), str(FOLDER.parents[1])]),
}


@pytest.mark.slow
def test_every_command_works_in_a_process_of_its_own_without_a_network_where_characters_are_few(tmp_path: Path) -> None:
    called = [sys.executable, forked_commands.__file__, str(tmp_path), json.dumps(QUICK)]
    done = subprocess.run(called, capture_output=True, text=True, env=BLOCKED, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for encoding in forked_commands.ENCODINGS:
        printed = {name: (tmp_path / f"{name}.{encoding}").read_text(encoding=encoding) for name in QUICK}
        assert all(text.strip() for text in printed.values()), printed
        assert "###" in printed["trace"], "bars"


@pytest.mark.skipif(not FULL.exists(), reason="a system without /dev/full")
def test_a_full_standard_output_is_one_line() -> None:
    code = (
        "import tl_scopes.cli.main as c, tl_scopes.cli.output as o\n"
        "c.app = lambda *_, **__: c._named('check', lambda: o.show('x'))()\nc.main()"
    )
    with FULL.open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "tl-scopes check: standard output: No space left on device\n")


@pytest.mark.slow
def test_the_installed_program_is_the_module() -> None:
    printed = []
    for program in ([str(Path(sys.executable).with_name("tl-scopes"))], [sys.executable, "-m", "tl_scopes"]):
        done = subprocess.run([*program, "trace"], capture_output=True, text=True, env=BLOCKED, check=False)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        printed.append(done.stdout)
    assert "sieht" in printed[0]
    assert printed[0] == printed[1]
