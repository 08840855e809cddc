"""What every call on a model and prompts begins with: one prompt or many, the model checked before the prompts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload, runtime_checkable

from torch import Tensor

from tl_scopes.model.lens import LensModel, require_lens_model
from tl_scopes.model.prompts import EncodedPrompt, Prompt, encode_prompts
from tl_scopes.model.state import refuse_unusable

P = ParamSpec("P")
R = TypeVar("R")


@runtime_checkable
class Scope(Protocol[P, R]):
    """Typing of a scope: one prompt gives one result, a list gives a list."""

    @overload
    def __call__(self, model: LensModel, prompt: str | Tensor, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(
        self, model: LensModel, prompt: list[str] | list[Tensor], *args: P.args, **kwargs: P.kwargs
    ) -> list[R]: ...


def one_or_many(scope: Callable[Concatenate[LensModel, Prompt, P], list[R]]) -> Scope[P, R]:
    """Unwrap the result when the caller gave a single prompt."""

    @functools.wraps(scope)
    def call(model: LensModel, prompt: Prompt, *args: P.args, **kwargs: P.kwargs) -> Any:
        results = scope(model, prompt, *args, **kwargs)
        return results[0] if isinstance(prompt, str | Tensor) else results

    signature = inspect.signature(scope)
    one = str(signature.return_annotation).removeprefix("list[").removesuffix("]")
    call.__signature__ = signature.replace(return_annotation=f"{one} | list[{one}]")  # type: ignore[attr-defined]
    return cast("Scope[P, R]", call)


def encode(
    model: LensModel,
    prompt: Prompt,
    pos: int | Sequence[int],
    prepend_bos: bool | None,
    call: str,
    argument: str = "prompt",
) -> tuple[LensModel, list[EncodedPrompt]]:
    """Check the model, then the prompts by :func:`tl_scopes.model.prompts.encode_prompts`."""
    checked = require_lens_model(model, call)
    refuse_unusable(checked, call)
    return checked, encode_prompts(checked, prompt, pos=pos, prepend_bos=prepend_bos, call=call, argument=argument)
