"""The arrays that mesh operations compute with: groups, connected components, edge tables, vectors.

Imports nothing else of `mesh`. Start reading in `groups`, then `edges`.
"""
