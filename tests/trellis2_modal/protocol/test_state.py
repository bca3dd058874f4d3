from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import lz4.frame
import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trellis2_modal.shapes import dual_grid
from trellis2_modal.protocol.errors import InvalidStateError
from trellis2_modal.protocol.state import (
    MeshState,
    ShapeLatents,
    bits,
    blocks,
    codec,
    compress_state,
    decompress_state,
    pack_state,
    peek_state,
    rounded_state,
    unpack_state,
)
from trellis2_modal.protocol.state.container import read_container, write_container


@pytest.fixture(scope="module")
def state() -> MeshState:
    return dual_grid(48)


@pytest.fixture(scope="module")
def packed(state: MeshState) -> bytes:
    return pack_state(state)


def with_hole_fills(state: MeshState) -> MeshState:
    """As hole filling leaves it: new vertices after the voxels', new faces after the quads."""
    tail = np.array([[0.011, 0.2, -0.3], [0.1, 0.1, 0.1]], np.float32)
    count = len(state.vertices)
    extra = np.array([[3, 1, count], [7, 2, count + 1], [1, 3, count]], np.int32)
    return replace(
        state,
        vertices=np.concatenate([state.vertices, tail]),
        faces=np.concatenate([state.faces, extra]),
    )


def assert_same(a: MeshState, b: MeshState, exact: bool) -> None:
    np.testing.assert_array_equal(a.faces, b.faces)
    np.testing.assert_array_equal(a.coords, b.coords)
    assert (a.origin, a.voxel_size, a.info) == (b.origin, b.voxel_size, b.info)
    if exact:
        assert a.vertices.tobytes() == b.vertices.tobytes()
        assert a.attrs.tobytes() == b.attrs.tobytes()
    else:
        assert np.abs(a.vertices - b.vertices).max(initial=0) <= b.voxel_size / 64
        assert np.abs(a.attrs - b.attrs).max() <= 1 / 255


@pytest.mark.parametrize("lossless", [False, True])
def test_round_trip(state: MeshState, lossless: bool) -> None:
    back = unpack_state(decompress_state(compress_state(pack_state(state, lossless))))
    assert_same(back, state, lossless)
    assert back.vertices.dtype == np.float32
    assert back.faces.dtype == np.int32


@pytest.mark.parametrize("lossless", [False, True])
def test_round_trip_with_filled_holes(state: MeshState, lossless: bool) -> None:
    filled = with_hole_fills(state)
    packed = pack_state(filled, lossless)
    assert_same(unpack_state(packed), filled, lossless)
    assert read_container(packed)[1]["quads"] == len(state.faces) // 2


@pytest.mark.parametrize("lossless", [False, True])
def test_round_trip_of_voxels_in_no_known_order(state: MeshState, lossless: bool) -> None:
    shuffle = np.random.default_rng(0).permutation(len(state.coords))
    place = np.argsort(shuffle).astype(np.int32)
    mixed = replace(
        state,
        vertices=state.vertices[shuffle],
        coords=state.coords[shuffle],
        attrs=state.attrs[shuffle],
        faces=place[state.faces],
    )
    assert_same(unpack_state(pack_state(mixed, lossless)), mixed, lossless)


@pytest.mark.parametrize("lossless", [False, True])
def test_round_trip_of_a_mesh_that_is_no_dual_grid(state: MeshState, lossless: bool) -> None:
    rng = np.random.default_rng(1)
    mesh = replace(
        state,
        vertices=rng.uniform(-0.5, 0.5, (50, 3)).astype(np.float32),
        faces=rng.integers(0, 50, (90, 3)).astype(np.int32),
    )
    packed = pack_state(mesh, lossless)
    assert_same(unpack_state(packed), mesh, lossless)
    assert read_container(packed)[1]["linked"] == 0


@pytest.mark.parametrize("lossless", [False, True])
def test_round_trip_of_turned_and_missing_faces(state: MeshState, lossless: bool) -> None:
    turned = state.faces.copy()
    turned[5] = turned[5][::-1]
    for faces in (turned, state.faces[:-1], state.faces[:0]):
        mesh = replace(state, faces=np.ascontiguousarray(faces))
        assert_same(unpack_state(pack_state(mesh, lossless)), mesh, lossless)


@pytest.mark.parametrize("lossless", [False, True])
def test_blocks_leave_no_trace(state: MeshState, lossless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shuffle = np.random.default_rng(0).permutation(len(state.coords))
    place = np.argsort(shuffle).astype(np.int32)
    mixed = replace(
        state,
        vertices=state.vertices[shuffle],
        coords=state.coords[shuffle],
        attrs=state.attrs[shuffle] * 3 - 1,
        faces=place[state.faces],
    )
    for mesh in (with_hole_fills(state), mixed):
        whole = pack_state(mesh, lossless)
        for module in (blocks, codec):
            monkeypatch.setattr(module, "BLOCK", 104)
        assert pack_state(mesh, lossless) == whole
        assert_same(unpack_state(whole), replace(mesh, attrs=unpack_state(whole).attrs), lossless)
        monkeypatch.undo()


def test_a_state_is_rounded_as_packing_rounds_it(state: MeshState) -> None:
    rng = np.random.default_rng(1)
    elsewhere = rng.uniform(-0.5, 0.5, (50, 3)).astype(np.float32)
    for mesh in (
        state,
        with_hole_fills(state),
        replace(state, attrs=state.attrs * 3 - 1),
        replace(state, origin=(0.1, -0.2, 0.3), vertices=state.vertices + np.float32([0.6, 0.3, 0.8])),
        replace(state, vertices=elsewhere, faces=rng.integers(0, 50, (90, 3)).astype(np.int32)),
    ):
        assert_same(rounded_state(mesh), unpack_state(pack_state(mesh)), exact=True)


def test_attributes_outside_the_unit_range_keep_their_accuracy(state: MeshState) -> None:
    attrs = state.attrs.copy()
    attrs[3, 0], attrs[4, 1], attrs[5, 5] = -3.0, 7.5, 1.2
    assert_same(unpack_state(pack_state(replace(state, attrs=attrs))), replace(state, attrs=attrs), False)


def test_the_container_is_a_safetensors_file(packed: bytes) -> None:
    assert {name for name, _ in safetensors.deserialize(packed)} >= {"key_gaps", "vertices", "attr_0"}


def test_compact_is_an_eighth_and_lossless_a_third() -> None:
    state = dual_grid(160, scale=1.05)
    raw = sum(a.nbytes for a in (state.vertices, state.faces, state.coords, state.attrs))
    assert len(compress_state(pack_state(state))) < raw / 8
    assert len(compress_state(pack_state(state, lossless=True))) < raw * 20 / 54


def test_the_object_at_512_fits_a_home_uplink() -> None:
    """The size targets at full size: 0.75 M voxels, 1.5 M faces, 54 MB raw. Times are in benchmarks/state."""
    state = dual_grid(512, scale=0.956)
    assert sum(a.nbytes for a in (state.vertices, state.faces, state.coords, state.attrs)) > 54e6
    for lossless, most in ((False, 7e6), (True, 20e6)):
        data = compress_state(pack_state(state, lossless))
        assert len(data) <= most
        assert_same(unpack_state(decompress_state(data)), state, lossless)


def test_peek_reads_the_header_alone(state: MeshState, packed: bytes) -> None:
    header = peek_state(compress_state(packed))
    assert header["voxels"] == len(state.coords)
    assert header["info"] == {"seed": 0}


def test_faces_of_a_few_voxels() -> None:
    one = MeshState(
        np.zeros((1, 3), np.float32),
        np.zeros((0, 3), np.int32),
        np.array([[5, 6, 7]], np.int32),
        np.full((1, 6), 0.5, np.float32),
    )
    for lossless in (False, True):
        assert_same(unpack_state(pack_state(one, lossless)), one, lossless)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vertices", np.full((4, 3), np.nan, np.float32)),
        ("vertices", np.zeros((4, 3), np.float64)),
        ("faces", np.array([[0, 1, 10**6]], np.int32)),
        ("faces", np.array([[0, 1, -1]], np.int32)),
        ("faces", np.zeros((4, 4), np.int32)),
        ("coords", np.zeros((0, 3), np.int32)),
        ("coords", np.array([[0, 0, 4096]], np.int32)),
        ("attrs", np.zeros((2, 6), np.float32)),
        ("voxel_size", float("nan")),
    ],
)
def test_a_state_that_does_not_add_up_is_not_packed(state: MeshState, field: str, value: Any) -> None:
    with pytest.raises(InvalidStateError):
        pack_state(replace(state, **{field: value}))


def test_the_same_voxel_twice_is_refused(state: MeshState) -> None:
    coords = state.coords.copy()
    coords[1] = coords[0]
    with pytest.raises(InvalidStateError, match="twice"):
        pack_state(replace(state, coords=coords))


# --- hostile bytes --------------------------------------------------------------------------------------


def edited(packed: bytes, **changes: Any) -> bytes:
    """The container with members of its JSON header replaced."""
    tensors, header = read_container(packed)
    return write_container({k: np.array(v) for k, v in tensors.items()}, header | changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": "other"}, "format"),
        ({"version": 3}, "newer version"),
        ({"version": 2, "latents": {"tokens": 0}}, "latents"),
        ({"version": 2, "latents": {"tokens": 2, "channels": 4, "resolution": 512}}, "latent_coords"),
        ({"version": 0}, "version"),
        ({"version": "1"}, "version"),
        ({"voxels": 10**9}, "voxels"),
        ({"voxels": 5}, "linked"),
        ({"voxels": True}, "voxels"),
        ({"vertices": 3}, "linked"),
        ({"faces": 2}, "quads"),
        ({"quads": 7}, "faces"),
        ({"grid": [48, 48, 49]}, "grid"),
        ({"grid": [1, 1, 1]}, "reaches"),
        ({"grid": [4000, 1, 1]}, "grid"),
        ({"grid": 48}, "grid"),
        ({"levels": 99}, "levels"),
        ({"levels": None}, "order"),
        ({"voxel_size": 1e-30}, "voxel_size"),
        ({"voxel_size": "1"}, "voxel_size"),
        ({"origin": [0, 0]}, "origin"),
        ({"attr_ranges": [[0, 1]]}, "attr_ranges"),
        ({"attr_ranges": [[0, 1e300]] * 6}, "attr_ranges"),
        ({"attr_ranges": [[0, 100.0]] * 6}, "attr_0"),
        ({"lossless": 1}, "lossless"),
        ({"lossless": True}, "vertices_0"),
        ({"layout": {}}, "layout"),
        ({"info": 5}, "info"),
        ({"linked": 0}, "quads"),
    ],
)
def test_a_lying_header_is_named(packed: bytes, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidStateError, match=named):
        unpack_state(edited(packed, **changes))


@pytest.mark.parametrize(
    "name", ["key_gaps", "key_jumps", "flags", "diagonals", "faces", "vertices", "attr_3"]
)
def test_missing_misshapen_and_extra_tensors_are_named(packed: bytes, name: str) -> None:
    tensors, header = read_container(packed)
    good = {k: np.array(v) for k, v in tensors.items()}
    for bad in (None, good[name].astype(np.float32), np.zeros(3, good[name].dtype)):
        changed = {k: v for k, v in good.items() if k != name} | ({} if bad is None else {name: bad})
        with pytest.raises(InvalidStateError):
            unpack_state(write_container(changed, header))
    with pytest.raises(InvalidStateError, match="more"):
        unpack_state(write_container(good | {"more": np.zeros(1, np.uint8)}, header))


def test_a_flag_for_a_quad_that_cannot_be_is_refused(packed: bytes) -> None:
    tensors, header = read_container(packed)
    good = {k: np.array(v) for k, v in tensors.items()}
    have = int(np.unpackbits(good["flags"]).sum())
    good["flags"] = np.packbits(np.unpackbits(good["flags"], axis=1)[:, ::-1].copy(), axis=1)
    assert int(np.unpackbits(good["flags"]).sum()) == have
    with pytest.raises(InvalidStateError):
        unpack_state(write_container(good, header))


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("corner", [50, -1, 2**31 - 1])
def test_faces_that_point_outside_are_refused(state: MeshState, corner: int, lossless: bool) -> None:
    """Written by a client that packs without checking."""
    faces = np.array([[0, 1, 2], [3, 4, corner]], np.int32)
    mesh = replace(state, vertices=state.vertices[:50].copy(), faces=faces)
    with pytest.MonkeyPatch.context() as careless:
        careless.setattr(MeshState, "validate", lambda self: None)
        packed = pack_state(mesh, lossless)
    with pytest.raises(InvalidStateError, match="faces"):
        unpack_state(packed)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = lz4.frame.compress(bytes(200 << 20), store_size=True)
    with pytest.raises(InvalidStateError, match="allowed"):
        decompress_state(bomb, ceiling=1 << 20)
    lying = bytearray(lz4.frame.compress(b"x" * 100, store_size=True))
    lying[6:14] = (500 << 20).to_bytes(8, "little")
    with pytest.raises(InvalidStateError, match="frame"):
        decompress_state(bytes(lying))


def test_an_unsized_or_trailing_frame_is_refused(packed: bytes) -> None:
    with pytest.raises(InvalidStateError, match="declares"):
        decompress_state(lz4.frame.compress(packed, store_size=False))
    with pytest.raises(InvalidStateError, match="frame"):
        decompress_state(compress_state(packed) + b"more")
    with pytest.raises(InvalidStateError, match="frame"):
        decompress_state(compress_state(packed)[:-20])


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"__metadata__": 3}',
        b'{"__metadata__": {"state": "{}"}, "a": 1}',
        b'{"__metadata__": {"state": "{}"}, "a": {"dtype": "F8", "shape": [1], "data_offsets": [0, 1]}}',
        b'{"__metadata__": {"state": "{}"}, "a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}',
        b'{"__metadata__": {"state": "{}"}, "a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, -1]}}',
        b'{"__metadata__": {"state": "{}"}, "a": {"dtype": "U8", "shape": [1e9], "data_offsets": [0, 1]}}',
        b'{"__metadata__": {"state": "{}"}, "a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}',
        b'{"__metadata__": {"state": "' + b"[" * 30_000 + b'"}}',
        b"[" * 60_000,
        b'{"__metadata__": {"state": "{}"}}' + b" " * 70_000,
    ],
)
def test_a_broken_container_is_refused(header: bytes) -> None:
    data = len(header).to_bytes(8, "little") + header + b"zz"
    with pytest.raises(InvalidStateError):
        unpack_state(data)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_crash_the_parsers(data: bytes) -> None:
    for parse in (decompress_state, unpack_state):
        with pytest.raises(InvalidStateError):
            parse(data)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_bytes_never_crash(data: st.DataObject) -> None:
    state = dual_grid(16)
    good = bytearray(pack_state(state))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidStateError):  # any other error fails the test
        unpack_state(bytes(good)).validate()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 70), st.integers(0, 2**32 - 1))
def test_filters_are_reversible(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, count).astype(np.uint8)
    assert (bits.from_bit_planes(bits.to_bit_planes(small), count) == small).all()
    assert (bits.unzigzag8(bits.zigzag8(small)) == small).all()
    wide = rng.integers(0, 2**32, count).astype(np.uint32)
    assert (bits.unzigzag32(bits.zigzag32(wide)) == wide).all()
    assert (bits.join_bytes(bits.split_bytes(wide)) == wide).all()
    floats = np.concatenate([rng.normal(size=count).astype(np.float32), np.float32([0.0, -0.0])])
    assert bits.from_ordered_bits(bits.ordered_bits(floats)).tobytes() == floats.tobytes()
    order = np.argsort(bits.ordered_bits(floats), kind="stable")
    assert (np.diff(floats[order]) >= 0).all()


def test_latents_come_back_bit_for_bit_and_only_where_they_were_kept(state: MeshState, packed: bytes) -> None:
    coords = np.array([[0, 1, 2], [31, 0, 5], [3, 3, 3]], np.int32)
    feats = np.random.default_rng(1).normal(size=(3, 16)).astype(np.float32)
    kept = pack_state(replace(state, latents=ShapeLatents(coords, feats, 512)))
    latents = unpack_state(kept).latents
    assert latents is not None
    assert latents.feats.tobytes() == feats.tobytes()
    np.testing.assert_array_equal(latents.coords, coords)
    assert latents.resolution == peek_state(compress_state(kept))["latents"]["resolution"] == 512
    assert (unpack_state(packed).latents, peek_state(compress_state(packed))["version"]) == (None, 1)
    for bad in (
        ShapeLatents(coords[[0, 0, 1]], feats, 512),
        ShapeLatents(coords, feats * np.inf, 512),
        ShapeLatents(coords, feats[:2], 512),
        ShapeLatents(coords + 600, feats, 512),
    ):
        with pytest.raises(InvalidStateError, match="latent"):
            pack_state(replace(state, latents=bad))
