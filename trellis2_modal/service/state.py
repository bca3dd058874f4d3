"""The state on the model's side: between `MeshWithVoxel` (torch) and the packed bytes of the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..protocol import state as protocol_state
from ..protocol.state import MeshState, compress_state, decompress_state
from ..protocol.state.mesh_state import LAYOUT, bad_state

if TYPE_CHECKING:
    from trellis2.representations import MeshWithVoxel

__all__ = ["compress_state", "decompress_state", "from_mesh", "pack_state", "to_mesh", "unpack_state"]


def from_mesh(mesh: MeshWithVoxel, info: dict[str, Any] | None = None) -> MeshState:
    """The arrays of a decoded asset, on the CPU. Raises `InvalidStateError` for another attribute layout."""
    layout = {name: (part.start, part.stop) for name, part in mesh.layout.items()}
    if layout != LAYOUT:
        raise bad_state("layout", f"is {layout}, expected {LAYOUT}")
    origin = _numpy(mesh.origin, np.float32)
    return MeshState(
        vertices=_numpy(mesh.vertices, np.float32),
        faces=_numpy(mesh.faces, np.int32),
        coords=_numpy(mesh.coords, np.int32),
        attrs=_numpy(mesh.attrs, np.float32),
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        voxel_size=float(mesh.voxel_size),
        info=info or {},
    )


def to_mesh(state: MeshState, device: str = "cpu") -> MeshWithVoxel:
    """The asset as the renderers and the exporter take it."""
    import torch

    from trellis2.representations import MeshWithVoxel

    extent = [int(n) + 1 for n in state.coords.max(axis=0)]
    return MeshWithVoxel(
        vertices=torch.from_numpy(state.vertices).to(device),
        faces=torch.from_numpy(state.faces).to(device),
        origin=list(state.origin),
        voxel_size=state.voxel_size,
        coords=torch.from_numpy(state.coords).to(device),
        attrs=torch.from_numpy(state.attrs).to(device),
        voxel_shape=torch.Size([1, state.attrs.shape[1], *extent]),
        layout={name: slice(start, stop) for name, (start, stop) in LAYOUT.items()},
    )


def pack_state(mesh: MeshWithVoxel, info: dict[str, Any] | None = None, lossless: bool = False) -> bytes:
    """Packed bytes of an asset (see `trellis2_modal.protocol.state`); compress them before they travel."""
    return protocol_state.pack_state(from_mesh(mesh, info), lossless)


def unpack_state(packed: bytes, device: str = "cpu") -> MeshWithVoxel:
    """The asset in packed bytes; raises `InvalidStateError`."""
    return to_mesh(protocol_state.unpack_state(packed), device)


def _numpy(values: Any, dtype: type) -> np.ndarray:
    array = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
    return np.ascontiguousarray(array, dtype=dtype)
