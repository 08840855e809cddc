"""Invariant: the command answers offline with the right numbers; a mistake is one line and exit code 2."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

import tl_scopes as tls
from tl_scopes import views
from tl_scopes.baselines.by_name import BASELINES, WITHOUT_TARGET
from tl_scopes.cli import main as cli
from tl_scopes.demo import DEFAULT_PROMPT, DEMO_PROMPTS
from tl_scopes.results.variants import GRADIENT_BASELINES
from tl_scopes.views import terminal

PROMPT = "German: der Hund sieht die Katze. English: the"


def test_without_a_prompt_it_says_what_causes_a_real_prediction_in_twelve_lines(run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = run("trace")
    assert code == 0
    for said in ("Semantic Scope", "logit per unit of embedding", "These tokens matter"):
        assert said in out
    assert sum(-(-len(line) // 95) for line in out.splitlines()) <= 12, "long lines are folded by the terminal"
    shown = DEMO_PROMPTS[DEFAULT_PROMPT]
    for word in (*shown.causes, shown.target.strip()):
        assert word in out


def test_the_demo_puts_the_planted_cause_first(run) -> None:
    code, out, _ = run("trace", "--json", "-")
    assert code == 0
    shown = DEMO_PROMPTS[DEFAULT_PROMPT]
    for method, saved in json.loads(out).items():
        scores = [s if p not in saved["special"] else -1.0 for p, s in enumerate(saved["scores"])]
        strongest = saved["str_tokens"][scores.index(max(scores))]
        assert strongest.strip() in shown.causes, method


def test_json_holds_the_numbers_of_the_library(run, demo_model, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    code, _, _ = run("trace", PROMPT, "--method", "semantic", "--target", " dog", "--json", str(file))
    assert code == 0
    saved = json.loads(file.read_text())["semantic"]
    assert saved["scores"] == tls.semantic_scope(demo_model, PROMPT, target=" dog").scores.tolist()
    assert saved["target_str"] == " dog"


def test_what_the_model_writes_is_explained_as_a_whole(run) -> None:
    code, out, _ = run("trace", PROMPT, "--generate", "4")
    assert code == 0
    assert "4 tokens together" in out
    assert "log-probability of ' dog sees the cat'" in out
    assert "lowers log p of ' dog sees the cat'" in out
    code, given, _ = run("trace", PROMPT, "--target", " dog sees the cat")
    assert (code, given) == (0, out), "the same answer, typed"
    code, _, err = run("trace", PROMPT, "--generate", "4", "--target", " dog")
    assert code == 2
    assert "leave out --target" in err


def test_the_built_in_prompt_is_for_both_bundled_models(run) -> None:
    code, out, _ = run("trace", "--model", "demo-llama", "--no-verdict")
    assert code == 0
    assert "sieht" in out


@pytest.mark.parametrize("prompt", [(), (PROMPT,)], ids=["demo", "given"])
def test_a_target_is_left_out_with_a_word_where_the_scope_has_none(run, prompt: tuple[str, ...]) -> None:
    code, out, err = run("trace", *prompt, "--method", "fisher", "--target", " dog")
    assert code == 0
    assert "fisher has no target; --target is left out" in err
    assert "Fisher" in out
    code, _, err = run("trace", *prompt, "--method", "temperature")
    assert (code, "target" in err) == (0, False)


def test_methods_are_one_several_or_the_three(run) -> None:
    assert run("trace", PROMPT, "--method", "semantic")[1] == run("trace", PROMPT)[1]
    every = json.loads(run("trace", PROMPT, "--method", "all", "--json", "-")[1])
    assert list(every) == ["semantic", "fisher", "temperature"]
    code, out, _ = run("trace", PROMPT, "--method", "temperature", "--method", "semantic", "--json", "-")
    assert (code, list(json.loads(out))) == (0, ["temperature", "semantic"])
    assert run("trace", PROMPT, "--scope", "fisher") == run("trace", PROMPT, "--method", "fisher"), "the older word"


def test_a_verdict_that_takes_long_says_how_to_do_without(run, monkeypatch) -> None:
    for seconds, said in ((0, True), (1000, False)):
        monkeypatch.setattr("tl_scopes.cli.trace.LONG", seconds)
        assert ("--no-verdict leaves it out" in run("trace", PROMPT, "--method", "semantic")[2]) == said


def test_it_ends_with_the_verdict_on_each_method_unless_told_not_to(run, demo_model) -> None:
    attrs = [a.without("special") for a in tls.scopes(demo_model, PROMPT).values()]
    judged = tls.verdict(demo_model, attrs)
    every = ("trace", PROMPT, "--method", "all")
    _, out, _ = run(*every)
    said = "\n\n".join(f"{v.method}: {v.sentence}" for v in judged)
    assert out.endswith(f"\n\n{said}\n")
    assert run(*every, "--no-verdict")[1] + f"\n{said}\n" == out
    assert run("trace", PROMPT)[1].endswith(f"\n{judged[0].sentence}\n")
    data = json.loads(run(*every, "--json", "-")[1])
    assert [d["verdict"]["sentence"] for d in data.values()] == [v.sentence for v in judged]
    assert tls.Attribution.from_dict(data["fisher"]).scores.equal(attrs[1].scores)
    assert "verdict" not in json.loads(run(*every, "--no-verdict", "--json", "-")[1])["fisher"]


def test_the_table_has_a_row_per_method_and_token(run, demo_model, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    every = ("trace", PROMPT, "--method", "all", "--target", " dog", "--csv")
    code, _, _ = run(*every, str(file))
    assert code == 0
    found = tls.scopes(demo_model, PROMPT, target=" dog")
    head, *rows = file.read_text(encoding="utf-8").splitlines()
    assert head == ",".join(["method", *found["fisher"].to_frame().columns])
    assert [row.split(",")[0] for row in rows] == [name for name, attr in found.items() for _ in range(len(attr))]
    assert run(*every, "-")[1] == file.read_text(encoding="utf-8")


def test_contrast_takes_a_foil(run) -> None:
    code, out, _ = run("trace", PROMPT, "--method", "contrast", "--target", " dog", "--foil", " cat")
    assert code == 0
    assert "prefer ' dog' to ' cat'" in out


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_known_by_name_and_given_what_they_read(run, demo_model, name: str) -> None:
    held = ("--frozen", "norms") if name in GRADIENT_BASELINES else ()
    asked = ("--target", " dog", "--pos", "-1", *held, "--no-verdict", "--json", "-")
    code, out, _ = run("trace", PROMPT, "--method", "fisher", "--method", name, *asked)
    assert code == 0
    own = {"frozen": "norms"} if held else {}
    saved = json.loads(out)
    found = BASELINES[name](demo_model, PROMPT, target=None if name in WITHOUT_TARGET else " dog", **own)
    assert list(saved) == ["fisher", found.method]
    assert saved[found.method]["scores"] == found.scores.tolist()
    assert saved[found.method]["target_str"] == found.target_str


def test_what_a_baseline_does_not_read_is_refused(refused) -> None:
    for method, given, reason in (
        ("leave_one_out", ("--frozen", "all"), "--frozen is for gradients, and leave_one_out is none: leave it out"),
        ("smoothgrad", ("--rank", "2"), "--rank is for scopes: leave it out with smoothgrad"),
        ("smoothgrad", ("--foil", " cat"), "--foil is for scopes: leave it out with smoothgrad"),
        ("random", ("--by-position", "2", "--html", "x.html"), "--by-position is for scopes: leave it out with random"),
    ):
        assert reason in refused("trace", PROMPT, "--method", method, *given)


@pytest.mark.parametrize("command", ["trace", "matrix", "chain", "layers", "verify", "sinks"])
def test_what_no_option_can_give_is_not_offered(refused, command: str) -> None:
    expected = refused(command, PROMPT, "--method", "nonsense").partition("expected ")[2]
    assert "fisher" in expected and "jacobian" not in expected
    said = refused(command, PROMPT, "--method", "jacobian")
    assert "which only Python can give; expected semantic" in said


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([PROMPT, "--method", "nonsense"], "unknown method 'nonsense'; expected semantic, contrast, fisher"),
        ([PROMPT, "--method", "all", "--method", "fisher"], "unknown method 'all'"),
        ([PROMPT, "--rank", "0", "--method", "fisher"], "--rank"),
        (["--model", "gpt2"], "give a PROMPT"),
    ],
)
def test_a_mistake_is_seen_before_a_model_is_loaded(refused, arguments, reason) -> None:
    assert reason in refused("trace", *arguments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([PROMPT, "--target", "dog"], "Did you mean ' dog', with its leading space?"),
        ([""], "prompt is empty"),
        ([PROMPT, "--pos", "99"], "pos must be in"),
        ([PROMPT, "--method", "contrast"], "needs a foil: give --foil"),
        ([PROMPT, "--rank", "100000", "--method", "fisher"], "rank must be in"),
    ],
)
def test_what_the_library_refuses_is_one_line(refused, arguments, reason) -> None:
    assert reason in refused("trace", *arguments, loads=True)


def test_a_model_that_is_not_there_is_a_mistake_too(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["tl-scopes", "trace", "x", "--model", "/no/such/folder"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_colours_follow_the_rank_of_the_scores(demo_model) -> None:
    attr = tls.semantic_scope(demo_model, PROMPT, target=" dog").without("special")
    styles = terminal.token_styles(attr)
    darkness = [0 if s.bgcolor is None else 765 - sum(s.bgcolor.get_truecolor()) for s in styles]
    ranked = [t.pos for t in attr.top(5)]
    assert [darkness[p] for p in ranked] == sorted((darkness[p] for p in ranked), reverse=True)
    assert darkness[ranked[0]] == max(darkness)
    assert styles[0].bgcolor is None, "BOS is left out"


@pytest.mark.parametrize("text", ["</script>", "<img onerror=x>", "[bold]", "שלום", "🦊", "\n", "\x1b[31m", "\t"])
def test_hostile_token_text_is_shown_as_text(text: str, demo_model) -> None:
    attr = tls.semantic_scope(demo_model, PROMPT)
    object.__setattr__(attr, "str_tokens", [text] * len(attr))
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(terminal.view([attr]))
    shown = console.export_text()
    assert terminal.visible(text) in shown
    assert "\x1b" not in shown


@pytest.mark.slow
@pytest.mark.one_lens
def test_html_holds_a_button_for_each_scope_and_works_alone(run, demo_model, tmp_path: Path) -> None:
    file = tmp_path / "out.html"
    code, out, _ = run("trace", PROMPT, "--method", "all", "--html", str(file))
    assert code == 0
    assert "Semantic Scope" in out
    found = {name: a.without("special") for name, a in tls.scopes(demo_model, PROMPT).items()}
    page = file.read_text(encoding="utf-8")
    judged = tls.verdict(demo_model, list(found.values()))
    assert page == views.stack(views.compare(found), *map(views.view, judged)).html()
    assert page.count('<input type="radio"') == 3
    run("trace", PROMPT, "--method", "fisher", "--no-verdict", "--html", str(file))
    assert file.read_text(encoding="utf-8") == found["fisher"].html()


def test_bytes_that_are_not_utf_8_are_named_by_their_argument(run) -> None:
    for arguments, name in ((["\udcff"], "PROMPT"), (["the dog", "--target", "\udcff"], "--target")):
        code, _, said = run("trace", *arguments)
        assert code == 2
        assert rf"{name} '\udcff': character 0" in said


def test_a_baseline_stands_beside_the_scores_of_the_page(run, demo_model, tmp_path: Path) -> None:
    file = tmp_path / "out.html"
    asked = ("trace", PROMPT, "--no-verdict", "--by-position", "2")
    assert run(*asked, "--html", str(file))[0] == 0
    beside = tls.positional_baseline(demo_model, PROMPT, unrelated=2)
    attr = tls.semantic_scope(demo_model, PROMPT).without("special")
    assert file.read_text(encoding="utf-8") == attr.html(baseline=beside)
    assert "on 2 unrelated prompts" in attr.html(baseline=beside)
    assert run(*asked, "--method", "fisher", "--method", "semantic", "--html", str(file))[0] == 0
    assert file.read_text(encoding="utf-8").count("on 2 unrelated prompts") == 2
    for arguments, reason in (
        (asked, "give --html FILE too"),
        ((*asked[:-1], "1", "--html", str(file)), "at least two"),
    ):
        code, _, said = run(*arguments)
        assert code == 2 and reason in said


TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
CHAT = [{"role": "user", "content": "German: der Hund sieht die Katze. English: the"}]


def test_scores_by_unit_are_the_librarys(run, demo_model, tmp_path: Path) -> None:
    file, figure = tmp_path / "out.json", tmp_path / "out.svg"
    asked = ("trace", PROMPT, "--target", " dog", "--unit", "sentence", "--json", str(file), "--plot", str(figure))
    code, out, _ = run(*asked)
    assert code == 0
    wanted = tls.semantic_scope(demo_model, PROMPT, target=" dog").without("special").by_unit("sentence")
    saved = json.loads(file.read_text(encoding="utf-8"))["semantic"]
    assert (saved["scores"], saved["str_tokens"]) == (wanted.scores.tolist(), wanted.str_tokens)
    assert "share of the squared influence" in out and "sentences" in saved["verdict"]["sentence"]
    assert "<svg" in figure.read_text(encoding="utf-8")


def test_a_chat_comes_from_a_file_or_standard_input(run, demo_model, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(demo_model.tokenizer, "chat_template", TEMPLATE, raising=False)
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(CHAT), encoding="utf-8")
    asked = ("--target", " dog", "--no-verdict", "--unit", "turn")
    code, out, _ = run("trace", "--chat", str(file), *asked)
    assert code == 0 and "template" in out and "user" in out
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(CHAT)))
    assert run("trace", "--chat", "-", *asked)[:2] == (0, out)
    code, table, _ = run("matrix", "--chat", str(file), "--unit", "turn", "--csv", "-")
    assert code == 0
    assert table == tls.attribution_matrix(demo_model, CHAT).by_unit("turn").to_frame().to_csv()


def test_a_chat_without_a_template_is_refused_with_the_remedy(run, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(CHAT), encoding="utf-8")
    code, _, said = run("trace", "--chat", str(file))
    assert code == 2 and "no chat template" in said and "pass the text" in said and "chat_options" not in said


@pytest.mark.parametrize(
    ("written", "arguments", "reason"),
    [
        ("[", (), "this is not JSON"),
        ("{}", (), "expected a list of messages"),
        ("[]", (PROMPT,), "leave out PROMPT"),
        (None, (), "No such file"),
        ("[{}]", ("--by-position", "2", "--html", "x.html"), "leave out --unit and --chat"),
    ],
)
def test_a_file_that_is_no_chat_is_a_mistake(refused, tmp_path: Path, written, arguments, reason) -> None:
    file = tmp_path / "chat.json"
    if written is not None:
        file.write_text(written, encoding="utf-8")
    assert reason in refused("trace", *arguments, "--chat", str(file))


def test_turns_are_those_of_a_chat(refused) -> None:
    for command in ("trace", "matrix"):
        assert "give one by --chat FILE" in refused(command, PROMPT, "--unit", "turn")
    assert "leave it out beside --unit line" in refused("matrix", PROMPT, "--words", "--unit", "line")
