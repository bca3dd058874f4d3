"""Names and sites that the local server answers to: DNS rebinding and pages of others."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal.server import running
from tests.trellis2_modal.service.test_api import problem
from trellis2_modal.sockets import address_of, listen

PATHS = ("/health", "/docs", "/usage", "/jobs", "/jobs/job_x/events")


def test_a_name_that_somebody_else_points_here_reaches_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as live, live.client() as client:
        own = (
            f"{name}:8188"
            for name in ("localhost", "127.0.0.1", "[::1]", "192.168.0.9", socket.gethostname())
        )
        for host in own:
            assert client.get("/health", headers={"Host": host}).status_code == 200, host
        for host in ("evil.example", "evil.example:8188", "127.0.0.1.evil.example"):
            for path in PATHS:
                problem(client.get(path, headers={"Host": host}), 421, "misdirected")
        told = problem(client.get("/health", headers={"Host": "api.example"}), 421, "misdirected").detail
        assert "'api.example'" in told
        assert "TRELLIS2_HOSTS" in told


def test_pages_of_other_sites_are_not_answered(tmp_path: Path) -> None:
    with running(tmp_path, cors_origins=("https://mine.example",)) as live, live.client() as client:
        own = live.url
        for origin in (own, "https://mine.example"):
            assert client.get("/usage", headers={"Origin": origin}).status_code == 200
        for origin in ("https://evil.example", "null", "http://127.0.0.1:9", "http://["):
            for path in PATHS:
                problem(client.get(path, headers={"Origin": origin}), 421, "misdirected")
            problem(client.post("/matte", headers={"Origin": origin}, content=b"x"), 421, "misdirected")


def test_the_operator_lets_every_site_in(tmp_path: Path) -> None:
    with running(tmp_path, cors_origins=("*",)) as live, live.client() as client:
        answer = client.get("/usage", headers={"Origin": "https://any.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize("names", [("api.example",), ("*",)])
def test_the_operator_adds_names(tmp_path: Path, names: Any) -> None:
    with running(tmp_path, hosts=names) as live, live.client() as client:
        assert client.get("/health", headers={"Host": "API.example"}).status_code == 200
        status = client.get("/health", headers={"Host": "other.example"}).status_code
        assert status == (200 if "*" in names else 421)


@pytest.mark.parametrize(
    ("host", "address"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("127.0.0.1", "127.0.0.1")]
)
def test_clients_here_reach_what_listens_everywhere_by_loopback(host: str, address: str) -> None:
    try:
        listener = listen(host, 0)
    except OSError:
        pytest.skip(f"no {host} here")
    with listener:
        url = address_of(listener, host)
        assert url == f"http://{address}:{listener.getsockname()[1]}"
