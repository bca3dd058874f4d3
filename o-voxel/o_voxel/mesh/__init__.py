"""Operations on triangle meshes, one file each; torch tensors in and out, any device.

Vertices are float32 [V, 3], faces int32 [F, 3], normals by the right-hand rule. Imports only `kernels`,
`backends` and `errors` of this package. Start reading in `repair`, then `simplify`, `bvh` and `remesh`.
"""

from __future__ import annotations
