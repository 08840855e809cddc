"""The app's HTTP side: a page, its files, and questions as JSON.

====  =======================  ====================================================================
GET   ``/``                    the page; ``/app.css``, ``/app.js``, ``/views.css``, ``/views.js``
GET   ``/api/options``         models, methods, examples
POST  ``/api/explain``         a question to an answer: id, tokens, predictions, picture
POST  ``/api/matrix``          the same for all targets of the text; ``/api/layers``, ``/api/heads`` inside the model
POST  ``/api/chain``           what the model writes after the text, followed back through its steps
POST  ``/api/verdict``         whether the answer's strongest tokens matter, measured by removing them
POST  ``/api/open``            a saved attribution to an answer
GET   ``/api/view/{id}``       the same answer shown otherwise: ``?unit=word&specials=0&scale=log``
GET   ``/download/{id}.html``  the standalone page; ``.json`` is what ``Attribution.save`` writes
====  =======================  ====================================================================

A mistake is ``{"error": message}`` with status 400, an unknown address or id 404, anything unforeseen 500 without a trace.
Who hangs up, or asks anew from the same page, stops the work on the old question.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, get_args

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tl_scopes.app.guard import MOST_BYTES, Guard
from tl_scopes.app.question import Question
from tl_scopes.app.workbench import AS_GIVEN, Forgotten, Result, Scale, Wanted, Workbench
from tl_scopes.numerics.stopping import Stopped
from tl_scopes.results.attribution import Attribution
from tl_scopes.results.chain import Chain
from tl_scopes.results.matrix import AttributionMatrix
from tl_scopes.results.units import UnitKind, members
from tl_scopes.views.canvas.page import drawing_code, own_file
from tl_scopes.views.wording import said_together

_FILES: dict[str, tuple[str, Callable[[], str]]] = {
    "/": ("text/html", lambda: _file("page.html")),
    "/app.css": ("text/css", lambda: _file("app.css")),
    "/app.js": ("text/javascript", lambda: _file("app.js")),
    "/views.css": ("text/css", lambda: own_file("style.css")),
    "/views.js": ("text/javascript", drawing_code),
}
_LOG = logging.getLogger(__name__)


def create_app(workbench: Workbench, host: str = "127.0.0.1") -> Guard:
    """The ASGI application; ``host`` is the address it is bound to, whose name requests may carry.

    >>> from tl_scopes.app.workbench import Workbench
    >>> create_app(Workbench({"demo": model})).app.routes[0].path
    '/'
    """
    routes = [Route(path, _sends(*file)) for path, file in _FILES.items()]
    api = _Api(workbench)
    routes += [
        Route("/api/options", api.options),
        *(
            Route(f"/api/{name}", api.asks(compute), methods=["POST"])
            for name, compute in {
                "explain": workbench.explain,
                "matrix": workbench.matrix,
                "layers": workbench.layers,
                "heads": workbench.heads,
                "verdict": workbench.verdict,
                "chain": workbench.chain,
            }.items()
        ),
        Route("/api/open", api.open, methods=["POST"]),
        Route("/api/view/{key}", api.view),
        Route("/download/{key}.{kind}", api.download),
    ]
    handlers: dict[Any, Any] = {
        ValueError: _mistake,
        TypeError: _mistake,
        NotImplementedError: _mistake,
        Forgotten: _gone,
        Stopped: _left,
        ClientDisconnect: _left,
        HTTPException: _http,
        Exception: _unforeseen,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), host)


class _Api:
    """What the page asks for; all work is done in a thread, so that the server answers meanwhile."""

    def __init__(self, workbench: Workbench) -> None:
        self.workbench = workbench

    async def options(self, request: Request) -> Response:
        return JSONResponse(self.workbench.options())

    def asks(self, compute: Callable[[Question, Wanted], str]) -> Callable[[Request], Awaitable[Response]]:
        """The route of one kind of question."""

        async def route(request: Request) -> Response:
            question = Question.of(await _json(request))
            async with _connected(request) as wanted:
                key = await run_in_threadpool(compute, question, wanted)
            return await self._answer(key, request)

        return route

    async def open(self, request: Request) -> Response:
        text = await _text(request)
        return await self._answer(await run_in_threadpool(self.workbench.open, text), request)

    async def view(self, request: Request) -> Response:
        return await self._answer(request.path_params["key"], request)

    async def download(self, request: Request) -> Response:
        key, kind = request.path_params["key"], request.path_params["kind"]
        how = _how(request)
        if kind == "html":
            body = (await run_in_threadpool(lambda: self.workbench.view(key, **how).html())).encode("utf-8")
        elif kind == "json":
            body = await run_in_threadpool(lambda: self.workbench.saved(key, specials=how["specials"]))
        else:
            raise HTTPException(404)
        name = f"tl_scopes-{self.workbench.result(key).method}.{kind}"
        media = {"html": "text/html", "json": "application/json"}[kind]
        return Response(body, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}"'})

    async def _answer(self, key: str, request: Request) -> Response:
        how = _how(request)

        def made() -> dict[str, Any]:
            shown = self.workbench.result(key, unit=how["unit"], specials=how["specials"])
            return {
                "id": key,
                "html": self.workbench.view(key, **how).body,
                **_facts(shown, self.workbench.result(key)),
            }

        return JSONResponse(await run_in_threadpool(made))


@asynccontextmanager
async def _connected(request: Request) -> AsyncIterator[Wanted]:
    """Is the one who asked still there? A page that asks anew, or is closed, hangs up."""
    left = threading.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left.set()

    watching = asyncio.create_task(watch())
    try:
        yield lambda: not left.is_set()
    finally:
        watching.cancel()


def _facts(result: Result, by_token: Result) -> dict[str, Any]:
    """What the page needs besides the picture: where a click on a token, a word or a prediction leads."""
    if not isinstance(result, Attribution) or not isinstance(by_token, Attribution):
        return {
            "kind": "chain" if isinstance(result, Chain) else "picture",
            "method": result.method,
            "units": isinstance(result, AttributionMatrix),
            "turns": False,
            "specials": not isinstance(result, AS_GIVEN),
            "length": len(result.tokens) if isinstance(result, Chain) else None,
        }
    units = members(result.details)
    return {
        "kind": "attribution",
        "units": True,
        "turns": bool(by_token.units) and by_token.offsets is not None,
        "specials": True,
        "method": result.method,
        "prompt": by_token.text,
        "pos": by_token.pos,
        "asked": _asked(by_token),
        "tokens": result.tokens.tolist(),
        "first": [unit[0] for unit in units] if units else list(range(len(result))),
        "predictions": [
            {"text": text, "id": token}
            for (text, _), token in zip(result.top_predictions, result.top_tokens, strict=False)
            if not said_together(result)[0]  # of an answer the list has its own tokens
        ],
        "target": result.target,
        "target_text": result.target_str,
        "frozen": list(result.details.get("frozen", ())),
    }


def _asked(result: Attribution) -> dict[str, Any]:
    """The text and the position that were asked about: an answer that was put behind the text is a target."""
    if result.text is None or not result.answer or not result.offsets:
        return {"prompt": result.text, "pos": result.pos}
    return {"prompt": result.text[: result.offsets[min(result.answer)][0]], "pos": -1}


def _how(request: Request) -> dict[str, Any]:
    """How a result is shown, from the address."""
    asked = request.query_params
    scale: Scale = asked.get("scale", "auto")  # type: ignore[assignment]
    unit = asked.get("unit") or ("word" if asked.get("words") == "1" else None)  # the older address
    if unit not in (None, *get_args(UnitKind)):
        raise ValueError(f"view(unit={unit!r}): expected one of {', '.join(get_args(UnitKind))}")
    return {"unit": unit, "specials": asked.get("specials") != "0", "scale": scale}


async def _text(request: Request) -> str:
    """The body of a request, read no further than allowed."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"A request may have {MOST_BYTES // 2**20} MB at most")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"This is not text in UTF-8: {error}") from error


async def _json(request: Request) -> Any:
    try:
        return json.loads(await _text(request))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"The request is not JSON: {error}") from error


def _sends(media: str, text: Callable[[], str]) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        return Response(text(), media_type=media)

    return send


def _file(name: str) -> str:
    return (files("tl_scopes.app") / name).read_text(encoding="utf-8")


# -- errors ------------------------------------------------------------------------------------------------


async def _mistake(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": " ".join(str(error).split())}, 400)


async def _gone(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error.args[0])}, 404)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _http(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code)


async def _unforeseen(request: Request, error: Exception) -> Response:
    _LOG.error("unforeseen", exc_info=error)
    return JSONResponse({"error": f"Unforeseen: {type(error).__name__}. The terminal of tl-scopes app has more"}, 500)
