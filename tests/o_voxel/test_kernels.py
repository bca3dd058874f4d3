"""Warp's set-up where the user's cache of compiled kernels cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from o_voxel import kernels

from tests.simulated_cuda import on_gpu, simulated_cuda

CODE = """
import json, logging, os, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
import warp
if sys.argv[1] == "read-only":  # root may write anywhere, so the question is answered for it
    access = os.access
    os.access = lambda path, mode: mode != os.W_OK and access(path, mode)
from o_voxel.kernels import warp_module
warp_module()
folder = warp.config.kernel_cache_dir
if sys.argv[1] == "read-only":
    import torch
    from o_voxel.raster import rasterize
    position = torch.tensor([[-1.0, -1, 0, 1], [3, -1, 0, 1], [-1, 3, 0, 1]])
    found = rasterize(position, torch.tensor([[0, 1, 2]], dtype=torch.int32), (8, 8)).face_id
    assert int((found == 0).sum()) == 64
    assert os.listdir(folder)
print(json.dumps([folder, os.path.isdir(folder)]))
"""


@pytest.mark.parametrize("fault", ["no home", "read-only"])
def test_a_cache_that_cannot_be_written_is_replaced_with_one_warning(fault: str, tmp_path: Path) -> None:
    home = "/proc/none" if fault == "no home" else str(tmp_path)
    environment = {k: v for k, v in os.environ.items() if k not in ("XDG_CACHE_HOME", "WARP_CACHE_PATH")}
    done = subprocess.run(
        [sys.executable, "-c", CODE, fault],
        env=environment | {"HOME": home},
        capture_output=True,
        text=True,
        check=True,
    )
    *warnings, last = done.stdout.splitlines()
    folder, existed = json.loads(last)
    assert len([line for line in warnings if "cannot be written" in line]) == 1
    assert existed
    assert "o-voxel-kernels-" in folder
    assert not Path(folder).exists(), "gone with the process"


def test_tensors_are_handed_over_as_what_a_kernel_declares() -> None:
    from o_voxel.postprocess.textures.gutter_kernels import jump_kernel

    seed, out = torch.tensor([0, -1, -1, -1], dtype=torch.int32), torch.empty(4, dtype=torch.int32)
    kernels.launch(jump_kernel, 4, [1, 2, 2, seed, out], "cpu")
    assert out.tolist() == [0, 0, 0, 0]
    with pytest.raises(RuntimeError, match="int64"):
        kernels.launch(jump_kernel, 4, [1, 2, 2, seed.long(), out], "cpu")
    with pytest.raises(ValueError, match="zip"):
        kernels.launch(jump_kernel, 4, [1, 2, 2, seed], "cpu")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_repeatable_launch_works_on_what_the_tensors_hold_by_then(device: str) -> None:
    """Two columns times [[2, 0], [1, 3], [0, 0]]; on a device that is simulated."""
    from o_voxel.mesh.charts.laplacian_kernels import sparse_product_kernel

    offsets, columns, values = torch.tensor([0, 1, 3, 3]), torch.tensor([0, 0, 1]), torch.tensor([2.0, 1, 3])
    x, product = torch.zeros(2, 2).double(), torch.ones(3, 2).double()
    inputs = [offsets.int(), columns.int(), values.double(), x, product]
    with simulated_cuda() if device == "cuda" else nullcontext():
        given = inputs if device == "cpu" else [on_gpu(tensor) for tensor in inputs]
        run = kernels.repeatable(sparse_product_kernel, 3, given, torch.device(device))
        assert product.tolist() == [[1, 1]] * 3, "nothing runs yet"
        for scale in (1.0, 5.0):
            x.copy_(torch.tensor([[1.0, 2], [3, 4]]).double() * scale)
            run()
            assert (product / scale).tolist() == [[2, 4], [10, 14], [0, 0]]
