"""`python open_in.py PROGRAM FILE...` under a Python that has the program: one JSON line a file.

Programs: trimesh, open3d, pymeshlab, bpy (Blender), usd (usdchecker's rules), lib3mf. Each line says how many
faces and textures the program found, and the height along its up axis, or the error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

Found = dict[str, Any]


def in_trimesh(path: str) -> Found:
    import trimesh

    loaded = trimesh.load(path, process=False)
    meshes = list(loaded.geometry.values()) if isinstance(loaded, trimesh.Scene) else [loaded]
    textures = 0
    for mesh in meshes:
        material = getattr(mesh.visual, "material", None)
        names = ("image", "baseColorTexture", "metallicRoughnessTexture", "normalTexture")
        textures += sum(getattr(material, name, None) is not None for name in names)
    return {"faces": sum(len(mesh.faces) for mesh in meshes), "textures": textures}


def in_open3d(path: str) -> Found:
    import numpy as np
    import open3d

    open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)
    model = open3d.io.read_triangle_model(path)
    faces = sum(len(part.mesh.triangles) for part in model.meshes)
    kinds = ("albedo_img", "normal_img", "roughness_img", "metallic_img", "ao_rough_metal_img")
    textures = sum(
        not image.is_empty()
        for material in model.materials
        for kind in kinds
        if (image := getattr(material, kind, None)) is not None
    )
    coloured = open3d.io.read_triangle_mesh(path)
    points = np.asarray(coloured.vertices)
    return {
        "faces": faces or len(coloured.triangles),
        "textures": textures,
        "vertex_colours": coloured.has_vertex_colors(),
        "size": np.ptp(points, axis=0).tolist() if len(points) else None,
    }


def in_pymeshlab(path: str) -> Found:
    import pymeshlab

    found = pymeshlab.MeshSet()
    found.load_new_mesh(path)
    mesh = found.current_mesh()
    box = mesh.bounding_box()
    return {
        "faces": sum(m.face_number() for m in found),
        "textures": mesh.texture_number(),
        "vertex_colours": mesh.has_vertex_color(),
        "size": [box.dim_x(), box.dim_y(), box.dim_z()],
    }


def in_bpy(path: str) -> Found:
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    operators: dict[str, Callable[[], Any]] = {
        "glb": lambda: bpy.ops.import_scene.gltf(filepath=path),
        "obj": lambda: bpy.ops.wm.obj_import(filepath=path),
        "usdz": lambda: bpy.ops.wm.usd_import(filepath=path),
        "stl": lambda: bpy.ops.wm.stl_import(filepath=path),
        "ply": lambda: bpy.ops.wm.ply_import(filepath=path),
    }
    operators[path.rpartition(".")[2]]()
    objects = [item for item in bpy.context.scene.objects if item.type == "MESH"]
    images = [image for image in bpy.data.images if image.size[0] > 0 and image.source == "FILE"]
    kinds = {
        node.type
        for material in bpy.data.materials
        if material.node_tree
        for node in material.node_tree.nodes
    }
    corners = [item.matrix_world @ vertex.co for item in objects for vertex in item.data.vertices]
    size = [max(c[k] for c in corners) - min(c[k] for c in corners) for k in range(3)] if corners else None
    return {
        "faces": sum(len(item.data.polygons) for item in objects),
        "textures": len(images),
        "normal_map": "NORMAL_MAP" in kinds,
        "size": size,
    }


def in_usd(path: str) -> Found:
    from pxr import Usd, UsdGeom, UsdShade, UsdUtils, UsdValidation

    problems = []
    stage = Usd.Stage.Open(path)
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    context = UsdValidation.ValidationContext(validators)
    for problem in context.Validate(stage):
        problems.append(f"{problem.GetType()}: {problem.GetErrorMessage()}")
    if hasattr(UsdUtils, "ComplianceChecker"):
        checker = UsdUtils.ComplianceChecker(arkit=True)
        checker.CheckCompliance(path)
        problems += [*checker.GetErrors(), *checker.GetFailedChecks(), *checker.GetWarnings()]
    faces = [UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]
    shaders = [UsdShade.Shader(prim) for prim in stage.Traverse() if prim.IsA(UsdShade.Shader)]
    return {
        "faces": sum(len(mesh.GetFaceVertexCountsAttr().Get()) for mesh in faces),
        "textures": sum(shader.GetIdAttr().Get() == "UsdUVTexture" for shader in shaders),
        "metres_per_unit": UsdGeom.GetStageMetersPerUnit(stage),
        "up": UsdGeom.GetStageUpAxis(stage),
        "problems": problems,
    }


def in_lib3mf(path: str) -> Found:
    import lib3mf

    wrapper = lib3mf.get_wrapper()
    model = wrapper.CreateModel()
    reader = model.QueryReader("3mf")
    reader.SetStrictModeActive(True)
    reader.ReadFromFile(path)
    items = model.GetMeshObjects()
    faces, valid = 0, True
    while items.MoveNext():
        mesh = items.GetCurrentMeshObject()
        faces += mesh.GetTriangleCount()
        valid &= mesh.IsValid() and mesh.IsManifoldAndOriented()
    box = model.GetOutbox()
    size = [box.MaxCoordinate[k] - box.MinCoordinate[k] for k in range(3)]
    warnings = [str(reader.GetWarning(k)) for k in range(reader.GetWarningCount())]
    groups = model.GetColorGroups()
    return {
        "faces": faces,
        "solid": valid,
        "unit": str(model.GetUnit()),
        "size": size,
        "colours": groups.MoveNext() and groups.GetCurrentColorGroup().GetCount(),
        "problems": warnings,
    }


PROGRAMS = {
    "trimesh": in_trimesh,
    "open3d": in_open3d,
    "pymeshlab": in_pymeshlab,
    "bpy": in_bpy,
    "usd": in_usd,
    "lib3mf": in_lib3mf,
}


def main() -> None:
    for path in sys.argv[2:]:
        try:
            found = PROGRAMS[sys.argv[1]](path)
        except Exception as error:  # whatever the program says about the file is the result
            found = {"error": f"{type(error).__name__}: {error}"}
        print("\n" + json.dumps({"program": sys.argv[1], "file": path} | found), flush=True)


if __name__ == "__main__":
    main()
