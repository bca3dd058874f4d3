"""Blender add-on: a picture becomes a textured object, by a TRELLIS.2 service of your choice.

The sidebar's tab TRELLIS.2 has one button. The service does the work: Blender stays usable, Esc stops it.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
from pathlib import Path
from typing import Any

import bpy

from .service import CancelledError, Service, ServiceProblemError

bl_info = {
    "name": "TRELLIS.2",
    "author": "The TRELLIS.2 on Modal project",
    "version": (0, 1, 0),
    "blender": (4, 2, 0),
    "location": "View3D > Sidebar > TRELLIS.2",
    "description": "A picture becomes a textured object",
    "category": "Import-Export",
}

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


class Trellis2Generate(bpy.types.Operator):  # type: ignore[misc,name-defined,unused-ignore]
    """Make a textured object of a picture"""

    bl_idname = "trellis2.generate"
    bl_label = "Object from a picture"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012  (Blender reads it as it is)

    filepath: bpy.props.StringProperty(subtype="FILE_PATH")  # type: ignore[valid-type,unused-ignore]
    filter_glob: bpy.props.StringProperty(default="*.png;*.jpg;*.jpeg;*.webp", options={"HIDDEN"})  # type: ignore[valid-type,unused-ignore]
    seed: bpy.props.IntProperty(name="Seed", default=42, min=0, max=2**31 - 1)  # type: ignore[valid-type,unused-ignore]
    budget: bpy.props.EnumProperty(name="Budget", items=BUDGETS, default="game")  # type: ignore[valid-type,unused-ignore]
    texture: bpy.props.BoolProperty(name="Texture", default=True)  # type: ignore[valid-type,unused-ignore]

    def invoke(self, context: Any, event: Any) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Any) -> set[str]:
        """With a window the work goes on beside it; without one (scripts) this waits for it."""
        self._messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._stop = threading.Event()
        try:
            service = chosen_service(context)
        except ServiceProblemError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        picture = Path(bpy.path.abspath(self.filepath))
        settings = {"seed": self.seed, "texture": self.texture}, {"simplify": self.budget}
        if bpy.app.background:
            self._work(service, picture, *settings)
            return self._heard(context, wait=True) or {"CANCELLED"}
        threading.Thread(target=self._work, args=(service, picture, *settings), daemon=True).start()
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

    def _work(self, service: Service, picture: Path, *settings: dict[str, object]) -> None:
        """In a thread, which must not touch Blender's data."""
        try:
            report = lambda words, done: self._messages.put(("progress", (words, done)))  # noqa: E731
            self._messages.put(("made", service.make(picture, *settings, report, self._stop.is_set)))
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
                    import_asset(value, Path(self.filepath).stem)
                except (ServiceProblemError, RuntimeError) as error:
                    self.report({"ERROR"}, str(error))
                    return {"CANCELLED"}
                self.report({"INFO"}, "The object is in the scene")
                return {"FINISHED"}
            elif kind in ("failed", "cancelled"):
                self.report({"ERROR" if value else "WARNING"}, value or "Stopped")
                return {"CANCELLED"}
        return None


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


CLASSES = (Trellis2Preferences, Trellis2Generate, Trellis2Panel)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
