"""A state as a container of filtered arrays, and back: compact (bounded error) or lossless (every bit).

Voxels are stored in scan order, where neighbours along a line follow one another; the voxels' own order is
restored from a rule when it is one that a decoder produces, else from a permutation. Compact: vertices to
1/64 of a voxel, attributes to 1/255. Both: faces and voxel order exactly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import InvalidStateError
from ..limits import MAX_GRID
from . import topology
from .bits import (
    difference,
    from_bit_planes,
    from_ordered_bits,
    join_bytes,
    ordered_bits,
    plane_length,
    split_bytes,
    to_bit_planes,
    unzigzag8,
    unzigzag32,
    zigzag8,
    zigzag32,
)
from .container import read_container, read_header, write_container
from .header import FORMAT, VERSION, Header, Reader, number
from .mesh_state import CHANNELS, LAYOUT, MeshState, ShapeLatents, bad_state

LOCAL_LOW, LOCAL_SPAN = -0.5, 2.0
"""A decoded vertex lies within half a voxel of its own voxel."""
LOCAL_LEVELS = 127
FREE_UNITS = 256
"""Fixed-point units in a voxel for vertices that belong to none."""
ATTR_STEP = 2 / 255
"""Twice the largest error of an attribute; 8 bits do it for values in 0..1 with room to spare."""

Tensors = dict[str, np.ndarray]


def pack_state(state: MeshState, lossless: bool = False) -> bytes:
    """The packed (not yet compressed) state. Raises `InvalidStateError` when the arrays are inconsistent."""
    state.validate()
    grid = tuple(int(n) + 1 for n in state.coords.max(axis=0))
    assert len(grid) == 3
    keys = topology.scan_keys(state.coords, grid)
    levels = topology.find_order(state.coords)
    by_scan = np.argsort(keys, kind="stable")  # own index of the voxel at a scan position
    keys = keys[by_scan]
    if not (keys[1:] > keys[:-1]).all():
        raise bad_state("coords", "holds the same voxel twice")
    scan_of = np.empty_like(by_scan)
    scan_of[by_scan] = np.arange(len(by_scan))

    tensors: Tensors = {}
    _write_keys(tensors, keys)
    if levels is None:
        _write_u32(tensors, "order", scan_of.astype(np.uint32))
    linked = _linked(state)
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": 1 if state.latents is None else VERSION,
        "lossless": lossless,
        "voxels": len(keys),
        "vertices": len(state.vertices),
        "faces": len(state.faces),
        "grid": list(grid),
        "origin": [float(x) for x in state.origin],
        "voxel_size": float(state.voxel_size),
        "levels": levels,
        "linked": linked,
        "layout": {name: list(span) for name, span in LAYOUT.items()},
        "info": state.info,
    }
    header["quads"] = _write_faces(tensors, state, keys, grid, scan_of, linked)
    own_centres = _centres(state.coords[by_scan], state)
    attrs = state.attrs[by_scan]
    if lossless:
        if linked:
            _write_floats(tensors, "vertices", state.vertices[:linked][by_scan], own_centres)
        _write_floats(tensors, "loose", state.vertices[linked:], None)
        _write_floats(tensors, "attrs", attrs, None)
    else:
        if linked:
            _write_local(tensors, state.vertices[:linked][by_scan], state.coords[by_scan], state)
        _write_loose(tensors, state.vertices[linked:], state)
        header["attr_ranges"] = _write_attrs(tensors, attrs)
    if state.latents is not None:
        header["latents"] = _write_latents(tensors, state.latents)
    return write_container(tensors, header)


def unpack_state(packed: bytes) -> MeshState:
    """The state in packed bytes; raises `InvalidStateError` naming the field that is invalid."""
    tensors, header = read_container(packed)
    shape = Header(header)
    reader = Reader(tensors)
    keys = _read_keys(reader, shape)
    coords = topology.coords_of_keys(keys, shape.grid)
    if (coords.max(axis=0) + 1).tolist() != list(shape.grid):
        raise bad_state("grid", f"is {list(shape.grid)}, the voxels span {(coords.max(axis=0) + 1).tolist()}")
    scan_of = _read_order(reader, shape, coords)
    own_coords = coords[scan_of]
    frame = MeshState(
        np.zeros((0, 3), np.float32),
        np.zeros((0, 3), np.int32),
        own_coords,
        np.zeros((0, CHANNELS), np.float32),
        shape.origin,
        shape.voxel_size,
        shape.info,
    )
    faces = _read_faces(reader, shape, keys, coords, scan_of)
    loose = shape.vertices - shape.linked
    parts = []
    if shape.lossless:
        if shape.linked:
            parts.append(_read_floats(reader, "vertices", shape.linked, 3, _centres(coords, frame))[scan_of])
        parts.append(_read_floats(reader, "loose", loose, 3, None))
        attrs = _read_floats(reader, "attrs", shape.voxels, CHANNELS, None)[scan_of]
    else:
        if shape.linked:
            parts.append(_read_local(reader, coords, frame)[scan_of])
        parts.append(_read_loose(reader, loose, frame))
        attrs = _read_attrs(reader, shape)[scan_of]
    latents = None if shape.latents is None else _read_latents(reader, shape)
    reader.finish()
    state = MeshState(
        np.concatenate(parts).astype(np.float32, copy=False),
        faces,
        own_coords,
        attrs,
        shape.origin,
        shape.voxel_size,
        shape.info,
        latents,
    )
    state.validate()
    return state


def peek_state(data: bytes) -> dict[str, Any]:
    """The header of a compressed state, checked, without inflating the arrays. Raises `InvalidStateError`."""
    return Header(read_header(data)).raw


# --- latents ------------------------------------------------------------------------------------------------


def _write_latents(tensors: Tensors, latents: ShapeLatents) -> dict[str, int]:
    """Every bit of them, so that they decode to the same shape; returns the header's entry."""
    _write_u32(tensors, "latent_coords", latents.coords.astype(np.uint32).reshape(-1))
    _write_floats(tensors, "latents", latents.feats.reshape(-1, 1), None)
    tokens, channels = latents.feats.shape
    return {"tokens": tokens, "channels": channels, "resolution": latents.resolution}


def _read_latents(reader: Reader, shape: Header) -> ShapeLatents:
    coords = _read_u32(reader, "latent_coords", 3 * shape.tokens)
    if int(coords.max()) >= MAX_GRID:
        raise bad_state("latent_coords", f"reaches {int(coords.max())}, allowed is 0..{MAX_GRID - 1}")
    feats = _read_floats(reader, "latents", shape.tokens * shape.channels, 1, None)
    feats = feats.reshape(shape.tokens, shape.channels)
    return ShapeLatents(coords.astype(np.int32).reshape(-1, 3), feats, shape.latent_resolution)


# --- voxel keys and order -------------------------------------------------------------------------------


def _write_keys(tensors: Tensors, keys: np.ndarray) -> None:
    """Gaps between sorted keys in a byte each; 255 announces one that is listed apart."""
    gaps = np.diff(keys, prepend=-1) - 1
    wide = gaps >= 255
    tensors["key_gaps"] = np.where(wide, 255, gaps).astype(np.uint8)
    tensors["key_jumps"] = gaps[wide].astype("<u8")


def _read_keys(reader: Reader, shape: Header) -> np.ndarray:
    small = reader.take("key_gaps", "u1", shape.voxels)
    jumps = reader.take("key_jumps", "<u8")
    cells = shape.grid[0] * shape.grid[1] * shape.grid[2]
    wide = np.flatnonzero(small == 255)
    if jumps.ndim != 1 or len(jumps) != len(wide):
        raise bad_state("key_jumps", f"has {jumps.size} entries, the gaps announce {len(wide)}")
    if len(jumps) and int(jumps.max()) >= cells:
        raise bad_state("key_jumps", f"reaches beyond the grid's {cells} cells")
    gaps = small.astype(np.int64)
    gaps[wide] = jumps.astype(np.int64)
    keys = np.cumsum(gaps + 1) - 1  # at most 16 M gaps below 2^33: far from overflow
    if int(keys[-1]) >= cells:
        raise bad_state("key_gaps", f"reaches cell {int(keys[-1])} of a grid of {cells}")
    return keys


def _read_order(reader: Reader, shape: Header, coords: np.ndarray) -> np.ndarray:
    """Scan position of each voxel in its own order."""
    if shape.levels is not None:
        return np.argsort(topology.tree_keys(coords, shape.levels), kind="stable")
    order = _read_u32(reader, "order", shape.voxels)
    if int(order.max()) >= shape.voxels or (np.bincount(order, minlength=shape.voxels) != 1).any():
        raise bad_state("order", f"is not a permutation of {shape.voxels} voxels")
    return order.astype(np.int64)


# --- faces ----------------------------------------------------------------------------------------------


def _write_faces(
    tensors: Tensors,
    state: MeshState,
    keys: np.ndarray,
    grid: tuple[int, int, int],
    scan_of: np.ndarray,
    linked: int,
) -> int:
    """Store the leading faces as flags where that is exact, the others as numbers; returns the quads."""
    quads = 0
    flags = np.zeros((len(keys), 3), np.uint8)
    if linked:
        body = _leading_quads(state.faces, linked)
        found = topology.faces_to_flags(body, state.coords, scan_of)
        if found is not None and _regenerate(found, keys, grid, scan_of, body):
            flags, quads = found, len(body) // 2
    if quads:
        planes = [flags[:, a] for a in range(3)]
        tensors["flags"] = np.stack([np.packbits(p > 0) for p in planes])  # [3, N/8]
        tensors["diagonals"] = np.packbits(flags[flags > 0] == 1)
    rest = state.faces[2 * quads :]
    code = zigzag32(difference(np.ascontiguousarray(rest).view(np.uint32).reshape(-1)))
    _write_u32(tensors, "faces", code, delta=False)
    return quads


def _leading_quads(faces: np.ndarray, linked: int) -> np.ndarray:
    """The faces before the first one that touches a vertex without a voxel (hole fills come last)."""
    loose = np.flatnonzero((faces >= linked).any(axis=1))
    stop = int(loose[0]) if len(loose) else len(faces)
    return faces[: stop - stop % 2]


def _regenerate(
    flags: np.ndarray,
    keys: np.ndarray,
    grid: tuple[int, int, int],
    scan_of: np.ndarray,
    expected: np.ndarray | None = None,
) -> Any:
    """The faces that the flags give; with `expected`, whether they are those."""
    near = topology.neighbours(keys, topology.coords_of_keys(keys, grid), grid)
    own_of = np.empty(len(keys), np.int32)
    own_of[scan_of] = np.arange(len(keys), dtype=np.int32)
    if expected is None:
        corners, cut = topology.quads(flags, scan_of, near)
        return topology.quad_faces(own_of[corners], cut)
    try:
        corners, cut = topology.quads(flags, scan_of, near)
    except InvalidStateError:
        return False
    return np.array_equal(topology.quad_faces(own_of[corners], cut), expected)


def _read_faces(
    reader: Reader, shape: Header, keys: np.ndarray, coords: np.ndarray, scan_of: np.ndarray
) -> np.ndarray:
    rest_count = 3 * (shape.faces - 2 * shape.quads)
    code = _read_u32(reader, "faces", rest_count, delta=False)
    rest = np.cumsum(unzigzag32(code), dtype=np.uint32).view(np.int32).reshape(-1, 3)
    if not shape.quads:
        return rest
    packed = reader.take("flags", "u1", plane_length(shape.voxels), rows=3)
    has = np.stack([np.unpackbits(row, count=shape.voxels) for row in packed], axis=1)
    if int(has.sum()) != shape.quads:
        raise bad_state("flags", f"ask for {int(has.sum())} quads, the header says {shape.quads}")
    diagonals = reader.take("diagonals", "u1", plane_length(shape.quads))
    has[has > 0] = 2 - np.unpackbits(diagonals, count=shape.quads)
    return np.concatenate([_regenerate(has, keys, shape.grid, scan_of), rest])


# --- vertices -------------------------------------------------------------------------------------------


def _centres(coords: np.ndarray, state: MeshState) -> np.ndarray:
    """Voxel centres in the world, the same on every machine: `[N, 3]` f32."""
    wide = (coords.astype(np.float64) + 0.5) * float(state.voxel_size) + np.array(state.origin, np.float64)
    return wide.astype(np.float32)


def _linked(state: MeshState) -> int:
    """The number of leading vertices that lie in (or next to) the voxel of the same index: all N, or 0."""
    count = len(state.coords)
    if len(state.vertices) < count:
        return 0
    local = _local(state.vertices[:count], state.coords, state)
    slack = 1e-3  # world coordinates are rounded to f32
    low, high = float(local.min()), float(local.max())
    inside = low >= LOCAL_LOW - slack and high <= LOCAL_LOW + LOCAL_SPAN + slack
    return count if inside else 0


def _local(vertices: np.ndarray, coords: np.ndarray, state: MeshState) -> np.ndarray:
    """Positions in voxels from the low corner of each vertex' voxel."""
    local: np.ndarray = (vertices - np.array(state.origin, np.float64)) / state.voxel_size - coords
    return local


def _write_local(tensors: Tensors, vertices: np.ndarray, coords: np.ndarray, state: MeshState) -> None:
    local = _local(vertices, coords, state)
    level = np.rint((local - LOCAL_LOW) * (LOCAL_LEVELS / LOCAL_SPAN)).clip(0, LOCAL_LEVELS).astype(np.uint8)
    tensors["vertices"] = np.stack([to_bit_planes(zigzag8(difference(level[:, a]))) for a in range(3)])


def _read_local(reader: Reader, coords: np.ndarray, state: MeshState) -> np.ndarray:
    count = len(coords)
    planes = _take_planes(reader, "vertices", 3, count)
    out = np.empty((count, 3), np.float32)
    for a in range(3):
        level = np.cumsum(unzigzag8(from_bit_planes(planes[a], count)), dtype=np.uint8)
        local = level * (LOCAL_SPAN / LOCAL_LEVELS) + LOCAL_LOW
        out[:, a] = (coords[:, a] + local) * state.voxel_size + state.origin[a]
    return out


def _write_loose(tensors: Tensors, vertices: np.ndarray, state: MeshState) -> None:
    units = np.rint((vertices - np.array(state.origin, np.float64)) * (FREE_UNITS / state.voxel_size))
    if len(units) and np.abs(units).max() > 2**30:
        raise bad_state("vertices", "lies too far from the voxels for the compact format; pack it lossless")
    _write_u32(tensors, "loose", zigzag32(units.astype("<i4").view("<u4").reshape(-1)), delta=False)


def _read_loose(reader: Reader, count: int, state: MeshState) -> np.ndarray:
    units = unzigzag32(_read_u32(reader, "loose", 3 * count, delta=False)).view(np.int32).reshape(-1, 3)
    world = units * (state.voxel_size / FREE_UNITS) + np.array(state.origin, np.float64)
    return world.astype(np.float32)


# --- attributes -----------------------------------------------------------------------------------------


def _write_attrs(tensors: Tensors, attrs: np.ndarray) -> list[list[float]]:
    """Fixed point with as many bytes a channel as its range needs; returns (low, high) of each channel."""
    ranges = []
    for c in range(CHANNELS):
        column = attrs[:, c].astype(np.float64)
        low, high = min(0.0, float(column.min())), max(1.0, float(column.max()))
        levels = _attr_levels(low, high)
        level = np.rint((column - low) * (levels / (high - low))).astype(np.uint32)
        if levels == 255:
            tensors[f"attr_{c}"] = to_bit_planes(zigzag8(difference(level.astype(np.uint8))))
        else:
            _write_u32(tensors, f"attr_{c}", level)
        ranges.append([low, high])
    return ranges


def _attr_levels(low: float, high: float) -> int:
    if (high - low) / 255 <= ATTR_STEP:
        return 255
    levels = math.ceil((high - low) / ATTR_STEP)
    if levels >= 2**31:
        raise bad_state("attrs", f"spans {low:g} to {high:g}, too wide for the compact format")
    return levels


def _read_attrs(reader: Reader, shape: Header) -> np.ndarray:
    ranges = shape.raw.get("attr_ranges")
    if not isinstance(ranges, list) or len(ranges) != CHANNELS:
        raise bad_state("attr_ranges", f"is not a list of {CHANNELS} pairs")
    out = np.empty((shape.voxels, CHANNELS), np.float32)
    for c, pair in enumerate(ranges):
        if not isinstance(pair, list) or len(pair) != 2:
            raise bad_state("attr_ranges", "is not a list of pairs")
        low, high = number("attr_ranges", pair[0], -1e7, 0.0), number("attr_ranges", pair[1], 1.0, 1e7)
        levels = _attr_levels(low, high)
        name = f"attr_{c}"
        level: np.ndarray
        if levels == 255:
            planes = reader.take(name, "u1", plane_length(shape.voxels), rows=8)
            level = np.cumsum(unzigzag8(from_bit_planes(planes, shape.voxels)), dtype=np.uint8)
        else:
            level = _read_u32(reader, name, shape.voxels)
            if int(level.max()) > levels:
                raise bad_state(name, f"reaches level {int(level.max())} of {levels}")
        out[:, c] = level * ((high - low) / levels) + low
    return out


# --- 32-bit columns -------------------------------------------------------------------------------------


def _take_planes(reader: Reader, name: str, groups: int, count: int) -> np.ndarray:
    """Bit planes `[groups, 8, count/8]`."""
    array = reader.take(name, "u1")
    expected = [groups, 8, plane_length(count)]
    if list(array.shape) != expected:
        raise bad_state(name, f"has shape {list(array.shape)}, expected {expected}")
    return array


def _write_u32(tensors: Tensors, name: str, values: np.ndarray, delta: bool = True) -> None:
    code = zigzag32(difference(values)) if delta else values
    tensors[name] = np.stack([to_bit_planes(plane) for plane in split_bytes(code)])  # [4, 8, n/8]


def _read_u32(reader: Reader, name: str, count: int, delta: bool = True) -> np.ndarray:
    planes = _take_planes(reader, name, 4, count)
    code = join_bytes([from_bit_planes(p, count) for p in planes])
    return np.cumsum(unzigzag32(code), dtype=np.uint32) if delta else code


def _write_floats(tensors: Tensors, name: str, values: np.ndarray, predicted: np.ndarray | None) -> None:
    """Every bit of `[n, c]` floats, column by column: difference to the prediction or to the row before."""
    for c in range(values.shape[1]):
        order = ordered_bits(values[:, c])
        delta = difference(order) if predicted is None else order - ordered_bits(predicted[:, c])
        _write_u32(tensors, f"{name}_{c}", zigzag32(delta), delta=False)


def _read_floats(
    reader: Reader, name: str, count: int, columns: int, predicted: np.ndarray | None
) -> np.ndarray:
    out = np.empty((count, columns), np.float32)
    for c in range(columns):
        delta = unzigzag32(_read_u32(reader, f"{name}_{c}", count, delta=False))
        if predicted is None:
            order = np.cumsum(delta, dtype=np.uint32)
        else:
            order = delta + ordered_bits(predicted[:, c])
        out[:, c] = from_ordered_bits(order)
    return out
