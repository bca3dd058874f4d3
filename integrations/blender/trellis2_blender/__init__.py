"""Blender add-on: a picture becomes a textured object, by a TRELLIS.2 service of your choice.

The sidebar's tab TRELLIS.2 has two buttons. The service does the work: Blender stays usable, Esc stops it.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

from .service import CancelledError, Report, Service, ServiceProblemError

bl_info = {
    "name": "TRELLIS.2",
    "author": "The TRELLIS.2 on Modal project",
    "version": (0, 1, 0),
    "blender": (4, 2, 0),
    "location": "View3D > Sidebar > TRELLIS.2",
    "description": "A picture becomes a textured object",
    "category": "Import-Export",
}

PICTURES = "*.png;*.jpg;*.jpeg;*.webp"
Make = Callable[[Service, Report, Callable[[], bool]], bytes]
"""The GLB that a service makes; told of progress, and whether to stop."""

BUDGETS = [
    ("web", "Web", "50 000 faces, textures of 1024 pixels"),
    ("game", "Game", "100 000 faces, textures of 2048 pixels"),
    ("mobile", "Mobile", "15 000 faces, textures of 1024 pixels"),
]


class Trellis2Preferences(bpy.types.AddonPreferences):  # type: ignore[misc,name-defined,unused-ignore]
    """Which service is used, and the key for it."""

    bl_idname = __package__

    url: bpy.props.StringProperty(name="Service URL", default="")  # type: ignore[valid-type,unused-ignore]
    key: bpy.props.StringProperty(name="API key", subtype="PASSWORD")  # type: ignore[valid-type,unused-ignore]

    def draw(self, context: Any) -> None:
        self.layout.prop(self, "url")
        self.layout.prop(self, "key")
        self.layout.label(text="Left empty: TRELLIS2_URL and TRELLIS2_API_KEY, or http://127.0.0.1:8188")


def chosen_service(context: Any) -> Service:
    """The service of the preferences, else of the environment. Raises `ServiceProblemError`."""
    addon = context.preferences.addons.get(__package__)
    url = getattr(addon.preferences, "url", "") if addon else ""
    key = getattr(addon.preferences, "key", "") if addon else ""
    if not url:  # a key is only ever sent to the address that it was set with
        url = os.environ.get("TRELLIS2_URL", "http://127.0.0.1:8188")
        key = key or os.environ.get("TRELLIS2_API_KEY", "")
    if not getattr(bpy.app, "online_access", True) and "//127.0.0.1" not in url:
        raise ServiceProblemError("Blender's preferences do not allow online access")
    return Service(url, key)


def import_asset(data: bytes, name: str) -> list[Any]:
    """The objects of a GLB in the scene, selected, the first of them named."""
    before = set(bpy.data.objects)
    with tempfile.TemporaryDirectory(prefix="trellis2-") as folder:
        path = Path(folder) / "asset.glb"
        path.write_bytes(data)
        bpy.ops.import_scene.gltf(filepath=str(path))
    found = [thing for thing in bpy.data.objects if thing not in before]
    if not found:
        raise ServiceProblemError("the file of the service has no object")
    meshes = [thing for thing in found if thing.type == "MESH"]
    (meshes or found)[0].name = name
    return found


class ServiceOperator:
    """What both operators share: the work in a thread, its progress, Esc, and the import at the end."""

    filepath: str

    def invoke(self, context: Any, event: Any) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: Any, name: str, make: Make) -> set[str]:
        """With a window the work goes on beside it; without one (scripts) this waits for it."""
        self._name = name
        self._messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._stop = threading.Event()
        try:
            service = chosen_service(context)
        except ServiceProblemError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if bpy.app.background:
            self._work(service, make)
            return self._heard(context, wait=True) or {"CANCELLED"}
        threading.Thread(target=self._work, args=(service, make), daemon=True).start()
        self._timer = context.window_manager.event_timer_add(0.3, window=context.window)
        context.window_manager.modal_handler_add(self)
        context.window_manager.progress_begin(0, 100)
        return {"RUNNING_MODAL"}

    def modal(self, context: Any, event: Any) -> set[str]:
        if event.type == "ESC":
            self._stop.set()
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        ended = self._heard(context)
        if ended is None:
            return {"PASS_THROUGH"}
        context.window_manager.event_timer_remove(self._timer)
        context.window_manager.progress_end()
        context.workspace.status_text_set(None)
        return ended

    def _work(self, service: Service, make: Make) -> None:
        """In a thread, which must not touch Blender's data."""

        def told(words: str, done: float) -> None:
            self._messages.put(("progress", (words, done)))

        try:
            self._messages.put(("made", make(service, told, self._stop.is_set)))
        except CancelledError:
            self._messages.put(("cancelled", None))
        except Exception as error:
            self._messages.put(("failed", str(error)))

    def _heard(self, context: Any, wait: bool = False) -> set[str] | None:
        """Act on what the thread says; how the operator ends, if it does."""
        while wait or not self._messages.empty():
            kind, value = self._messages.get()
            if kind == "progress" and not bpy.app.background:
                context.workspace.status_text_set(f"TRELLIS.2: {value[0]} (Esc stops it)")
                context.window_manager.progress_update(round(100 * value[1]))
            elif kind == "made":
                try:
                    import_asset(value, self._name)
                except (ServiceProblemError, RuntimeError) as error:
                    self.report({"ERROR"}, str(error))
                    return {"CANCELLED"}
                self.report({"INFO"}, "The object is in the scene")
                return {"FINISHED"}
            elif kind in ("failed", "cancelled"):
                self.report({"ERROR" if value else "WARNING"}, value or "Stopped")
                return {"CANCELLED"}
        return None


class Trellis2Generate(ServiceOperator, bpy.types.Operator):  # type: ignore[misc,name-defined,unused-ignore]
    """Make a textured object of a picture"""

    bl_idname = "trellis2.generate"
    bl_label = "Object from a picture"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012  (Blender reads it as it is)

    filepath: bpy.props.StringProperty(subtype="FILE_PATH")  # type: ignore[valid-type,unused-ignore]
    filter_glob: bpy.props.StringProperty(default=PICTURES, options={"HIDDEN"})  # type: ignore[valid-type,unused-ignore]
    seed: bpy.props.IntProperty(name="Seed", default=42, min=0, max=2**31 - 1)  # type: ignore[valid-type,unused-ignore]
    budget: bpy.props.EnumProperty(name="Budget", items=BUDGETS, default="game")  # type: ignore[valid-type,unused-ignore]
    texture: bpy.props.BoolProperty(name="Texture", default=True)  # type: ignore[valid-type,unused-ignore]

    def execute(self, context: Any) -> set[str]:
        picture = Path(bpy.path.abspath(self.filepath))
        settings = {"seed": self.seed, "texture": self.texture}, {"simplify": self.budget}
        return self.run(context, picture.stem, lambda service, *told: service.make(picture, *settings, *told))


class Trellis2Texture(ServiceOperator, bpy.types.Operator):  # type: ignore[misc,name-defined,unused-ignore]
    """Give the selected meshes new textures, on their own UVs, by a picture"""

    bl_idname = "trellis2.texture"
    bl_label = "Textures from a picture"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    filepath: bpy.props.StringProperty(subtype="FILE_PATH")  # type: ignore[valid-type,unused-ignore]
    filter_glob: bpy.props.StringProperty(default=PICTURES, options={"HIDDEN"})  # type: ignore[valid-type,unused-ignore]
    seed: bpy.props.IntProperty(name="Seed", default=42, min=0, max=2**31 - 1)  # type: ignore[valid-type,unused-ignore]
    new_uvs: bpy.props.BoolProperty(name="New UVs", default=False)  # type: ignore[valid-type,unused-ignore]

    @classmethod
    def poll(cls, context: Any) -> bool:
        return any(thing.type == "MESH" for thing in context.selected_objects)

    def execute(self, context: Any) -> set[str]:
        """The painted copy comes beside the original, which stays as it is."""
        picture = Path(bpy.path.abspath(self.filepath))
        name = next(thing.name for thing in context.selected_objects if thing.type == "MESH")
        folder = tempfile.TemporaryDirectory(prefix="trellis2-")
        mesh = Path(folder.name) / "mesh.glb"
        bpy.ops.export_scene.gltf(filepath=str(mesh), use_selection=True, export_animations=False)
        settings: dict[str, object] = {"seed": self.seed, "new_uvs": self.new_uvs}

        def make(service: Service, report: Report, cancelled: Callable[[], bool]) -> bytes:
            with folder:
                return service.texture(mesh, picture, settings, report, cancelled)

        return self.run(context, f"{name} painted", make)


class Trellis2Panel(bpy.types.Panel):  # type: ignore[misc,name-defined,unused-ignore]
    """The tab in the sidebar."""

    bl_label = "TRELLIS.2"
    bl_idname = "VIEW3D_PT_trellis2"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "TRELLIS.2"

    def draw(self, context: Any) -> None:
        self.layout.operator_context = "INVOKE_DEFAULT"
        self.layout.operator(Trellis2Generate.bl_idname, icon="IMAGE_DATA")
        self.layout.operator(Trellis2Texture.bl_idname, icon="TEXTURE")


CLASSES = (Trellis2Preferences, Trellis2Generate, Trellis2Texture, Trellis2Panel)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
