"""The command ``app``; the web server is an optional extra, imported when the command runs."""

from __future__ import annotations

import socket
import sys
import threading
import webbrowser
from typing import Any

from tl_scopes.cli import options
from tl_scopes.cli.support import load_model, require_models
from tl_scopes.numerics.extras import how_to_install

LOCAL = "127.0.0.1"


def serve(
    port: options.Port = 8600,
    host: options.Host = LOCAL,
    browser: options.Browser = True,
    model: options.Models = None,
    kind: options.Kind = "auto",
    device: options.Device = None,
) -> None:
    """Explain texts in the browser: a local web app, on this machine alone."""
    try:
        import uvicorn

        from tl_scopes.app.guard import is_loopback
        from tl_scopes.app.server import create_app
    except ImportError as missing:
        if missing.name not in ("starlette", "uvicorn", "anyio"):
            raise
        raise ValueError(f"{missing.name} is not installed; {how_to_install('app')}") from missing
    names = list(dict.fromkeys(model or ["demo"]))
    require_models(names, kind, device)
    listener = _listen(host, port)
    with listener:
        from tl_scopes.app.workbench import Workbench

        bench = Workbench({name: load_model(name, kind, device) for name in names})
        shown = LOCAL if host in ("0.0.0.0", "::") else host
        url = f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}/"
        print(f"tl_scopes runs at {url} (Ctrl+C ends it)", flush=True)
        if not is_loopback(host):
            print(
                f"warning: --host {host} lets others on the network use these models and read the texts on screen; "
                "there is no password",
                file=sys.stderr,
            )
        if browser:
            threading.Timer(0.5, webbrowser.open, [url]).start()
        config: Any = uvicorn.Config(
            create_app(bench, host), log_level="warning", access_log=False, server_header=False
        )
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """The socket, taken before the models are loaded, so that a mistake shows at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ValueError(
            f"cannot listen on {host} port {port}: {error.strerror or error}. Choose another --port; 0 takes a free one"
        ) from error
    return listener
