"""The state on the model's side: between `MeshWithVoxel` (torch) and the packed bytes of the protocol."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..protocol import state as protocol_state
from ..protocol.state import MeshState, ShapeLatents, compress_state, decompress_state, rounded_state
from ..protocol.state.mesh_state import LAYOUT, bad_state

if TYPE_CHECKING:
    from trellis2.pipelines.image_to_3d import KeptShape
    from trellis2.representations import MeshWithVoxel

__all__ = ["compress_state", "decompress_state", "from_mesh", "pack_state", "to_mesh", "unpack_state"]


def from_mesh(
    mesh: MeshWithVoxel, info: dict[str, Any] | None = None, shape: KeptShape | None = None
) -> MeshState:
    """The arrays of a decoded asset, on the CPU, with the latents of its shape if given. Raises
    `InvalidStateError` for another attribute layout."""
    layout = {name: (part.start, part.stop) for name, part in mesh.layout.items()}
    if layout != LAYOUT:
        raise bad_state("layout", f"is {layout}, expected {LAYOUT}")
    origin = _numpy(mesh.origin, np.float32)
    latents = None
    if shape is not None:
        coords, feats = _numpy(shape.slat.coords[:, 1:], np.int32), _numpy(shape.slat.feats, np.float32)
        latents = ShapeLatents(coords, feats, shape.resolution)
    return MeshState(
        vertices=_numpy(mesh.vertices, np.float32),
        faces=_numpy(mesh.faces, np.int32),
        coords=_numpy(mesh.coords, np.int32),
        attrs=_numpy(mesh.attrs, np.float32),
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        voxel_size=float(mesh.voxel_size),
        info=info or {},
        latents=latents,
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


class _Held(NamedTuple):
    digest: bytes  # of the compressed bytes
    state: MeshState | None
    exact: bool  # whether its arrays are what the bytes unpack to


class RecentState:
    """The arrays of the state that was made or read last: whoever exports it next need not wait until it is
    unpacked. A caller sends the whole state all the same, and gets what its bytes unpack to, bit for bit.
    """

    most = 1 << 29
    """Bytes of arrays; a larger state is not held."""

    def __init__(self) -> None:
        self._held = _Held(b"", None, False)  # replaced as a whole: previews are made on another thread

    def hold(self, data: bytes, state: MeshState, exact: bool) -> None:
        """Hold the arrays that the compressed `data` were made of, or, `exact`, that they unpack to."""
        self._hold(hashlib.sha256(data).digest(), state, exact)

    def _hold(self, digest: bytes, state: MeshState, exact: bool) -> None:
        arrays = (state.vertices, state.faces, state.coords, state.attrs)
        fits = sum(array.nbytes for array in arrays) <= self.most
        self._held = _Held(digest, state, exact) if fits else _Held(b"", None, False)

    def unpacked(self, data: bytes) -> MeshState:
        """The state in compressed bytes; raises `InvalidStateError`."""
        digest, state, exact = self._held
        asked = hashlib.sha256(data).digest()
        if state is None or asked != digest:
            state = protocol_state.unpack_state(decompress_state(data))
            self._hold(asked, state, exact=True)
        elif not exact:
            state = rounded_state(state)
            self._held = _Held(digest, state, True)
        return state


def kept_shape(packed: bytes, model: str) -> tuple[KeptShape, dict[str, Any]]:
    """The shape's latents in a packed state, and what the state says of itself.

    Raises `InvalidStateError` for a state without latents, or of other weights than `model`.
    """
    import torch

    from trellis2.pipelines.image_to_3d import KeptShape
    from trellis2.sparse import SparseTensor

    state = protocol_state.unpack_state(packed)
    if state.latents is None:
        raise bad_state("latents", "were not kept; generate with keep_latents")
    if state.info.get("model") != model:
        made = str(state.info.get("model"))[:80]
        raise bad_state("latents", f"are of {made}, which the loaded weights ({model}) cannot read")
    coords = torch.nn.functional.pad(torch.from_numpy(state.latents.coords), (1, 0))  # batch column 0
    slat = SparseTensor(torch.from_numpy(state.latents.feats), coords)
    return KeptShape(slat, state.latents.resolution), state.info


def unpack_state(packed: bytes, device: str = "cpu") -> MeshWithVoxel:
    """The asset in packed bytes; raises `InvalidStateError`."""
    return to_mesh(protocol_state.unpack_state(packed), device)


def _numpy(values: Any, dtype: type) -> np.ndarray:
    array = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
    return np.ascontiguousarray(array, dtype=dtype)
