"""Run the tutorials again and keep their outputs: ``python scripts/run_tutorials.py [01 05 ...]``.

Of interactive views the kept outputs have the static picture, not the bundle of CircuitsVis; what went to standard error
(bars, warnings with paths of this machine) is left out. The tutorial of the real model, and cells of others that are tagged
``skip-execution``, need one that is not bundled. The first is left as it is unless it is named, the others unless
``TL_SCOPES_REAL_MODEL`` names the model's folder.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIALS = sorted((Path(__file__).resolve().parents[1] / "tutorials").glob("*.ipynb"))
LARGE = 20_000
"""Characters of a script that is a bundle, and not what one view does."""
_SCRIPT = re.compile(r"<script\b[^>]*>.*?</script>", re.DOTALL)


def main() -> None:
    """Execute, strip, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of file names; none: all that need the demo model alone")
    names = tuple(parser.parse_args().names)
    for path in TUTORIALS:
        if path.name.startswith(names) if names else "real_model" not in path.name:
            run(path)
            print(f"{path.name}: {path.stat().st_size:,} bytes", flush=True)


def run(path: Path) -> None:
    """One notebook, in the folder it is in."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        record_timing=False,
        skip_cells_with_tag="" if "TL_SCOPES_REAL_MODEL" in os.environ else "skip-execution",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            for kind, text in output.get("data", {}).items():
                if kind == "text/html":
                    output["data"][kind] = _SCRIPT.sub(lambda s: "" if len(s[0]) > LARGE else s[0], text)
    notebook.metadata.pop("language_info", None)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
