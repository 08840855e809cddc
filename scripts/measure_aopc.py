"""Measure the AOPC table of docs/faithfulness.md and figures again: ``python scripts/measure_aopc.py``.

The table is what ``tl-scopes aopc`` prints, and goes between the page's two ``aopc`` comments; the figures are
``docs/images/aopc.png`` and ``docs/images/aopc-rank.png``. With ``--out`` a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import tl_scopes as tls
from tl_scopes.evaluation.protocol import AOPC_METHODS

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
RANKS = (4, 16, 64, 128)
BESIDE_RANKS = ("input_x_gradient", "semantic", "temperature")


def main() -> None:
    """Run, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=120, help="passages")
    parser.add_argument("--out", type=Path, help="folder of the two runs")
    args = parser.parse_args()
    model, passages = tls.load_model(), tls.load_passages("demo", args.n)
    folders = [None, None] if args.out is None else [args.out / "methods", args.out / "ranks"]
    table = tls.aopc(model, passages, AOPC_METHODS, out=folders[0])
    table.plot().savefig(IMAGES / "aopc.png")
    by_rank = tls.aopc(model, passages, ["fisher", *(f"fisher@{r}" for r in RANKS), *BESIDE_RANKS], out=folders[1])
    by_rank.plot_ranks().savefig(IMAGES / "aopc-rank.png")
    page = ROOT / "docs" / "faithfulness.md"
    text, block = page.read_text(encoding="utf-8"), f"<!-- aopc -->\n```\n{table}\n```\n<!-- /aopc -->"
    text, found = re.subn(r"<!-- aopc -->.*?<!-- /aopc -->", lambda _: block, text, flags=re.DOTALL)
    if found != 1:
        raise SystemExit("docs/faithfulness.md: expected one pair of comments <!-- aopc --> and <!-- /aopc -->")
    page.write_text(text, encoding="utf-8")
    print(table)
    print(by_rank.by_rank().to_string(index=False))


if __name__ == "__main__":
    main()
