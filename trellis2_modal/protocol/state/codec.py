"""A state as a container of filtered arrays, and back: compact (bounded error) or lossless (every bit).

Voxels are stored in scan order, where neighbours along a line follow one another; the voxels' own order is
restored from a rule when it is one that a decoder produces, else from a permutation. Compact: vertices to
1/64 of a voxel, attributes to 1/255. Both: faces and voxel order exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
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
from .blocks import BLOCK, ascending, column_maxima, each_block, running_sum
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
    grid = tuple(n + 1 for n in column_maxima(state.coords))
    assert len(grid) == 3
    levels = topology.find_order(state.coords)
    keys, by_scan = _scan_order(topology.scan_keys(state.coords, grid), state.coords, levels)
    if not ascending(keys):
        raise bad_state("coords", "holds the same voxel twice")
    scan_of = np.empty_like(by_scan)  # scan position of a voxel of the voxels' own order

    def invert(rows: slice) -> None:
        scan_of[by_scan[rows]] = np.arange(rows.start, rows.stop)

    each_block(invert, len(by_scan))
    tensors: Tensors = {}
    _write_keys(tensors, keys)
    if levels is None:
        _write_u32_steps(tensors, "order", scan_of.astype(np.uint32))
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
    if lossless:
        if linked:

            def off_centre(rows: slice, c: int) -> np.ndarray:
                own = by_scan[rows]
                centres = _centres(state.coords[own], state)
                return ordered_bits(state.vertices[own, c]) - ordered_bits(centres[:, c])

            _write_floats(tensors, "vertices", linked, 3, off_centre)
        loose = state.vertices[linked:]
        _write_floats(tensors, "loose", len(loose), 3, lambda rows, c: _float_steps(loose, rows, c))

        def attr_steps(rows: slice, c: int) -> np.ndarray:
            return _stepped(lambda wider: ordered_bits(state.attrs[by_scan[wider], c]), rows)

        _write_floats(tensors, "attrs", len(keys), CHANNELS, attr_steps)
    else:
        if linked:
            _write_local(tensors, state, by_scan)
        _write_loose(tensors, state.vertices[linked:], state)
        header["attr_ranges"] = _write_attrs(tensors, state.attrs, by_scan)
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
    spanned = [n + 1 for n in column_maxima(coords)]
    if spanned != list(shape.grid):
        raise bad_state("grid", f"is {list(shape.grid)}, the voxels span {spanned}")
    scan_of = _read_order(reader, shape, coords)
    own_coords = np.empty_like(coords)

    def gather(rows: slice) -> None:
        own_coords[rows] = coords[scan_of[rows]]

    each_block(gather, len(coords))
    frame = MeshState(
        np.zeros((0, 3), np.float32),
        np.zeros((0, 3), np.int32),
        own_coords,
        np.zeros((0, CHANNELS), np.float32),
        shape.origin,
        shape.voxel_size,
        shape.info,
    )
    faces = _read_faces(reader, shape, keys, scan_of)
    vertices = np.empty((shape.vertices, 3), np.float32)
    own, loose = vertices[: shape.linked], vertices[shape.linked :]
    attrs = np.empty((shape.voxels, CHANNELS), np.float32)
    if shape.lossless:
        if shape.linked:
            _read_off_centre(reader, own, frame, scan_of)
        _read_floats(reader, "loose", loose, None)
        _read_floats(reader, "attrs", attrs, scan_of)
    else:
        if shape.linked:
            _read_local(reader, own, frame, scan_of)
        _read_loose(reader, loose, frame)
        _read_attrs(reader, shape, attrs, scan_of)
    latents = None if shape.latents is None else _read_latents(reader, shape)
    reader.finish()
    state = MeshState(
        vertices,
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


def rounded_state(state: MeshState) -> MeshState:
    """What `unpack_state` makes of the compact `pack_state`, bit for bit, without either."""
    vertices, attrs = np.empty_like(state.vertices), np.empty_like(state.attrs)
    linked, ranges = _linked(state), _attr_ranges(state.attrs)

    def place(rows: slice) -> None:
        if linked:
            levels = _local_levels(state, rows)
            for a in range(3):
                vertices[rows, a] = _of_level(levels[:, a], state, rows, a)
        levels = _to_attr_levels(state.attrs[rows], ranges)
        for c, (low, high) in enumerate(ranges):
            attrs[rows, c] = levels[:, c] * ((high - low) / _attr_levels(low, high)) + low

    each_block(place, len(attrs))
    vertices[linked:] = _of_units(_free_units(state.vertices[linked:], state), state)
    return replace(state, vertices=vertices, attrs=attrs)


def peek_state(data: bytes) -> dict[str, Any]:
    """The header of a compressed state, checked, without inflating the arrays. Raises `InvalidStateError`."""
    return Header(read_header(data)).raw


# --- latents ------------------------------------------------------------------------------------------------


def _write_latents(tensors: Tensors, latents: ShapeLatents) -> dict[str, int]:
    """Every bit of them, so that they decode to the same shape; returns the header's entry."""
    coords, feats = latents.coords.astype(np.uint32).reshape(-1), latents.feats.reshape(-1, 1)
    _write_u32_steps(tensors, "latent_coords", coords)
    _write_floats(tensors, "latents", len(feats), 1, lambda rows, c: _float_steps(feats, rows, c))
    tokens, channels = latents.feats.shape
    return {"tokens": tokens, "channels": channels, "resolution": latents.resolution}


def _read_latents(reader: Reader, shape: Header) -> ShapeLatents:
    coords = _read_u32_steps(reader, "latent_coords", 3 * shape.tokens)
    if int(coords.max()) >= MAX_GRID:
        raise bad_state("latent_coords", f"reaches {int(coords.max())}, allowed is 0..{MAX_GRID - 1}")
    feats = np.empty((shape.tokens, shape.channels), np.float32)
    _read_floats(reader, "latents", feats.reshape(-1, 1), None)
    return ShapeLatents(coords.astype(np.int32).reshape(-1, 3), feats, shape.latent_resolution)


# --- voxel keys and order -------------------------------------------------------------------------------


def _scan_order(keys: np.ndarray, coords: np.ndarray, levels: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The keys in scan order, and the voxels' own index at each scan position."""
    if levels == 0:
        return keys, np.arange(len(keys))
    if levels is None:
        by_scan = np.argsort(keys, kind="stable")
    else:
        by_scan = topology.order_within_slabs(keys, coords[:, 0], levels)
    return keys[by_scan], by_scan


def _stepped(values: Callable[[slice], np.ndarray], rows: slice) -> np.ndarray:
    """Differences of a block's neighbours, the first one's to the block before."""
    steps = difference(values(slice(max(rows.start - 1, 0), rows.stop)))
    return steps[1:] if rows.start else steps


def _write_keys(tensors: Tensors, keys: np.ndarray) -> None:
    """Gaps between sorted keys in a byte each; 255 announces one that is listed apart."""
    small = np.empty(len(keys), np.uint8)

    def shrink(rows: slice) -> np.ndarray:
        gaps = np.diff(keys[rows], prepend=keys[rows.start - 1] if rows.start else -1) - 1
        np.minimum(gaps, 255, out=small[rows], casting="unsafe")
        return gaps[gaps >= 255]

    tensors["key_jumps"] = np.concatenate(each_block(shrink, len(keys))).astype("<u8")
    tensors["key_gaps"] = small


def _read_keys(reader: Reader, shape: Header) -> np.ndarray:
    small = reader.take("key_gaps", "u1", shape.voxels)
    jumps = reader.take("key_jumps", "<u8")
    cells = shape.grid[0] * shape.grid[1] * shape.grid[2]
    wide = np.flatnonzero(small == 255)
    if jumps.ndim != 1 or len(jumps) != len(wide):
        raise bad_state("key_jumps", f"has {jumps.size} entries, the gaps announce {len(wide)}")
    if len(jumps) and int(jumps.max()) >= cells:
        raise bad_state("key_jumps", f"reaches beyond the grid's {cells} cells")
    keys = small.astype(np.int64)
    keys[wide] = jumps.astype(np.int64)
    keys += 1
    np.cumsum(keys, out=keys)  # at most 16 M gaps below 2^33: far from overflow
    keys -= 1
    if int(keys[-1]) >= cells:
        raise bad_state("key_gaps", f"reaches cell {int(keys[-1])} of a grid of {cells}")
    return keys


def _read_order(reader: Reader, shape: Header, coords: np.ndarray) -> np.ndarray:
    """Scan position of each voxel in its own order."""
    if shape.levels is not None:
        if shape.levels == 0:
            return np.arange(len(coords))
        return topology.order_within_slabs(
            topology.tree_keys(coords, shape.levels), coords[:, 0], shape.levels
        )
    order = _read_u32_steps(reader, "order", shape.voxels)
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
        if found is not None and _gives(_Regenerated(found, keys, grid, scan_of), body):
            flags, quads = found, len(body) // 2
    if quads:
        planes = [flags[:, a] for a in range(3)]
        tensors["flags"] = np.stack([np.packbits(p > 0) for p in planes])  # [3, N/8]
        tensors["diagonals"] = np.packbits(flags[flags > 0] == 1)
    rest = np.ascontiguousarray(state.faces[2 * quads :]).view(np.uint32).reshape(-1)
    _write_u32_steps(tensors, "faces", rest)
    return quads


def _leading_quads(faces: np.ndarray, linked: int) -> np.ndarray:
    """The faces before the first one that touches a vertex without a voxel (hole fills come last)."""

    def first_loose(rows: slice) -> int:
        loose = faces[rows].reshape(-1) >= linked
        at = int(loose.argmax()) if len(loose) else 0
        return rows.start + at // 3 if len(loose) and loose[at] else len(faces)

    stop = min(each_block(first_loose, len(faces)), default=0)
    return faces[: stop - stop % 2]


class _Regenerated:
    """The faces that flags `[N, 3]` in scan order give, block by block of the voxels' own order."""

    def __init__(
        self, flags: np.ndarray, keys: np.ndarray, grid: tuple[int, int, int], scan_of: np.ndarray
    ) -> None:
        self._near = topology.neighbours(keys, topology.coords_of_keys(keys, grid), grid)
        self._scan_of = scan_of
        self._own_of = np.empty(len(keys), np.int32)
        self._flags = np.empty_like(flags)  # in the voxels' own order

        def arrange(rows: slice) -> int:
            self._own_of[scan_of[rows]] = np.arange(rows.start, rows.stop, dtype=np.int32)
            np.take(flags, scan_of[rows], axis=0, out=self._flags[rows], mode="clip")
            return int(np.count_nonzero(self._flags[rows]))

        quads = each_block(arrange, len(keys))
        self._stops = np.cumsum(quads)
        self._quads = quads
        self.count = 2 * int(self._stops[-1])

    def each(self, use: Callable[[slice, np.ndarray], Any]) -> list[Any]:
        """`use(place, faces)` for every block: which of all the faces these are."""

        def made(rows: slice) -> Any:
            at = rows.start // BLOCK
            place = slice(2 * (self._stops[at] - self._quads[at]), 2 * self._stops[at])
            faces = topology.quad_faces(self._flags[rows], self._scan_of[rows], self._near, self._own_of)
            return use(place, faces)

        return each_block(made, len(self._flags))


def _gives(regenerated: _Regenerated, expected: np.ndarray) -> bool:
    if regenerated.count != len(expected):
        return False
    try:
        return all(regenerated.each(lambda place, faces: np.array_equal(faces, expected[place])))
    except InvalidStateError:
        return False


def _read_faces(reader: Reader, shape: Header, keys: np.ndarray, scan_of: np.ndarray) -> np.ndarray:
    rest_count = 3 * (shape.faces - 2 * shape.quads)
    rest = _read_u32_steps(reader, "faces", rest_count).view(np.int32).reshape(-1, 3)
    if not shape.quads:
        return rest
    packed = reader.take("flags", "u1", plane_length(shape.voxels), rows=3)
    has = np.stack([np.unpackbits(row, count=shape.voxels) for row in packed], axis=1)
    if int(np.count_nonzero(has)) != shape.quads:
        raise bad_state("flags", f"ask for {int(has.sum())} quads, the header says {shape.quads}")
    diagonals = reader.take("diagonals", "u1", plane_length(shape.quads))
    has[has > 0] = 2 - np.unpackbits(diagonals, count=shape.quads)
    faces = np.empty((shape.faces, 3), np.int32)
    _Regenerated(has, keys, shape.grid, scan_of).each(faces.__setitem__)
    faces[2 * shape.quads :] = rest
    return faces


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
    slack = 1e-3  # world coordinates are rounded to f32
    found = each_block(lambda rows: _span(_local(state.vertices[rows], state.coords[rows], state)), count)
    low, high = min(low for low, _ in found), max(high for _, high in found)
    inside = low >= LOCAL_LOW - slack and high <= LOCAL_LOW + LOCAL_SPAN + slack
    return count if inside else 0


def _local(vertices: np.ndarray, coords: np.ndarray, state: MeshState) -> np.ndarray:
    """Positions in voxels from the low corner of each vertex' voxel."""
    local: np.ndarray = (vertices - np.array(state.origin, np.float64)) / state.voxel_size - coords
    return local


def _span(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _local_levels(state: MeshState, own: np.ndarray | slice) -> np.ndarray:
    """The levels `[n, 3]` of some linked vertices."""
    local = _local(state.vertices[own], state.coords[own], state)
    scaled = (local - LOCAL_LOW) * (LOCAL_LEVELS / LOCAL_SPAN)
    level: np.ndarray = np.rint(scaled).clip(0, LOCAL_LEVELS).astype(np.uint8)
    return level


def _of_level(level: np.ndarray, state: MeshState, rows: slice, a: int) -> np.ndarray:
    """The coordinate along axis `a` of linked vertices with these levels."""
    local = level * (LOCAL_SPAN / LOCAL_LEVELS) + LOCAL_LOW
    found: np.ndarray = (state.coords[rows, a] + local) * state.voxel_size + state.origin[a]
    return found


def _write_local(tensors: Tensors, state: MeshState, by_scan: np.ndarray) -> None:
    planes = np.empty((3, 8, plane_length(len(by_scan))), np.uint8)

    def write(rows: slice) -> None:
        steps = zigzag8(_stepped(lambda wider: _local_levels(state, by_scan[wider]), rows))
        for a in range(3):
            planes[a, :, _bytes_of(rows)] = to_bit_planes(steps[:, a])

    each_block(write, len(by_scan))
    tensors["vertices"] = planes


def _read_local(reader: Reader, out: np.ndarray, state: MeshState, scan_of: np.ndarray) -> None:
    count = len(out)
    planes = _take_planes(reader, "vertices", 3, count)
    levels = [_read_levels(planes[a], count) for a in range(3)]

    def place(rows: slice) -> None:
        for a in range(3):
            out[rows, a] = _of_level(levels[a][scan_of[rows]], state, rows, a)

    each_block(place, count)


def _read_levels(planes: np.ndarray, count: int) -> np.ndarray:
    """The bytes whose differences are in bit planes `[8, count/8]`."""
    return running_sum(
        np.empty(count, np.uint8),
        lambda rows: unzigzag8(from_bit_planes(planes[:, _bytes_of(rows)], rows.stop - rows.start)),
    )


def _free_units(vertices: np.ndarray, state: MeshState) -> np.ndarray:
    units: np.ndarray = np.rint(
        (vertices - np.array(state.origin, np.float64)) * (FREE_UNITS / state.voxel_size)
    )
    return units


def _of_units(units: np.ndarray, state: MeshState) -> np.ndarray:
    found: np.ndarray = units * (state.voxel_size / FREE_UNITS) + np.array(state.origin, np.float64)
    return found


def _write_loose(tensors: Tensors, vertices: np.ndarray, state: MeshState) -> None:
    units = _free_units(vertices, state)
    if len(units) and np.abs(units).max() > 2**30:
        raise bad_state("vertices", "lies too far from the voxels for the compact format; pack it lossless")
    code = zigzag32(units.astype("<i4").view("<u4").reshape(-1))
    _write_u32(tensors, "loose", len(code), code.__getitem__)


def _read_loose(reader: Reader, out: np.ndarray, state: MeshState) -> None:
    units = unzigzag32(_read_u32(reader, "loose", 3 * len(out))).view(np.int32).reshape(-1, 3)
    out[:] = _of_units(units, state)


# --- attributes -----------------------------------------------------------------------------------------


def _write_attrs(tensors: Tensors, attrs: np.ndarray, by_scan: np.ndarray) -> list[list[float]]:
    """Fixed point with as many bytes a channel as its range needs; returns (low, high) of each channel."""
    ranges = _attr_ranges(attrs)
    scales = [_attr_levels(low, high) for low, high in ranges]
    wide = [c for c in range(CHANNELS) if scales[c] != 255]
    for c in range(CHANNELS):
        tensors[f"attr_{c}"] = np.empty(
            (4, 8, plane_length(len(attrs))) if c in wide else (8, plane_length(len(attrs))), np.uint8
        )

    def write(rows: slice) -> None:
        steps = _stepped(lambda wider: _to_attr_levels(attrs[by_scan[wider]], ranges), rows)
        for c in range(CHANNELS):
            planes = tensors[f"attr_{c}"]
            if c in wide:
                _put_u32(planes, rows, zigzag32(np.ascontiguousarray(steps[:, c])))
            else:
                planes[:, _bytes_of(rows)] = to_bit_planes(zigzag8(steps[:, c].astype(np.uint8)))

    each_block(write, len(attrs))
    return ranges


def _attr_ranges(attrs: np.ndarray) -> list[list[float]]:
    """(low, high) of each channel, 0..1 at least."""
    spans = each_block(lambda rows: [_span(column) for column in attrs[rows].T.copy()], len(attrs))
    return [
        [min(0.0, *(span[c][0] for span in spans)), max(1.0, *(span[c][1] for span in spans))]
        for c in range(CHANNELS)
    ]


def _to_attr_levels(attrs: np.ndarray, ranges: list[list[float]]) -> np.ndarray:
    columns = attrs.T.astype(np.float64)
    for c, (low, high) in enumerate(ranges):
        columns[c] = np.rint((columns[c] - low) * (_attr_levels(low, high) / (high - low)))
    whole: np.ndarray = columns.astype(np.uint32).T
    return whole


def _attr_levels(low: float, high: float) -> int:
    if (high - low) / 255 <= ATTR_STEP:
        return 255
    levels = math.ceil((high - low) / ATTR_STEP)
    if levels >= 2**31:
        raise bad_state("attrs", f"spans {low:g} to {high:g}, too wide for the compact format")
    return levels


def _read_attrs(reader: Reader, shape: Header, out: np.ndarray, scan_of: np.ndarray) -> None:
    ranges = shape.raw.get("attr_ranges")
    if not isinstance(ranges, list) or len(ranges) != CHANNELS:
        raise bad_state("attr_ranges", f"is not a list of {CHANNELS} pairs")
    columns: list[tuple[np.ndarray, float, float]] = []
    for c, pair in enumerate(ranges):
        if not isinstance(pair, list) or len(pair) != 2:
            raise bad_state("attr_ranges", "is not a list of pairs")
        low, high = number("attr_ranges", pair[0], -1e7, 0.0), number("attr_ranges", pair[1], 1.0, 1e7)
        levels = _attr_levels(low, high)
        name = f"attr_{c}"
        level: np.ndarray
        if levels == 255:
            level = _read_levels(reader.take(name, "u1", plane_length(shape.voxels), rows=8), shape.voxels)
        else:
            level = _read_u32_steps(reader, name, shape.voxels)
            if int(level.max()) > levels:
                raise bad_state(name, f"reaches level {int(level.max())} of {levels}")
        columns.append((level, (high - low) / levels, low))

    def place(rows: slice) -> None:
        for c, (level, step, low) in enumerate(columns):
            out[rows, c] = level[scan_of[rows]] * step + low

    each_block(place, len(out))


# --- 32-bit columns -------------------------------------------------------------------------------------


def _take_planes(reader: Reader, name: str, groups: int, count: int) -> np.ndarray:
    """Bit planes `[groups, 8, count/8]`."""
    array = reader.take(name, "u1")
    expected = [groups, 8, plane_length(count)]
    if list(array.shape) != expected:
        raise bad_state(name, f"has shape {list(array.shape)}, expected {expected}")
    return array


def _bytes_of(rows: slice) -> slice:
    """Where the bits of a block of rows lie in a bit plane."""
    return slice(rows.start // 8, plane_length(rows.stop))


def _write_u32(tensors: Tensors, name: str, count: int, code: Callable[[slice], np.ndarray]) -> None:
    """Bit planes `[4, 8, count/8]` of the numbers that `code` gives for a block of rows."""
    planes = np.empty((4, 8, plane_length(count)), np.uint8)
    each_block(lambda rows: _put_u32(planes, rows, code(rows)), count)
    tensors[name] = planes


def _write_u32_steps(tensors: Tensors, name: str, values: np.ndarray) -> None:
    _write_u32(tensors, name, len(values), lambda rows: zigzag32(_stepped(values.__getitem__, rows)))


def _put_u32(planes: np.ndarray, rows: slice, code: np.ndarray) -> None:
    for plane, part in zip(planes, split_bytes(code), strict=True):
        plane[:, _bytes_of(rows)] = to_bit_planes(part)


def _get_u32(planes: np.ndarray, rows: slice) -> np.ndarray:
    return join_bytes(
        [from_bit_planes(plane[:, _bytes_of(rows)], rows.stop - rows.start) for plane in planes]
    )


def _read_u32(reader: Reader, name: str, count: int) -> np.ndarray:
    planes = _take_planes(reader, name, 4, count)
    code = np.empty(count, np.uint32)
    each_block(lambda rows: code.__setitem__(rows, _get_u32(planes, rows)), count)
    return code


def _read_u32_steps(reader: Reader, name: str, count: int) -> np.ndarray:
    """The numbers whose differences were written."""
    planes = _take_planes(reader, name, 4, count)
    return running_sum(np.empty(count, np.uint32), lambda rows: unzigzag32(_get_u32(planes, rows)))


def _write_floats(
    tensors: Tensors, name: str, count: int, columns: int, steps: Callable[[slice, int], np.ndarray]
) -> None:
    """Every bit of `[count, columns]` floats, whose `steps` (of a block and column) are to a prediction or to
    the row before."""
    for c in range(columns):
        _write_u32(tensors, f"{name}_{c}", count, lambda rows, c=c: zigzag32(steps(rows, c)))  # type: ignore[misc]


def _float_steps(values: np.ndarray, rows: slice, c: int) -> np.ndarray:
    return _stepped(lambda wider: ordered_bits(values[wider, c]), rows)


def _read_floats(reader: Reader, name: str, out: np.ndarray, scan_of: np.ndarray | None) -> None:
    """Fill `out` with floats whose steps were written; `scan_of`: where each row of `out` is among them."""
    for c in range(out.shape[1]):
        order = _read_u32_steps(reader, f"{name}_{c}", len(out))

        def place(rows: slice, c: int = c, order: np.ndarray = order) -> None:
            out[rows, c] = from_ordered_bits(order[rows if scan_of is None else scan_of[rows]])

        each_block(place, len(out))


def _read_off_centre(reader: Reader, out: np.ndarray, state: MeshState, scan_of: np.ndarray) -> None:
    """Fill `out` with vertices whose differences to their voxels' centres were written."""
    for c in range(3):
        code = _read_u32(reader, f"vertices_{c}", len(out))

        def place(rows: slice, c: int = c, code: np.ndarray = code) -> None:
            centres = ordered_bits(_centres(state.coords[rows], state)[:, c])
            out[rows, c] = from_ordered_bits(unzigzag32(code[scan_of[rows]]) + centres)

        each_block(place, len(out))
