"""UV unwrapping: charts of similar normals, laid flat, packed into one atlas.

Imports `arrays` of this package. Start reading in `unwrap`: clusters, flatten, packing.
"""
