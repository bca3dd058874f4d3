"""Ceilings that both ends keep to. The service enforces them; a client checks them before it sends."""

from __future__ import annotations

MIB = 1 << 20

MAX_IMAGE_BYTES = 24 * MIB
"""Encoded picture (PNG, JPEG or WebP)."""

MAX_PICTURES_BYTES = 96 * MIB
"""All pictures of one request."""

MAX_MESH_BYTES = 100 * MIB
"""Mesh file that is to be textured."""

MAX_MESH_FACES = 2_000_000

MAX_IMAGE_PIXELS = 64_000_000
"""Width times height: what a decoder may be asked to allocate."""

MAX_IMAGE_SIDE = 16_384
MIN_IMAGE_SIDE = 16

MAX_STATE_BYTES = 192 * MIB
"""Compressed state as it crosses the network."""

MAX_STATE_RAW_BYTES = 768 * MIB
"""Decompressed state: read from the frame's header before anything is allocated."""

MAX_STATE_HEADER_BYTES = 64 * 1024
MAX_GRID = 2_048
"""Cells along one axis of the voxel grid."""

MAX_TOKENS = 400_000
MAX_CHANNELS = 64
"""Of the latents in a state."""

MAX_VOXELS = 16_000_000
MAX_VERTICES = 20_000_000
MAX_FACES = 48_000_000

MAX_JSON_BYTES = 64 * 1024
"""A JSON body apart from its base64 member; also the whole body of calls that carry no file."""

MAX_IDEMPOTENCY_KEY_LENGTH = 200
IMAGE_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Pillow's format name to the media type; nothing else is accepted as a picture."""


def base64_length(size: int) -> int:
    """Characters that base64 needs for `size` bytes."""
    return 4 * ((size + 2) // 3)
