"""Our files opened by programs that CI does not install: python -m tests.opening FILE.glb

Each program (--programs bpy open3d pymeshlab) runs in a virtual environment of its own under --folder (made
on demand, some 1 GB). It reads the GLB, and the OBJ, PLY and STL beside it (same stem, where they exist), and
says what it sees: faces, textures, and which axis is the tallest in its own frame. Blender also renders the
GLB to FOLDER/blender.png. The exit code is 1 when a program fails, sees no texture, or the asset lying down.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROGRAMS = ("bpy", "open3d", "pymeshlab")
UP = {"bpy": dict.fromkeys((".glb", ".obj", ".ply", ".stl"), 2)}
"""Blender turns what is y up to its own z up; the others keep the file's axes."""

KEPT = {".glb": 1, ".obj": 1, ".ply": 2, ".stl": 2}
TEXTURED = {(program, suffix) for program in PROGRAMS for suffix in (".glb", ".obj")}


def python_of(program: str, folder: Path) -> Path:
    home = folder / program
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", program], check=True)
    return python


def look(program: str, folder: Path, file: Path) -> dict[str, Any]:
    command = [python_of(program, folder), HERE / f"open_in_{program}.py", file, folder / "blender.png"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"error": (done.stderr or done.stdout).strip().splitlines()[-1:]}
    return json.loads(lines[-1])


def complaints(program: str, file: Path, seen: dict[str, Any]) -> list[str]:
    if "error" in seen:
        return [f"failed: {seen['error']}"]
    suffix, found = file.suffix.lower(), []
    axis = UP.get(program, KEPT)[suffix]
    if seen["size"].index(max(seen["size"])) != axis:
        found.append(f"the tallest axis is {'xyz'[seen['size'].index(max(seen['size']))]}, not {'xyz'[axis]}")
    if seen.get("objects", 1) != 1:
        found.append(f"{seen['objects']} objects are shown: levels of detail on top of each other")
    if (program, suffix) in TEXTURED and not seen["textures"]:
        found.append("no texture")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path, help="a GLB of an asset that is taller than wide")
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--folder", type=Path, default=Path("/tmp/opening"))
    options = parser.parse_args()
    files = [options.file.with_suffix(suffix) for suffix in KEPT]
    failures = 0
    for program in options.programs:
        for file in filter(Path.exists, files):
            seen = look(program, options.folder, file.resolve())
            wrong = "; ".join(complaints(program, file, seen))
            failures += bool(wrong)
            print(f"{program:10} {file.name:20} {'FAULT ' + wrong if wrong else 'ok'}  {seen}", flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    raise SystemExit(main())
