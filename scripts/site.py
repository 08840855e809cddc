"""What the documentation site adds to ``docs/`` (an mkdocs hook): the README, tutorials, the API, files that pages link to.

The API's pages are made of ``tl_scopes/__init__.pyi``, where public names stand once: one for each folder. Links that leave
``docs/`` go to the page, or the file, that is in the site under its path in the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from make_api import folders
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

HOME = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "README.md": "index.md",
    "docs/api.md": "api/index.md",
    # the theme would make a section's own page of the first README in it, and leave it out of the list
    "benchmarks/README.md": "benchmarks/about.md",
    "tl_scopes/demo/model/README.md": "tl_scopes/demo/model/about.md",
    "tl_scopes/demo/demo-llama/README.md": "tl_scopes/demo/demo-llama/about.md",
}
LINK = re.compile(r"(\]\(|src=\"|srcset=\")([^)\"#:\s]+)(#[^)\"\s]*)?(?=[)\"])")


def on_config(config: Any) -> Any:
    """Fill in the lists of pages that are made here."""
    notebooks = sorted((HOME / "tutorials").glob("*.ipynb"))
    made = {
        "Tutorials": [
            "tutorials/README.md",
            *({p.stem[3:].replace("_", " ").capitalize(): f"tutorials/{p.name}"} for p in notebooks),
        ],
        "API": ["api/index.md", *({folder: f"api/{folder}.md"} for folder in folders())],
    }
    for section in config.nav:
        section |= {title: made[title] for title in section if title in made}
    return config


@event_priority(100)  # before the plugin that makes pages of notebooks
def on_files(files: Files, *, config: Any) -> Files:
    """Add what stands outside ``docs/``."""
    wanted = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
    for folder, kind in (("tutorials", "*.ipynb"), ("tutorials", "README.md"), ("benchmarks", "README.md")):
        wanted |= {
            path: _uri(path) for path in sorted(p.relative_to(HOME).as_posix() for p in (HOME / folder).glob(kind))
        }
    for path, uri in wanted.items():
        _add(files, config, uri, HOME / path)
    for uri, content in api_pages().items():
        files.append(File.generated(config, uri, content=content))
    for file in list(files.documentation_pages()):
        if file.src_uri.endswith(".md") and not file.src_uri.startswith("api/"):
            for target in _linked(file.content_string, _place(file.src_uri)):
                if files.get_file_from_path(_uri(target)) is None and (HOME / target).is_file():
                    _add(files, config, _uri(target), HOME / target)
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links as GitHub reads them into links of the site."""
    here = _place(page.file.src_uri)
    folder = posixpath.dirname(page.file.src_uri) or "."

    def turned(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, link[2]))
        if not (HOME / target).exists():
            return link[0]
        return f"{link[1]}{posixpath.relpath(_uri(target), folder)}{link[3] or ''}"

    return LINK.sub(turned, markdown)


def api_pages() -> dict[str, str]:
    """One page for each folder that has public names, and the list of them."""
    by_folder = folders()
    pages = {
        f"api/{folder}.md": f"# {folder}\n\n" + "\n".join(f"::: {name}" for name in names)
        for folder, names in by_folder.items()
    }
    rows = [
        f"| [{folder}]({folder}.md) | " + ", ".join(f"[`{n.rsplit('.', 1)[1]}`][{n}]" for n in names) + " |"
        for folder, names in by_folder.items()
    ]
    pages["api/index.md"] = "\n".join(
        [
            "# API",
            "",
            "`import tl_scopes as tls`; every name below is `tls.name`.",
            "",
            "| folder | names |",
            "|---|---|",
            *rows,
        ]
    )
    return pages


def _add(files: Files, config: Any, uri: str, path: Path) -> None:
    if uri == path.relative_to(HOME).as_posix():
        files.append(File(uri, str(HOME), config.site_dir, config.use_directory_urls))
    else:
        files.append(File.generated(config, uri, abs_src_path=str(path)))


def _place(uri: str) -> str:
    """The folder of the repository that a page of the site stands in."""
    if uri in ("index.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        return "."
    inside = (HOME / "docs" / uri).exists()
    return posixpath.join("docs", posixpath.dirname(uri)) if inside else posixpath.dirname(uri)


def _uri(target: str) -> str:
    """Where a file of the repository is in the site."""
    if target in ELSEWHERE:
        return ELSEWHERE[target]
    return target.removeprefix("docs/")


def _linked(markdown: str, here: str) -> list[str]:
    return [posixpath.normpath(posixpath.join(here, link[1])) for link in LINK.findall(markdown)]
