"""Headless Chromium for tests of pictures: a page that is watched, and what a picture of tokens must show."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tl_scopes import Attribution
from tl_scopes.views.canvas.colours import blend, css, quantised
from tl_scopes.views.coloured import ranked, scale_of, values_of
from tl_scopes.views.wording import visible

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
WAIT = 15_000
"""Milliseconds until a picture must be there; it takes a tenth of a second on an idle machine."""


def unavailable(why: str) -> None:
    """Skip on a developer's machine; continuous integration must have what it takes."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    executable = next((path for name in names if (path := shutil.which(name))), None)
    if executable is None:
        unavailable(f"no browser: none of {', '.join(names)} is on the PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("playwright is not installed: pip install playwright")
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=executable, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def look(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`look(html)`: a page, watched: at the end nothing was on its console, and nothing was asked for but itself."""
    contexts, trouble = [], []

    def open_page(html: str | Path, *, scripts: bool = True, dark: bool = False, drawn: int | None = None) -> Any:
        file = html if isinstance(html, Path) else tmp_path / f"{len(contexts)}.html"
        if not isinstance(html, Path):
            file.write_text(html, encoding="utf-8")
        context = browser.new_context(java_script_enabled=scripts, color_scheme="dark" if dark else "light")
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: "GL Driver Message" in m.text or trouble.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on("request", lambda r: r.url == file.as_uri() or trouble.append(f"request: {r.url[:200]}"))
        page.goto(file.as_uri())
        if scripts and drawn is None:
            drawn = str(file.read_text(encoding="utf-8")).count('data-component="')
        if scripts and drawn:
            page.wait_for_function(
                "n => [...document.querySelectorAll('.tls-live')].filter(e => e.style.display === '').length === n",
                arg=drawn,
                timeout=WAIT,
            )
        page.trouble = trouble
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not trouble, trouble


READ = """host => [...host.querySelectorAll('bdi[data-pos]')].filter(e => e.offsetParent !== null).map(e => ({
  pos: +e.dataset.pos, text: e.textContent, colour: getComputedStyle(e.parentElement).backgroundColor,
  width: e.getBoundingClientRect().width, direction: getComputedStyle(e).unicodeBidi}))"""


def picture_shows(page: Any, attr: Attribution, *, index: int = 0, kind: str = "auto") -> None:
    """Each token once, as text, in the colour of its score; hidden ones white; the target marked."""
    hosts = page.query_selector_all(".tls-tokens")
    assert len(hosts) > index, "no tokens on the page"
    cells = hosts[index].evaluate(READ)
    assert [cell["pos"] for cell in cells] == list(range(len(attr)))
    assert [cell["text"] for cell in cells] == [visible(text) for text in attr.str_tokens]
    assert all(cell["width"] > 0 for cell in cells if cell["text"])
    assert all(cell["direction"] == "isolate" for cell in cells)
    scale = scale_of(attr, kind)  # type: ignore[arg-type]
    scores = values_of(attr, scale)
    wanted = [css(blend(quantised(scale.share(score)) if p in attr.shown else 0.0)) for p, score in enumerate(scores)]
    assert [cell["colour"] for cell in cells] == wanted
    by_score = ranked(attr, scale)
    for sign in (1, -1):
        light = [sum(int(c) for c in re.findall(r"\d+", cells[p]["colour"])) for p in by_score if scores[p] * sign > 0]
        assert light == sorted(light), "a higher score must never be lighter"
    assert cells[by_score[0]]["colour"] == css(blend(1.0 if scores[by_score[0]] > 0 else -1.0))
    target = visible(attr.target_str) if attr.target_str is not None else " next token"
    assert hosts[index].query_selector(".tls-target").text_content() == f"→{target}"
