"""The command ``run``."""

from __future__ import annotations

import sys
from typing import Any

from tl_scopes.cli import options
from tl_scopes.cli.output import Files, require_folder
from tl_scopes.cli.support import default_methods, library, load_model, own_gpu, shard_of


def run(
    source: options.Source = None,
    method: options.GoldMethods = None,
    field: options.Fields = None,
    unit: options.ByUnit = None,
    frozen: options.Frozen = None,
    batch_size: options.BatchSize = None,
    rows_per_shard: options.RowsPerShard = 128,
    format: options.SourceFormat = None,
    split: options.Split = None,
    subset: options.Subset = None,
    shard: options.Shard = None,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    out: options.Out = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """Explain every prompt of a file: scores in a folder of parquet files, and a report of what they say.

    A run may be killed at any moment; the same command continues it.

    Several processes, a GPU each: accelerate launch --multi_gpu --num_processes N -m tl_scopes run SOURCE --out FOLDER, or an
    array of jobs with --shard I/N.
    """
    files = Files(html=html, plot=plot, csv=csv, json=json)
    if source is None or out is None:
        raise ValueError("give a SOURCE, a file of prompts, and --out FOLDER")
    require_folder("--out", out)
    jobs, columns = shard_of(shard), _columns(field or ())
    tls = library()
    from tl_scopes.evaluation.gold_methods import known_methods
    from tl_scopes.evaluation.pace import to_standard_error
    from tl_scopes.evaluation.rows import column_names
    from tl_scopes.evaluation.sources import format_of, require_data_set
    from tl_scopes.results.variants import named_methods

    held: Any = frozen or ()
    methods = tuple(method or default_methods(tls.explain_file))
    named_methods(methods, held, known_methods())
    column_names(columns)
    layout: Any = None if format is None else format.value
    require_data_set(source, format_of(source, layout), split=split, subset=subset)
    to_standard_error()
    lens = load_model(model, kind, device or own_gpu())
    report = tls.explain_file(
        lens,
        source,
        out,
        methods,
        columns=columns,
        unit="token" if unit is None else unit.value,
        frozen=held,
        rows_per_shard=rows_per_shard,
        format=layout,
        split=split,
        subset=subset,
        shard=jobs,
        **({} if batch_size is None else {"batch_size": batch_size}),
    )
    if report.complete:
        files.answer(report)
    else:
        print(f"Not complete: {report.left:,} rows are left to other processes; the last one prints", file=sys.stderr)


def _columns(written: Any) -> dict[str, str | None]:
    """``NAME=COLUMN``, several times."""
    found: dict[str, str | None] = {}
    for one in written:
        name, equals, column = one.partition("=")
        if not equals or name in found:
            raise ValueError(f"--field {one}: expected NAME=COLUMN, each name once, e.g. prompt=question")
        found[name] = column or None
    return found
