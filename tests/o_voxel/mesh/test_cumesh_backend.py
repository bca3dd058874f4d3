"""The adapters' contract with cumesh, which needs a GPU to run: names, arguments and what is done with
results.

The stand-in answers as the package is documented to: fills wound by vertex number, int32 faces.
"""

from __future__ import annotations

import sys
import types

import pytest
import torch
from o_voxel import backends
from o_voxel.errors import BackendError
from o_voxel.mesh import cumesh_backend, fill_holes, remesh_narrow_band, simplify

from . import shapes


class CuMesh:
    def init(self, vertices: torch.Tensor, faces: torch.Tensor) -> None:
        assert vertices.is_contiguous()
        assert faces.is_contiguous()
        assert faces.dtype == torch.int32
        self.arrays = vertices, faces

    def read(self) -> shapes.Mesh:
        return self.arrays

    def fill_holes(self, max_hole_perimeter: float) -> None:
        assert max_hole_perimeter == 5.0
        vertices, faces = self.arrays
        rim = [e for e, n in shapes.edge_counts(faces).items() if n == 1]
        fan = torch.tensor([[max(e), min(e), len(vertices)] for e in rim], dtype=torch.int32)
        centre = vertices[torch.tensor(rim).reshape(-1)].mean(dim=0, keepdim=True)
        self.arrays = torch.cat([vertices, centre]), torch.cat([faces, fan])

    def simplify(self, target_num_faces: int, verbose: bool, options: dict[str, float] | None = None) -> None:
        vertices, faces = self.arrays
        self.arrays = vertices, torch.cat([faces[:target_num_faces], faces[:1]])


def remesh_narrow_band_dc(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    *,
    center: torch.Tensor,
    scale: float,
    resolution: int,
    band: float,
    project_back: float,
    verbose: bool,
) -> shapes.Mesh:
    assert center.tolist() == [0, 0, 0]
    return vertices * scale + band + project_back + resolution, faces


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("cumesh")
    module.CuMesh = CuMesh  # type: ignore[attr-defined]
    module.remeshing = types.SimpleNamespace(  # type: ignore[attr-defined]
        remesh_narrow_band_dc=remesh_narrow_band_dc
    )
    monkeypatch.setitem(sys.modules, "cumesh", module)
    monkeypatch.setattr(cumesh_backend, "pick", lambda *_: backends.Choice("mesh", "cumesh", "test"))


@pytest.mark.usefixtures("installed")
def test_fills_are_turned_to_agree_with_their_rim() -> None:
    points, faces = shapes.cube()
    filled_points, filled = fill_holes(points, faces[2:], max_perimeter=5.0)
    assert shapes.is_oriented(filled)
    assert len(filled_points) == 9


@pytest.mark.usefixtures("installed")
def test_simplify_and_remesh_go_to_the_package() -> None:
    points, faces = shapes.sphere(12)
    _, fewer = simplify(points, faces, 100)
    assert len(fewer) == 100  # the duplicate that it left is gone
    moved, same = remesh_narrow_band(points, faces, (0, 0, 0), 2.0, 32, 1.5, 0.5)
    torch.testing.assert_close(moved, points * 2 + 34)
    assert torch.equal(same, faces)
    # What the package does not offer stays with the portable code.
    assert len(simplify(points, faces, 100, method="quadric")[1]) <= 101
    assert shapes.is_oriented(remesh_narrow_band(points, faces, (0, 0, 0), 1.0, 32, only_outer=True)[1])
    assert shapes.is_oriented(remesh_narrow_band(*shapes.tetrahedron(), (0, 0, 0), 3.0, 32)[1])


def test_forcing_the_package_on_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_BACKEND", "cumesh")
    with pytest.raises(BackendError, match="cumesh"):
        simplify(*shapes.sphere(12), 100)
