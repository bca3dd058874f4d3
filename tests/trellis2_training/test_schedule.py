"""The whole training in miniature: every stage, resumed, exported and loaded by the pipeline."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trellis2_training import train
from trellis2_training.checkpoint import (
    export_slim,
    import_slim,
    load_statistics,
    load_weights,
    need_network,
    save_statistics,
    save_weights,
)
from trellis2_training.cli import main
from trellis2_training.config import SHIPPED, TINY
from trellis2_training.data.batches import blocks_of
from trellis2_training.data.voxelize import voxelize
from trellis2_training.evaluation.evaluate import card_table, summarise
from trellis2_training.evaluation.structure import BIASES, GUIDANCES, measure_structure
from trellis2_training.export import export_package, import_weights
from trellis2_training.optim import AdaptiveGradClipper, learning_rate
from trellis2_training.runtime import Runtime
from trellis2_training.schedule import schedule_of
from trellis2_training.stage_runner import STAGES, Budget, Settings, run_stages
from trellis2_training.stages import decoders
from trellis2_training.stages.decoders import DecoderOnFlow
from trellis2_training.stages.latents import load_latents
from trellis2_training.stages.pictures import Pictures
from trellis2_training.train import read_run

from trellis2.errors import CheckpointError, InvalidArgumentError
from trellis2.models import from_pretrained
from trellis2.pipelines import Trellis2ImageTo3DPipeline
from trellis2.sparse import SparseSpatial2Channel

EVERY_STAGE = [
    "shape_vae",
    "tex_vae",
    "ss_vae",
    "ss_encoder",
    "ss_joint",
    "latents",
    "slat_flows",
    "shape_flow",
    "tex_flow",
    "ss_flow",
    "ss_decoder",
    "ss_refiner",
    "shape_decoder",
    "tex_decoder",
    "base_color",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_stages(EVERY_STAGE, _settings(folder))
    return folder


def _settings(folder: Path) -> Settings:
    return Settings(
        folder, "tiny", "cpu", objects=6, latent_objects=2, views=1, max_steps=1, batch=1, decay=False
    )


def test_stages_go_on_where_they_stopped(trained: Path) -> None:
    before = torch.load(trained / "state" / "shape_flow.0.pt", weights_only=True)["step"]
    run_stages(["shape_flow"], _settings(trained))
    after = torch.load(trained / "state" / "shape_flow.0.pt", weights_only=True)["step"]
    assert after > before
    lines = [json.loads(line) for line in (trained / "train.log").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {
        "shape_vae",
        "tex_vae",
        "ss_vae",
        "ss_encoder",
        "ss_joint",
        "slat_flows",
        "shape_flow",
        "tex_flow",
        "ss_flow",
        "ss_decoder",
        "ss_refiner",
        "shape_decoder",
        "tex_decoder",
        "base_color",
    }


def test_the_decoder_learns_from_the_latents_of_its_own_block(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(torch.device("cpu"))
    latents = load_latents(trained, runtime.device)
    statistics = load_statistics(trained)
    flow, pixel_map, encoder = (
        need_network(trained, TINY, name, runtime.device) for name in ("shape_flow", "pixel_map", "encoder")
    )
    pictures = Pictures(TINY, latents, encoder, runtime, 1, 2, 0)
    monkeypatch.setattr(decoders, "_MOST_NOISE", 0.0)
    rows = torch.arange(len(latents.coords))
    order = torch.cat([rows[latents.offsets[1] :], rows[: latents.offsets[1]]])
    stage = DecoderOnFlow(TINY, latents, pictures, statistics, flow, pixel_map, runtime, objects=2, side=32)
    coords, made = stage._made([1, 0])
    torch.testing.assert_close(coords[:, 1:].short(), latents.coords[order])
    torch.testing.assert_close(made.float(), latents.shape[order].float(), atol=1e-2, rtol=1e-2)
    assert all(bool(term.isfinite()) for term in stage.losses(0.0).values())
    assert len(stage.kept) == 2
    objects = [blocks_of(voxelize(latents.tables[i], 64), 32) for i in (1, 0)]
    voxels, rows = stage._blocks(objects, coords)
    merged = voxels.vertices
    for _ in range(4):
        merged = SparseSpatial2Channel()(merged.replace(merged.feats[:, :1]))
    assert torch.equal(merged.coords[:, 0], coords[rows, 0])
    assert torch.equal(merged.coords[:, 1:], coords[rows, 1:] % 2), "32 voxels are 2 latents a side"


def test_a_profile_names_the_operations(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    settings = dataclasses.replace(_settings(tmp_path / "run"), profile=True, max_steps=68)
    run_stages(["tex_flow"], settings)
    assert "aten::" in (tmp_path / "run" / "profile_tex_flow.log").read_text()


def test_the_package_loads_and_offers_512_and_its_cascade(trained: Path, tmp_path: Path) -> None:
    size = export_package(TINY, trained, tmp_path / "package")
    assert size == sum(p.stat().st_size for p in (tmp_path / "package" / "ckpts").iterdir())
    pipeline = Trellis2ImageTo3DPipeline.from_pretrained(tmp_path / "package", skip=("rembg_model",))
    assert pipeline.default_pipeline_type == "512"
    assert pipeline.available_pipeline_types == ["512", "1024_cascade"]
    assert {m.config.position_scale for n, m in pipeline.models.items() if n.endswith("_1024")} == {0.5}
    stored = from_pretrained(tmp_path / "package" / "ckpts" / SHIPPED["tex_dec"])
    kept = need_network(trained, TINY, "tex_dec", torch.device("cpu"))
    for name, parameter in stored.named_parameters():
        torch.testing.assert_close(parameter.float(), kept.get_parameter(name).half().float())


def test_a_structure_without_a_map_is_shipped_as_one_of_tokens(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "weights", tmp_path / "run" / "weights")
    (tmp_path / "run" / "weights" / "structure_map.pt").unlink()
    plain = dataclasses.replace(TINY, aligned_structure=False).build("ss_flow")
    save_weights(tmp_path / "run", "ss_flow", plain)
    export_package(TINY, tmp_path / "run", tmp_path / "package")
    pipeline = Trellis2ImageTo3DPipeline.from_pretrained(tmp_path / "package", skip=("rembg_model",))
    assert pipeline._aligned_stages >= {"shape", "texture"}
    assert "sparse_structure" not in pipeline._aligned_stages
    again = import_weights(tmp_path / "package", tmp_path / "again")
    assert "ss_flow" in again
    assert "structure_map" not in again
    aligned = TINY.build("ss_flow")
    assert load_weights(tmp_path / "again", "ss_flow", aligned), "from where its training goes on"


def test_settings_of_the_structure_are_measured(trained: Path, tmp_path: Path) -> None:
    export_package(TINY, trained, tmp_path / "package")
    summary = measure_structure(tmp_path / "package", 1, "cpu", tmp_path / "structure.json")
    assert summary["objects"] == 1
    assert len(summary["iou"]) == len(BIASES), "a refiner has learnt one guidance"
    assert 0 <= summary["unrefined"] <= 1
    best = f"guidance {summary['guidance']:g}, bias {summary['bias']:+g}"
    assert summary["iou"][best] == max(summary["iou"].values())
    assert json.loads((tmp_path / "structure.json").read_text()) == summary
    config = json.loads((tmp_path / "package" / "pipeline.json").read_text())
    del config["args"]["structure_refiner"]
    (tmp_path / "package" / "pipeline.json").write_text(json.dumps(config))
    plain = measure_structure(tmp_path / "package", 1, "cpu", tmp_path / "plain.json")
    assert len(plain["iou"]) == len(GUIDANCES) * len(BIASES)
    assert "unrefined" not in plain


def test_training_goes_on_from_a_package(trained: Path, tmp_path: Path) -> None:
    export_package(TINY, trained, tmp_path / "package")
    found = import_weights(tmp_path / "package", tmp_path / "run")
    assert set(found) == {
        *SHIPPED,
        "encoder",
        "pixel_map",
        "structure_map",
        "camera_head",
        "structure_refiner",
        "base_color",
    }
    cpu = torch.device("cpu")
    for name in found:
        old, new = (need_network(folder, TINY, name, cpu) for folder in (trained, tmp_path / "run"))
        for key, parameter in old.named_parameters():
            torch.testing.assert_close(new.get_parameter(key), parameter, atol=2e-3, rtol=1e-3)
    kept = load_statistics(tmp_path / "run")
    for key, value in load_statistics(trained).items():
        torch.testing.assert_close(kept[key], value, atol=1e-5, rtol=0)
    save_statistics(tmp_path / "run", {"newer": torch.ones(1)})
    assert import_weights(tmp_path / "package", tmp_path / "run") == [], "what is there stays"
    assert list(load_statistics(tmp_path / "run")) == ["newer"]
    stages = [stage for process in schedule_of(2, 600, tmp_path / "run") for stage in process]
    assert any(stage.startswith("ss_encoder") for stage in stages), "packages lack it"
    shutil.copy(trained / "weights" / "ss_enc.pt", tmp_path / "run" / "weights")
    stages = [stage for process in schedule_of(2, 600, tmp_path / "run") for stage in process]
    assert not any(stage.startswith("ss_encoder") for stage in stages)


def test_slim_weights_travel(trained: Path, tmp_path: Path) -> None:
    export_slim(trained, tmp_path / "slim")
    found = import_slim(tmp_path / "slim", tmp_path / "new")
    assert {"ss_flow", "encoder", "shape_dec", "tex_enc", "shape stats"} <= set(found)
    network = TINY.build("ss_flow")
    assert load_weights(tmp_path / "new", "ss_flow", network)
    assert import_slim(tmp_path / "slim", tmp_path / "new") == [], "what is there stays"


def test_a_stage_names_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="shape_enc"):
        run_stages(["latents"], _settings(tmp_path))
    with pytest.raises(InvalidArgumentError, match="nothing_known"):
        run_stages(["nothing_known"], _settings(tmp_path))
    with pytest.raises(InvalidArgumentError, match="no end"):
        run_stages(["ss_vae"], dataclasses.replace(_settings(tmp_path), max_steps=None))


def test_a_file_says_what_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dry run of the documentation: all stages, with fewer of them here."""
    configs = Path(train.__file__).parents[1] / "configs"
    stages, settings = read_run(configs / "mini.toml")
    assert [Budget.parse(entry).name for entry in stages] == [
        Budget.parse(entry).name for entry in read_run(configs / "dry_run.toml")[0] if "encoder:" not in entry
    ]
    assert {Budget.parse(entry).name for entry in stages} <= set(STAGES)
    assert settings.config == "mini"
    monkeypatch.chdir(tmp_path)
    text = (configs / "dry_run.toml").read_text(encoding="utf-8")
    listed = text.index("stages = [")
    run = tmp_path / "run.toml"
    run.write_text(text[:listed] + 'stages = ["ss_vae:2steps"]')
    assert main(["train", "--config", str(run)]) == 0
    record = [json.loads(line) for line in (tmp_path / "dry_run" / "train.log").read_text().splitlines()]
    assert record[-1]["step"] == 2
    assert Budget.parse("tex_flow:9steps,0.5") == Budget("tex_flow", 9, 0.5)
    assert Budget.parse("latents:75:0of2") == Budget("latents", None, 75.0, "0of2")
    run.write_text('workdir = "x"\nbatches = 3\nstages = []')
    with pytest.raises(InvalidArgumentError, match="unknown batches"):
        read_run(run)
    with pytest.raises(InvalidArgumentError, match="4000steps"):
        Budget.parse("tex_flow:fast")


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """With what its stages lack: what has ended is passed over, and steps count from the very first one."""

    def steps_after(*stages: str) -> list[int]:
        run = tmp_path / "run.toml"
        head = f'workdir = "{(tmp_path / "run").as_posix()}"\nconfig = "tiny"\ndevice = "cpu"\nobjects = 6\n'
        run.write_text(f"{head}batch = 1\nworkers = 1\nstages = {json.dumps(stages)}")
        assert main(["train", "--config", str(run)]) == 0
        lines = (tmp_path / "run" / "train.log").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines]

    assert steps_after("ss_vae:2steps") == [1, 2]
    assert steps_after("ss_vae:2steps") == [1, 2], "it has ended"
    (tmp_path / "run" / "done" / "ss_vae").unlink()
    assert steps_after("ss_vae:2steps") == [1, 2], "it was interrupted after its last step"
    assert steps_after("ss_vae:3steps") == [1, 2, 3], "one step more was asked for"
    with pytest.raises(InvalidArgumentError, match="ss_vae twice"):
        steps_after("ss_vae:3steps", "ss_vae:4steps")


def test_of_two_processes_one_makes_what_both_read(trained: Path, tmp_path: Path) -> None:
    stages = ["latents", "tex_flow:2steps"]
    for name in ("one", "two"):
        shutil.copytree(trained / "weights", tmp_path / name / "weights")
    run_stages(stages, _settings(tmp_path / "one"))
    run = tmp_path / "run.toml"
    head = f'workdir = "{(tmp_path / "two").as_posix()}"\nconfig = "tiny"\ndevice = "cpu"\nobjects = 6\n'
    run.write_text(
        f"{head}latent_objects = 2\nviews = 1\nbatch = 1\nworkers = 1\nstages = {json.dumps(stages)}"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "trellis2_training", "train", "--config", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("latents 0of1: 2 objects") == 1
    assert done.stderr.count("tex_flow: 2 steps in total") == 2
    one, two = (load_latents(tmp_path / name, torch.device("cpu")) for name in ("one", "two"))
    for key, value in vars(one).items():  # sums of two threads and of one differ in the last bit
        torch.testing.assert_close(getattr(two, key), value, atol=2e-3, rtol=2e-3, msg=key)


def test_plans_fill_their_time(tmp_path: Path) -> None:
    for number in (0, 1, 2, 3):
        processes = schedule_of(number, 600, tmp_path)
        times = [
            sum(float(e.split(":")[1]) for e in stages if not e.startswith("wait")) for stages in processes
        ]
        assert max(times) <= 600
        assert sorted(times)[-2] > 400, "two processes at least are busy most of the time"
    (tmp_path / "latents.pt").touch()
    assert not any("latents" in entry for stages in schedule_of(3, 600, tmp_path) for entry in stages)


def test_latents_made_in_parts_are_those_made_at_once(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "weights", tmp_path / "weights")
    settings = dataclasses.replace(_settings(tmp_path), latent_objects=3)
    run_stages(["latents::0of2", "latents::1of2", "tex_flow"], settings)
    in_parts = load_latents(tmp_path, torch.device("cpu"))
    run_stages(["latents", "tex_flow"], settings)
    at_once = load_latents(tmp_path, torch.device("cpu"))
    assert len(in_parts) == 3
    assert not list(tmp_path.glob("latents.*of*"))
    sizes = in_parts.offsets.diff().tolist()
    for name in ("coords", "shape"):
        a, c, b = getattr(in_parts, name).split(sizes)  # of objects 0, 2 and 1
        torch.testing.assert_close(torch.cat([a, b, c]), getattr(at_once, name))


def test_flows_keep_the_statistics_that_they_know(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "weights", tmp_path / "weights")
    known = {k: v + 1 for k, v in load_statistics(trained).items()}
    save_statistics(tmp_path, known)
    run_stages(["latents:9:0of1", "tex_flow:9"], _settings(tmp_path))
    for key, value in load_statistics(tmp_path).items():
        assert torch.equal(value, known[key])
    for name in ("shape_flow", "tex_flow"):
        (tmp_path / "weights" / f"{name}.pt").unlink()
    run_stages(["latents:9", "shape_flow:9"], _settings(tmp_path))
    assert not torch.equal(load_statistics(tmp_path)["shape_mean"], known["shape_mean"])


def test_the_learning_rate_warms_up_and_decays() -> None:
    assert learning_rate(1.0, 0, 0.0, 10, decay=True) == pytest.approx(0.1)
    assert learning_rate(1.0, 100, 0.0, 10, decay=True) == pytest.approx(1.0)
    assert learning_rate(1.0, 100, 1.0, 10, decay=True) == pytest.approx(0.05)
    assert learning_rate(1.0, 100, 1.0, 10, decay=False) == 1.0


def test_gradients_are_clipped_to_what_is_usual() -> None:
    clipper = AdaptiveGradClipper(window=4)
    parameter = torch.nn.Parameter(torch.zeros(1))
    for norm in (0.5, 0.1, 0.1, 0.1):
        parameter.grad = torch.tensor([norm])
        clipper.clip([parameter])
    parameter.grad = torch.tensor([5.0])
    assert clipper.clip([parameter]) == pytest.approx(5.0)
    assert float(parameter.grad) <= 0.5
    parameter.grad = torch.tensor([float("nan")])
    clipper.clip([parameter])
    assert clipper.threshold <= 1.0, "a gradient that is not finite is not remembered"


def test_results_are_means_over_what_was_measured() -> None:
    rows = [
        {"family": "mug", "f_002": 1.0, "f_005": 1.0, "one_piece": 1.0, "ae_f_1_256": 0.9},
        {"family": "mug", "f_002": 0.5, "f_005": 0.5, "one_piece": 0.0},
    ]
    summary = summarise(rows)
    assert (summary["f_002"], summary["ae_f_1_256"], summary["f_002_by_family"]) == (0.75, 0.9, {"mug": 0.75})
    assert "| image to 3D, F-score at 0.02 | >= 0.70 | 0.750 |" in card_table(summary)
