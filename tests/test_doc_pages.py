"""Invariant: the pages in docs/ are true: each error is raised as it is quoted, each snippet runs, the reference is fresh."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from test_structure import FOLDERS

import tl_scopes as tls
import tl_scopes.views.terminal
from tl_scopes.cli.main import COMMANDS
from tl_scopes.demo import DEMO_PATH
from tl_scopes.numerics.extras import how_to_install

ROOT = Path(tls.__file__).parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)
PAGES = sorted(
    [*DOCS.glob("*.md"), *ROOT.glob("*.md"), ROOT / "benchmarks" / "README.md", ROOT / "tutorials" / "README.md"]
)


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def matches(message: str, quoted: str) -> bool:
    """`...` in the quotation stands for any text; line breaks do not count."""
    pattern = ".*".join(re.escape(part) for part in " ".join(quoted.split()).split("..."))
    return re.fullmatch(pattern, " ".join(message.split()), re.DOTALL) is not None


@pytest.fixture
def names(demo_model, monkeypatch) -> Iterator[dict[str, Any]]:
    """Where a page's code runs: from the root of the repository, `load_model()` giving a model of its own."""
    monkeypatch.chdir(ROOT)
    with torch.random.fork_rng():
        yield {}


def test_each_error_is_raised_as_it_is_quoted(names, unchecked) -> None:
    found = blocks("errors.md")
    (kind, shared), rest = found[0], found[1:]
    assert kind == "python"
    exec(shared, names)
    raised = 0
    for (kind, code), (after, quoted) in pairwise(rest):
        if kind != "python":
            continue
        assert after == "text", f"an example without its message:\n{code}"
        with pytest.raises((ValueError, TypeError)) as caught:
            exec(code, names)
        message = f"{caught.type.__name__}: {caught.value}"
        assert matches(message, quoted), f"{code}\nraises\n{message}\nnot\n{quoted}"
        raised += 1
    assert raised > 30


def raised_somewhere() -> Iterator[re.Pattern[str]]:
    """Every message of the package with enough words of its own to tell it from others."""
    found = maker("make_messages")
    for file in (ROOT / "tl_scopes").rglob("*.py"):
        for _, text in found.messages(ast.parse(file.read_text(encoding="utf-8"))):
            fixed = re.split("…|^call", text)
            if max(map(len, fixed)) > 20:
                yield re.compile(".*".join(map(re.escape, fixed)) + "$")


def test_errors_that_are_quoted_without_an_example_are_raised_somewhere() -> None:
    known = list(raised_somewhere())
    quoted = [text for (before, _), (kind, text) in pairwise(blocks("errors.md")) if kind == before == "text"]
    assert quoted
    for text in quoted:
        message = " ".join(text.split())
        assert any(pattern.search(message) for pattern in known), message
    assert not any(pattern.search(f"{message} indeed") for pattern in known)


def test_a_quotation_that_is_wrong_is_noticed() -> None:
    assert matches("ValueError: f(x=3): a rule", "ValueError: f(x=...): a rule")
    assert not matches("ValueError: f(x=3): a rule", "ValueError: f(x=...): another rule")
    assert not matches("ValueError: f(x=3): a rule", "TypeError: f(x=3): a rule")


def test_the_migration_page_runs(names) -> None:
    found = [code for kind, code in blocks("migration.md") if kind == "python"]
    assert len(found) > 6
    for code in found:
        exec(compile(code, "migration.md", "exec"), names)


@pytest.mark.parametrize(
    "page",
    [f"{name}.md" for name in ("answers", "chains", "runs", "series", "tasks", "using", "what_can_be_explained")],
)
def test_a_page_of_examples_runs(names, page: str) -> None:
    found = [code for kind, code in blocks(page) if kind == "python"]
    assert found
    for code in found:
        exec(compile(code, page, "exec"), names)


def test_the_sum_that_the_page_on_frozen_parts_quotes_is_printed(names, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "frozen.md").read_text(encoding="utf-8")
    quoted = re.findall(r'print\(parts\)  # "(.*)"', text)
    assert len(quoted) == 2
    for kind, code in blocks("frozen.md"):
        if kind == "python":
            exec(compile(code, "frozen.md", "exec"), names)
    out = capsys.readouterr().out
    assert all(said in " ".join(out.split()) for said in quoted)
    assert "orange, − lowers it" in out, "show(signed=True) of exact scores"
    calls, given, commands, _, never = [
        re.findall(r"`(\w+)`", line) for line in re.findall(r"\n\| (?!-)(.*)", text)[5:10]
    ]
    for name in calls:
        assert "frozen" in inspect.signature(getattr(tls, name)).parameters, name
    for name in (*given, *never):
        assert "frozen" not in inspect.signature(getattr(tls, name)).parameters, name
    assert set(commands) == {name for name, call in COMMANDS.items() if "frozen" in inspect.signature(call).parameters}
    public = {name: getattr(tls, name) for name in tls.__all__ if inspect.isfunction(getattr(tls, name))}
    takes = {name for name, call in public.items() if "frozen" in inspect.signature(call).parameters}
    assert takes - set(calls) <= {name for name in tls.__all__ if name.endswith("_scope")} | {"total_information"}


def test_captums_side_of_the_migration_page_runs_and_gives_the_same_scores(names, demo_model) -> None:
    import transformers

    prompt = "German: der Hund sieht die Katze. English: the"
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(DEMO_PATH, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO_PATH)
    dog_id = tokenizer(" dog", add_special_tokens=False).input_ids[0]
    given = {"torch": torch, "hf_model": hf_model, "tokenizer": tokenizer, "prompt": prompt, "dog_id": dog_id}
    page = (DOCS / "migration.md").read_text(encoding="utf-8")
    theirs = [code for code in re.findall(r"```py\n(.*?)```", page, re.DOTALL) if "captum" in code]
    assert len(theirs) == 2
    for code in theirs:
        exec(compile(code, "migration.md", "exec"), given)
    ours = tls.integrated_gradients(demo_model, prompt, target=" dog", baseline="pad", prepend_bos=False)
    assert float((given["scores"] - ours.scores).abs().max() / ours.scores.max()) < 1e-3


def test_the_migration_page_names_what_exists() -> None:
    text = (DOCS / "migration.md").read_text(encoding="utf-8")
    for table in re.findall(r"^\|.*\|.*\|", text, re.MULTILINE):
        for name in re.findall(r"`(\w+)\(?", table.split("|")[2]):
            if name.islower() and "_" in name and name not in ("completeness_gap", "delta_log_prob"):
                known = (
                    hasattr(tls, name) or hasattr(tls.Attribution, name) or f'"{name}"' in text or f"{name}=" in text
                )
                known = known or name in tls.Attribution.__dataclass_fields__
                assert known, name


def maker(name: str) -> Any:
    """A script that writes a page."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_list_of_public_names_is_what_stub_and_docstrings_say() -> None:
    assert (DOCS / "api.md").read_text(encoding="utf-8") == maker("make_api").page(), "run: make docs"


def test_every_message_of_the_source_is_listed() -> None:
    assert (DOCS / "messages.md").read_text(encoding="utf-8") == maker("make_messages").page(), "run: make docs"


def test_a_messages_fixed_words_are_kept() -> None:
    source = """
def f(name):
    if name:
        raise ValueError(f"({name}=''): the prompt " "is empty")
    raise TypeError(name)
"""
    found = maker("make_messages").messages(ast.parse(source))
    assert found == [("ValueError", "call(…=''): the prompt is empty")]


def test_the_list_of_public_names_is_whole() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    inside = [
        f"{m.__name__[10:]}.{n}" for m in (tls.timeseries, tls.tasks) for n in m.__all__ if callable(getattr(m, n))
    ]
    for name in {*tls.__all__, *inside} - {"__version__", "timeseries", "tasks"}:
        assert f"\n| [`{name}`](../tl_scopes/" in text, name


def defined(path: Path) -> set[str]:
    """Names that a file defines, or imports to pass on."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
    return found


def test_the_architecture_page_names_what_exists() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    folders = re.findall(r"^\| ((?:`\w+/`(?:, )?)+) \|", text, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)/`", " ".join(folders))) == FOLDERS
    for name in re.findall(r"`((?:\w+/)+(?:[\w.]+)?)`", text):
        assert (ROOT / name).exists() or (ROOT / "tl_scopes" / name).exists() or name == "scopes/", name
    walk = re.findall(r"^\| `([\w/]+\.py)` \| (.*?) \|", text, re.MULTILINE)
    assert len(walk) > 15
    for file, names in walk:
        missing = set(re.findall(r"`(\w+)`", names)) - defined(ROOT / "tl_scopes" / file)
        assert not missing, f"{file} has no {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    anchors: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        anchors.append(f"{anchor}-{anchors.count(anchor)}" if anchor in anchors else anchor)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        if file:
            assert (page.parent / file).exists(), target
        else:
            assert anchor in anchors, target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_and_modules_that_commands_name_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file in re.findall(r"\b((?:benchmarks|scripts|tests|docs|tutorials)/[\w/.-]*\w)", text):
        assert (ROOT / file).exists(), file
    for module in re.findall(r"python -m (tl_scopes[\w.]*)", text):
        assert importlib.util.find_spec(module) is not None, module
    if page.parent.name == "benchmarks":
        for file in re.findall(r"`(\w+\.(?:py|txt|json))\b", text):
            assert (page.parent / file).exists() or (page.parent / "results" / file).exists(), file
        named = set(re.findall(r"`(\w+\.py)\b", text))
        assert {path.name for path in page.parent.glob("*.py")} == named
    for target in re.findall(r"`make (\w+)`", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target


def test_the_version_is_written_once_and_the_files_that_repeat_it_agree(demo_model) -> None:
    import yaml

    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project
    assert 'version = { attr = "tl_scopes.__version__" }' in project
    number = re.compile(rf"(?<![\d.]){re.escape(tls.__version__)}(?![\d.])")
    files = [*(ROOT / "tl_scopes").rglob("*.py"), ROOT / "pyproject.toml", *PAGES]
    written = {file.relative_to(ROOT).as_posix() for file in files if number.search(file.read_text(encoding="utf-8"))}
    assert written == {"tl_scopes/__init__.py", "CHANGELOG.md"}
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    releases = re.findall(
        r"^## \[(.*?)\](?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert releases[:2] == [("Unreleased", ""), (tls.__version__, str(cited["date-released"]))]
    assert cited["version"] == tls.__version__
    assert tls.semantic_scope(demo_model, "the dog").provenance["tl_scopes"] == tls.__version__


def test_it_is_installed_from_a_clone_in_the_same_words_everywhere() -> None:
    words = how_to_install("app")
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    told = [*PAGES, *(ROOT / "tutorials").glob("*.ipynb"), *(ROOT / "tl_scopes").rglob("*.py")]
    quoting = set()
    for file in told:
        text = file.read_text(encoding="utf-8").replace("`", "").replace('\\"', '"')
        assert not re.search(r"pip install [^\n&]*\btl[_-]scopes\b", text), f"{file}: nobody has published it"
        for extra in re.findall(r"\.\[([^\]{]+)\]['\"]", text):
            assert f'".[{extra}]"' in text, f"{file}: quoted otherwise than in the README"
            assert all(re.search(rf"^{name} = \[", extras, re.MULTILINE) for name in extra.split(",")), (file, extra)
        if '".[app]"' in text:
            quoting.add(file.name)
            assert file == ROOT / "README.md" or words in " ".join(text.split()), f"{file}: not {words}"
    assert quoting == {"README.md", "using.md", "errors.md"}
    assert words.rpartition(": ")[2] in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_citation_file_names_the_paper() -> None:
    import yaml

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'license = "{cited["license"]}"' in project
    assert f'Paper = "{cited["preferred-citation"]["url"]}"' in project
    assert cited["cff-version"] == "1.2.0"
    assert cited["preferred-citation"]["url"].endswith("2601.16407")
    assert cited["preferred-citation"]["authors"][0]["family-names"] == "Liu"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert cited["preferred-citation"]["title"] in readme
