"""The stages of a job by the names that progress reports carry, in their order, with a person's words."""

from __future__ import annotations

STAGES: dict[str, str] = {
    "image": "Removing the background",
    "condition": "Reading the picture",
    "encode_shape": "Reading the mesh",
    "sparse_structure": "Finding the rough form",
    "shape": "Generating the shape",
    "shape_fine": "Generating fine detail",
    "texture": "Generating the material",
    "decode_shape": "Building the shape",
    "decode_texture": "Building the material",
    "mesh": "Building the mesh",
    "state": "Packing the result",
    "light": "Preparing the 3D preview",
    "preview": "Rendering the turntable",
    "stills": "Rendering every side",
    "fill holes": "Closing holes",
    "search tree": "Indexing the surface",
    "rebuild": "Rebuilding the surface",
    "simplify": "Reducing polygons",
    "unwrap": "Unwrapping UVs",
    "bake": "Baking textures",
    "gutters": "Padding texture edges",
    "material": "Writing the file",
}

PHASES: dict[str, tuple[str, ...]] = {
    "Picture": ("image", "condition", "encode_shape"),
    "Rough form": ("sparse_structure",),
    "Shape": ("shape", "shape_fine"),
    "Material": ("texture",),
    "Mesh": ("decode_shape", "decode_texture", "mesh", "state"),
    "Preview": ("light", "preview", "stills"),
}
"""A generation at a glance: a few words, and the stages behind each."""

TEXTURE_PHASES: dict[str, tuple[str, ...]] = {
    "Mesh and picture": ("encode_shape", "image", "condition"),
    "Texture": ("texture", "decode_texture"),
    "File": ("unwrap", "bake", "material"),
    "Preview": ("preview", "stills"),
}
"""The same for new textures of a mesh."""

EXPORT_PHASES: dict[str, tuple[str, ...]] = {
    "Surface": ("fill holes", "rebuild", "search tree"),
    "Polygons": ("simplify",),
    "Textures": ("unwrap", "bake", "gutters"),
    "File": ("material",),
}
"""The same for an export."""

EXPORT_STAGES = tuple(stage for stages in EXPORT_PHASES.values() for stage in stages)
"""These report which of the export's steps begins, not how far it is."""


def stage_title(stage: str) -> str:
    """A stage in a person's words; those of a newer service are shown as they are named."""
    return STAGES.get(stage) or stage.replace("_", " ").capitalize()
