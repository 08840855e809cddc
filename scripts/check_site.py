"""Open every page of the built site in Chromium: ``make site``, or ``python scripts/check_site.py`` after ``mkdocs build``.

At a desk's width and at a phone's, no page may write an error to the console, ask any other host for anything, fail to find a
file of its own, or be wider than the window; and the search must find a name of the API.
"""

from __future__ import annotations

import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

SITE = Path(__file__).resolve().parents[1] / "site"
WIDTHS = (1280, 400)


class Quiet(SimpleHTTPRequestHandler):
    """Files of the site, without a line for each."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def faults(page: Page, address: str, url: str) -> list[str]:
    """What is wrong with a page that was opened."""
    found: list[str] = []
    page.on("console", lambda m: found.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda request: found.append(f"not found: {request.url[:200]}"))
    own = (address, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else found.append(f"asked {r.url[:200]}"))
    page.goto(address + url, wait_until="networkidle")
    wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return [*found, *([f"{wider} pixels wider than the window"] if wider > 0 else [])]


def main() -> None:
    """Print what is wrong, or how much was looked at."""
    chromium = shutil.which("chromium") or sys.exit("no chromium on the PATH")
    urls = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html") if p.name != "404.html")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address, wrong = f"http://127.0.0.1:{server.server_port}/", []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in WIDTHS:
            context = browser.new_context(viewport={"width": width, "height": 900})
            for url in urls:
                page = context.new_page()
                wrong += [f"{url} at {width}: {fault}" for fault in faults(page, address, url)]
                page.close()
            page = context.new_page()
            page.goto(f"{address}index.html?q=temperature_scope")
            page.wait_for_selector(".md-search-result__item a[href*='api/']", state="attached", timeout=20_000)
        browser.close()
    server.shutdown()
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(urls)} pages at {' and '.join(map(str, WIDTHS))} pixels: nothing wrong")


if __name__ == "__main__":
    main()
