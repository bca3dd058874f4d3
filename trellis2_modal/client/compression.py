"""The state as a client handles it: bytes on disk and on the wire, without the model's packages."""

from __future__ import annotations

import base64
import binascii

from ..protocol.state import MeshState, compress_state, decompress_state, pack_state, peek_state, unpack_state
from ..protocol.state.mesh_state import bad_state

__all__ = [
    "MeshState",
    "compress_state",
    "decompress_state",
    "from_base64",
    "load_state",
    "pack_state",
    "peek_state",
    "save_state",
    "to_base64",
    "unpack_state",
]


def load_state(data: bytes) -> MeshState:
    """The asset inside a compressed state; raises `InvalidStateError`."""
    return unpack_state(decompress_state(data))


def save_state(state: MeshState, lossless: bool = False) -> bytes:
    """The compressed state of an asset."""
    return compress_state(pack_state(state, lossless))


def to_base64(data: bytes) -> str:
    """A state as JSON carries it."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """Strict: raises `InvalidStateError` on anything that is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_state("state", "is not base64") from error
