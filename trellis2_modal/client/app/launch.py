"""The desktop web app as a process: one task queue, one page over it, served on this machine.

`run` serves it until a signal; `make_app` is the ASGI app. What is on the page is in `page`, which imports
Gradio; nothing here does before it is asked to.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import socket
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...jobs.locks import FileLock, private_folder
from ...sockets import EVERY_ADDRESS, address_of, is_loopback, listen, network_addresses, url_of
from ..errors import AppRunsError
from ..options import ProxyToken
from ..settings import home
from .file_routes import STATIC, Mattes, make_routes
from .gate import PASSWORD_VARIABLE, Gate
from .inputs import cutouts, received
from .task_queue import TaskQueue

logger = logging.getLogger(__name__)

MAX_UPLOAD = "1mb"
"""Of Gradio's own uploads, which no part of the page uses."""

LETTERS = "abcdefghjkmnpqrstuvwxyz"
SHORTEST_PASSWORD = 8

LOCK, ADDRESS = "app.lock", "app.url"


@dataclass(frozen=True)
class Shared:
    """Where other machines find the app, and the password that was made for them; "" where one was set."""

    addresses: list[str]
    password: str


def run(
    host: str = "127.0.0.1",
    port: int = 7860,
    browser: bool = True,
    url: str | None = None,
    key: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    listening: Callable[[str], None] = lambda address: None,
    proxy_token: ProxyToken | None = None,
    shared: Callable[[Shared], None] = lambda shared: None,
) -> None:
    """Serve the app until a signal; `listening` is told its address, `shared` how other machines get in.

    One app works at a history at a time: raises `AppRunsError` when another one does, when the port is
    taken, and when the password is too short. Raises OSError when the data folder cannot be written.
    """
    import uvicorn

    root = home()
    private_folder(root)
    password, made = os.environ.get(PASSWORD_VARIABLE, ""), ""
    if not is_loopback(host):
        if 0 < len(password) < SHORTEST_PASSWORD:
            raise AppRunsError(
                f"{PASSWORD_VARIABLE} has {len(password)} characters; for other machines it needs "
                f"{SHORTEST_PASSWORD} or more"
            )
        made = "" if password else new_password()
        password = password or made
    lock = FileLock(root / LOCK)
    with _listen(host, port) as listener:
        port = listener.getsockname()[1]
        everywhere = host in EVERY_ADDRESS
        address = address_of(listener, host)
        try:
            lock.acquire()
        except TimeoutError:
            raise AppRunsError(f"the app is already open at {_other_address(root)}") from None
        shutil.rmtree(root / received.CACHE, ignore_errors=True)  # uploads and copies of earlier sessions
        task_queue = TaskQueue(
            root, url=url, key=key, weights=weights, device=device, proxy_token=proxy_token
        )
        try:
            (root / ADDRESS).write_text(address)
            app = make_app(task_queue, host, password)
            config = uvicorn.Config(
                app, log_level="warning", access_log=False, timeout_graceful_shutdown=3, ws="none"
            )
            listening(address)
            if not is_loopback(host):
                others = network_addresses() if everywhere else [host]
                shared(Shared([address_of(listener, name) for name in others], made))
            if browser:
                threading.Timer(0.3, webbrowser.open, (address,)).start()
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            task_queue.close()
            (root / ADDRESS).unlink(missing_ok=True)
            lock.release()


def new_password() -> str:
    """Three groups of four letters, 50 bits, that are easily typed on a phone."""
    groups = ("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(3))
    return "-".join(groups)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `AppRunsError` when something else has the port."""
    try:
        return listen(host, port)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise AppRunsError(
            f"port {port} is taken, perhaps by this app in another window: open {url_of(host, port)}, "
            "or choose another port (0 finds a free one)"
        ) from error


def _other_address(root: Path) -> str:
    try:
        return (root / ADDRESS).read_text()
    except OSError:
        return "another port"


def make_app(task_queue: TaskQueue, host: str = "127.0.0.1", password: str = "") -> Any:
    """The ASGI app: the page, and the files that it shows; a `password` is asked for unless empty.

    Raises ValueError where it is empty and other machines would get in.
    """
    if not password and not is_loopback(host):
        raise ValueError(f"listening on {host} needs a password")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("GRADIO_TEMP_DIR", str(task_queue.root / received.CACHE))
    import gradio as gr
    from fastapi import FastAPI

    from ..inputs.pictures import EXAMPLES, example_pictures
    from .page import build
    from .theme import CSS, head, make_theme

    mattes = Mattes()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.router.routes += make_routes(task_queue.history, mattes, example_pictures())
    app.router.routes += received.make_routes(received.PictureTray(task_queue.root / received.FOLDER))
    app.router.routes += cutouts.make_routes(
        received.PictureTray(task_queue.root / received.FOLDER),
        mattes,
        task_queue.matte,
        lambda: task_queue.service.local,
    )
    files = [Path(os.environ["GRADIO_TEMP_DIR"]), EXAMPLES]
    app.add_middleware(Gate, host=host, files=files, password=password)
    return gr.mount_gradio_app(
        app,
        build(task_queue, mattes),
        path="/",
        theme=make_theme(),
        css_paths=CSS,
        head=head(),
        favicon_path=str(STATIC / "favicon.svg"),
        allowed_paths=[str(task_queue.history.root), str(EXAMPLES)],
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=True,
    )


__all__ = ["make_app", "run"]
