"""Invariant: imports go down the list of layers, only model.py names a TransformerLens class, importing is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import tl_scopes

ROOT = Path(tl_scopes.__file__).parent
LAYERS = {
    "attribution": 0, "eigensolver": 0, "fisher": 0, "inside": 0, "matrix": 0, "precision": 0, "quadrature": 0, "records": 0,
    "saved": 0, "scores": 0, "shown": 0, "statistics": 0, "words": 0,
    "model": 1, "activations": 1, "checkpointing": 2, "capture": 2, "memory": 2,
    "prompts": 2, "directions": 2, "information": 2, "explananda": 2, "moments": 2, "loading": 2,
    "options": 2, "call_form": 3, "sink_positions": 3, "attention_share": 3, "kernel": 3,
    "jacobian_scopes": 4, "check": 4, "every_target": 4, "spectrum": 4, "distribution_scopes": 4,
    "explained": 5, "verification": 5, "patching": 5, "substitution": 5, "features": 4,
    "layers": 5, "sink_result": 0, "patch_result": 0, "sinks": 5,
    "interventions": 4, "baselines": 4, "controls": 5, "protocol": 5, "paths": 4, "perturbation": 4,
    "timeseries": 5,
    "views": 5,
    "demo": 5,
    "benchmark": 6, "faithfulness": 6, "passages": 6,
    "app": 7, "cli_app": 7, "cli_faithfulness": 7, "cli_followup": 7, "cli_series": 7, "cli": 7, "__main__": 8, "__init__": 8,
}  # fmt: skip
"""Each module may import modules of its own layer or below; results import views lazily, inside their methods."""


def modules() -> list[Path]:
    return sorted(p for p in ROOT.rglob("*.py"))


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree: ast.Module) -> set[str]:
    """Modules of the package that are imported; views only where that happens at the top of the file."""
    inside = _modules_named(ast.walk(tree))
    return inside - {"views"} | _modules_named(tree.body)


def _modules_named(nodes: Iterable[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tl_scopes"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("tl_scopes.")}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    own = layer(path)
    for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        if name == own or name not in LAYERS:
            continue
        assert LAYERS[name] <= LAYERS[own], f"{own} (layer {LAYERS[own]}) imports {name} (layer {LAYERS[name]})"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_imports_a_model_class_at_its_top(path: Path) -> None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not any(str(n).split(".")[0] == "transformer_lens" for n in names), ast.unparse(node)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_model_py_branches_on_class_or_version(path: Path) -> None:
    if path.name == "model.py":
        return
    code = ast.unparse(
        ast.Module([n for n in ast.parse(path.read_text(encoding="utf-8")).body if not _docstring(n)], [])
    )
    assert "class_kind(" not in code
    assert ".kind ==" not in code


def _docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; sys.argv = ['tl-scopes', '--help']\n"
        "import tl_scopes.cli as c\n"
        "try:\n    c.main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_figures_are_the_ones_that_notebooks_show(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() == "views/figures.py":
        return
    found = [n.module for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
    assert "matplotlib.figure" not in found, "use tl_scopes.views.figures.Figure: Jupyter shows it as a picture"
