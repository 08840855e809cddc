"""Invariant: the app's page in Chromium shows what the package computed, by mouse and keyboard, and any text as text.

The real server on a loopback port. Nothing is asked for but that server, and nothing is on the console.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from chromium import READ, picture_shows
from samples import HOSTILE, attribution

import tl_scopes as tls
from tl_scopes.demo import DEMO_PROMPTS
from tl_scopes.views.wording import visible

pytestmark = [pytest.mark.enable_socket, pytest.mark.slow, pytest.mark.one_lens]  # the server is tested on both

PROMPT = "German: der Hund sieht die Katze. English: the"
WAIT = 60_000
"""Milliseconds until an answer must be there; it takes a second on an idle machine."""
LIVE = "#panel .tls-live .colored-tokens"
BUTTON = "#panel .tls-live .tokens button"


@pytest.fixture
def server(demo_model) -> Iterator[str]:
    import uvicorn

    from tl_scopes.app.server import create_app
    from tl_scopes.app.workbench import Workbench
    from tl_scopes.cli.app import _listen

    running = uvicorn.Server(
        uvicorn.Config(create_app(Workbench({"demo": demo_model})), log_level="error", access_log=False)
    )
    with _listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        while not running.started and thread.is_alive():
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        running.should_exit = True
        thread.join()


@pytest.fixture
def app(browser: Any, server: str) -> Iterator[Callable[..., Any]]:
    """`app()`: the page after its first example was explained; at the end, no console message and no foreign request."""
    contexts, trouble = [], []

    def message(m: Any) -> None:
        refused = "the server responded with a status of 400" in m.text
        if not ("GL Driver Message" in m.text or (refused and page_of[0].expects_refusal)):
            trouble.append(f"{m.type}: {m.text}")

    page_of: list[Any] = []

    def open_page(**options: Any) -> Any:
        contexts.append(browser.new_context(accept_downloads=True, **options))
        page = contexts[-1].new_page()
        page.expects_refusal = False
        page_of[:] = [page]
        page.set_default_timeout(WAIT)
        page.on("console", message)
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on(
            "request", lambda r: r.url.startswith((server, "data:", "blob:")) or trouble.append(f"request: {r.url}")
        )
        page.on("dialog", lambda d: (trouble.append(f"dialog: {d.message}"), d.dismiss()))
        page.goto(server)
        drawn(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not trouble, trouble


def drawn(page: Any) -> None:
    """Wait until the answer is there and CircuitsVis has drawn it."""
    page.wait_for_function(
        """() => !document.querySelector('#results').hasAttribute('aria-busy')
            && [...document.querySelectorAll('#panel .tls-live')].some(e => e.style.display === '')"""
    )


def explain(page: Any, prompt: str, method: str = "semantic_scope", **fields: str) -> None:
    page.fill("#prompt", prompt)
    page.select_option("#method", method)
    for name, value in fields.items():
        page.fill(f"#{name}", value)
    page.click("#explain")
    drawn(page)


def test_it_opens_with_an_example_explained(app, demo_model) -> None:
    page = app()
    first = next(iter(DEMO_PROMPTS.values()))
    attr = tls.semantic_scope(demo_model, first.prompt, target=first.target).without("special")
    picture_shows(page, attr)
    assert page.input_value("#prompt") == first.prompt
    page.click("#examples button >> nth=2")
    drawn(page)
    third = list(DEMO_PROMPTS.values())[2]
    picture_shows(page, tls.semantic_scope(demo_model, third.prompt, target=third.target).without("special"))


def test_paste_choose_a_scope_and_explain(app, demo_model) -> None:
    page = app()
    explain(page, PROMPT, target=" dog")
    before = page.query_selector(".tls-tokens").evaluate(READ)
    explain(page, PROMPT, "temperature_scope")
    picture_shows(page, tls.temperature_scope(demo_model, PROMPT).without("special"))
    after = page.query_selector(".tls-tokens").evaluate(READ)
    assert [cell["colour"] for cell in before] != [cell["colour"] for cell in after]
    assert not page.is_visible("#target")
    explain(page, PROMPT, "contrast_scope", target=" dog", foil=" cat", pos="-1")
    picture_shows(page, tls.contrast_scope(demo_model, PROMPT, target=" dog", foil=" cat").without("special"))
    page.select_option("#method", "fisher_scope")
    page.fill("#rank", "3")
    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    drawn(page)
    picture_shows(page, tls.fisher_scope(demo_model, PROMPT, rank=3).without("special"))


def test_an_answer_follows_its_settings_and_greys_where_it_cannot(app, demo_model) -> None:
    page = app()
    explain(page, PROMPT)
    page.select_option("#method", "temperature_scope")
    page.wait_for_selector("#panel :text('Temperature Scope')")
    drawn(page)
    assert not page.locator("#panel.old").count()
    page.select_option("#method", "contrast_scope")
    assert page.locator("#panel.old").count() == 1
    assert "foil" in page.text_content("#status")
    page.expects_refusal = True
    page.fill("#foil", "two tokens, no foil")
    page.press("#foil", "Tab")
    page.wait_for_selector("#error:not([hidden])")
    assert page.locator("#panel.old").count() == 1, "the answer to another question is grey"


def test_what_the_gradient_holds_is_ticked_answered_and_opened(app, demo_model, tmp_path: Path) -> None:
    page = app()
    explain(page, PROMPT, "input_x_gradient", target=" dog")
    for name in ("norms", "attention", "activations"):
        page.check(f"#frozen [value={name}]")
        drawn(page)
    attr = tls.input_x_gradient(demo_model, PROMPT, target=" dog", frozen="all")
    page.wait_for_selector("#panel :text('everything frozen')")
    drawn(page)
    picture_shows(page, attr.without("special"))
    assert "blue raises it" in page.text_content("#panel .tls-legend")
    page.select_option("#method", "leave_one_out")
    assert not page.is_visible("#frozen"), "no gradient, nothing to hold"
    for box in ("norms", "attention", "activations"):
        page.eval_on_selector(f"#frozen [value={box}]", "box => (box.checked = false)")
    page.set_input_files("#open", attr.save(tmp_path / "a.json"))
    page.wait_for_selector("text=opened as it was saved")
    drawn(page)
    assert page.locator("#frozen :checked").count() == 3 and page.is_visible("#frozen")


def test_another_text_forgets_the_token_that_was_clicked_in_the_old_one(app, demo_model) -> None:
    page = app()
    explain(page, PROMPT)
    page.click(f'{LIVE} bdi[data-pos="5"]')
    drawn(page)
    assert page.input_value("#target") != "" and page.input_value("#pos") == "4"
    page.fill("#prompt", "The dog sees the")
    assert (page.input_value("#target"), page.input_value("#pos")) == ("", "-1")
    assert page.locator("#panel.old").count() == 1
    page.click("#explain")
    drawn(page)
    wanted = tls.semantic_scope(demo_model, "The dog sees the")
    assert page.locator("#panel .tls-target bdi").first.text_content() == visible(wanted.target_str)
    page.fill("#target", " dog")
    page.fill("#prompt", "The dog sees a")
    assert page.input_value("#target") == " dog", "what was typed stays"


def test_hovering_a_token_shows_its_score(app, demo_model) -> None:
    page = app()
    explain(page, PROMPT, target=" dog")
    page.hover(f'{LIVE} bdi[data-pos="3"]')
    assert page.wait_for_selector("text=position 3").is_visible()


def test_toggles_change_what_is_shown(app, demo_model) -> None:
    page = app()
    explain(page, PROMPT, target=" dog")
    attr = tls.semantic_scope(demo_model, PROMPT, target=" dog")
    page.uncheck("#specials")
    drawn(page)
    picture_shows(page, attr)
    page.select_option("#unit", "word")
    drawn(page)
    picture_shows(page, attr.by_word())
    page.select_option("#scale", "log")
    drawn(page)
    picture_shows(page, attr.by_word(), kind="log")


def test_units_are_blocks_and_an_answer_is_said_as_one(app) -> None:
    page = app()
    explain(page, "German: der Hund sieht die Katze. English: the", target=" dog sees the cat")
    assert page.locator("#panel .tls-explained").count() == 4
    page.select_option("#unit", "sentence")
    page.wait_for_selector("#panel .tls-units")
    assert page.locator("#panel .tls-unit:has(.tls-bar)").count() >= 2
    assert page.locator("#hint").is_hidden()
    assert page.locator("#panel .tls-units bdi[tabindex]").count() == 0


def test_a_click_on_a_prediction_or_a_token_explains_it(app, demo_model) -> None:
    page = app()
    explain(page, PROMPT)
    attr = tls.semantic_scope(demo_model, PROMPT)
    page.click(".tls-pred > li:nth-child(2) > :first-child")
    drawn(page)
    second = tls.semantic_scope(demo_model, PROMPT, target=attr.top_tokens[1])
    picture_shows(page, second.without("special"))
    assert page.input_value("#target") == visible(attr.top_predictions[1][0])
    page.click(f'{LIVE} bdi[data-pos="4"]')
    drawn(page)
    token = tls.semantic_scope(demo_model, PROMPT, pos=3, target=int(attr.tokens[4]))
    picture_shows(page, token.without("special"))
    assert page.input_value("#pos") == "3"


def test_the_keyboard_walks_the_tokens_and_explains(app, demo_model) -> None:
    page = app()
    explain(page, PROMPT)
    attr = tls.semantic_scope(demo_model, PROMPT)
    page.focus(f'{LIVE} bdi[tabindex="0"]')
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    pos = len(attr) - 3
    assert page.evaluate("document.activeElement.dataset.pos") == str(pos)
    page.keyboard.press("Enter")
    drawn(page)
    picture_shows(
        page, tls.semantic_scope(demo_model, PROMPT, pos=pos - 1, target=int(attr.tokens[pos])).without("special")
    )
    page.focus("#tab-tokens")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(BUTTON)
    assert page.get_attribute("#tab-matrix", "aria-selected") == "true"


def test_the_matrix_lights_up_sources_and_shows_predictions(app, demo_model) -> None:
    page = app()
    explain(page, PROMPT)
    page.click("#tab-matrix")
    page.wait_for_selector(BUTTON)
    drawn(page)
    assert page.locator(BUTTON).count() == len(tls.semantic_scope(demo_model, PROMPT)) + 1

    def colours() -> list[str]:
        return page.eval_on_selector_all(BUTTON, "all => all.map(e => getComputedStyle(e).backgroundColor)")

    before = colours()
    page.hover(f"{BUTTON} >> nth=5")
    changed = "(e, i) => getComputedStyle(e).backgroundColor !== before[i]"
    page.wait_for_function(f"before => [...document.querySelectorAll({BUTTON!r})].some({changed})", arg=before)
    assert colours() != before
    wanted = tls.semantic_scope(demo_model, PROMPT, pos=4).top_predictions
    assert page.locator(".tls-beside bdi").all_text_contents()[: len(wanted)] == [visible(text) for text, _ in wanted]


def test_layers_and_heads_are_maps_that_name_the_hovered_cell(app) -> None:
    page = app()
    explain(page, PROMPT, target=" dog")
    for tab, cell in (("layers", "layer "), ("heads", "head ")):
        page.click(f"#tab-{tab}")
        page.wait_for_selector("#panel .tls-map td")
        drawn(page)
        page.hover("#panel .tls-map td:not(.tls-hid) >> nth=-1")
        assert page.locator("#panel .tls-scroll + .tls-read").last.text_content().startswith(cell)
    page.select_option("#method", "leave_one_out")
    assert page.is_disabled("#tab-layers")
    assert page.is_disabled("#tab-matrix")
    assert page.get_attribute("#tab-tokens", "aria-selected") == "true"


def test_the_verdict_is_made_on_request_for_baselines_too(app, demo_model) -> None:
    page = app()
    explain(page, PROMPT, target=" dog")
    for method, function in (("semantic_scope", tls.semantic_scope), ("leave_one_out", tls.leave_one_out)):
        page.click("#tab-tokens")
        explain(page, PROMPT, method, target=" dog")
        page.click("#tab-verdict")
        wanted = tls.verdict(demo_model, function(demo_model, PROMPT, target=" dog"))
        page.wait_for_selector(f"#panel :text({json.dumps(wanted.sentence[:60])})")
        assert page.locator("#panel svg, #panel img").count() >= 1


def test_a_chain_is_written_and_its_steps_are_asked_for_by_mouse_and_keyboard(app, demo_model) -> None:
    page = app(viewport={"width": 400, "height": 800})
    explain(page, PROMPT)
    assert not page.is_visible("#chaining")
    page.click("#tab-chain")
    page.fill("#write", "4")
    assert page.is_visible("#chaining") and not page.is_visible("#target") and not page.is_visible("#pos")
    page.select_option("#units", "word")
    page.select_option("#prompt-units", "sentence")
    found = tls.chain(demo_model, tls.generate(demo_model, PROMPT, 4), units="word", prompt_units="sentence")
    title, cards = "#panel .tls-title", "#panel .tls-steps .tls-static > .tls-unit:not(.tls-between)"

    def asks(step: int) -> None:
        page.wait_for_selector(f"{title}:has-text('step {step + 1} of {len(found.steps)}')")
        page.wait_for_function("() => !document.querySelector('#results').hasAttribute('aria-busy')")

    asks(3)
    assert page.locator("#panel .tls-arcs path").count() > 0, "drawn again in the page"
    page.click(f"{cards} >> nth={len(found.sources) + 1}")
    asks(1)
    page.mouse.move(2, 2)  # what lies under the mouse when it is drawn counts as pointed at
    page.focus("#panel .tls-static")
    for key in ("End", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    asks(2)
    assert page.evaluate("document.activeElement.matches('#panel .tls-static')"), "the keyboard goes on from there"
    for key in ("ArrowLeft", "Enter"):
        page.keyboard.press(key)
    asks(1)
    page.click(f"{cards} >> nth=0")
    page.fill("#answer", "cat")
    page.press("#answer", "Tab")
    asks(3)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing is cut off"
    page.expects_refusal = True
    page.fill("#answer", "zebra")
    page.press("#answer", "Tab")
    assert "zebra" in page.wait_for_selector("#error:not([hidden])").inner_text()
    assert page.locator("#panel.old").count() == 1
    page.click("#tab-tokens")
    drawn(page)
    assert page.is_visible("#pos") and not page.is_visible("#chaining")


def test_what_is_asked_is_what_the_page_says_whoever_asks(app, demo_model) -> None:
    page = app()
    asked: list[tuple[str, dict[str, Any]]] = []
    page.on("request", lambda r: r.post_data and asked.append((r.url.split("?")[0][-5:], json.loads(r.post_data))))
    settled = "() => !document.querySelector('#results').hasAttribute('aria-busy')"
    page.fill("#prompt", PROMPT)
    assert page.locator("#panel.old").count() == 1
    page.select_option("#scale", "log")
    page.wait_for_function(settled)
    assert page.locator("#panel.old").count() == 1, "drawn otherwise, it answers the old text still"
    page.fill("#pos", "")
    page.press("#pos", "Tab")
    page.click("#tab-chain")
    page.fill("#write", "2")
    page.fill("#prompt", PROMPT + " dog")
    page.select_option("#units", "word")
    page.wait_for_selector("#panel .tls-steps")
    page.wait_for_function(settled)
    assert not page.locator("#panel.old").count() and not page.is_visible("#error"), "no place in it is asked about"
    assert asked[-1][0] == "chain" and (asked[-1][1]["prompt"], asked[-1][1]["units"]) == (PROMPT + " dog", "word")
    page.fill("#prompt", PROMPT)
    page.click("#panel .tls-between ~ .tls-unit")
    assert page.locator("#panel.old").count() == 1, "a step of another text is not asked for"
    n = len(asked)
    page.select_option("#method", "random_attribution")
    page.fill("#pos", "-1")
    page.select_option("#method", "contrast_scope")
    page.click("#tab-chain")
    page.wait_for_function("() => document.querySelector('#status').textContent.includes('foil')")
    assert page.locator("#panel.old").count() == 1
    assert all(a["prompt"] == PROMPT for _, a in asked[n:]) and not any(path == "chain" for path, _ in asked[n:])


def test_files_are_shared(app, demo_model, tmp_path: Path) -> None:
    page = app()
    explain(page, PROMPT, target=" dog")
    attr = tls.semantic_scope(demo_model, PROMPT, target=" dog").without("special")
    files = {}
    for kind in ("html", "json"):
        with page.expect_download() as download:
            page.click(f"#save-{kind}")
        files[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[kind])
    assert files["html"].read_text(encoding="utf-8") == attr.html()
    assert files["json"].read_bytes() == attr.save(tmp_path / "own.json").read_bytes()
    explain(page, "German: die Katze", "temperature_scope")
    page.set_input_files("#open", files["json"])
    page.wait_for_selector("text=opened as it was saved")
    drawn(page)
    picture_shows(page, attr)
    assert (page.input_value("#prompt"), page.input_value("#target")) == (PROMPT, " dog")


def test_a_dropped_file_opens(app, tmp_path: Path) -> None:
    page = app()
    text = attribution().save(tmp_path / "a.json").read_text()
    page.evaluate(
        """text => { const data = new DataTransfer(); data.items.add(new File([text], "a.json"));
           for (const name of ["dragover", "drop"])
             document.body.dispatchEvent(new DragEvent(name, {dataTransfer: data, bubbles: true, cancelable: true})); }""",
        text,
    )
    page.wait_for_selector("text=opened as it was saved")
    drawn(page)
    page.uncheck("#specials")
    drawn(page)
    picture_shows(page, attribution())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"target": "dog"}, "Did you mean ' dog'"),
        ({"pos": "99"}, "pos must be in"),
        ({"pos": ""}, "whole number"),
        ({"prompt": "the " * 3000}, "more than the model's context"),
    ],
)
def test_bad_input_is_a_message(app, fields, reason) -> None:
    page = app()
    page.expects_refusal = True
    page.fill("#prompt", PROMPT)
    for name, value in fields.items():
        page.fill(f"#{name}", value)
    page.click("#explain")
    error = page.wait_for_selector("#error:not([hidden])")
    assert reason in error.inner_text()
    assert "Traceback" not in page.content()
    page.fill("#prompt", PROMPT)
    page.fill("#target", "")
    page.fill("#pos", "-1")
    page.click("#explain")
    drawn(page)
    assert not page.is_visible("#error")


def test_hostile_text_is_text(app, demo_model, tmp_path: Path) -> None:
    page = app()
    text = " ".join(HOSTILE).replace("\r", "")
    explain(page, text, "temperature_scope")
    picture_shows(page, tls.temperature_scope(demo_model, text).without("special"))
    page.select_option("#unit", "word")
    drawn(page)
    file = attribution(
        HOSTILE, target_str=HOSTILE[1], top_predictions=[(t, 0.1) for t in HOSTILE[:7]], top_tokens=tuple(range(7)),
        text=None,
    ).save(tmp_path / "hostile.json")  # fmt: skip
    page.select_option("#unit", "")
    page.set_input_files("#open", file)
    page.wait_for_selector("text=opened as it was saved")
    drawn(page)
    assert page.locator(f"{LIVE} bdi[data-pos]").all_text_contents() == [visible(t) for t in HOSTILE]
    page.select_option("#method", "temperature_scope")
    page.click("#tab-matrix")
    page.fill("#prompt", "".join(HOSTILE[:4]))
    page.click("#explain")
    page.wait_for_selector(BUTTON)
    assert page.locator("#panel img, #panel script:not([type])").count() == 0


def test_a_file_that_is_not_ours_is_a_message(app, tmp_path: Path) -> None:
    page = app()
    page.expects_refusal = True
    (tmp_path / "x.json").write_text("<img src=x onerror=alert(1)>")
    page.set_input_files("#open", tmp_path / "x.json")
    assert "not a JSON file" in page.wait_for_selector("#error:not([hidden])").inner_text()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_light_dark_wide_and_narrow(app, dark: bool, width: int) -> None:
    page = app(color_scheme="dark" if dark else "light", viewport={"width": width, "height": 800})
    own = "document.documentElement.getAttribute('theme')"
    assert page.evaluate(own) == ("dark" if dark else "light")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing is cut off"

    def inverted() -> bool:
        return page.evaluate("getComputedStyle(document.querySelector('#panel .tls-ink')).filter") != "none"

    assert inverted() == dark
    page.click("#theme")
    assert inverted() != dark, "the choice on the page wins over the system's"


def test_the_first_answer_does_not_replace_the_last_question(app, demo_model) -> None:
    page = app()
    held: list[Any] = []

    def first_waits(route: Any) -> None:
        if json.loads(route.request.post_data)["method"] == "fisher_scope":
            held.append(route)
        else:
            route.continue_()

    page.route("**/api/explain*", first_waits)
    page.fill("#prompt", PROMPT)
    page.select_option("#method", "fisher_scope")
    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    page.select_option("#method", "temperature_scope")
    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    drawn(page)
    held[0].continue_()
    page.wait_for_timeout(500)
    picture_shows(page, tls.temperature_scope(demo_model, PROMPT).without("special"))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("refused", [False, True])
def test_an_answer_leaves_standing_what_a_later_question_lacks(app, refused: bool) -> None:
    page = app()
    page.expects_refusal = refused
    held: list[Any] = []
    page.route("**/api/explain*", lambda route: held.append(route))
    said = "() => [document.querySelector('#status').textContent, document.querySelector('#error').textContent]"
    for lack in (
        lambda: page.select_option("#method", "contrast_scope"),
        lambda: (page.fill("#pos", ""), page.press("#pos", "Tab")),
    ):
        page.fill("#target", "zebra" if refused else "")
        page.fill("#pos", "-1")
        page.press("#pos", "Tab")
        page.select_option("#method", "semantic_scope")
        page.wait_for_function("() => document.querySelector('#status').textContent === 'Explaining …'")
        lack()
        words = page.evaluate(said)
        assert any(words) and words[0] != "Explaining …"
        held.pop().continue_()
        page.wait_for_function("() => !document.querySelector('#results').hasAttribute('aria-busy')")
        assert page.evaluate(said) == words and page.locator("#panel.old").count() == 1
        page.select_option("#scale", "log" if page.input_value("#scale") != "log" else "linear")
        page.wait_for_function("() => !document.querySelector('#results').hasAttribute('aria-busy')")
        assert page.evaluate(said) == words, "the same picture, drawn anew, answers no more"
    page.unroute("**/api/explain*")
    page.fill("#target", "")
    page.fill("#pos", "-1")
    page.press("#pos", "Tab")
    drawn(page)
    assert page.evaluate(said) == ["", ""] and not page.locator("#panel.old").count()
