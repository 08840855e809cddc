"""Build the source archive and the wheel, and see that each holds what it must: ``python scripts/check_dist.py``.

Both are built from the tracked files alone, so that nothing left over in the working tree is taken for one of them; the
wheel is built from the unpacked archive, as pip does where there is no wheel. Then:

* the archive holds every tracked file but ``.gitignore``;
* pytest collects from it, without an error, every test that it collects from the checkout;
* the wheel holds every tracked file of the package, ``py.typed``, stub, pages and the demo model included, and no other.

No network is used. The two files are left in ``dist``, or in ``--out``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_IN_IT = {".gitignore"}
MUST = (
    "__init__.pyi",
    "py.typed",
    "demo/model/model.safetensors",
    "demo/demo-llama/model.safetensors",
    "demo/demo-sae/sae_weights.safetensors",
    "views/canvas/style.css",
    "app/page.html",
)
"""Some of the package's files that are no modules, in case nothing of their kind is tracked any more."""


def run(*command: str, cwd: Path, **env: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(command, cwd=cwd, env=os.environ | env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nin {cwd}: {' '.join(command)} failed ({done.returncode})")
    return done.stdout


def built_archive(tracked: list[str], work: Path, out: Path) -> Path:
    """The source archive, built from a copy of the tracked files."""
    clean = work / "clean"
    for name in tracked:
        (clean / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, clean / name)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    return out / run(sys.executable, "-c", build, str(out), cwd=clean).split()[-1]


def collected(folder: Path) -> set[str]:
    """The ids of the tests of every tier."""
    command = (sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider")
    printed = run(*command, cwd=folder, PYTHONPATH=str(folder))
    return {line for line in printed.splitlines() if "::" in line}


def require_nothing(missing: set[str], what: str) -> None:
    """End with what is missing, if anything is."""
    if missing:
        raise SystemExit("\n  ".join([f"{what}:", *sorted(missing)]))


def main() -> None:
    """Build, look, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the two files")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        archive = built_archive(tracked, work, out)
        with tarfile.open(archive) as tar:
            tar.extractall(work / "unpacked", filter="data")
        (unpacked,) = (work / "unpacked").iterdir()
        inside = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
        require_nothing(set(tracked) - inside - NOT_IN_IT, f"not in {archive.name}")
        tests = collected(unpacked)
        require_nothing(collected(ROOT) - tests, f"not collected from {archive.name}")

        command = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(work / "wheel"))
        run(sys.executable, *command, str(unpacked), cwd=work)
        (wheel,) = (work / "wheel").iterdir()
        with zipfile.ZipFile(wheel) as files:
            packed = {name for name in files.namelist() if ".dist-info/" not in name}
        expected = {name for name in tracked if name.startswith("tl_scopes/")}
        require_nothing((expected | {f"tl_scopes/{name}" for name in MUST}) - packed, f"not in {wheel.name}")
        require_nothing(packed - expected, f"in {wheel.name}, but not tracked")
        shutil.copy2(wheel, out)
    print(f"{archive.name}: {len(inside)} files, {len(tests)} tests; {wheel.name}: {len(packed)} files")


if __name__ == "__main__":
    main()
