"""The training loop on a stage of one number; run as a module it is one of two processes of torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from trellis2_training.loop import Recipe, train
from trellis2_training.runtime import Runtime, start

ROOT = Path(__file__).parents[2]
LIMIT = 120.0


class Slope:
    """Learns y = 2 x, from numbers that differ between processes."""

    name = "slope"
    recipe = Recipe(lr=0.01, warmup=1)

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.networks: dict[str, nn.Module] = {"slope": nn.Linear(1, 1)}

    def losses(self, progress: float) -> dict[str, Tensor]:
        x = torch.randn(8, 1) + self.runtime.rank
        return {"error": (self.networks["slope"](x) - 2 * x).square().mean()}


def main(folder: Path) -> None:
    runtime = start("cpu", seed=1)
    stage = Slope(runtime)
    steps = train(stage, folder, seconds=(1.0, 30.0)[runtime.rank])
    weight = float(stage.networks["slope"].weight)  # type: ignore[arg-type]
    (folder / f"rank{runtime.rank}.txt").write_text(f"{steps} {weight!r}")


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_the_learning_rate_is_scaled_to_the_end(tmp_path: Path, rate: float) -> None:
    stage = Slope(Runtime(torch.device("cpu")))
    steps = train(stage, tmp_path, 60.0, max_steps=40, decay=False, rate=rate)
    lines = [json.loads(line) for line in (tmp_path / "train.log").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 10, 30, steps]
    assert {line["lr"] for line in lines} == {rate * stage.recipe.lr}


def test_processes_whose_clocks_differ_end_with_the_same_step_and_weights(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", __name__, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert run.returncode == 0, run.stderr[-3000:]
    first, second = ((tmp_path / f"rank{rank}.txt").read_text() for rank in range(2))
    assert first == second
    assert int(first.split()[0]) > 10


if __name__ == "__main__":
    main(Path(sys.argv[1]))
