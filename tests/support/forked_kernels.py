"""Kernels of notebooks at the price of what libraries take to be imported once: forked from one process that has imported
them, and nothing of this package.

    with forked_kernels.named(folder) as name:
        NotebookClient(notebook, kernel_name=name).execute()

What Jupyter starts is this file, which asks that process for a kernel and lives as long as it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NAME = "forked"


@contextlib.contextmanager
def named(folder: Path) -> Iterator[str]:
    """The name of such a kernel; Jupyter finds it where ``JUPYTER_PATH`` is the folder."""
    place = folder / "kernels" / NAME
    place.mkdir(parents=True)
    path = str(folder / "socket")
    spec = {
        "argv": [sys.executable, "-S", __file__, path, "{connection_file}"],
        "display_name": NAME,
        "language": "python",
    }
    (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    server = subprocess.Popen([sys.executable, __file__, path], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield NAME
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def serve(path: str) -> None:
    import transformer_lens.model_bridge  # noqa: F401
    from ipykernel.kernelapp import IPKernelApp

    assert "tl_scopes" not in sys.modules
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            asked, _ = server.accept()
            file = asked.recv(4096).decode()
            if not os.fork():
                break  # `asked` is closed when this kernel ends
            asked.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    IPKernelApp.launch_instance(["-f", file])


def ask(path: str, connection_file: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Jupyter's first word at the end
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        server.sendall(connection_file.encode())
        server.recv(1)


if __name__ == "__main__":
    (serve if len(sys.argv) == 2 else ask)(*sys.argv[1:])
