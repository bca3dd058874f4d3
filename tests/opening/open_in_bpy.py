"""Run by tests.opening inside bpy's environment: FILE PICTURE; one JSON line, and a render of a GLB."""

import json
import math
import sys

import bpy
from mathutils import Vector

file, picture = sys.argv[1:3]
bpy.ops.wm.read_factory_settings(use_empty=True)
suffix = file.rsplit(".", 1)[1]
if suffix == "glb":
    bpy.ops.import_scene.gltf(filepath=file)
else:
    {"obj": bpy.ops.wm.obj_import, "ply": bpy.ops.wm.ply_import, "stl": bpy.ops.wm.stl_import}[suffix](
        filepath=file
    )
meshes = [o for o in bpy.context.scene.objects if o.type == "MESH"]
# nodes outside of the glTF's scene, as levels of detail are, are imported but not shown
shown = [o for o in meshes if o.name in bpy.context.view_layer.objects]
corners = [o.matrix_world @ Vector(c) for o in shown for c in o.bound_box]
low, high = (Vector(f(c[k] for c in corners) for k in range(3)) for f in (min, max))
images = [i for i in bpy.data.images if i.size[0]]
faces = sum(len(o.data.polygons) for o in shown)
if suffix == "glb":
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 16
    scene.cycles.device = "CPU"
    scene.render.resolution_x = scene.render.resolution_y = 512
    scene.render.filepath = picture
    scene.world = bpy.data.worlds.new("grey")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (0.8, 0.8, 0.8, 1)
    middle, reach = (low + high) / 2, (high - low).length
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location = middle + Vector((0.35, -1.0, 0.35)).normalized() * reach * 1.9
    camera.rotation_euler = (middle - camera.location).to_track_quat("-Z", "Y").to_euler()
    lamp = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    lamp.data.energy = 2.0
    lamp.rotation_euler = (math.radians(45), 0, math.radians(30))
    for thing in (camera, lamp):
        scene.collection.objects.link(thing)
    scene.camera = camera
    bpy.ops.render.render(write_still=True)
size = [round(v, 4) for v in high - low]
found = {"faces": faces, "objects": len(shown), "hidden": len(meshes) - len(shown)}
print(json.dumps(found | {"size": size, "textures": len(images)}))
