"""Invariant: every example in a docstring and in the README runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import tl_scopes
from tl_scopes import tasks, timeseries
from tl_scopes.kernel.options import RunOptions

ROOT = Path(tl_scopes.__file__).parent.parent
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(tl_scopes.__path__, "tl_scopes.")
    if not m.name.endswith("__main__") and ".demo" not in m.name
)


for _name in MODULES:  # rich draws a random number when it is first imported: here, not in a test
    importlib.import_module(_name)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, demo_model) -> None:
    module = importlib.import_module(name)
    globs = {**vars(tl_scopes), **vars(module), "model": demo_model}
    result = doctest.testmod(module, extraglobs=globs, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def public_functions() -> list[str]:
    return [n for n in tl_scopes.__all__ if callable(getattr(tl_scopes, n)) and n.islower()]


@pytest.mark.parametrize("name", public_functions())
def test_public_functions_document_their_parts(name: str) -> None:
    text = getattr(tl_scopes, name).__doc__
    for part in ("Args:", "Returns:", "Raises:", ">>> "):
        assert part in text, f"{name} lacks {part}"


CALLS = {
    f"{module.__name__}.{name}": value
    for module in (tl_scopes, tasks, timeseries)
    for name in module.__all__
    if inspect.isfunction(value := getattr(module, name))
}


@pytest.mark.parametrize("name", CALLS)
def test_every_parameter_is_among_the_args(name: str) -> None:
    """By its name, or, of those that all runs share, as one of the "options" or "all other keywords" of another call."""
    parameters = set(inspect.signature(CALLS[name]).parameters)
    found = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.getdoc(CALLS[name]) or "", re.DOTALL | re.MULTILINE)
    entries = re.findall(r"^    (\w[\w, ]*):", found[1] if found else "", re.MULTILINE)
    said = {word for entry in entries for word in re.split(r",? and |, ", entry)}
    if "all other keywords" in said:
        return
    assert said - {"options"} <= parameters
    shared = set(vars(RunOptions())) if "options" in said else set()
    assert parameters <= said | shared


def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_readme_python_runs(capsys) -> None:
    blocks = readme_blocks("python")
    assert blocks
    shared: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), shared)


def test_continuous_integration_types_the_two_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for_users, for_developers = readme_blocks("bash")[:2]
    for command in (*for_users.strip().split(" && "), for_developers.strip()):
        assert re.search(rf"[( ]{re.escape(command)}\)?$", script, re.MULTILINE), command
