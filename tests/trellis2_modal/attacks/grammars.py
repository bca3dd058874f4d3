"""Requests by the grammar of one header or of a form, with what does not belong there, drawn at random."""

from __future__ import annotations

import random

ODD = [
    "²",
    "\xa0",
    "\x7f",
    "é",
    "\xff",
    "0x10",
    "-1",
    "1e9",
    "9" * 30,
    "",
    " ",
    ";",
    ",",
    '"',
    "\\",
    "=",
    "%00",
]
CHARSETS = [
    "utf-7",
    "utf-16",
    "undefined",
    "punycode",
    "idna",
    "unicode_escape",
    "raw_unicode_escape",
    "latin-1",
    "utf-8",
    "UTF8",
    "rot13",
    "hex",
    "zlib",
    "base64",
    "mbcs",
    "no-such",
    "utf-8ÿ",
]
CONTENTS = [
    b"+2AA-",
    b"\\ud800",
    b"\xff",
    b"\xed\xa0\x80",
    b"a-b-c",
    b"xn--a",
    b"",
    b"42",
    b"true",
    b"1" * 400,
]

GRAMMARS = {
    "last-event-id": ["1", "7", "000", "123456789012", "1234567890123"],
    "range": ["bytes=0-9", "bytes=-5", "bytes=5-", "bytes=9-1", "bytes=0-1,3-4", "lines=1-2"],
    "if-range": ['"x"', 'W/"x"', "Mon, 01 Jan 2024 00:00:00 GMT"],
    "if-none-match": ['"x"', "*", 'W/"x", "y"'],
    "accept": [
        "*/*",
        "text/event-stream",
        "application/json;q=0.1",
        "model/gltf-binary;q=nan",
        "a/b;q=1e400",
    ],
    "prefer": ["respond-async", "wait=10", "respond-async, wait=1"],
    "idempotency-key": ["chair-1", "a" * 200, "a" * 201],
    "x-request-id": ["abc", "a" * 64, "a" * 65],
    "x-api-key": ["sk_x", "sk_" + "a" * 43, "a" * 300],
    "query": ["limit=1", "before=job_1", "limit=1&limit=2", "limit=%b2", "before=%ff%fe", "before=%00"],
    "path": [
        "/jobs/job_1",
        "/jobs/%ff",
        "/jobs/%00/glb",
        "/jobs/../usage",
        "/jobs/job_1/state",
        "//x",
        "/jobs/",
    ],
    "content-type": ["application/json", "multipart/form-data; boundary=b", "multipart/form-data"],
    "form": ["kind", "seed", "image", "state", "preview", "job"],
    "content-length": ["0", "2", "5", "+2", "2, 2", "0x2"],
}


def case(name: str, rng: random.Random, key: str) -> bytes:
    """One request of a grammar."""
    word = _mutated(rng, rng.choice(GRAMMARS[name]))
    path, method, body = "/usage", "GET", b""
    headers = {"Host": "localhost", "X-API-Key": key, "Connection": "close"}
    if name == "query":
        path = "/jobs?" + _target(word)
    elif name == "path":
        path = _target(word)
    elif name in ("last-event-id", "range", "if-range", "if-none-match"):
        path = "/jobs/job_1/events" if name == "last-event-id" else "/jobs/job_1/glb"
        headers[name] = word
    elif name in ("accept", "prefer", "idempotency-key"):
        path, method, body = "/extract_glb", "POST", b'{"job":"job_1"}'
        headers |= {name: word, "Content-Type": "application/json"}
    elif name == "content-length":
        method, path, body = "POST", "/jobs", b"{}"
        headers |= {"Content-Type": "application/json", "Content-Length": word}
    elif name in ("content-type", "form"):
        method, path = "POST", "/jobs"
        charset = f"; charset={rng.choice(CHARSETS)}" if rng.random() < 0.6 else ""
        headers["Content-Type"] = (
            word if name == "content-type" else "multipart/form-data; boundary=b"
        ) + charset
        body = _form(rng, word if name == "form" else "seed")
    else:
        headers[name] = word
    if body and "Content-Length" not in headers:
        headers["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{header}: {value}" for header, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


def _mutated(rng: random.Random, word: str) -> str:
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        at = rng.randrange(len(word) + 1)
        word = word[:at] + rng.choice(ODD) + word[at + rng.choice((0, 0, 1)) :]
    return word


def _target(word: str) -> str:
    return word.replace(" ", "%20").replace("\r", "").replace("\n", "")


def _form(rng: random.Random, name: str) -> bytes:
    parts = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        extra = rng.choice(
            ["", '; filename="a"', "; filename*=utf-8''%ff", "; filename*=undefined''x", ";;;"]
        )
        disposition = f'Content-Disposition: form-data; name="{_mutated(rng, name)}"{extra}'
        parts.append(
            b"--b\r\n" + disposition.encode("latin-1", "replace") + b"\r\n\r\n" + rng.choice(CONTENTS)
        )
    return b"\r\n".join(parts) + rng.choice([b"\r\n--b--\r\n", b"", b"\r\n--b"])
