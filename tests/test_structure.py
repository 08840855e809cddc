"""Invariant: the folders are the flow. Files import only from folders above their own, nothing imports in a circle, only
`model/` knows TransformerLens' classes and versions, and importing the package is light."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import tl_scopes

pytestmark = pytest.mark.one_lens
ROOT = Path(tl_scopes.__file__).parent
FOLDERS = (
    "numerics", "demo", "tasks", "model", "directions", "results", "kernel", "views", "jacobian_scopes", "baselines",
    "analysis", "evaluation", "timeseries", "app", "cli",
)  # fmt: skip
"""In the order of the flow: a file may import from its own folder and from those before it."""
MOST_LEVELS = 8
MOST_LINES = 400
MOST_ARGUMENTS = 8
BY_NAME = "results/base.py"
"""The one place where a module is imported by a name: a result finds its picture without importing it."""


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in files()}


def imports(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, wherever in the file; what is imported for types alone counts too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: a relative import"
            for alias in node.names:
                if alias.name == "__version__":
                    continue  # text, there before anything is imported
                if (inner := f"{node.module}.{alias.name}") in MODULES:
                    yield inner
                elif node.module in MODULES:
                    yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def folder(module: str) -> str | None:
    """The folder of a module; None for the face of the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / parts[1]).is_dir() else None


@pytest.mark.parametrize("path", files(), ids=relative)
def test_imports_go_down_the_flow(path: Path) -> None:
    own = folder(dotted(path))
    if own is None:
        return
    for name in imports(path):
        other = folder(name)
        if other is None:
            # the face, whose names are imported when they are used: for those who stand where a user stands
            assert own in ("app", "cli"), f"{relative(path)} imports {name}"
        else:
            assert FOLDERS.index(other) <= FOLDERS.index(own), f"{relative(path)} imports upward: {name}"


def test_every_folder_has_its_place() -> None:
    assert {p.name for p in ROOT.iterdir() if p.is_dir() and p.name != "__pycache__"} == set(FOLDERS)
    assert {p.name for p in ROOT.iterdir() if p.is_file()} == {"__init__.py", "__init__.pyi", "__main__.py", "py.typed"}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other (Tarjan), of more than one node."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in list(graph):
        if node not in index:
            visit(node)
    return found


def of_files() -> dict[str, set[str]]:
    graph = {name: set(imports(path)) - {name} for name, path in MODULES.items()}
    return {name: others - {"tl_scopes"} for name, others in graph.items()}


def of_folders() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {name: set() for name in FOLDERS}
    for name, others in of_files().items():
        if (own := folder(name)) is not None:
            graph[own] |= {f for other in others if (f := folder(other)) not in (None, own)}
    return graph


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_files_import_in_a_circle() -> None:
    assert circles(of_files()) == []


def test_the_folders_are_few_levels_deep_and_in_no_circle() -> None:
    graph = of_folders()
    assert circles(graph) == []

    @cache
    def level(name: str) -> int:
        return 1 + max((level(other) for other in graph[name]), default=0)

    levels = {name: level(name) for name in FOLDERS}
    assert max(levels.values()) <= MOST_LEVELS, levels


def test_a_module_is_imported_by_name_in_one_place() -> None:
    found = [
        relative(path)
        for path in files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("import_module", "__import__"))
        and not (
            node.args and isinstance(node.args[0], ast.Constant) and not str(node.args[0].value).startswith("tl_scopes")
        )
    ]
    assert found == [BY_NAME]


@pytest.mark.parametrize("path", files(), ids=relative)
def test_a_file_holds_one_thing(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", files(), ids=relative)
def test_private_functions_take_few_arguments(path: Path) -> None:
    public = {*tl_scopes.__all__, *tl_scopes.timeseries.__all__, *tl_scopes.tasks.__all__}
    if folder(dotted(path)) == "cli":
        return  # the parameters of a command are its options
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef) and node.name not in public:
            count = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
            assert count <= MOST_ARGUMENTS, f"{relative(path)}:{node.lineno}: {node.name} takes {count} arguments"


@pytest.mark.parametrize("path", files(), ids=relative)
def test_no_module_imports_transformer_lens_at_its_top(path: Path) -> None:
    for node in tree(path).body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not any(str(n).split(".")[0] == "transformer_lens" for n in names), ast.unparse(node)


@pytest.mark.parametrize("path", [p for p in files() if folder(dotted(p)) != "model"], ids=relative)
def test_only_the_model_folder_branches_on_class_or_version(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name | ast.Attribute):
            assert "class_kind" not in ast.unparse(node), f"{relative(path)}:{node.lineno}"
        if isinstance(node, ast.Compare):
            assert not ast.unparse(node.left).endswith("state.kind"), f"{relative(path)}:{node.lineno}"


@pytest.mark.parametrize("path", [p for p in files() if relative(p) != "numerics/precision.py"], ids=relative)
def test_float64_on_the_models_device_is_made_in_one_place(path: Path) -> None:
    if folder(dotted(path)) not in ("numerics", "directions", "kernel") and relative(path) != "model/forward.py":
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "double":
            on_cpu = ast.unparse(node.func.value).endswith(".cpu()")
            assert on_cpu, f"{relative(path)}:{node.lineno}: use precision.to_float64"


def test_functions_inside_functions_write_no_shapes() -> None:
    """`tests/conftest.py` leaves them unchecked."""
    for path in files():
        functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
        for inner in {inner for outer in functions for inner in ast.walk(outer) if inner is not outer}:
            if isinstance(inner, ast.FunctionDef):
                signature = f"{ast.unparse(inner.args)} {ast.unparse(inner.returns) if inner.returns else None}"
                assert not re.search(r"(Float|Int|Bool)\[", signature), f"{relative(path)}:{inner.lineno}: {inner.name}"


@pytest.mark.parametrize("path", files(), ids=relative)
def test_figures_are_the_ones_that_notebooks_show(path: Path) -> None:
    if relative(path) == "views/canvas/figures.py":
        return
    found = [n.module for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom)]
    assert "matplotlib.figure" not in found, "use tl_scopes.views.canvas.figures.Figure: Jupyter shows it as a picture"
