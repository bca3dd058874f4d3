"""Requests to addresses of callers' choosing reach the internet, and nothing of ours."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.trellis2_modal.service.outbound.network import PUBLIC, Network, Reply, network
from trellis2_modal.service.outbound.addresses import MAX_URL, resolve
from trellis2_modal.service.outbound.requests import Limits, Outbound, OutboundError, RefusedAddressError

LIMITS = Limits(seconds=10.0, size=1000)
PRIVATE = (
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.1", "192.0.2.1", "198.18.0.1"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    *("::1", "::", "fe80::1", "fe80::1%lo", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
)
"""Loopback, link-local, private, shared, reserved, multicast, documentation; also inside other forms."""


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as found:
        yield found


@pytest.mark.parametrize("address", PRIVATE)
def test_no_request_leaves_for_a_name_of_a_private_address(net: Network, address: str) -> None:
    net.names("other.example", [address])
    with pytest.raises(RefusedAddressError, match="private, local or reserved"):
        net.outbound().get("https://other.example/cat.png", "image_url", LIMITS)
    net.names("other.example", [PUBLIC, address])
    with pytest.raises(RefusedAddressError):
        net.outbound().post("https://other.example/hook", "callback_url", {}, b"{}", LIMITS)
    assert net.connected == []


@pytest.mark.parametrize("address", PRIVATE)
def test_no_request_leaves_for_a_private_address_itself(net: Network, address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(RefusedAddressError):
        net.outbound().get(f"https://{host}/cat.png", "image_url", LIMITS)
    assert net.connected == []


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0"])
def test_odd_names_of_loopback_are_seen_through(net: Network, host: str) -> None:
    outbound = Outbound(resolve, net.outbound().connect)
    with pytest.raises(RefusedAddressError):
        outbound.get(f"https://{host}:{net.port}/", "image_url", LIMITS)
    assert net.connected == []


@pytest.mark.parametrize(
    "url",
    [
        *("http://pictures.example/", "file:///etc/passwd", "ftp://pictures.example/", "pictures.example"),
        *(
            "https://",
            "https:///x",
            "https://user:word@pictures.example/",
            "https://pictures.example@127.0.0.1",
        ),
        *("https://127.0.0.1\\@pictures.example/", "https://pictures.example:99999/", "https://[::1/", ""),
        *("https://pictures.example/a b", "https://pictures.example/\r\nHost: x", "https://\u0131.example/"),
        *(
            "gopher://pictures.example/",
            "data:image/png;base64,aaaa",
            "https://pictures.example/" + "a" * MAX_URL,
        ),
    ],
)
def test_what_is_not_a_plain_https_url_is_refused(net: Network, url: str) -> None:
    with pytest.raises(RefusedAddressError) as caught:
        net.outbound().get(url, "image_url", LIMITS)
    assert caught.value.errors[0]["field"] == "image_url"
    assert net.connected == net.lookups == []


@pytest.mark.parametrize("address", [*PRIVATE[:12], "::1", "::ffff:10.0.0.1"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_private_address_is_not_followed(net: Network, status: int, address: str) -> None:
    net.names("other.example", [address])
    net.plan = lambda request: Reply(status, {"Location": "https://other.example/secret"})
    with pytest.raises(RefusedAddressError):
        net.outbound().get("https://pictures.example/cat.png", "image_url", LIMITS)
    assert (net.connected, len(net.received)) == ([PUBLIC], 1)


@pytest.mark.parametrize("location", ["http://pictures.example/", "//127.0.0.1/", "file:///etc/passwd", ""])
def test_a_redirect_to_elsewhere_is_not_followed(net: Network, location: str) -> None:
    net.plan = lambda request: Reply(302, {"Location": location})
    with pytest.raises((RefusedAddressError, OutboundError)):
        net.outbound().get("https://pictures.example/cat.png", "image_url", LIMITS)
    assert set(net.connected) == {PUBLIC}


def test_a_name_that_changes_its_address_is_not_asked_twice(net: Network) -> None:
    net.names("pictures.example", [PUBLIC], ["127.0.0.1"])
    net.plan = lambda request: Reply(body=b"cat")
    assert net.outbound().get("https://pictures.example/cat.png", "image_url", LIMITS).body == b"cat"
    assert (net.connected, net.lookups) == ([PUBLIC], ["pictures.example"])
    with pytest.raises(RefusedAddressError):
        net.outbound().get("https://pictures.example/cat.png", "image_url", LIMITS)
    assert net.connected == [PUBLIC]


def test_a_name_that_changes_between_redirects_is_checked_again(net: Network) -> None:
    net.names("pictures.example", [PUBLIC], ["10.0.0.1"])
    net.plan = lambda request: Reply(302, {"Location": "/again"})
    with pytest.raises(RefusedAddressError):
        net.outbound().get("https://pictures.example/cat.png", "image_url", LIMITS)
    assert net.connected == [PUBLIC]


def test_public_addresses_are_reached_through_redirects_with_nothing_of_ours(net: Network) -> None:
    net.names("other.example", ["2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
    elsewhere = {"/cat": Reply(301, {"Location": "https://other.example:8443/there?size=2"})}
    net.plan = lambda request: elsewhere.get(request.path, Reply(body=b"cat"))
    answer = net.outbound().get("https://pictures.example/cat", "image_url", LIMITS)
    assert (answer.status, answer.body, answer.whole) == (200, b"cat", True)
    assert [request.headers["host"] for request in net.received] == ["pictures.example", "other.example:8443"]
    assert net.received[1].path == "/there?size=2"
    sent = {name for request in net.received for name in request.headers}
    assert sent == {"host", "user-agent", "accept", "accept-encoding", "connection"}


def test_endless_redirects_end(net: Network) -> None:
    net.plan = lambda request: Reply(302, {"Location": "/again"})
    with pytest.raises(OutboundError, match="redirected more than 3 times"):
        net.outbound().get("https://pictures.example/", "image_url", LIMITS)
    assert len(net.received) == 4


def test_large_replies_are_not_read_to_their_end(net: Network) -> None:
    net.plan = lambda request: Reply(body=bytes(5000))
    answer = net.outbound().get("https://pictures.example/", "image_url", LIMITS)
    assert (len(answer.body), answer.whole) == (1000, False)


def test_a_reply_that_drips_is_cut_off(net: Network) -> None:
    net.plan = lambda request: Reply(body=bytes(500), drip=0.2)
    began = time.monotonic()
    with pytest.raises(OutboundError, match=r"did not answer within 0\.5 s"):
        net.outbound().get("https://pictures.example/", "image_url", Limits(0.5, 1000))
    assert time.monotonic() - began < 5


def test_a_reply_that_breaks_off_is_no_reply(net: Network) -> None:
    net.plan = lambda request: Reply(headers={"Content-Length": "900"}, body=b"cat")
    with pytest.raises(OutboundError, match="cannot be reached"):
        net.outbound().get("https://pictures.example/", "image_url", LIMITS)


def test_a_host_without_a_trusted_certificate_gets_no_request(net: Network) -> None:
    net.names("stranger.example", [PUBLIC])
    with pytest.raises(OutboundError, match="no certificate"):
        net.outbound().get("https://stranger.example/", "image_url", LIMITS)
    with pytest.raises(OutboundError, match="no certificate"):
        Outbound(net.outbound().resolve, net.outbound().connect).get(
            "https://pictures.example/", "image_url", LIMITS
        )
    assert net.received == []


def test_the_next_address_of_a_name_is_tried(net: Network) -> None:
    net.names("pictures.example", ["93.184.215.13", PUBLIC])
    inner = net.outbound()

    def connect(address: str, port: int, seconds: float) -> socket.socket:
        if address != PUBLIC:
            raise ConnectionRefusedError
        return inner.connect(address, port, seconds)

    answer = Outbound(inner.resolve, connect, inner.tls).get("https://pictures.example/", "image_url", LIMITS)
    assert answer.status == 200
    net.names("pictures.example", ["93.184.215.13"])
    with pytest.raises(OutboundError, match="cannot be reached"):
        Outbound(inner.resolve, connect, inner.tls).get("https://pictures.example/", "image_url", LIMITS)
