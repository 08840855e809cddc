"""Build the source archive and the wheel, and see that each holds what it must: ``python scripts/check_dist.py``.

``python -m build`` makes both of a copy of the tracked files alone, so that nothing left over in the working tree is taken
for one of them; the wheel is built from the unpacked archive, as pip does where there is no wheel. Then:

* both have the version of ``tl_scopes/__init__.py``, and ``twine check --strict`` accepts their metadata;
* the archive holds every tracked file but ``.gitignore``;
* pytest collects from it, without an error, every test that it collects from the checkout;
* the wheel holds every tracked file of the package, ``py.typed``, stub, pages and the bundled models included, and no
  other, in at most 12 MB.

No network is used: the build takes setuptools from this environment. The two files are left in ``dist``, or in ``--out``.
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

import tl_scopes

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
MOST_BYTES = 12_000_000
"""Of a wheel with both bundled models."""


def run(*command: str, cwd: Path, **env: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(command, cwd=cwd, env=os.environ | env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nin {cwd}: {' '.join(command)} failed ({done.returncode})")
    return done.stdout


def built(tracked: list[str], work: Path) -> tuple[Path, Path]:
    """Source archive and wheel, built from a copy of the tracked files."""
    clean, made = work / "clean", work / "made"
    for name in tracked:
        (clean / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, clean / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), cwd=clean)
    (archive,), (wheel,) = made.glob("*.tar.gz"), made.glob("*.whl")
    return archive, wheel


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
        archive, wheel = built(tracked, work)
        run(sys.executable, "-m", "twine", "check", "--strict", str(archive), str(wheel), cwd=work)
        if not all(file.name.startswith(f"tl_scopes-{tl_scopes.__version__}") for file in (archive, wheel)):
            raise SystemExit(f"{archive.name} and {wheel.name} are not of version {tl_scopes.__version__}")
        with tarfile.open(archive) as tar:
            tar.extractall(work / "unpacked", filter="data")
        (unpacked,) = (work / "unpacked").iterdir()
        inside = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
        require_nothing(set(tracked) - inside - NOT_IN_IT, f"not in {archive.name}")
        tests = collected(unpacked)
        require_nothing(collected(ROOT) - tests, f"not collected from {archive.name}")

        if (size := wheel.stat().st_size) > MOST_BYTES:
            raise SystemExit(f"{wheel.name} has {size:,} bytes; at most {MOST_BYTES:,} were meant")
        with zipfile.ZipFile(wheel) as files:
            packed = {name for name in files.namelist() if ".dist-info/" not in name}
        expected = {name for name in tracked if name.startswith("tl_scopes/")}
        require_nothing((expected | {f"tl_scopes/{name}" for name in MUST}) - packed, f"not in {wheel.name}")
        require_nothing(packed - expected, f"in {wheel.name}, but not tracked")
        for file in (archive, wheel):
            shutil.copy2(file, out)
    print(
        f"{archive.name}: {len(inside)} files, {len(tests)} tests; {wheel.name}: {len(packed)} files, {size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
