"""The stages of a job by the names that progress reports carry, in their order, with a person's words."""

from __future__ import annotations

STAGES: dict[str, str] = {
    "image": "Cutting out the subject",
    "condition": "Reading the picture",
    "encode_shape": "Reading the mesh",
    "sparse_structure": "Finding the structure",
    "shape": "Sculpting the shape",
    "shape_fine": "Sculpting fine detail",
    "texture": "Painting the surface",
    "decode_shape": "Building the shape",
    "decode_texture": "Building the material",
    "mesh": "Building the mesh",
    "state": "Packing",
    "preview": "Filming the turntable",
    "stills": "Photographing every side",
    "fill holes": "Closing holes",
    "search tree": "Indexing the surface",
    "rebuild": "Rebuilding the surface",
    "simplify": "Simplifying to the budget",
    "unwrap": "Unwrapping",
    "bake": "Baking textures",
    "gutters": "Padding textures",
    "material": "Packing the material",
}
