"""What new textures keep and show, on held-out objects: `python -m benchmarks.retexture --objects 6`.

Each object of the trainer's world (`training/`) becomes a GLB with UVs; the bundled weights texture it anew
from a picture of the true object. Positions and UVs must come back bit for bit; colours are compared with the
true ones at the points that the picture shows.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "o-voxel"), str(ROOT / "training")]

WEIGHTS = ROOT / "assets" / "weights" / "trellis2-mini"
FACES, TEXTURE, RESOLUTION = 20_000, 1024, 512
SEEN = 8000


def stored(data: bytes, name: str) -> list[bytes]:
    """The values of an attribute as a GLB stores them, a primitive each."""
    from o_voxel.check.glb import GlbFile, glb_chunks

    file = GlbFile(*glb_chunks(data))
    primitives = [p for mesh in file.document["meshes"] for p in mesh["primitives"]]
    return [file.accessor(p["attributes"][name]).tobytes() for p in primitives]


def colours_at(data: bytes, points: np.ndarray) -> np.ndarray:
    """Base colour [P, 3] of a GLB's texture at the surface points nearest to `points` [P, 3] (y up)."""
    from o_voxel.check.glb import GlbFile, glb_chunks
    from o_voxel.mesh.spatial.bvh import TriangleBVH
    from o_voxel.retexture import read_mesh
    from PIL import Image

    (surface,) = read_mesh(data, "glb").surfaces
    assert surface.uvs is not None
    file = GlbFile(*glb_chunks(data))
    entry = file.document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    image = file.document["images"][file.document["textures"][entry["index"]]["source"]]
    texture = np.asarray(Image.open(io.BytesIO(file.view(image["bufferView"]))).convert("RGB")) / 255
    vertices, faces = torch.from_numpy(surface.vertices).float(), torch.from_numpy(surface.faces).int()
    near = TriangleBVH(vertices, faces).closest(torch.from_numpy(points).float())
    corners = torch.from_numpy(surface.uvs)[faces[near.face].long()]  # [P, 3, 2]
    place = ((corners * near.barycentric[:, :, None]).sum(dim=1).numpy() * len(texture)).astype(int)
    column, row = place.clip(0, len(texture) - 1).T
    found: np.ndarray = texture[row, column]
    return found


def measure(number: int, generator: Any) -> dict[str, Any]:
    """One held-out object: what stayed, and how far the colours are from the true ones."""
    from o_voxel.postprocess import to_glb
    from trellis2_training import world
    from trellis2_training.data.voxelize import voxelize
    from trellis2_training.evaluation.evaluate import held_out_picture, to_rgba, true_mesh

    from trellis2.representations import PBR_ATTR_LAYOUT
    from trellis2_modal.jobs.execution import Monitor
    from trellis2_modal.protocol.requests import TextureSettings
    from trellis2_modal.protocol.views import Inputs, pack_inputs

    seed = world.HELD_OUT_SEED + number
    table = torch.from_numpy(world.object_table(seed))
    truth = voxelize(table, RESOLUTION)
    _, picture = held_out_picture(table, seed)
    vertices, faces = true_mesh(truth)
    grey = torch.full((len(truth.coords), 6), 0.5)
    box = [[-0.5] * 3, [0.5] * 3]
    mesh = to_glb(
        vertices, faces, grey, truth.coords, PBR_ATTR_LAYOUT, box, grid_size=RESOLUTION,
        decimation_target=FACES, texture_size=256, remesh=False,
    ).export()  # fmt: skip
    photo = io.BytesIO()
    to_rgba(picture).save(photo, "PNG")
    settings = TextureSettings(texture_size=TEXTURE, texture_format="png", preview="none", seed=number)
    started = time.perf_counter()
    out = generator.texture(pack_inputs(Inputs([photo.getvalue()], mesh=mesh)), settings, Monitor())
    seconds = time.perf_counter() - started
    made = out.files["glb"].data
    seen = picture.mask[0, 0] > 0.99
    points, colours = picture.position[0][:, seen].T, picture.attributes[0, :3][:, seen].T
    keep = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:SEEN]
    x, y, z = points[keep].numpy().T
    shown = colours_at(made, np.stack([x, z, -y], axis=1))
    return {
        "number": seed,
        "family": world.family_of(seed),
        "positions_equal": stored(mesh, "POSITION") == stored(made, "POSITION"),
        "uvs_equal": stored(mesh, "TEXCOORD_0") == stored(made, "TEXCOORD_0"),
        "visible_base_color_mae": float(np.abs(shown - colours[keep].numpy()).mean()),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Measure and print a row an object, and the mean."""
    from trellis2_modal.service.generator import create

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=6)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    generator = create(str(WEIGHTS), device=options.device)
    rows = []
    for number in range(options.objects):
        rows.append(measure(number, generator))
        print(json.dumps(rows[-1]), flush=True)
    mean = float(np.mean([row["visible_base_color_mae"] for row in rows]))
    kept = sum(row["positions_equal"] and row["uvs_equal"] for row in rows)
    print(
        f"{kept} of {len(rows)} kept positions and UVs bit for bit; base colour of visible points: {mean:.3f}"
    )


if __name__ == "__main__":
    main()
