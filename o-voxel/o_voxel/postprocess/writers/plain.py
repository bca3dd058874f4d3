"""STL and PLY: the shape without a material, seams welded."""

from __future__ import annotations

import struct

import numpy as np


def write_stl(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    """Binary STL of vertices [V, 3], faces [F, 3], in the frame and units given."""
    corners = vertices[faces].astype(np.float32)  # [F, 3, 3]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(cross, axis=1, keepdims=True)
    record = np.zeros(
        len(faces), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]
    )
    record["normal"] = cross / np.where(length > 0, length, 1.0)
    record["corners"] = corners
    return b"o-voxel".ljust(80, b" ") + struct.pack("<I", len(faces)) + record.tobytes()


def write_ply(vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, colors: np.ndarray) -> bytes:
    """Binary PLY with a normal and an 8-bit RGBA colour [V, 4] a vertex."""
    vertex = np.zeros(len(vertices), dtype=[("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgba", "u1", 4)])
    vertex["xyz"], vertex["normal"], vertex["rgba"] = vertices, normals, colors
    face = np.zeros(len(faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    face["count"], face["corners"] = 3, faces
    floats = [f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
    bytes_ = [f"property uchar {name}" for name in ("red", "green", "blue", "alpha")]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *floats,
        *bytes_,
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    return "\n".join(header).encode() + b"\n" + vertex.tobytes() + face.tobytes()
