"""Install the package with every Python at hand, and run its demo: ``python scripts/check_pythons.py [3.10 3.13 ...]``.

For each version from 3.10 on: a virtual environment of its own, ``pip install .``, then without network ``tl-scopes trace``
and a smoke test of one call of every kind. ``PIP_CONSTRAINT`` holds versions, as ever. An interpreter is at hand as
``python3.X`` on the PATH or from pyenv; one that is not is named. The source is copied first, so that other installations
from it may go on at the same time. Each outcome comes with its seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
SMOKE = """
import tl_scopes as tls
model = tls.load_model()
prompt = "German: der Hund sieht die Katze. English: the"
attr = tls.scopes(model, prompt, target=" dog")["fisher"]
attr.save("attr.json")
assert tls.Attribution.load("attr.json").scores.equal(attr.scores)
assert attr.html() and attr.plot()
tls.verdict(model, attr), tls.verify(model, attr), tls.attribution_matrix(model, prompt), tls.layer_influence(model, prompt)
tls.integrated_gradients(model, prompt, target=" dog", n_steps=8), tls.leave_one_out(model, prompt, target=" dog")
tls.aopc(model, tls.load_passages("demo", 2), ["semantic", "random"])
tls.gold_alignment(model, ["semantic"], corpora=["binding"], n=4)
"""


def interpreter(version: str) -> str | None:
    """One that runs; pyenv leaves commands on the PATH that do not."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [f"python{version}", *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    for command in filter(shutil.which, found):
        if subprocess.run([command, "-c", "import venv, ssl"], capture_output=True, check=False).returncode == 0:
            return command
    return None


def tried(command: str, source: Path, work: Path) -> str:
    """What became of the installation and the runs: ``ok``, or the last line that was said."""
    own = work / "venv"
    python, quiet = str(own / "bin" / "python"), ["--quiet", "--disable-pip-version-check", "--no-compile"]
    env = os.environ | {"PYTHONPATH": str(source / "tests" / "support" / "no_network"), "MPLBACKEND": "agg"}
    steps: list[tuple[list[str], dict[str, str] | None]] = [
        ([command, "-m", "venv", str(own)], None),
        ([python, "-m", "pip", "install", *quiet, "torch"], None),  # by itself first: the CPU build, where there is one
        ([python, "-m", "pip", "install", *quiet, str(source)], None),
        ([str(own / "bin" / "tl-scopes"), "trace"], env),
        ([python, "-c", SMOKE], env),
    ]
    for step, environment in steps:
        done = subprocess.run(step, cwd=work, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["nothing was said"]
            return f"{' '.join(step)[-60:]!r}: {said[-1]}"
    return "ok"


def main() -> None:
    """One line for each version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    failed = False
    with tempfile.TemporaryDirectory() as copied:
        source = Path(copied) / "source"
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "site", "*.egg-info"))
        for version in parser.parse_args().versions:
            command, start = interpreter(version), time.monotonic()
            outcome = "not at hand"
            if command is not None:
                with tempfile.TemporaryDirectory() as folder:
                    outcome = tried(command, source, Path(folder))
                failed |= outcome != "ok"
                outcome = f"{outcome} ({time.monotonic() - start:.0f} s)"
            print(f"Python {version}: {outcome}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
