"""Invariant: what a command says of a mistake names its own options; Python's keywords and calls are in no remedy, whatever
the message, and what was found and what came stay."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tl_scopes as tls
from tl_scopes.cli.main import COMMANDS, options_of
from tl_scopes.cli.remedies import PLACES, in_options

ROOT = Path(tls.__file__).parent
OPTIONS = {name: f"--{name}" for name in ("pos", "frozen", "field", "method", "chat")} | {"prompt": "PROMPT"}
KEYWORD = re.compile(r"(?<![\w\-./=])([A-Za-z_]\w*)=(?!=)")


@functools.cache
def messages() -> list[str]:
    """Every message of the package, as docs/messages.md lists them."""
    sys.path.insert(0, str(ROOT.parent / "scripts"))
    try:
        import make_messages
    finally:
        sys.path.pop(0)
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in sorted(ROOT.rglob("*.py"))]
    return [text for tree in trees for _, text in make_messages.messages(tree)]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_remedy_of_any_message_is_in_python(command: str) -> None:
    """The first clause says what was found; it may name a size, or a value that is no option of this command."""
    found, options = messages(), options_of(command)
    assert len(found) > 400
    for message in found:
        if message.startswith("--"):
            continue
        said = in_options(message, options, "call")
        remedies = re.split(r"; |\. (?=[A-Z])|, or ", said)[1:]
        left = [
            k
            for one in remedies
            for k in KEYWORD.findall(one.replace("--field ", "--field-"))
            if not PLACES.fullmatch(k)
        ]
        assert not left, f"{command}: {message} -> {said}"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("scopes(pos=99): prompt has 2 tokens", "--pos 99: prompt has 2 tokens"),
        ("(pos=...): no", "--pos: no"),
        ("scopes(prompt='a=b', pos=3): no", "PROMPT a=b --pos 3: no"),
        ("(n=4): too few", "n 4: too few"),
        ("(x=...): too few", "too few"),
        ("scopes: too few", "too few"),
        ("no. Use frozen='norms', or frozen=()", "no. Use --frozen norms, or no --frozen"),
        ("no. Name it: columns={'prompt': 'a b'}", "no. Name it: --field prompt='a b'"),
        ("no: pass the text, or a template: chat_options={'x': '…'}, or model.tokenizer.y = '…'", "no: pass the text"),
        ("no; give limits=(low, high)", "no"),
        ("no. Use fisher_scope(rank=2), or wait", "no. Use --method fisher, or wait"),
        ("a text of 'x; y=3. Z=4': no", "a text of 'x; y=3. Z=4': no"),
        ("rank must be in 1..d_model=64", "rank must be in 1..d_model=64"),
        ("--field x: e.g. prompt=question", "--field x: e.g. prompt=question"),
        ("the model's p = 0.5; Don't worry", "the model's p = 0.5; Don't worry"),
    ],
)
def test_keywords_are_said_as_options(message: str, said: str) -> None:
    assert in_options(message, OPTIONS, "scopes") == said


def test_a_prompt_that_is_a_chat_is_called_so() -> None:
    assert in_options("(prompt=[{...}]): no", OPTIONS, given=["chat"]) == "--chat: no"


def test_a_column_is_named_by_the_option_that_names_it(refused: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "nocol.csv"
    file.write_text("a,b\nx,y\n", encoding="utf-8")
    said = refused("run", str(file), "--out", str(tmp_path / "run"), loads=True)
    assert said.startswith(f"tl-scopes run: SOURCE {file}: no column 'prompt'")
    assert said.endswith("Name the one that holds the prompts: --field prompt=a\n")
