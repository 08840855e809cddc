"""Every option of the command line, written once; a command's signature names the ones it has and gives their defaults.

Scopes and baselines are plain strings that the library checks, so that a new one needs no line here. What a command
reads never has the name of what one writes: ``--html --plot --csv --json --out`` write, arguments and ``--data`` read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tl_scopes.cli.choices import Ablated as Ablated
from tl_scopes.cli.choices import Component as Component
from tl_scopes.cli.choices import Layout as Layout
from tl_scopes.cli.choices import Measure as Measure
from tl_scopes.cli.choices import Part as Part
from tl_scopes.cli.choices import Preset as Preset
from tl_scopes.cli.choices import Start as Start
from tl_scopes.cli.choices import System as System
from tl_scopes.cli.choices import Token as Token

RENAMED = {"scope": "method"}
"""Older words for options, which work as the new ones do."""

_ON, _FILES = "Model", "Output"
"""Headings of ``--help``."""
_MODEL = "'demo', 'demo-llama', a Hub name, or a local Hugging Face folder"
_SEVERAL = "repeat for several"


def _must_be(rule: str, holds: Callable[[float], bool]) -> Callable[[float], float]:
    """Refuses a number, NaN too, for which the rule does not hold."""

    def check(value: float) -> float:
        if not holds(value):
            raise typer.BadParameter(f"{value} is not {rule}")
        return value

    return check


# -- what is explained -----------------------------------------------------------------------------

Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="Text to explain; without it, a demo.")]
Prompts = Annotated[
    list[str] | None, typer.Argument(metavar="PROMPT...", help="Texts; without any, held-out demo prompts.")
]
Chat = Annotated[
    Path | None,
    typer.Option("--chat", help="A chat in place of PROMPT: a JSON list of {role, content}; - reads standard input."),
]
ByUnit = Annotated[Part | None, typer.Option("--unit", help="Scores by word, sentence, ..., or turn of a chat.")]
Frozen = Annotated[
    list[str] | None,
    typer.Option("--frozen", help=f"Hold constant in the gradient: norms, attention, activations or all; {_SEVERAL}."),
]
Method = Annotated[str, typer.Option("--method", help="Scope, e.g. fisher.")]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", help=f"Scope, e.g. fisher; {_SEVERAL}. Default: the paper's three."),
]
ByPosition = Annotated[
    int,
    typer.Option(
        "--by-position", min=0, help="Random prompts whose mean shares are shown beside the scores in --html."
    ),
]
Generate = Annotated[
    int,
    typer.Option("--generate", min=0, help="Tokens that the model writes, greedily; they are explained as a whole."),
]
TraceMethods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help=f"Scope or baseline, e.g. fisher or smoothgrad; {_SEVERAL}, or all for the paper's three. Default: semantic.",
    ),
]
ForecastMethods = Annotated[
    list[str] | None,
    typer.Option("--method", help=f"Scope of the forecast, e.g. fisher; {_SEVERAL}. Default: temperature."),
]
GoldMethods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help=f"Scope or baseline, e.g. smoothgrad, semantic/all (all frozen); {_SEVERAL}. Default: the paper's three scopes.",
    ),
]
AopcMethods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help=f"Scope or baseline, e.g. fisher@16 (rank 16), semantic/all (frozen); {_SEVERAL}. Default: the paper's Table 1.",
    ),
]
Target = Annotated[str | None, typer.Option("--target", help="Explained token, e.g. ' dog'; default: top prediction.")]
Foil = Annotated[str | None, typer.Option("--foil", help="Token to contrast the target with (method contrast).")]
Rank = Annotated[
    int | None,
    typer.Option(
        "--rank", min=1, help="Number of directions (methods fisher, total_information); default: the scope's."
    ),
]
Pos = Annotated[int, typer.Option("--pos", help="Position whose next-token prediction is explained.")]
Bos = Annotated[bool, typer.Option("--bos/--no-bos", help="Show and rank special tokens (BOS) too.")]
Verdict = Annotated[
    bool,
    typer.Option(
        "--verdict/--no-verdict", help="End with what removing the strongest tokens does, compared with random ones."
    ),
]

# -- the model -------------------------------------------------------------------------------------

Model = Annotated[str, typer.Option("--model", rich_help_panel=_ON, help=f"{_MODEL}.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", rich_help_panel=_ON, help=f"{_MODEL}; {_SEVERAL}. Default: demo."),
]
AopcModels = Annotated[
    list[str] | None,
    typer.Option("--model", rich_help_panel=_ON, help=f"{_MODEL}, or 'paper' for its six; {_SEVERAL}. Default: demo."),
]
Kind = Annotated[str, typer.Option("--kind", rich_help_panel=_ON, help="Model class: auto, bridge or hooked.")]
Device = Annotated[
    str | None,
    typer.Option("--device", rich_help_panel=_ON, help="cpu, cuda, ...; default: a GPU if there is one; demo: cpu."),
]

# -- how much, and chance --------------------------------------------------------------------------

N = Annotated[int, typer.Option("--n", "-n", min=1, help="How many passages.")]
GoldN = Annotated[
    int | None,
    typer.Option("--n", "-n", min=1, help="How many examples of each demo corpus, or accepted prompts of each task."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of everything drawn at random.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Most inputs per forward pass.")]
Ablation = Annotated[Ablated, typer.Option("--ablation", help="What a removed embedding becomes.")]

# -- of one command --------------------------------------------------------------------------------

Corpora = Annotated[
    list[str] | None, typer.Option("--corpus", help=f"Demo corpus; {_SEVERAL}. Default: the six of 'demo'.")
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task", help=f"Task for any model, e.g. copying, or 'all'; {_SEVERAL}. Default: the demo's corpora."
    ),
]
Eigenvalues = Annotated[
    int | None, typer.Option("--k", "-k", min=1, help="How many leading eigenvalues; default: all.")
]

Passages = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="'demo', 'demo:<corpus>', 'lambada', 'iwslt2017-de-en', or a .txt/.json/.jsonl/.csv file."
    ),
]
Ranks = Annotated[
    list[int] | None, typer.Option("--rank", min=1, help=f"Add the Fisher Scope of this rank; {_SEVERAL}.")
]
Protocol = Annotated[
    Preset | None,
    typer.Option("--preset", help="Protocol of the authors' scripts (paper), or of the paper's text (text)."),
]
TargetToken = Annotated[Token, typer.Option("--target", help="Which token is explained.")]
ScoredToken = Annotated[
    Token | None, typer.Option("--scored", help="Which token is scored; default: the explained one.")
]
Fractions = Annotated[
    list[float] | None,
    typer.Option("--fraction", help=f"Share of tokens removed; {_SEVERAL}, rising, at least two. Default: .05 .1 .2."),
]
Beside = Annotated[list[Measure] | None, typer.Option("--beside", help=f"Measure this too; {_SEVERAL}.")]
MinWords = Annotated[int | None, typer.Option("--min-words", min=0, help="Fewest words that a passage may have.")]

Source = Annotated[
    str | None,
    typer.Argument(
        metavar="SOURCE", help="A .jsonl, .csv or .parquet file, - for standard input, or a data set of the Hub."
    ),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        metavar="NAME=COLUMN",
        help=f"The source's column for prompt, messages, target, answer, units or id; empty: not read; {_SEVERAL}.",
    ),
]
RowsPerShard = Annotated[
    int, typer.Option("--rows-per-shard", min=1, help="Rows per file of scores: the most that a kill loses.")
]
SourceFormat = Annotated[
    Layout | None, typer.Option("--format", help="Format of standard input, or of a file whose name does not say it.")
]
Split = Annotated[str | None, typer.Option("--split", help="Split of a data set of the Hub; default: train.")]
Subset = Annotated[str | None, typer.Option("--subset", help="Subset (configuration) of a data set of the Hub.")]
Shard = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="This is job I of N, from 0; the jobs share the folder --out."),
]

Points = Annotated[int, typer.Option("--points", min=2, help="Points on the path from 0 to 1.")]
Baseline = Annotated[
    Start, typer.Option("--baseline", help="Where the path begins: zero, the prompt's mean embedding, or padding.")
]
ScalePositions = Annotated[
    bool, typer.Option("--scale-positions/--no-scale-positions", help="Scale additive position embeddings too.")
]
SinkTokens = Annotated[
    int, typer.Option("--sink-tokens", min=1, help="How many first tokens count as attention sinks.")
]

PerRow = Annotated[
    bool, typer.Option("--per-row/--no-per-row", help="In pictures, one colour scale for each layer or head.")
]
Words = Annotated[bool, typer.Option("--words/--no-words", help="The same as --unit word.")]
Raw = Annotated[
    bool,
    typer.Option("--raw/--no-raw", help="Influence per unit of the residual stream, not per relative change of it."),
]
Heads = Annotated[bool, typer.Option("--heads/--no-heads", help="Attention heads instead of layers.")]
Sensitivity = Annotated[
    bool, typer.Option("--sensitivity/--no-sensitivity", help="With --heads: norms instead of signed influence.")
]

Corrupt = Annotated[
    str | None, typer.Argument(metavar="CORRUPT", help="Counterpart of PROMPT, which is run; without both, a demo.")
]
Patched = Annotated[int, typer.Option("--k", "-k", min=1, help="How many of the highest-scored tokens are patched.")]
PatchedLayers = Annotated[
    list[int] | None, typer.Option("--layer", min=0, help=f"Layer that is patched; {_SEVERAL}. Default: all.")
]
PatchedComponent = Annotated[Component, typer.Option("--component", help="Activation that is patched.")]
NRandom = Annotated[
    int, typer.Option("--n-random", min=1, help="How many sets of as many random tokens are patched for comparison.")
]

NFirst = Annotated[int, typer.Option("--n-first", min=1, help="How many first tokens count as sinks.")]
Multiple = Annotated[
    float,
    typer.Option(
        "--multiple",
        callback=_must_be("above 1", lambda x: x > 1),
        help="A later token is a sink from this many times the median.",
    ),
]
Unrelated = Annotated[
    int, typer.Option("--unrelated", min=0, help="Random prompts of the positional baseline; 0: none.")
]

GeneratedSystem = Annotated[System, typer.Option("--system", help="Which series to generate.")]
SeriesFile = Annotated[Path | None, typer.Option("--data", help="Take the series from this CSV file instead.")]
Column = Annotated[str | None, typer.Option("--column", help="Column of --data; default: the only numeric one.")]
Length = Annotated[
    int | None,
    typer.Option("--length", min=2, help="Numbers the model sees; default: 100, or all but the last of --data."),
]
Rolling = Annotated[
    bool, typer.Option("--rolling/--no-rolling", help="Explain every forecast of the series, not only the last.")
]

Top = Annotated[
    int, typer.Option("--top", min=1, help="How many of the highest-scored tokens are removed, one by one.")
]
Step = Annotated[
    float,
    typer.Option(
        "--step",
        callback=_must_be("a finite number other than 0", lambda x: math.isfinite(x) and x != 0),
        help="Share of the way to removal; at a small one the prediction should hold.",
    ),
]

Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; anything but the default is open to others.")]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")]

WRITTEN, WRITTEN_IN_DEMO = 40, 4
"""Tokens that the model writes by default where what it writes is followed back; after the built-in prompt its words."""
WrittenText = Annotated[
    str | None, typer.Option("--text", help="What was written after PROMPT; default: what the model writes.")
]
ChainGenerate = Annotated[
    int | None,
    typer.Option(
        "--generate",
        min=1,
        help="Tokens that the model writes, greedily, where there is no --text: each unit of them is explained. "
        f"Default: {WRITTEN}; of the demo {WRITTEN_IN_DEMO}.",
    ),
]
ChainAnswer = Annotated[
    str | None, typer.Option("--answer", help="Words of the written text that are the answer; default: its last unit.")
]
ChainMethod = Annotated[
    str,
    typer.Option(
        "--method", help="Scope, e.g. fisher, or a baseline that explains several tokens, e.g. input_x_gradient."
    ),
]
PromptUnit = Annotated[
    Part | None, typer.Option("--prompt-unit", help="What the prompt is cut into; default: as --unit.")
]
Regenerate = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", help="Write again without the strongest part of PROMPT, and again without others."
    ),
]

Version = Annotated[bool, typer.Option("--version", help="Print the versions and exit.")]

# -- what is written -------------------------------------------------------------------------------

Html = Annotated[
    Path | None, typer.Option("--html", rich_help_panel=_FILES, help="Write a page here; it works offline.")
]
Plot = Annotated[
    Path | None, typer.Option("--plot", rich_help_panel=_FILES, help="Write a figure here (.png, .svg, .pdf).")
]
Csv = Annotated[
    Path | None, typer.Option("--csv", rich_help_panel=_FILES, help="Write the table here; - for standard output.")
]
Json = Annotated[
    Path | None, typer.Option("--json", rich_help_panel=_FILES, help="Write everything here; - for standard output.")
]
Out = Annotated[
    Path | None, typer.Option("--out", rich_help_panel=_FILES, help="Folder of the run; the same command continues it.")
]
RankPlot = Annotated[
    Path | None,
    typer.Option("--rank-plot", rich_help_panel=_FILES, help="With --rank: a figure of AOPC against the rank."),
]
