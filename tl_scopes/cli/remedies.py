"""The library's errors in a command's own words: its options where Python's keywords stood.

``scopes(pos=99): ...`` is ``--pos 99: ...``, and ``use frozen='norms'`` is ``use --frozen norms``. A remedy that names what
no option of the command gives is left out, clause by clause; what was found, and the rule, always stay.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from functools import partial

ALIASES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("chat", "prompt"),
    "clean": ("prompt",),
    "prompts": ("data", "prompt"),
    "text": ("prompt",),
    "methods": ("method",),
    "columns": ("field",),
    "units": ("unit",),
    "layers": ("layer",),
    "tasks": ("task",),
    "corpora": ("corpus",),
    "fractions": ("fraction",),
    "name": ("model",),
    "max_new_tokens": ("generate",),
}
"""What the library's arguments are called on the command line, where that is another word."""
PLACES = re.compile(r"d_\w+")
"""Names of sizes, which stand before their numbers: no arguments."""

_MASK = "\x00"
_QUOTED = re.compile(r"(?<!\w)(?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")(?!\w)")
_HEAD = re.compile(r"^([\w.]*)\(((?:[^()]|\([^()]*\))*)\): ")
_VALUE = r"\{[^{}]*\}|\[[^\[\]]*\]|\([^()]*\)|\x00\d+\x00|\.\.\.|…|[\w.+-]*[\w…]"
_KEYWORD = re.compile(rf"(?<![\w\-./])([A-Za-z_]\w*)((?:\[[^\]]*\])*)=(?!=)({_VALUE}|(?=[\s,;.)]|$))")
_SCOPE = re.compile(r"\b([a-z_]+)_scope\b(?:\([^()]*\))?")
_CALL = re.compile(r"[A-Za-z_]\w*\([^()]*\)|\b\w+(?:\.\w+)+ = ")
_CLAUSE = re.compile(r"(, or |; |\. (?=[A-Z]))")


def in_options(message: str, options: Mapping[str, str], call: str | None = None, given: object = ()) -> str:
    """The message of an error, for a command.

    Args:
        message: as the library says it; one of no call that begins with no argument is the command's own, and stays.
        options: of the command, by the names of their parameters: ``{"pos": "--pos", "prompt": "PROMPT"}``.
        call: the call whose name the message begins with.
        given: the parameters that were given a value.
    """
    if message.startswith("--") or (call is None and not message.startswith("(")):
        return message
    quoted: list[str] = []

    def mask(found: re.Match[str]) -> str:
        quoted.append(found[0])
        return f"{_MASK}{len(quoted) - 1}{_MASK}"

    text = _QUOTED.sub(mask, message)
    if call and text.startswith(f"{call}: "):
        text = text.removeprefix(f"{call}: ")
    named = partial(_option, options=options, given=given, quoted=quoted)
    head = _HEAD.match(text)
    begun = ""
    if head and (head[1] == call or not head[1] or "_" in head[1]):
        begun, text = _head(head[2], named), text[head.end() :]
    text = _body(text, named, "method" in options)
    return re.sub(f"{_MASK}(\\d+){_MASK}", lambda found: quoted[int(found[1])], begun + text)


Named = Callable[..., "str | None"]


def _head(inside: str, named: Named) -> str:
    """What stands in the brackets of a call, as options; a word that no option has stands with its value, or not at all."""
    parts = []
    for part in re.split(r", (?![^\[{(]*[\]})])", inside):
        found = _KEYWORD.fullmatch(part)
        if found is None:
            parts.append(part)
        elif (option := named(found[1], found[3], found[2])) is not None:
            parts.append(option)
        elif found[3] not in ("...", "…", "None"):
            parts.append(f"{found[1].replace('_', ' ')}{found[2]} {found[3]}")
    return f"{' '.join(parts)}: " if any(parts) else ""


def _body(text: str, named: Named, methods: bool) -> str:
    """The clauses of a message, without those whose Python is no option."""
    first, *others = _CLAUSE.split(text)
    kept, whole = [_options(first, named, methods)[0]], True
    for separator, clause in zip(others[::2], others[1::2], strict=True):
        said, whole = _options(clause, named, methods)
        if whole:
            kept.append(separator + said)
    return "".join(kept) + "." * (text.endswith(".") and not kept[-1].endswith("."))


def _options(clause: str, named: Named, methods: bool) -> tuple[str, bool]:
    """A clause in options, and whether all of its Python is said by them."""
    left: list[str] = []

    def keyword(found: re.Match[str]) -> str:
        if PLACES.fullmatch(found[1]):
            return found[0]
        said: str | None = named(found[1], found[3], found[2])
        if said is None:
            left.append(found[0])
        return said or found[0]

    if methods:
        clause = _SCOPE.sub(lambda found: f"--method {found[1]}", clause)
    if _CALL.search(clause):
        left.append(clause)
    return _KEYWORD.sub(keyword, clause), not left


def _option(
    name: str, value: str, index: str = "", *, options: Mapping[str, str], given: object, quoted: list[str]
) -> str | None:
    """An argument of the library and its value as an option; None where the command has none."""
    held = [known for known in (name, *ALIASES.get(name, ())) if known in options]
    known = next((k for k in held if k in given), next(iter(held[::-1]), None))  # type: ignore[operator]
    if known is None:
        return None
    option = options[known]

    def plain(value: str) -> str:
        if not (masked := re.fullmatch(f"{_MASK}(\\d+){_MASK}", value)):
            return value
        word = quoted[int(masked[1])]
        return word[1:-1] if shlex.quote(word[1:-1]) == word[1:-1] else value

    if value == "()" or (value == "False" and option.startswith("--")):
        return f"no {option}"
    if pairs := re.findall(rf"({_MASK}\d+{_MASK}): ({_MASK}\d+{_MASK}|…)", value):
        return " ".join(f"{option} {plain(key)}={plain(column)}" for key, column in pairs)
    shown = "" if value in ("", "...", "…", "None", "True") or value[0] in "[{" else f" {plain(value)}"
    return f"{option}{index}{shown}"
