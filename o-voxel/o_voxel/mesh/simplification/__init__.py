"""Fewer faces: one budget, and the edge collapses behind it (serial on the CPU, parallel on a GPU).

Imports `arrays` and `repair` of this package. Start reading in `simplify`.
"""
