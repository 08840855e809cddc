"""Many prompts of a file, by any methods, into parquet tables.

    1  the source is read once: rows, duplicates, digest (:mod:`tl_scopes.evaluation.survey`);
    2  its rows are cut into windows of ``rows_per_shard``, which the processes of the run share;
    3  in a window, rows that ask what an earlier one asks are left out, and those that cannot be read are recorded;
    4  the others are sorted by length and explained ``batch_size`` at a time, every method in turn; where a batch fails each
       prompt is tried by itself, and one that fails alone is recorded;
    5  the window's tables are written, each whole or not at all, and then its record, which says that it is done.

A window's tables depend on its rows and the settings alone, not on the process, nor on what was done before: a run that was
killed, or shared by others, has the bits of one that was not, where the batches are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tl_scopes.directions.by_name import DEFAULT_METHODS, SCOPES, named_directions, reads
from tl_scopes.evaluation.fingerprint import function_fingerprint, model_settings
from tl_scopes.evaluation.gold_methods import Method, known_methods, named
from tl_scopes.evaluation.methods import chosen_methods
from tl_scopes.evaluation.pace import Pace
from tl_scopes.evaluation.records import Kind, RecordStore, read_records, read_settings
from tl_scopes.evaluation.rows import Reading, column_names
from tl_scopes.evaluation.run_report import report
from tl_scopes.evaluation.run_tables import Table, is_double, is_whole, to_frame, whole_table
from tl_scopes.evaluation.run_windows import Windows
from tl_scopes.evaluation.shares import Shard, share_of
from tl_scopes.evaluation.sources import STDIN, Format, format_of, kept_input, open_source, require_data_set
from tl_scopes.evaluation.survey import Survey, survey, windows
from tl_scopes.model.frozen import Frozen
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.lock import model_call
from tl_scopes.model.soundness import refuse_wrong
from tl_scopes.model.state import model_state
from tl_scopes.numerics.arguments import integer, public_call
from tl_scopes.results.run import RunReport
from tl_scopes.results.units import UnitKind

if TYPE_CHECKING:
    import pandas as pd

ROWS_PER_SHARD = 128
"""Rows of a window where none is said: what a kill loses at most, of each process."""
BATCH = 16
VERSIONS = ("torch", "transformers", "transformer_lens", "pyarrow")


@model_call
def explain_file(
    model: LensModel,
    source: str | Path,
    out: str | Path,
    methods: Sequence[str] | Mapping[str, Method | str] = DEFAULT_METHODS,
    *,
    columns: Mapping[str, str | None] | None = None,
    unit: Literal["token"] | UnitKind = "token",
    frozen: Frozen = (),
    prepend_bos: bool | None = None,
    chat_options: Mapping[str, Any] | None = None,
    batch_size: int = BATCH,
    rows_per_shard: int = ROWS_PER_SHARD,
    format: Format | None = None,
    split: str | None = None,
    subset: str | None = None,
    shard: Shard | None = None,
) -> RunReport:
    """The scores of many prompts by any methods, in a folder of parquet tables.

    ``score`` is that of each method's own call on the row's prompt and target, one per token or unit; rounding apart, since
    prompts of a window run in batches.

    Args:
        model: a ``TransformerBridge`` or ``HookedTransformer`` in evaluation mode.
        source: a ``.jsonl``, ``.csv`` or ``.parquet`` file; ``"-"``, standard input; or the name of a data set of the
            Hugging Face Hub, or its folder.
        out: the folder of the run. The same call goes on with a run that was stopped, another is refused with what differs.
        methods: names among the scopes that need no more than a target and the baselines, also as ``"fisher@16"`` and
            ``"semantic/all"``, or ``{label: name or callable}`` as in :func:`gold_alignment`.
        columns: the source's own names, ``{"prompt": "question", "target": "label"}``, of ``prompt``, ``messages``,
            ``target``, ``answer``, ``units`` and ``id``; None is a column that is not read.
        unit: what the tokens' scores are joined into, as by :meth:`Attribution.by_unit`; a row's own ``units`` come first.
        frozen: what all gradients hold constant that do not say it themselves, as in :func:`tl_scopes.semantic_scope`.
        prepend_bos: put BOS before texts; None is the model's own default.
        chat_options: of rows with messages, as in :func:`tl_scopes.semantic_scope`.
        batch_size: prompts per forward, at most.
        rows_per_shard: rows of the source whose scores are one file, and what a kill loses at most of each process.
        format: of a file whose name does not say it, or of standard input: ``"jsonl"``, ``"csv"``, ``"parquet"``.
        split, subset: of a data set; no split is ``"train"``.
        shard: ``(i, n)``: this call is job i of n (from 0) that share the folder. Under ``accelerate launch --multi_gpu``
            the processes share it by themselves.

    Returns:
        A :class:`RunReport` of all that the folder holds so far; ``.complete`` says whether others are still at work.

    Raises:
        ValueError: a source that cannot be read, has no prompts, or changes while it is read; an unknown method, column or
            unit; a split of a file; a model on which a method is not defined; ``out`` holding another run.

    Cost: the source is read twice; per row that is no duplicate, the methods' own calls. In memory: one window's tables, 24
    bytes for each row of the source.

    >>> import tempfile, json, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> rows = [{"prompt": "German: der Hund sieht die Katze. English: the", "target": " dog"}, {"prompt": ""}]
    >>> _ = (folder / "prompts.jsonl").write_text("\\n".join(map(json.dumps, rows)))
    >>> found = explain_file(model, folder / "prompts.jsonl", folder / "run", ["semantic"])
    >>> found.explained, found.failed, found.complete
    (1, 1, True)
    >>> load_run(folder / "run").nlargest(1, "score").text.item()
    ' Hund'
    """
    model = require_lens_model(model)
    refuse_wrong(model)
    chosen: dict[str, Method | str] = chosen_methods(methods, frozen, known_methods(), model)
    if signs := [m for m in chosen.values() if isinstance(m, str) and named(m).signed]:
        raise ValueError(f"(methods=...): {signs[0]!r}: signed sums are a column beside the scores; leave out :signed")
    _require_defined(model, chosen)
    integer("batch_size", batch_size, least=1)
    integer("rows_per_shard", rows_per_shard, least=1)
    share, folder, names = share_of(shard), Path(out), column_names(columns)
    kind = format_of(source, format)
    if str(source) == STDIN and share.of > 1:
        raise ValueError("(source='-'): one process reads standard input; write it to a file that all can read")
    require_data_set(source, kind, split=split, subset=subset)
    wanted: dict[str, Any] = {"wanted": list(names.values()), "format": kind, "split": split, "subset": subset}
    given, kept = kept_input(folder, kind or "jsonl") if str(source) == STDIN else (Path(source), None)
    try:
        rows = open_source(given if kept else source, **wanted)
        found = survey(rows, names, [name for name, column in (columns or {}).items() if column])
        reading = Reading(unit, prepend_bos, chat_options)
        settings = _settings(model, chosen, found, reading, rows_per_shard)
        store = RecordStore(folder, settings, share.index, PROMPTS_RUN)
        if kept is not None:
            rows = open_source(given.replace(kept), **wanted)
    finally:
        if kept is not None:
            given.unlink(missing_ok=True)
    run = Windows(model, chosen, names, found, reading, batch_size, folder, store)
    before = store.done()
    done = {w for w, record in before.items() if is_whole(folder, record)}
    mine = share.mine(range(PROMPTS_RUN.pieces(settings)))
    todo = {w for w in mine if w not in done}
    total = sum(run.size(w) for w in mine)
    with Pace(total, total - sum(run.size(w) for w in todo), share) as pace:
        for window, raw in windows(rows, rows_per_shard, todo):
            store.append(run.window(window, raw, pace), before.get(window))
    return run_report(folder)


@public_call
def load_run(folder: str | Path, table: Table = "scores") -> pd.DataFrame:
    """A table of a run that :func:`explain_file` wrote, all that is finished of it.

    Args:
        folder: of the run.
        table: ``"scores"``, one row per prompt × method × unit: ``row`` and ``id`` of the source, ``method``, ``unit`` (its
            place), ``text``, ``score``, ``signed``, ``stderr``, ``special``, ``answer``, ``start`` and ``end`` in the prompt,
            ``name`` of a turn or a unit of one's own, ``target``, ``target_id`` and its ``log_prob``, ``notes``;
            ``"failed"``, the rows that could not be explained: ``row``, ``id``, ``reason``; ``"duplicates"``, those that ask
            what an earlier one asks: ``row``, ``id``, ``same_as`` (that row).

    Returns:
        A pandas ``DataFrame``, in the order of the source.

    Raises:
        ValueError: the folder holds no such run, or a file of it is missing.

    Cost: the whole table in memory; larger ones are read from ``folder/scores`` by whatever reads parquet.

    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "prompts.csv").write_text("prompt\\nthe dog sees the\\nAnna lives in\\nAnna lives in\\n")
    >>> _ = explain_file(model, folder / "prompts.csv", folder / "run", ["semantic"])
    >>> load_run(folder / "run", "duplicates")[["row", "same_as"]].to_numpy().tolist()
    [[2, 1]]
    """
    settings, records = _finished(Path(folder))
    return to_frame(whole_table(Path(folder), table, records, is_double(settings)))


@public_call
def run_report(folder: str | Path) -> RunReport:
    """What a run of :func:`explain_file` has so far: counts, reasons of failures, time, and what each method puts first.

    Args:
        folder: of the run.

    Returns:
        A :class:`RunReport`: ``print`` it, ``.html()``, ``.plot()``, ``.to_frame()``.

    Raises:
        ValueError: the folder holds no such run, or a file of it is missing.

    Cost: reads all scores once, a window at a time.

    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "prompts.csv").write_text("prompt\\nthe dog sees the\\nAnna lives in\\nAnna lives in\\n")
    >>> _ = explain_file(model, folder / "prompts.csv", folder / "run", ["semantic"])
    >>> print(str(run_report(folder / "run")).split(";")[0])
    3 rows: 2 explained, 0 failed, 1 asked before
    """
    settings, records = _finished(Path(folder))
    return report(Path(folder), settings, records)


# -- what defines a run, and what is finished of it ------------------------------------------------


def _require_record(record: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse what is not one window's record."""
    counts = [record[name] for name in ("rows", "explained", "failed", "duplicates", "units")]
    timed = type(record["seconds"]) in (int, float) and 0 <= record["seconds"] < math.inf
    if any(type(n) is not int or n < 0 for n in counts) or not timed:
        raise ValueError("expected numbers of rows, explained, failed, duplicates and units, and seconds")
    if counts[0] != sum(counts[1:4]):
        raise ValueError("rows: not explained + failed + duplicates")
    size = settings["rows_per_shard"]
    if counts[0] != (rows := min(size, settings["prompts"]["n"] - record["index"] * size)):
        raise ValueError(f"rows: {counts[0]}, and this window has {rows}")


PROMPTS_RUN = Kind(
    "prompts.n, methods, rows_per_shard",
    lambda settings: isinstance(settings["methods"], dict) and settings["rows_per_shard"] >= 1,
    _require_record,
    lambda settings: -(-int(settings["prompts"]["n"]) // int(settings["rows_per_shard"])),
)


def _finished(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The settings of a run and the records of its finished windows."""
    settings = read_settings(folder, PROMPTS_RUN)
    return settings, list(read_records(folder, settings, PROMPTS_RUN).values())


def _require_defined(model: LensModel, methods: Mapping[str, Method | str]) -> None:
    """Refuse scopes that are not defined on this model."""
    for method in methods.values():
        if isinstance(method, str) and (asked_for := named(method)).name in SCOPES:
            keywords = {k: v for k, v in asked_for.keywords.items() if k != "frozen"}
            keywords |= {"target": 0} if reads("target", [asked_for.name]) else {}
            for direction in named_directions(model, [asked_for.name], 1, keywords):
                direction.check(model_state(model))


def _settings(
    model: LensModel, methods: Mapping[str, Method | str], found: Survey, reading: Reading, rows_per_shard: int
) -> dict[str, Any]:
    """What defines the numbers of a run."""
    return {
        "format": 1,
        "model": model_settings(model, stored=True),
        "versions": {name: version(name) for name in VERSIONS},
        "prompts": {"n": found.n, "sha256": found.sha256},
        "methods": {k: m if isinstance(m, str) else function_fingerprint(m, model) for k, m in methods.items()},
        **vars(reading),
        "rows_per_shard": rows_per_shard,
    }
