"""Training of the small bundled weights: procedural world, data, losses, loops, evaluation, export.

Imports `trellis2.models`, `trellis2.conditioning` and `o_voxel`; nothing imports it back. Start reading in
`schedule`.
"""
