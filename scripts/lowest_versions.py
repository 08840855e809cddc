"""Print the lowest declared version of every direct dependency, as constraints: ``python scripts/lowest_versions.py``.

Continuous integration installs with them and runs the demo. torch is left out: its older builds without CUDA are not on the
index, and the others' bounds do not depend on it.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("torch",)


def lowest() -> list[str]:
    """``name==version`` of each."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.search(r"^dependencies = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    if declared is None:
        raise SystemExit("pyproject.toml has no list of dependencies")
    found = re.findall(r'"([\w-]+)>=([\w.]+)', declared[1])
    if len(found) != declared[1].count('"') // 2:
        raise SystemExit(f"a dependency has no lower bound: {declared[1]}")
    return [f"{name}=={version}" for name, version in found if name not in LEFT_OUT]


if __name__ == "__main__":
    print(*lowest(), sep="\n")
