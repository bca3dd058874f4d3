"""JSON replies, and base64 of pictures, states and results in pieces: a state of 100 MB must not hold up the
event loop.

Every call here keeps Python's global lock while it works, so a thread alone would not help; between two
pieces the lock changes hands.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from starlette.responses import Response

PIECE = 3 << 20
"""Bytes a piece, about 4 ms of work: a multiple of three bytes is a whole number of base64 characters."""

PIECE_TEXT = PIECE // 3 * 4
DECODER: TypeAdapter[bytes] = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))


def json_response(reply: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The JSON of a reply, ended by a line break: a shell's prompt comes on a line of its own."""
    return Response(reply.model_dump_json() + "\n", status, headers, "application/json")


async def decode_base64(text: str) -> bytes | None:
    """None for anything that is not base64 (with either alphabet, padded or not)."""
    if len(text) <= PIECE_TEXT:
        return _decode_piece(text)
    return await asyncio.to_thread(_decode_pieces, text)


async def encode_base64(data: bytes) -> str:
    """Base64 with padding."""
    if len(data) <= PIECE:
        return base64.b64encode(data).decode("ascii")
    return await asyncio.to_thread(_encode_pieces, data)


def _decode_pieces(text: str) -> bytes | None:
    pieces = []
    for start in range(0, len(text), PIECE_TEXT):
        part = _decode_piece(text[start : start + PIECE_TEXT])
        if part is None or (len(part) < PIECE and start + PIECE_TEXT < len(text)):
            return None  # padding before the end
        pieces.append(part)
    return b"".join(pieces)


def _decode_piece(text: str) -> bytes | None:
    if '"' in text or "\\" in text:
        return None
    # as a JSON string: four times as fast as binascii's strict mode
    try:
        return DECODER.validate_json(f'"{text}"'.encode())
    except (ValidationError, UnicodeEncodeError):
        return None


def _encode_pieces(data: bytes) -> str:
    pieces = (base64.b64encode(data[at : at + PIECE]) for at in range(0, len(data), PIECE))
    return b"".join(pieces).decode("ascii")
