"""What a job is given, opened for the model: pictures, and errors of meshes in the caller's terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..protocol import errors

NEW_UVS = "new_uvs"
"""What an error names where other texture coordinates would do."""


def opened(pictures: Sequence[bytes], remove_background: bool) -> tuple[list[Any], bool]:
    """The pictures, and whether their subjects are to be cut out."""
    from trellis2.conditioning.images import load_image
    from trellis2.conditioning.matting.matte import has_matte

    images = [load_image(data) for data in pictures]
    return images, remove_background or any(map(has_matte, images))


@contextmanager
def mesh_errors(*also: type[Exception]) -> Iterator[None]:
    """What is wrong with a mesh that came in, told of the mesh: o_voxel's errors, and those in `also`."""
    from o_voxel.errors import FormatError, MeshError

    kinds: tuple[type[Exception], ...] = (FormatError, MeshError, *also)
    try:
        yield
    except kinds as error:
        words = str(error)
        hints: dict[str, Any] = {"suggested": {"new_uvs": True}} if NEW_UVS in words else {}
        raise errors.InvalidMeshError(
            words, errors=[errors.FieldError("mesh", words)], hints=hints
        ) from error
