"""Invariant: a bar is shown for work that takes time, where somebody looks, under the name of the call; then it is gone.
That of a run whose records are kept is there from the beginning, and stays."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from tqdm import tqdm

import tl_scopes as tls
from tl_scopes.numerics import progress as module
from tl_scopes.numerics.arguments import public_call
from tl_scopes.numerics.progress import progress

TEXT = "German: der Hund sieht die Katze. English: the"
CALLS = {
    "smoothgrad": lambda model: tls.smoothgrad(model, TEXT, n_samples=2, batch_size=1),
    "integrated_gradients": lambda model: tls.integrated_gradients(model, TEXT, n_steps=2, batch_size=1),
    "ig_path": lambda model: tls.ig_path(model, TEXT, alphas=[0.5, 1.0], batch_size=1),
    "fisher_spectrum": lambda model: tls.fisher_spectrum(model, [TEXT, TEXT], k=1),
    "substitutions": lambda model: tls.substitutions(model, tls.semantic_scope(model, TEXT), k=2, batch_size=1),
    "semantic_scope": lambda model: tls.semantic_scope(model, [TEXT, TEXT + " dog"], batch_size=1),
    "attribution_matrix": lambda model: tls.attribution_matrix(model, TEXT, positions=[-3, -2, -1]),
    "verify": lambda model: tls.verify(model, tls.semantic_scope(model, TEXT), n_random=3, batch_size=2),
    "attention_sinks": lambda model: tls.attention_sinks(model, TEXT, methods=["semantic"], bos=(0, 1), unrelated=2),
    "positional_baseline": lambda model: tls.positional_baseline(model, TEXT, unrelated=2),
    "generate": lambda model: tls.generate(model, TEXT, max_new_tokens=2),
    "chain": lambda model: tls.chain(model, (TEXT, " dog sees"), units="word"),
    "verify_chain": lambda model: tls.verify_chain(model, tls.chain(model, (TEXT, " dog sees"), units="word")),
    "aopc": lambda model: tls.aopc(model, [TEXT + " dog", TEXT + " cat"], ["semantic"]),
    "patch_top": lambda model: tls.patch_top(
        model, TEXT, TEXT.replace("Hund", "Vogel"), tls.semantic_scope(model, TEXT), k=1, n_random=1, layers=[0]
    ),
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", CALLS)
def test_long_calls_have_a_bar(name: str, demo_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: dict[str, int] = {}

    class Counting(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **given: Any) -> None:
            super().__init__(*args, **{**given, "disable": False, "file": io.StringIO()})

        def close(self) -> None:
            steps[self.desc.rstrip(": ")] = self.n
            super().close()

    monkeypatch.setattr(module, "tqdm", Counting)
    CALLS[name](demo_model)
    assert steps[name] >= 2


@public_call
def long_work(n: int, pause: float) -> list[int]:
    done = []
    for i in progress(range(n), unit="step"):
        time.sleep(pause)
        done.append(i)
    return done


def shown(n: int, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, seconds: float, pause: float = 0.0) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(module, "SECONDS", seconds)
    assert long_work(n, pause) == list(range(n))
    return stream.getvalue()


@pytest.mark.one_lens
def test_a_terminal_sees_the_call_and_its_steps_and_an_empty_line_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(3, Terminal(), monkeypatch, 0.01, pause=0.11)
    assert "long_work" in text and "/3" in text and "step" in text
    assert text.endswith("\r") and not text.split("\r")[-2].strip()


@public_call
def run(n: int) -> None:
    with progress(total=n, initial=1, unit="prompt", leave=True) as bar:
        bar.update(n - 1)


@pytest.mark.one_lens
def test_the_bar_of_a_run_is_there_from_the_beginning_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    run(3)
    first, *_, last = stream.getvalue().strip("\r").split("\r")
    assert first.startswith("run:") and "1/3" in first
    assert "3/3" in last and last.endswith("\n")


@pytest.mark.one_lens
@pytest.mark.parametrize(
    ("n", "stream", "seconds"),
    [(3, io.StringIO(), 1e-9), (1, Terminal(), 1e-9), (3, Terminal(), 100)],
    ids=["no terminal", "one step", "quick work"],
)
def test_otherwise_nothing_is_shown(
    n: int, stream: io.StringIO, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(n, stream, monkeypatch, seconds) == ""
