"""For a Python that has bpy: in_blender.py PICTURE prints as JSON what the add-on made of the scene."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bpy  # type: ignore[import-not-found,unused-ignore]

sys.path.insert(0, str(Path(__file__).parents[2] / "integrations" / "blender"))

import trellis2_blender


def main(picture: str) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    trellis2_blender.register()
    problem = ""
    try:
        ended = sorted(bpy.ops.trellis2.generate(filepath=picture, seed=7, budget="web"))
    except RuntimeError as error:  # what Blender makes of an operator's error
        ended, problem = ["ERROR"], str(error)
    if len(sys.argv) > 2 and ended == ["FINISHED"]:  # what has just come in is selected: paint it
        try:
            ended = sorted(bpy.ops.trellis2.texture(filepath=picture))
        except RuntimeError as error:
            ended, problem = ["ERROR"], str(error)
    meshes = [thing for thing in bpy.data.objects if thing.type == "MESH"]
    found = {
        "ended": ended,
        "problem": problem,
        "names": [mesh.name for mesh in meshes],
        "faces": sum(len(mesh.data.polygons) for mesh in meshes),
        "images": sum(image.size[0] > 0 for image in bpy.data.images),
    }
    trellis2_blender.unregister()
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
