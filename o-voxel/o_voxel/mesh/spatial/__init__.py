"""Where things are in space: the bounding volume tree, cells near a surface, distances on a lattice.

Imports `arrays` of this package. Start reading in `bvh`, then `band` and `lattice`.
"""
