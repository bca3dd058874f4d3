"""A mesh made sound where it is: faces and vertices, holes, manifold edges, winding, components.

Imports `arrays` of this package; `orientation` also the tree of `spatial`. Start reading in `cleanup`.
"""
