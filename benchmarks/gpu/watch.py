"""Seconds inside the steps of an export, and of the state before it, by the functions that are called."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any, TypeVar
from unittest.mock import patch

from o_voxel.mesh.charts import flatten, packing, unwrap
from o_voxel.mesh.charts.laplacian import ConjugateGradients
from o_voxel.mesh.rebuild import rebuild, spaces
from o_voxel.mesh.repair import manifold
from o_voxel.postprocess import asset, geometry, material, pipeline
from o_voxel.postprocess.textures import bake, encode
from o_voxel.postprocess.writers import glb

from benchmarks.gpu.first_request import finish
from trellis2_modal.protocol.state import codec
from trellis2_modal.service import generator, state

T = TypeVar("T")

WATCHED: list[tuple[Any, str]] = [
    (generator, "pack_state"),
    (codec, "_scan_order _write_faces _write_local _write_attrs write_container"),
    (state, "from_mesh compress_state decompress_state rounded_state to_mesh"),
    (state.RecentState, "hold unpacked"),
    (pipeline, "check_source fill_holes is_frayed rebuilt TriangleBVH clean_and_simplify simplified_closed"),
    (pipeline, "evened unwrap shaded_layout shading_normals cache_order fetch_order bake fill_gutters"),
    (pipeline, "_material choose_alpha_mode _asset topology signed_volume inside_out"),
    (asset.GlbAsset, "export"),
    (asset, "write_glb"),
    (glb, "_mesh glb_container"),
    (material.Material, "encoded"),
    (material, "encode_map"),
    (encode, "_webp _jpeg _small_jpeg _pixels _sheet encode_png"),
    (bake, "rasterize_uv nearest_covered fill _project sample_trilinear"),
    (geometry, "simplify make_manifold unify_orientations remove_small_components"),
    (unwrap, "face_graph cluster_faces smooth_borders flatten_charts _merge_small pack_charts _box_fill"),
    (flatten, "_as_rigid_as_possible _is_valid"),
    (ConjugateGradients, "__init__ solve"),
    (packing, "_outline _inner _largest_fitting _pack _border_cells"),
    (rebuild, "surface_band spaces solid_depth _manifold_cells surface_nets _pulled_back _evenly_spread"),
    (spaces, "sky hollow_rooms in_reach grown"),
    (manifold, "_without_folds _parted _pairs_around"),
]


class Watch:
    """Seconds and calls of functions by the path of watched functions that led to them.

    A path begins anew, with "thread", in each further thread; what several do at once is added up.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._main = threading.get_ident()
        self._here = threading.local()
        self._adding = threading.Lock()

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def timed(*args: Any, **options: Any) -> Any:
            first = [] if threading.get_ident() == self._main else ["thread"]
            path = self._here.path = [*getattr(self._here, "path", first), _label(name, args)]
            finish(self.device)
            began = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                finish(self.device)
                with self._adding:
                    self.seconds[" > ".join(path)] += time.perf_counter() - began
                    self.calls[" > ".join(path)] += 1
                self._here.path = path[:-1]

        return timed

    def run(self, call: Callable[[], T]) -> T:
        with ExitStack() as stack:
            for owner, names in WATCHED:
                for name in names.split():
                    stack.enter_context(patch.object(owner, name, self._wrapped(name, getattr(owner, name))))
            kinds = {
                name: dataclasses.replace(
                    kind,
                    error=self._wrapped("error", kind.error),
                    of_blocks=kind.of_blocks and self._wrapped("error of blocks", kind.of_blocks),
                )
                for name, kind in encode.MAP_KINDS.items()
            }
            stack.enter_context(patch.dict(encode.MAP_KINDS, kinds))
            return call()

    def lines(self) -> str:
        found = []
        for path in sorted(self.seconds):
            *above, name = path.split(" > ")
            found.append(f"{'  ' * len(above)}{name:36} {self.seconds[path]:8.3f} s {self.calls[path]:4}")
        return "\n".join(found)


def _label(name: str, args: tuple[Any, ...]) -> str:
    """With the map's name and the format, where a map is encoded."""
    return f"{name} {args[0]} {args[2]}" if name == "encode_map" else name
