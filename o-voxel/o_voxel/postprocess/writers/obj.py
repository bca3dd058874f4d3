"""OBJ with its material library and pictures, as a folder's files or one zip."""

from __future__ import annotations

import re
import zipfile
from io import BytesIO, StringIO

import numpy as np

from ..material import Material
from ..textures.encode import SUFFIXES
from ..textures.png import encode_png

Files = dict[str, bytes]


def obj_files(
    name: str,
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray,
    uvs: np.ndarray,
    material: Material,
    texture_format: str,
) -> Files:
    """File name to bytes: the .obj (y up, v up), the .mtl and the pictures.

    Readers of OBJ know PNG and JPEG only, and take names apart at spaces and in any encoding: pictures of
    another format become JPEG or PNG, and all names inside are plain ASCII. The .obj itself keeps `name`.
    """
    inside = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or "asset"
    text = StringIO()
    text.write(f"mtllib {inside}.mtl\nusemtl material\n")
    np.savetxt(text, vertices, fmt="v %.7g %.7g %.7g")
    np.savetxt(text, np.stack([uvs[:, 0], 1.0 - uvs[:, 1]], axis=1), fmt="vt %.7g %.7g")
    np.savetxt(text, normals, fmt="vn %.5g %.5g %.5g")
    np.savetxt(text, np.repeat(faces + 1, 3, axis=1), fmt="f " + " ".join(["%d/%d/%d"] * 3))
    roles, pictures = _pictures(inside, material, texture_format)
    return {f"{name}.obj": text.getvalue().encode(), f"{inside}.mtl": _mtl(roles).encode()} | pictures


def zipped(files: Files) -> bytes:
    """One archive; the same files give the same bytes."""
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files.items():
            archive.writestr(zipfile.ZipInfo(file), data, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def _pictures(name: str, material: Material, texture_format: str) -> tuple[list[tuple[str, str]], Files]:
    """(key of the .mtl, file name) pairs and the files; OBJ wants roughness and metalness apart."""
    encoded = material.encoded(texture_format if texture_format in ("png", "jpeg") else "jpeg")
    roles: list[tuple[str, str]] = []
    files: Files = {}

    def add(label: str, kind: str, data: bytes, *keys: str) -> None:
        file = f"{name}_{label}{SUFFIXES[kind]}"
        files[file] = data
        roles.extend((key, file) for key in keys)

    add("base_color", *encoded["base_color"], "map_Kd")
    if material.alpha_mode != "OPAQUE":
        add("alpha", "png", encode_png(material.base_color[..., 3]), "map_d")
    for key, label, channel in (("map_Pr", "roughness", 1), ("map_Pm", "metallic", 2)):
        add(label, "png", encode_png(material.orm[..., channel]), key)
    if "normal" in encoded:
        # Blender and Open3D read map_Bump as a normal map, the PBR extension's readers norm.
        add("normal", *encoded["normal"], "map_Bump", "norm")
    return roles, files


def _mtl(roles: list[tuple[str, str]]) -> str:
    lines = ["newmtl material", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 2", "Pr 1", "Pm 1"]
    return "\n".join(lines + [f"{key} {file}" for key, file in roles]) + "\n"
