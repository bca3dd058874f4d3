"""New surfaces by way of a volume: frayed ones closed, offset surfaces, solids for printers.

Imports `arrays`, `spatial` and `repair` of this package. Start reading in `rebuild`, then `isosurface`.
"""
