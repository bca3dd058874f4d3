"""OBJ with its material library and pictures, as a folder's files or one zip."""

from __future__ import annotations

import zipfile
from io import BytesIO, StringIO

import numpy as np

from .material import SUFFIXES, Material


def obj_files(
    name: str,
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray,
    uvs: np.ndarray,
    material: Material,
    texture_format: str,
) -> dict[str, bytes]:
    """File name to bytes: the .obj (y up, v up), the .mtl (PBR keys map_Pr, map_Pm, norm) and the
    pictures."""
    text = StringIO()
    text.write(f"mtllib {name}.mtl\nusemtl material\n")
    np.savetxt(text, vertices, fmt="v %.7g %.7g %.7g")
    np.savetxt(text, np.stack([uvs[:, 0], 1.0 - uvs[:, 1]], axis=1), fmt="vt %.7g %.7g")
    np.savetxt(text, normals, fmt="vn %.5g %.5g %.5g")
    np.savetxt(text, np.repeat(faces + 1, 3, axis=1), fmt="f " + " ".join(["%d/%d/%d"] * 3))
    pictures = _pictures(name, material, texture_format)
    files = {f"{name}.obj": text.getvalue().encode(), f"{name}.mtl": _mtl(pictures).encode()}
    return files | dict(pictures.values())


def obj_zip(files: dict[str, bytes]) -> bytes:
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files.items():
            archive.writestr(zipfile.ZipInfo(file), data, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def _pictures(name: str, material: Material, texture_format: str) -> dict[str, tuple[str, bytes]]:
    """Role in the .mtl to (file name, bytes); OBJ wants roughness and metalness in pictures of their own."""
    from .material import encode_image

    encoded = material.encoded(texture_format)
    kind, data = encoded["base_color"]
    found = {"map_Kd": (f"{name}_base_color{SUFFIXES[kind]}", data)}
    if material.alpha_mode != "OPAQUE":
        alpha = np.repeat(material.base_color[..., 3:], 3, axis=2)
        found["map_d"] = (f"{name}_alpha.png", encode_image(alpha, "png"))
    for role, label, channel in (("map_Pr", "roughness", 1), ("map_Pm", "metallic", 2)):
        grey = np.repeat(material.orm[..., channel : channel + 1], 3, axis=2)
        found[role] = (f"{name}_{label}{SUFFIXES[texture_format]}", encode_image(grey, texture_format))
    if "normal" in encoded:
        kind, data = encoded["normal"]
        found["norm"] = (f"{name}_normal{SUFFIXES[kind]}", data)
    return found


def _mtl(pictures: dict[str, tuple[str, bytes]]) -> str:
    lines = ["newmtl material", "Kd 1 1 1", "Ks 0 0 0", "illum 2", "Pr 1", "Pm 1"]
    return "\n".join(lines + [f"{role} {file}" for role, (file, _) in pictures.items()]) + "\n"
