"""The table of figures: `python -m tests.trellis2_modal.attacks [--small] [--only NAME ...]`.

It ends with status 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.trellis2_modal.attacks.grammars import GRAMMARS, case
from tests.trellis2_modal.attacks.histories import make_history
from tests.trellis2_modal.attacks.kills import Amount, kill_at_random
from tests.trellis2_modal.attacks.payloads import hostile_pictures, state_bomb
from tests.trellis2_modal.browser.app import AppProcess
from tests.trellis2_modal.server import ServerProcess, wait_for
from trellis2_modal.client.history import History

MIB = 1 << 20
Figure = tuple[bool, str]
"""Whether the bound is met, and what was measured."""


class Target:
    """A server in a process of its own, and a key."""

    def __init__(self, folder: Path) -> None:
        self.server = ServerProcess(folder, max_active_jobs=1000, queue_limit=1000)
        self.id, self.key = self.server.admin.create(
            "attacker", requests_per_minute=1_000_000, gpu_seconds_per_day=1e6
        )
        self.server.start(60)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.server.url, headers={"X-API-Key": self.key}, timeout=120)

    def peak_mib(self) -> float:
        """Peak resident memory of the server's process (Linux)."""
        assert self.server._process is not None
        text = Path(f"/proc/{self.server._process.pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0]) / 1024

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.server.port

    def at_once(self, calls: list[Callable[[httpx.Client], int]]) -> Counter[int]:
        """Replies by status to calls that are made in parallel."""
        found: Counter[int] = Counter()

        def make(call: Callable[[httpx.Client], int]) -> None:
            with self.client() as client:
                found[call(client)] += 1

        threads = [threading.Thread(target=make, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        return found


class Pulse:
    """Polls /health while something else happens; `worst` is the longest reply in seconds."""

    def __init__(self, target: Target) -> None:
        self._target, self._over = target, threading.Event()
        self.worst, self.count = 0.0, 0
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _poll(self) -> None:
        with httpx.Client(base_url=self._target.server.url, timeout=60) as client:
            while not self._over.wait(0.05):
                start = time.perf_counter()
                client.get("/health").raise_for_status()
                self.worst, self.count = max(self.worst, time.perf_counter() - start), self.count + 1


def pictures(target: Target, small: bool) -> Figure:
    """Hostile pictures of up to 24 MB, 20 at once."""
    found = list(hostile_pictures(MIB if small else 24 * MIB - 4096).values())
    found = [found[n % len(found)] for n in range(20)]
    with Pulse(target) as pulse:
        replies = target.at_once(
            [lambda c, data=data: c.post("/jobs", files={"image": data}).status_code for data in found]
        )
    assert not any(status >= 500 and status != 503 for status in replies), replies
    figure = f"/health at worst {pulse.worst:.3f} s in {pulse.count} polls; replies {dict(replies)}"
    return pulse.worst <= 0.5, figure


def bombs(target: Target, small: bool) -> Figure:
    """States of 3 MB that stand for 700 MB, 3 and then 30 at once."""
    bomb = base64.b64encode(state_bomb((64 if small else 700) * MIB)).decode()
    body = json.dumps({"kind": "extract", "state": bomb}).encode()
    headers = {"Content-Type": "application/json"}
    told, most = [], 0.0
    for count in (3, 10 if small else 30):
        before = target.peak_mib()
        replies = target.at_once(
            [lambda c: c.post("/jobs", content=body, headers=headers).status_code] * count
        )
        grown = target.peak_mib() - before
        most = max(most, grown)
        told.append(f"{count}: +{grown:.0f} MiB {dict(replies)}")
    return most <= 300, f"{len(body) / MIB:.1f} MiB each; " + "; ".join(told)


def revoked(target: Target, small: bool) -> Figure:
    """Requests of a key after it was revoked, 8 at once."""
    admin = target.server.admin
    with httpx.Client(base_url=target.server.url) as client:
        assert client.get("/usage", headers={"X-API-Key": target.key}).status_code == 200
    admin.revoke(target.id.id)
    replies: Counter[int] = Counter()
    for _ in range(30):
        replies += target.at_once([lambda c: c.get("/usage").status_code] * 8)
    passed = sum(count for status, count in replies.items() if status != 401)
    return passed == 0, f"{passed} of {sum(replies.values())} passed"


def heads(target: Target, small: bool) -> Figure:
    """Connections that send half a second head, open 30 s later."""
    count = 50 if small else 200
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(target.address())) for _ in range(count)]
        for connection in held:
            connection.settimeout(30)
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.recv(65536)
            connection.sendall(b"GET /health HT")
        end, still = time.monotonic() + 30, 0
        for connection in held:
            connection.settimeout(max(0.01, end - time.monotonic()))
            try:
                while connection.recv(65536):  # the rest of the first reply, then the end
                    pass
            except TimeoutError:
                still += 1
            except ConnectionError:
                continue
    return still == 0, f"{still} of {count} open"


def fuzz(target: Target, small: bool) -> Figure:
    """Headers and forms by their grammars, with what does not belong there."""
    replies: Counter[int] = Counter()
    worst = []
    count = 40 if small else 2_000
    for name in GRAMMARS:
        rng = random.Random(name)
        for number in range(count):
            status = send(target.address(), case(name, rng, target.key))
            replies[status] += 1
            if status >= 500:
                worst.append(f"{name} {number}: {status}")
    figure = f"{len(worst)} x 5xx in {sum(replies.values())} ({worst[:5]}); {dict(sorted(replies.items()))}"
    return not worst, figure


def send(address: tuple[str, int], request: bytes) -> int:
    """The status that a request gets; 0 when the connection is closed, or silent, without one."""
    with socket.create_connection(address, timeout=3) as connection:
        try:
            connection.sendall(request)
            reply = connection.recv(64)
        except (ConnectionError, TimeoutError):  # the server waits for the body that was announced
            return 0
    return int(reply.split()[1]) if reply.startswith(b"HTTP/1.1 ") else 0


def history(target: Target, small: bool) -> Figure:
    """The app with a history of 2,000 entries of which 30 are damaged, and no service."""
    count, damaged = (200, 21) if small else (2_000, 30)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        whole = make_history(home / "history", count, damaged)
        began = time.perf_counter()
        shown = History(home / "history")
        seconds = time.perf_counter() - began
        assert [entry.id for entry in shown.entries()] == whole[::-1]
        app = AppProcess(home, "--url", "http://127.0.0.1:9", "--key", "sk_x")
        try:
            address = app.start()
            page = httpx.get(address, timeout=60)
            started = time.monotonic() - app.began
        finally:
            app.stop()
    reported = sum("it is left alone" in line for line in app.lines)
    met = (len(whole), reported, page.status_code) == (count - damaged, damaged, 200)
    return met, (
        f"{len(whole)} of {count} shown, {reported} of {damaged} damaged ones reported; read in "
        f"{seconds:.2f} s, page {page.status_code} {started:.1f} s after the start"
    )


def kills(target: Target, small: bool) -> Figure:
    """Callers go on while the server and its worker are killed 60 times each."""
    amount = Amount(jobs=40, server_kills=4, worker_kills=4) if small else Amount()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = kill_at_random(Path(folder), amount)
    faults = (found.lost, found.twice, found.told_to_others, found.strays)
    return not any(faults), (
        f"{found.accepted} jobs {dict(Counter(found.ends.values()))} in {time.perf_counter() - began:.0f} s: "
        f"{len(found.lost)} lost, {len(found.twice)} twice, {len(found.told_to_others)} told to others, "
        f"{len(found.strays)} stray folders; the model ran {found.again} times again"
    )


ATTACKS: dict[str, Callable[[Target, bool], Figure]] = {
    "pictures": pictures,
    "bombs": bombs,
    "fuzz": fuzz,
    "heads": heads,
    "revoked": revoked,
    "history": history,
    "kills": kills,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="smaller amounts, for a look")
    parser.add_argument("--only", nargs="*", choices=ATTACKS, default=list(ATTACKS))
    chosen = parser.parse_args()
    failed = []
    for name in chosen.only:
        with tempfile.TemporaryDirectory() as folder:
            target = Target(Path(folder))
            try:
                met, figure = ATTACKS[name](target, chosen.small)
                print(f"{name:10} {'met   ' if met else 'MISSED'} {figure}", flush=True)
                failed += [] if met else [name]
                wait_for(target.server.healthy, "the server's health afterwards")
            finally:
                target.server.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
