"""Invariant: the app says what the package says, to its own page alone; a mistake is a message, never a trace.

Over HTTP without a browser; `test_app_browser.py` drives the page.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import sys
import tempfile
import threading
import time
from importlib.resources import files
from typing import Any

import pytest
import torch
from samples import HOSTILE, attribution

import tl_scopes as tls
from tl_scopes.app import workbench
from tl_scopes.app.guard import HEADERS, MOST_BYTES
from tl_scopes.app.menu import menu
from tl_scopes.app.question import Question
from tl_scopes.app.server import create_app
from tl_scopes.app.workbench import Workbench
from tl_scopes.cli import app as cli_app
from tl_scopes.cli import main as cli
from tl_scopes.demo import DEMO_PROMPTS
from tl_scopes.numerics.stopping import Stopped

pytestmark = pytest.mark.enable_socket  # the client's event loop wakes itself through a socket pair

PROMPT = "German: der Hund sieht die Katze. English: the"
BASE = "http://127.0.0.1:8600"


@pytest.fixture
def client(demo_model):
    from starlette.testclient import TestClient

    return TestClient(create_app(Workbench({"demo": demo_model})), base_url=BASE, raise_server_exceptions=False)


def question(**changes: Any) -> dict[str, Any]:
    return {"model": "demo", "method": "semantic_scope", "prompt": PROMPT, **changes}


def explained(client, **changes: Any) -> dict[str, Any]:
    answer = client.post("/api/explain", json=question(**changes))
    assert answer.status_code == 200, answer.text
    return answer.json()


# -- the package's own answers -----------------------------------------------------------------------------

OPTIONS = {"target": " dog", "foil": " cat", "rank": 2, "moment": "variance", "frozen": ["norms", "attention"]}


def test_the_menu_holds_every_scope_and_baseline() -> None:
    ours = {name for name in tls.__all__ if name.endswith("_scope")} - {"jacobian_scope", "forecast_scope"}
    assert ours <= set(menu()), "a scope without an entry"
    assert set(menu()) <= set(tls.__all__)


@pytest.mark.parametrize("name", [n for n in menu() if n not in ("integrated_gradients", "smoothgrad")])
def test_every_entry_gives_the_scores_of_its_function(name, client, demo_model) -> None:
    entry = menu()[name]
    chosen = {option: OPTIONS[option] for option in entry.options}
    prompt = "29,61,40,73,55,29,61," if name == "moment_scope" else PROMPT
    data = explained(client, method=name, prompt=prompt, pos=-2, **chosen)
    saved = client.get(f"/download/{data['id']}.json").json()
    wanted = getattr(tls, name)(demo_model, prompt, pos=-2, **chosen)
    torch.testing.assert_close(torch.tensor(saved["scores"]), wanted.scores, rtol=1e-5, atol=1e-8)
    assert saved["pos"] == wanted.pos
    assert saved["target"] == wanted.target


def test_options_that_a_method_does_not_take_are_not_passed(client) -> None:
    assert explained(client, method="temperature_scope", target=" dog", rank=3)["target"] is None


def test_what_is_frozen_is_asked_answered_saved_and_opened(client, demo_model, tmp_path) -> None:
    asked = {"method": "input_x_gradient", "target": " dog", "frozen": ["attention", "norms", "activations"]}
    data = explained(client, **asked)
    wanted = tls.input_x_gradient(demo_model, PROMPT, target=" dog", frozen="all")
    assert "(everything frozen)" in data["html"] and "blue raises it" in data["html"]
    assert "= logit" in data["html"], "what the signed scores add up to"
    assert data["frozen"] == ["norms", "attention", "activations"]
    saved = client.get(f"/download/{data['id']}.json").content
    assert saved == wanted.save(tmp_path / "a.json").read_bytes()
    opened = client.post("/api/open", content=saved, headers={"Content-Type": "application/json"}).json()
    assert opened["frozen"] == data["frozen"] and "blue raises it" in opened["html"]
    assert explained(client, **{**asked, "frozen": []})["id"] != data["id"]
    for what in ("matrix", "layers", "heads"):
        inside = client.post(f"/api/{what}", json=question(frozen=["norms"])).json()
        assert "(norms frozen)" in inside["html"], what


def test_a_model_that_cannot_be_frozen_says_so_in_words(client, monkeypatch) -> None:
    def refuse(model: Any, parts: Any) -> None:
        if parts:
            raise ValueError("(frozen=['attention']): this model carries a state from token to token")

    monkeypatch.setattr("tl_scopes.kernel.calls.refuse_unfrozen", refuse)
    answer = client.post("/api/explain", json=question(frozen=["attention"]))
    assert answer.status_code == 400
    assert "carries a state from token to token" in answer.json()["error"]


def test_downloads_are_what_the_package_writes(client, demo_model, tmp_path) -> None:
    attr = tls.semantic_scope(demo_model, PROMPT, target=" dog")
    key = explained(client, target=" dog")["id"]
    html = client.get(f"/download/{key}.html")
    assert html.text == attr.html()
    assert html.headers["content-disposition"] == 'attachment; filename="tl_scopes-semantic.html"'
    saved = client.get(f"/download/{key}.json")
    assert saved.content == attr.save(tmp_path / "a.json").read_bytes()
    shown = client.get(f"/download/{key}.html?words=1&specials=0&scale=log")
    assert shown.text == attr.without("special").by_word().html(scale="log")


def test_a_saved_file_opens_as_the_same_attribution(client) -> None:
    key = explained(client, target=" dog")["id"]
    saved = client.get(f"/download/{key}.json?specials=0").content
    opened = client.post("/api/open", content=saved, headers={"Content-Type": "application/json"})
    assert opened.status_code == 200
    assert client.get(f"/download/{opened.json()['id']}.json").content == saved
    assert opened.json()["target_text"] == " dog"


def test_a_saved_answer_opens_as_the_question_that_was_asked(client) -> None:
    shown = explained(client, target=" dog sees the cat")
    saved = client.get(f"/download/{shown['id']}.json").content
    opened = client.post("/api/open", content=saved, headers={"Content-Type": "application/json"}).json()
    again = explained(client, **opened["asked"], target=opened["target_text"])
    assert again["tokens"] == shown["tokens"]
    assert again["asked"] == opened["asked"]


def test_how_a_result_is_shown_computes_nothing_anew(demo_model) -> None:
    bench = Workbench({"demo": demo_model})
    key = bench.explain(Question.of(question()))
    bench._models.clear()
    view = bench.view(key, unit="word", specials=False, scale="log")
    assert view.html() == tls.semantic_scope(demo_model, PROMPT).without("special").by_word().html(scale="log")


def test_the_same_question_is_answered_once(demo_model, monkeypatch) -> None:
    bench, asked = Workbench({"demo": demo_model}), []
    original = tls.scopes
    monkeypatch.setattr(tls, "scopes", lambda *a, **k: (asked.append(1), original(*a, **k))[1])
    first, second = (bench.explain(Question.of(question())) for _ in range(2))
    assert first == second
    assert len(asked) == 1
    assert bench.explain(Question.of(question(pos=-2))) != first


def test_computations_run_one_at_a_time(demo_model, monkeypatch) -> None:
    bench, running, most = Workbench({"demo": demo_model}), [], []
    let_go, original = threading.Event(), tls.scopes

    def slow(*args: Any, **options: Any) -> Any:
        running.append(1)
        most.append(len(running))
        let_go.wait(0.05)
        running.pop()
        return original(*args, **options)

    monkeypatch.setattr(tls, "scopes", slow)
    threads = [threading.Thread(target=bench.explain, args=(Question.of(question(pos=-i)),)) for i in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


def test_a_question_that_nobody_waits_for_stops_and_frees_its_turn(demo_model) -> None:
    bench, asked = Workbench({"demo": demo_model}), []

    def wanted() -> bool:
        asked.append(1)
        return len(asked) < 8

    with pytest.raises(Stopped):
        bench.matrix(Question.of(question(method="fisher_scope", rank=32)), wanted)
    assert len(asked) == 8, "asked when its turn came, before each forward, and before each backward"
    assert not bench._computing.locked()
    assert not bench._results
    assert bench.result(bench.explain(Question.of(question()))).method == "semantic"


def test_a_question_that_waits_for_its_turn_leaves_when_nobody_waits_for_it(demo_model) -> None:
    bench, left = Workbench({"demo": demo_model}), threading.Event()
    with bench._computing:
        asking = (Question.of(question()), lambda: not left.is_set())
        waiting = threading.Thread(target=pytest.raises, args=(Stopped, bench.explain, *asking))
        waiting.start()
        left.set()
        waiting.join(5)
        assert not waiting.is_alive()
    assert not bench._results


def hung_up(app: Any, path: str, body: bytes, *messages: dict[str, Any]) -> None:
    """A POST whose client sends ``messages`` and then hangs up, whatever the server does."""
    headers = {"host": "127.0.0.1:8600", "content-type": "application/json", "content-length": str(len(body))}
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }
    sent = iter(messages)

    async def receive() -> Any:
        return next(sent, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        pass

    asyncio.run(app(scope, receive, send))


@pytest.mark.parametrize("whole", [True, False], ids=["while it is answered", "in the middle of the request"])
def test_who_hangs_up_leaves_no_trace_in_the_log_and_no_result(whole, demo_model, monkeypatch, caplog) -> None:
    bench, body = Workbench({"demo": demo_model}), json.dumps(question()).encode()
    computed = tls.scopes

    def later(*args: Any, **options: Any) -> Any:
        time.sleep(0.05)  # until the server has seen that the client is gone
        return computed(*args, **options)

    monkeypatch.setattr(tls, "scopes", later)
    part = {"type": "http.request", "body": body if whole else body[:10], "more_body": not whole}
    hung_up(create_app(bench), "/api/explain", body, part)
    assert not bench._results
    assert not bench._computing.locked()
    assert caplog.text == ""


def test_the_page_hangs_up_on_the_question_before() -> None:
    page = (files("tl_scopes.app") / "app.js").read_text(encoding="utf-8")
    assert page.index("state.asking?.abort();") < page.index("state.asking = new AbortController();")
    assert "signal: state.asking?.signal" in page


def test_old_results_are_forgotten_and_the_page_is_told(client, monkeypatch) -> None:
    monkeypatch.setattr(workbench, "KEPT", 3)
    first = explained(client)["id"]
    saved = client.get(f"/download/{first}.json").json()
    for i in range(3):
        assert client.get(f"/api/view/{first}").status_code == 200, "three are kept"
        body = json.dumps({**saved, "method": f"m{i}"})
        assert client.post("/api/open", content=body, headers={"Content-Type": "application/json"}).status_code == 200
    answer = client.get(f"/api/view/{first}")
    assert answer.status_code == 404
    assert "Explain the text again" in answer.json()["error"]


def test_matrix_is_the_packages(client, demo_model) -> None:
    answer = client.post("/api/matrix", json=question(method="fisher_scope", rank=2)).json()
    wanted = tls.attribution_matrix(demo_model, PROMPT, method="fisher", rank=2).without("nothing")
    assert client.get(f"/download/{answer['id']}.html").text == wanted.html()
    hidden = client.get(f"/api/view/{answer['id']}?specials=0").json()["html"]
    assert "Left out as sources" in hidden


@pytest.mark.parametrize(("what", "own"), [("layers", {"relative": True}), ("heads", {})])
def test_layers_and_heads_are_the_packages(what, own, client, demo_model) -> None:
    asked = question(method="contrast_scope", target=" dog", foil=" cat", pos=-2)
    answer = client.post(f"/api/{what}", json=asked)
    assert answer.status_code == 200, answer.text
    function = {"layers": tls.layer_influence, "heads": tls.head_influence}[what]
    wanted = function(demo_model, PROMPT, method="contrast", target=" dog", foil=" cat", pos=-2, **own)
    key = answer.json()["id"]
    assert client.get(f"/download/{key}.html?specials=0").text == wanted.html()
    assert client.get(f"/download/{key}.html").text == wanted.without("nothing").html()
    assert client.get(f"/download/{key}.json").status_code == 400
    refused = client.post(f"/api/{what}", json=question(method="smoothgrad"))
    assert f"SmoothGrad has no {what}" in refused.json()["error"]


def test_the_verdict_is_the_packages_on_the_answer(client, demo_model) -> None:
    asked = question(method="temperature_scope")
    answer = client.post("/api/verdict?specials=0", json=asked).json()
    wanted = tls.verdict(demo_model, tls.temperature_scope(demo_model, PROMPT))
    assert client.get(f"/download/{answer['id']}.html").text == wanted.html()
    assert client.get(f"/download/{answer['id']}.json").status_code == 400


def test_a_chain_is_the_packages_on_what_the_model_writes_and_another_step_runs_nothing(
    client, demo_model, monkeypatch
) -> None:
    said = tls.generate(demo_model, PROMPT, 4)
    how = {"units": "word", "prompt_units": "sentence", "answer": "sees the"}
    wanted = tls.chain(demo_model, said, method="input_x_gradient", frozen="norms", **how)
    runs, chain = [], tls.chain
    monkeypatch.setattr(tls, "chain", lambda *a, **k: (runs.append(1), chain(*a, **k))[1])
    asked = question(method="input_x_gradient", frozen=["norms"], write=4, target=" ignored", pos=-2, **how)
    answer = client.post("/api/chain?specials=0&unit=word", json=asked).json()
    assert (answer["kind"], answer["units"], answer["specials"]) == ("chain", False, False)
    assert client.get(f"/download/{answer['id']}.html").text == wanted.html()
    assert client.get(f"/download/{answer['id']}.json").status_code == 400
    monkeypatch.setattr(tls, "generate", lambda *a, **k: pytest.fail("written again"))
    other = client.post("/api/chain", json={**asked, "step": 0}).json()
    assert client.get(f"/download/{other['id']}.html").text == wanted.of(0).html() != wanted.html()
    assert len(runs) == 1
    assert client.post("/api/chain", json={**asked, "units": "sentence"}).status_code == 200, "what was written is kept"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"write": 0}, "explain(write=0): expected 1 to 500 tokens"),
        ({"write": 501}, "expected 1 to 500 tokens"),
        ({"prompt": ""}, "write(prompt=''): the prompt is empty"),
        ({"prompt": "the " * 3000}, "more than the model's context"),
        ({"units": "page"}, "page"),
        ({"answer": "zebra"}, "zebra"),
        ({"step": 99}, "99"),
        ({"step": 0.5}, "explain(step=...): expected int or null, got float"),
        ({"method": "random_attribution"}, "makes no chain"),
        ({"method": "contrast_scope"}, "foil"),
    ],
)
def test_a_chain_that_cannot_be_made_is_a_message(changes, reason, client, unchecked) -> None:
    answer = client.post("/api/chain", json=question(**{"write": 4, "units": "word", **changes}))
    assert answer.status_code == 400, answer.text
    assert reason in answer.json()["error"] and "Traceback" not in answer.text


def test_what_is_written_ends_with_the_models_context(client, demo_model) -> None:
    prompt = "the dog sees the cat. " * 41
    asked = question(prompt=prompt, write=500, units="sentence", method="input_x_gradient")
    answer = client.post("/api/chain", json=asked).json()
    assert answer.get("length") == demo_model.cfg.n_ctx, answer
    full = client.post("/api/chain", json={**asked, "prompt": "the dog sees the cat. " * 42}).json()
    assert "fill the model's context" in full["error"]


def test_a_text_that_nobody_waits_for_is_not_written_to_its_end(demo_model) -> None:
    bench, asked = Workbench({"demo": demo_model}), []

    def wanted() -> bool:
        asked.append(1)
        return len(asked) < 3

    with pytest.raises(Stopped):
        bench.chain(Question.of(question(write=48)), wanted)
    assert not bench._results


def test_examples_are_the_demos(client) -> None:
    options = client.get("/api/options").json()
    assert [e["prompt"] for e in options["examples"]] == [d.prompt for d in DEMO_PROMPTS.values()]
    assert [m["name"] for m in options["methods"]] == list(menu())


def test_clicks_lead_to_the_tokens_that_are_shown(client, demo_model) -> None:
    data = explained(client)
    assert [p["id"] for p in data["predictions"]] == list(tls.semantic_scope(demo_model, PROMPT).top_tokens)
    chosen = explained(client, pos=4, target=data["tokens"][5])
    assert chosen["target"] == data["tokens"][5]
    words = client.get(f"/api/view/{data['id']}?words=1").json()
    assert all(words["tokens"][i] == data["tokens"][first] for i, first in enumerate(words["first"]))


def test_an_answer_is_explained_as_a_whole_and_shown_by_unit(client, demo_model) -> None:
    german = "German: der Hund sieht die Katze. English: the"
    data = explained(client, prompt=german, target=" dog sees the cat")
    attr = tls.semantic_scope(demo_model, german, target=" dog sees the cat")
    assert data["prompt"] == attr.text and "4 tokens together" in data["html"]
    assert data["predictions"] == [], "the list beside the text has the answer's tokens, which lead nowhere"
    shown = client.get(f"/download/{data['id']}.html?unit=sentence").text
    assert shown == attr.by_unit("sentence").html()
    assert client.get(f"/api/view/{data['id']}?unit=sentence").json()["first"] == [
        unit[0] for unit in attr.by_unit("sentence").details["units"]
    ]
    for unit, reason in (
        ("page", "expected one of word, sentence"),
        ("turn", "Only a saved chat has turns. Choose word"),
    ):
        answer = client.get(f"/api/view/{data['id']}?unit={unit}")
        assert answer.status_code == 400 and reason in answer.json()["error"]


# -- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "the " * 5000}, "more than the model's context"),
        ({"prompt": "x" * 300_000}, "shorten the text"),
        ({"target": "dog"}, "Did you mean ' dog', with its leading space?"),
        ({"target": 10**9}, "outside the vocabulary"),
        ({"pos": 999}, "pos must be in"),
        ({"pos": "1"}, "explain(pos=...): expected int, got str"),
        ({"pos": True}, "expected int, got bool"),
        ({"method": "contrast_scope"}, "foil"),
        ({"method": "contrast_scope", "foil": " dog", "target": " dog"}, "same token"),
        ({"method": "fisher_scope", "rank": 0}, "rank must be in"),
        ({"method": "moment_scope", "moment": "median"}, "expected 'mean', 'variance' or None"),
        ({"frozen": ["everything"]}, "explain(frozen='everything'): expected names among 'norms', 'attention'"),
        ({"frozen": [1]}, "explain(frozen=[1]): expected names among"),
        ({"frozen": "norms"}, "explain(frozen=...): expected list, got str"),
        ({"method": "nonsense"}, "expected one of semantic_scope"),
        ({"method": "__class__"}, "expected one of semantic_scope"),
        ({"model": "gpt2"}, "not loaded; expected one of demo"),
        ({"at": "hook_pos_embed"}, "explain(at=...): unknown"),
        ({"prompt": "\ud800"}, ""),
    ],
)
def test_a_mistake_is_a_message(changes, reason, client, unchecked) -> None:
    body = json.dumps(question(**changes))
    answer = client.post("/api/explain", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert reason in answer.json()["error"]
    assert "Traceback" not in answer.text
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"model": "demo"}'])
@pytest.mark.parametrize("path", ["explain", "open"])
def test_a_body_that_is_no_question_is_a_message(path, body, client, unchecked) -> None:
    answer = client.post(f"/api/{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "changes",
    [
        {"str_tokens": [1, 2, 3, 4, 5, 6]},
        {"scores": "abc"},
        {"scores": [1.0]},
        {"pos": 99},
        {"top_predictions": [["a", "b"]]},
        {"details": 3},
        {"details": {"words": 3}},
        {"notes": [3]},
        {"format": "other"},
        {"format_version": 99},
        {"gradient_file": "../../etc/passwd"},
        {"offsets": [[0, 1]]},
        {"hidden": ["x"]},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_broken_saved_file_is_a_message(changes, client, tmp_path, unchecked) -> None:
    raw = {**json.loads(attribution().save(tmp_path / "a.json").read_text()), **changes}
    answer = client.post("/api/open", json=raw)
    if changes.get("gradient_file"):
        assert answer.status_code == 200, "a gradient that lay beside the file is not looked for"
        return
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]
    assert tempfile.gettempdir() not in answer.text, "no path of this machine"
    assert "opened.json" not in answer.text


def test_a_method_without_a_matrix_says_which_have_one(client) -> None:
    answer = client.post("/api/matrix", json=question(method="leave_one_out"))
    assert answer.status_code == 400
    assert "Choose one of: Semantic" in answer.json()["error"]


def test_what_nobody_foresaw_is_a_message_too(client, monkeypatch, caplog) -> None:
    monkeypatch.setattr(Workbench, "options", lambda self: 1 // 0)
    answer = client.get("/api/options")
    assert answer.status_code == 500
    assert answer.json()["error"].startswith("Unforeseen: ZeroDivisionError")
    assert "Traceback" not in answer.text
    assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/nothing", "/api/view/none", "/download/none.html", "/download/none.exe", "/../x"])
def test_unknown_addresses_are_not_found(path, client) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_the_model_is_not_changed_by_a_mistake(client, demo_model) -> None:
    before = explained(client)
    client.post("/api/explain", json=question(pos=999))
    client.post("/api/explain", json=question(method="fisher_scope", rank=10**6))
    assert explained(client) == before


# -- who may ask -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8600"}, 200),
        ({"Host": "[::1]:8600"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:8600"}, 403),
        ({"Host": "192.168.0.1:8600"}, 403),
        ({"Host": "user@127.0.0.1:8600"}, 200),
        ({"Host": ""}, 403),
        ({"Host": "["}, 403),
        ({"Origin": BASE}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Length": str(MOST_BYTES + 1)}, 413),
    ],
)
def test_only_the_own_page_may_ask(headers, status, client) -> None:
    sent = {"Content-Type": "application/json", **headers}
    answer = client.post("/api/explain", content=json.dumps(question()), headers=sent)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.json()["error"]
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("host", "asked", "status"),
    [
        ("0.0.0.0", "192.168.0.7:8600", 200),
        ("0.0.0.0", "evil.example:8600", 403),
        ("my.lan", "my.lan:8600", 200),
        ("my.lan", "other.lan:8600", 403),
    ],
)
def test_on_another_address_names_are_still_checked(host, asked, status, demo_model) -> None:
    from starlette.testclient import TestClient

    app = create_app(Workbench({"demo": demo_model}), host)
    assert TestClient(app, base_url=BASE).get("/", headers={"Host": asked}).status_code == status


def test_a_long_request_without_a_stated_length_is_cut(client) -> None:
    def endless():
        for _ in range(20):
            yield b"x" * 2**20

    answer = client.post("/api/open", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize("path", ["/", "/app.js", "/app.css", "/views.js", "/views.css", "/api/options", "/nothing"])
def test_every_answer_forbids_scripts_that_are_not_files_of_the_app(path, client) -> None:
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_refers_to_nothing_outside_and_holds_no_inline_script(client) -> None:
    text = client.get("/").text
    assert "http" not in text.replace("http-equiv", "")
    assert "<script>" not in text


def test_hostile_text_is_escaped_in_the_answer(client) -> None:
    data = explained(client, prompt="".join(HOSTILE), method="temperature_scope")
    assert "<img" not in data["html"]
    assert data["html"].count("<script") == data["html"].count('<script type="application/json" ') == 1


# -- the command -------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tl-scopes", "app", "--no-browser", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return run


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_a_missing_extra_is_named(name, command, monkeypatch) -> None:
    original = builtins.__import__

    def without(module: str, *args: Any, **options: Any) -> Any:
        if module.split(".")[0] == name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(module, *args, **options)

    for module in [m for m in sys.modules if m.split(".")[0] == name or m.startswith("tl_scopes.app")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    code, _, err = command()
    assert code == 2
    assert f'{name} is not installed; in a clone of tl_scopes: pip install ".[app]"' in err
    assert len(err.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_a_mistake(command) -> None:
    with cli_app._listen("127.0.0.1", 0) as taken:
        taken.listen()
        code, _, err = command("--port", str(taken.getsockname()[1]))
    assert code == 2
    assert "0 takes a free one" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_it_serves_on_this_machine_and_warns_elsewhere(host, warned, command, monkeypatch, demo_model) -> None:
    import uvicorn

    served = []
    monkeypatch.setattr(tls, "load_model", lambda name, **options: demo_model)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: served.append((self.config, sockets)))
    code, out, err = command("--port", "0", "--host", host, "--model", "demo", "--model", "demo")
    assert code == 0
    assert "http://127.0.0.1:" in out
    assert ("no password" in err) == warned
    (config, (listener,)) = served[0]
    assert config.access_log is False, "texts are not written to a log"
    assert listener.fileno() == -1, "closed at the end"


def test_examples_are_for_every_bundled_model(demo_model) -> None:
    options = Workbench({"mine": demo_model, "demo-llama": demo_model}).options()
    assert [(one["name"], one["examples"]) for one in options["models"]] == [("mine", False), ("demo-llama", True)]
    assert options["examples"]
    assert not Workbench({"mine": demo_model}).options()["examples"]
