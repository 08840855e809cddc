"""What every call on a model and prompts begins with: one prompt or many, the model checked before the prompts.

:func:`prompt_call` also shows the keywords that a call shares with others: ``**options: Unpack[RunKeywords]`` in the source
is, in ``help()`` and on the pages, each of these keywords with its type, its default and, in place of a line ``options:`` or
``keywords:`` of the docstring, what it means.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, overload, runtime_checkable

from torch import Tensor

from tl_scopes.directions.base import Direction
from tl_scopes.directions.by_name import SCOPES, RowKeywords, ScopeKeywords, check_keywords, named_directions, reads
from tl_scopes.directions.joint import require_combine
from tl_scopes.kernel.explain import explain
from tl_scopes.kernel.options import RunOptions
from tl_scopes.model.answers import with_targets
from tl_scopes.model.completeness import refuse_unfrozen
from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.lock import model_call
from tl_scopes.model.prompts import (
    EncodedPrompt,
    Encoding,
    GivenTokens,
    Ids,
    OnePrompt,
    Prompt,
    encode_prompts,
    is_single,
    prompt_items,
)
from tl_scopes.model.soundness import refuse_wrong
from tl_scopes.results.attribution import Attribution

P = ParamSpec("P")
R = TypeVar("R")
Message = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])
_ENTRY = re.compile(r"^        (\w+)(:.*?\n)(?=        \w|    \Z)", re.DOTALL | re.MULTILINE)
"""One entry of a docstring's list."""
_UNPACKED = re.compile(r"Unpack\[(\w+)\]")


@runtime_checkable
class PromptCall(Protocol[P, R]):
    """Typing of a call on prompts: one prompt gives one result, a list gives a list."""

    @overload
    def __call__(
        self,
        model: LensModel,
        prompt: str | Ids | Encoding | GivenTokens | list[Message],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    def __call__(
        self,
        model: LensModel,
        prompt: list[str] | list[Tensor] | list[list[int]] | list[GivenTokens] | list[list[Message]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> list[R]: ...


def prompt_call(function: Callable[Concatenate[LensModel, Prompt, P], list[R]]) -> PromptCall[P, R]:
    """A public call on prompts, which gives one result for a single prompt."""
    shown = show_keywords(function)

    @functools.wraps(shown)
    def call(model: LensModel, prompt: Prompt, *args: P.args, **kwargs: P.kwargs) -> Any:
        results = shown(model, prompt, *args, **kwargs)
        return results[0] if is_single(prompt) else results

    signature = inspect.signature(shown)
    one = str(signature.return_annotation).removeprefix("list[").removesuffix("]")
    named = model_call(call)
    named.__signature__ = signature.replace(return_annotation=f"{one} | list[{one}]")  # type: ignore[attr-defined]
    return cast("PromptCall[P, R]", named)


def show_keywords(function: F) -> F:
    """Give a function with ``**name: Unpack[SomeKeywords]`` the signature that names each of them, and refuse any other."""
    signature = inspect.signature(function)
    *parameters, last = signature.parameters.values()
    found = _UNPACKED.search(str(last.annotation)) if last.kind is last.VAR_KEYWORD else None
    if found is None:
        return function
    defaults = {field.name: field.default for field in fields(RunOptions)}
    order = ["target", *RowKeywords.__annotations__, *defaults]
    unpacked = inspect.unwrap(function).__globals__[found[1]].__annotations__
    known: Mapping[str, Any] = {name: unpacked[name] for name in sorted(unpacked, key=order.index)}
    own = {parameter.name for parameter in parameters}
    parameters += [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=_text(annotation)
        )
        for name, annotation in known.items()
        if name not in own
    ]
    names = {parameter.name for parameter in parameters}
    open_to_scopes = RowKeywords.__annotations__.keys() <= known.keys()
    # What every scope call knows and this one leaves out: the target, where each token of a text is one.
    closed = ScopeKeywords.__annotations__.keys() - names

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            of_scope = (
                open_to_scopes and name not in closed and any(name in scope.keywords for scope in SCOPES.values())
            )
            if name not in names and not of_scope:
                raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}")
        return function(*args, **kwargs)

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__doc__ = _with_meanings(function.__doc__, [name for name in known if name not in own])
    return cast(F, call)


def _with_meanings(doc: str | None, names: Sequence[str]) -> str | None:
    """A docstring whose lines ``options:`` and ``keywords:`` give way to the entries of these names."""
    for line, owner in (("options", RunOptions), ("keywords", ScopeKeywords)):
        entries = dict(_ENTRY.findall(owner.__doc__ or ""))
        meanings = "".join(f"        {name}{entries[name]}" for name in names if name in entries)
        doc = doc and re.sub(rf"^        {line}: .*\n", meanings.replace("\\", r"\\"), doc, flags=re.MULTILINE)
    return doc


def _text(annotation: Any) -> Any:
    """An annotation as it was written."""
    return getattr(annotation, "__forward_arg__", annotation)


def encode(
    model: LensModel, prompt: Prompt, options: RunOptions, argument: str = "prompt", *, spans: bool = False
) -> tuple[LensModel, list[EncodedPrompt]]:
    """Check the model, then the prompts by :func:`tl_scopes.model.prompts.encode_prompts`.

    Raises:
        ValueError: several positions of one prompt, where ``spans`` does not say that the call explains them together.
    """
    checked = require_lens_model(model)
    refuse_wrong(checked)
    refuse_unfrozen(checked, options.frozen)
    encoded = encode_prompts(
        checked,
        prompt,
        pos=options.pos,
        prepend_bos=options.prepend_bos,
        chat_options=options.chat_options,
        argument=argument,
        spans=spans,
    )
    if not spans and any(one.span for one in encoded):
        raise ValueError(
            f"(pos={options.pos!r}): one position is explained here. The scopes, split, layer_influence, head_influence and "
            "the baselines explain several together; attribution_matrix explains each by itself"
        )
    return checked, encoded


def asked(
    model: LensModel,
    prompt: Prompt,
    methods: Sequence[str],
    keywords: Mapping[str, Any],
    options: RunOptions,
    argument: Literal["method", "methods"] = "methods",
) -> tuple[LensModel, list[EncodedPrompt], list[Direction]]:
    """The model, the prompts with their answers behind them, and what is explained of each position."""
    model, prompts = encode(model, prompt, options, spans=True)
    return model, *asked_of(model, prompts, methods, keywords, options, argument)


def asked_of(
    model: LensModel,
    prompts: Sequence[EncodedPrompt],
    methods: Sequence[str],
    keywords: Mapping[str, Any],
    options: RunOptions,
    argument: Literal["method", "methods"] = "methods",
) -> tuple[list[EncodedPrompt], list[Direction]]:
    """:func:`asked` of prompts that are encoded already."""
    own = check_keywords(methods, keywords, argument)
    prompts = list(prompts)
    if reads("target", methods):
        prompts, own["target"], foils = with_targets(model, prompts, own.get("target"), own.get("foil"))
        if reads("foil", methods):
            own["foil"] = foils
        compared = any(one.against for one in prompts)
        if compared and (own.get("of") == "logit" or options.combine == "norm"):
            what = "combine='norm'" if options.combine == "norm" else "of='logit'"
            raise ValueError(f"({what}): answers of several tokens are compared by the sum of their log-probabilities")
        if compared and tuple(methods) != ("contrast",):
            raise ValueError(
                "(foil=...): an answer of several tokens is compared with another by the contrast scope alone"
            )
        if own.get("of") is None:
            own["of"] = ["log_prob" if one.answer else "logit" for one in prompts for _ in one.positions]
    n = sum(len(one.positions) for one in prompts)
    directions = named_directions(model, methods, n, own, argument)
    if any(len(one.positions) > 1 for one in prompts):
        require_combine(directions, options.combine)
    return prompts, directions


def encode_one(
    model: LensModel, prompt: OnePrompt, options: RunOptions, argument: str = "prompt"
) -> tuple[LensModel, EncodedPrompt]:
    """As :func:`encode`, of a call that takes one prompt."""
    if isinstance(prompt, Tensor) and not is_single(prompt, argument):
        raise ValueError(f"({argument}=tensor of shape {list(prompt.shape)}): expected one prompt, [pos] or [1, pos]")
    if not is_single(prompt, argument):
        n = len(prompt_items(prompt, argument))
        raise TypeError(f"({argument}=[...]): expected one prompt, got a list of {n}")
    model, (encoded,) = encode(model, prompt, options, argument)
    return model, encoded


def explain_scope(
    model: LensModel, prompt: Prompt, name: str, keywords: Mapping[str, Any], options: RunOptions
) -> list[Attribution]:
    """What every public scope does: prompts, direction, forward, backward."""
    model, prompts, directions = asked(model, prompt, [name], keywords, options)
    return [attribution for (attribution,) in explain(model, prompts, directions, options)]
