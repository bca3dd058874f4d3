"""A small internet for tests: names, an HTTPS server on this machine behind every public address, and a
record of each connection that was tried.

`test_only.pem` is a certificate of names ending in `.example` and its key, made for these tests alone.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from trellis2_modal.service.outbound.requests import Outbound

CERTIFICATE = Path(__file__).with_name("test_only.pem")
PUBLIC = "93.184.215.14"
NAMES = ("pictures.example", "hooks.example", "other.example")


@dataclass(frozen=True)
class Received:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What is sent back; `drip` sends the body's bytes one by one, so many seconds apart."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    drip: float = 0.0


@dataclass
class Network:
    """`answers` are what names resolve to, one after the other, the last for ever; `plan` makes replies."""

    port: int
    answers: dict[str, deque[Sequence[str]]]
    plan: Callable[[Received], Reply] = lambda request: Reply()
    received: list[Received] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def outbound(self) -> Outbound:
        tls = ssl.create_default_context(cafile=CERTIFICATE)
        return Outbound(self._resolve, self._connect, tls)

    def names(self, host: str, *answers: Sequence[str]) -> None:
        self.answers[host] = deque(answers)

    def _resolve(self, host: str, port: int) -> Sequence[str]:
        self.lookups.append(host)
        if host not in self.answers:  # an address: the system's resolver needs no network for it
            return [
                str(entry[4][0])
                for entry in socket.getaddrinfo(
                    host, port, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM
                )
            ]
        answers = self.answers[host]
        return answers.popleft() if len(answers) > 1 else answers[0]

    def _connect(self, address: str, port: int, seconds: float) -> socket.socket:
        self.connected.append(address)
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)


@contextmanager
def network() -> Iterator[Network]:
    """The server runs until the block ends."""
    found: list[Network] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            net = found[0]
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Received(self.command, self.path, headers, body)
            net.received.append(request)
            reply = net.plan(request)
            self.send_response(reply.status)
            for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            try:
                if not reply.drip:
                    self.wfile.write(reply.body)
                for byte in reply.body if reply.drip else b"":
                    self.wfile.write(bytes([byte]))
                    if net.ended.wait(reply.drip):
                        return
            except OSError:
                return  # the caller has hung up

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Tests print nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A caller that does not trust the certificate hangs up."""

    server = Server(("127.0.0.1", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    names = {name: deque([[PUBLIC]]) for name in NAMES}
    found.append(Network(server.server_port, names))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield found[0]
    finally:
        found[0].ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
