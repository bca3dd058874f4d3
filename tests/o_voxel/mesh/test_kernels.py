"""What a plain process sees: no import of Warp until it is needed, nothing printed, ever."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, threading
import torch
import o_voxel.mesh
assert "warp" not in sys.modules
assert not torch.cuda.is_initialized()
tree = o_voxel.mesh.TriangleBVH(torch.eye(3), torch.tensor([[0, 1, 2]]))
found = []
ask = lambda: found.append(tree.closest(torch.zeros(9000, 3)))
threads = [threading.Thread(target=ask) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
assert len(found) == 4
assert all(abs(float(f.distance.mean()) - 3 ** -0.5) < 1e-6 for f in found)
"""


def test_warp_loads_late_and_keeps_quiet() -> None:
    path = [p for p in sys.path if p]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{CODE}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""
