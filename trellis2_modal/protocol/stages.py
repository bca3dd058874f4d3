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

PHASES: dict[str, tuple[str, ...]] = {
    "Picture": ("image", "condition", "encode_shape"),
    "Structure": ("sparse_structure",),
    "Shape": ("shape", "shape_fine"),
    "Texture": ("texture",),
    "Mesh": ("decode_shape", "decode_texture", "mesh", "state"),
    "Preview": ("preview", "stills"),
}
"""A generation at a glance: a few words, and the stages behind each."""

EXPORT_PHASES: dict[str, tuple[str, ...]] = {
    "Surface": ("fill holes", "rebuild", "search tree"),
    "Budget": ("simplify",),
    "Texture": ("unwrap", "bake", "gutters"),
    "File": ("material",),
}
"""The same for an export."""

EXPORT_STAGES = tuple(stage for stages in EXPORT_PHASES.values() for stage in stages)
"""These report which of the export's steps begins, not how far it is."""


def stage_title(stage: str) -> str:
    """A stage in a person's words; those of a newer service are shown as they are named."""
    return STAGES.get(stage) or stage.replace("_", " ").capitalize()
