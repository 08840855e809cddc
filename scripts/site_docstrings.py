"""Signatures as ``help()`` has them, doctests and roles as code: docstrings on the site (a griffe extension)."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

ROLE = re.compile(r":\w+:`(~?)([^`]+)`")
OWN_SECTION = re.compile(r"^(Cost|Reference|Example|Legend):(?!:)", re.MULTILINE)


KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: griffe.ParameterKind.positional_only,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.VAR_POSITIONAL: griffe.ParameterKind.var_positional,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
    inspect.Parameter.VAR_KEYWORD: griffe.ParameterKind.var_keyword,
}


class Docstrings(griffe.Extension):
    """Rewrites each docstring once, when its object is known."""

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Keywords that calls share are named by a decorator, which reading the source does not see."""
        if not func.parent.is_module or not func.decorators or func.name.startswith("_"):
            return
        found = getattr(importlib.import_module(func.module.path), func.name)
        func.parameters = griffe.Parameters(*(_parameter(p) for p in inspect.signature(found).parameters.values()))
        func.docstring.value = inspect.getdoc(found)

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Of every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def _parameter(parameter: inspect.Parameter) -> griffe.Parameter:
    none = parameter.empty
    return griffe.Parameter(
        parameter.name,
        annotation=None if parameter.annotation is none else str(parameter.annotation),
        kind=KINDS[parameter.kind],
        default=None if parameter.default is none else repr(parameter.default),
    )


def markdown(text: str) -> str:
    """The docstring with doctests as code, roles as code, and in bold the sections that no other package has."""
    text = ROLE.sub(lambda role: f"`{role[2].rsplit('.', 1)[-1] if role[1] else role[2]}`", text)
    blocks = [_block(block) for block in re.split(r"\n[ \t]*\n", text)]
    return OWN_SECTION.sub(r"**\1**:", "\n\n".join(blocks))


def _block(block: str) -> str:
    if block.lstrip().startswith(">>>"):
        return f"```python\n{inspect.cleandoc(block)}\n```"
    return f"```text\n{block}\n```" if "===" in block else block
