"""What every command does around its call: quiet libraries, a model, the demo's prompt, arguments checked before the model.

A mistake is a ``ValueError`` with the reason; ``main`` puts the command's name before it.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any


def quiet() -> None:
    """Keep the libraries' loading chatter out of the answer; the user's own settings win."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def working(what: str) -> Any:
    """A spinner on standard error, only where somebody looks."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.status(f"{what} …", spinner="dots" if console.encoding.startswith("utf") else "line")


def library() -> Any:
    """The package with torch and TransformerLens imported."""
    with working("loading torch and TransformerLens"):
        import tl_scopes

        _ = tl_scopes.load_model  # names are imported on first use
    return tl_scopes


def load_model(model: str, kind: str, device: str | None = None) -> Any:
    """The model, with a spinner in place of the libraries' own progress bars."""
    with working(f"loading {model}"):
        from transformers.utils import logging

        import tl_scopes as tls

        logging.disable_progress_bar()
        return tls.load_model(model, kind=kind, device=device)  # type: ignore[arg-type]


def own_gpu() -> str | None:
    """Under a launcher each process takes the GPU of its number on its machine; None elsewhere."""
    from tl_scopes.evaluation.shares import number_on_this_machine

    local = number_on_this_machine()
    if local is None:
        return None
    import torch

    return f"cuda:{local}" if torch.cuda.is_available() else None


def require_own_folder(out: Path | None, shard: object = None) -> None:
    """Processes that share a run do so through a folder."""
    from tl_scopes.evaluation.shares import launched

    if out is None and (shard is not None or launched().of > 1):
        raise ValueError("several processes share a run through a folder; give --out FOLDER")


def shard_of(written: str | None) -> tuple[int, int] | None:
    """``I/N`` as numbers. Says so if a launcher was to start several processes and started only this one."""
    from tl_scopes.evaluation.shares import launched_alone

    if launched_alone(os.environ):
        print(
            "accelerate started one process; several it starts with --multi_gpu --num_processes N, also on CPUs",
            file=sys.stderr,
        )
    if written is None:
        return None
    job, slash, jobs = written.partition("/")
    if not slash or not job.isdecimal() or not jobs.isdecimal() or int(job) >= int(jobs):
        raise ValueError(f"--shard {written}: expected I/N, job I of N, counted from 0, e.g. 0/8")
    return int(job), int(jobs)


def require_models(models: Sequence[str], kind: str, device: str | None) -> None:
    """Refuse what can be seen without loading, for every model before the first is loaded."""
    from tl_scopes.model.loading import require_loadable

    for model in models:
        require_loadable(model, kind, device)


# -- what is explained -----------------------------------------------------------------------------


def prompt_or_demo(
    prompt: str | None, model: str, target: str | None = None, *, aimed: bool = True, demo: str | None = None
) -> tuple[str, str | None]:
    """The given text and target, or a demo's; its target only where a method has one."""
    if prompt == "":
        raise ValueError("the prompt is empty")
    if prompt is not None:
        return prompt, target
    require_prompt(prompt, model)
    from tl_scopes.demo import DEFAULT_PROMPT, DEMO_PROMPTS

    shown = DEMO_PROMPTS[DEFAULT_PROMPT if demo is None else demo]
    return shown.prompt, shown.target if aimed and target is None else target


def chat_of(file: Path, prompt: str | None) -> list[dict[str, Any]]:
    """The messages of a chat in a file, or on standard input; whether a template takes them is for the library to say."""
    if prompt is not None:
        raise ValueError("--chat is the prompt: leave out PROMPT")
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--chat {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"--chat {file}: this is not text in UTF-8") from error
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--chat {file}: this is not JSON ({error})") from error
    if not isinstance(found, list) or not found or not all(isinstance(message, dict) for message in found):
        raise ValueError(f'--chat {file}: expected a list of messages, [{{"role": "user", "content": "..."}}]')
    return found


def require_turns(unit: str | None, chat: Path | None) -> None:
    """Only chats have turns."""
    if unit == "turn" and chat is None:
        raise ValueError("--unit turn is for chats: give one by --chat FILE")


def require_prompt(prompt: str | None, model: str) -> None:
    """Only the bundled models have prompts of their own."""
    from tl_scopes.demo import BUNDLED

    if prompt is None and model not in BUNDLED:
        raise ValueError("give a PROMPT with --model; the built-in prompt is for the demo model")


def require_names(names: Sequence[str], known: Collection[str], what: str = "method") -> None:
    """Refuse an unknown name, or one given twice, before a model is loaded."""
    for i, name in enumerate(names):
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; expected {', '.join(known)}")
        if name in names[:i]:
            raise ValueError(f"{what} {name!r} is given twice")


def aimed_at_a_token(methods: Sequence[str], baselines: Collection[str] = (), **keywords: Any) -> bool:
    """Does one of these scopes or baselines take a target? Unknown names, and keywords that do not fit them, are refused.

    ``keywords`` are all of a scope's that the command has options for, given or not.
    """
    from tl_scopes.baselines.by_name import WITHOUT_TARGET
    from tl_scopes.directions.by_name import SCOPES, check_keywords, reads

    offered = [name for name, scope in SCOPES.items() if set(scope.needs) <= keywords.keys()]
    for method in methods:
        if method in SCOPES and method not in offered:
            wants = ", ".join(need for need in SCOPES[method].needs if need not in keywords)
            raise ValueError(
                f"method {method!r} needs a {wants}, which only Python can give; expected "
                + ", ".join([*offered, *baselines])
            )
    require_names(methods, [*offered, *baselines])
    named = [method for method in methods if method in SCOPES]
    if named:
        check_keywords(named, keywords)
    elif given := [f"--{name}" for name, value in keywords.items() if value is not None and name != "target"]:
        raise ValueError(f"{given[0]} is for scopes: leave it out with {', '.join(methods)}")
    for method in named:
        for name in SCOPES[method].needs:
            if keywords.get(name) is None:
                raise ValueError(f"method {method!r} needs a {name}: give --{name}")
    return reads("target", named) or any(m not in WITHOUT_TARGET for m in methods if m not in named)


def default_methods(function: Callable[..., Any]) -> tuple[str, ...]:
    """The methods that a call uses if it is given none."""
    default: str | tuple[str, ...] = inspect.signature(function).parameters["methods"].default
    return (default,) if isinstance(default, str) else default
