"""The images: recipes as plain data, packages that suffice for what runs in them, pins that agree."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trellis2_modal.service import image
from trellis2_modal.service.config import (
    CUDA_ARCHITECTURES,
    LEAN_ONLY,
    DeploySettings,
    SettingsError,
    baked_environment,
)
from trellis2_modal.service.deploy import image_requirements as pins
from trellis2_modal.service.image import Step

ROOT = Path(__file__).parents[3]
FULL, LEAN = DeploySettings(image="full"), DeploySettings()


def methods(steps: tuple[Step, ...]) -> list[str]:
    return [step.method for step in steps]


def environment(steps: tuple[Step, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for step in steps:
        if step.method == "env":
            found |= step.args[0]
    return found


def commands(steps: tuple[Step, ...]) -> str:
    return "\n".join(line for step in steps if step.method == "run_commands" for line in step.args)


def packages(steps: tuple[Step, ...]) -> set[str]:
    return {name for step in steps if step.method == "uv_pip_install" for name in step.args}


# --- recipes ------------------------------------------------------------------------------------------------


def test_the_full_image_is_what_the_plan_asks_for() -> None:
    steps = image.gpu_steps(FULL)
    first = steps[0]
    assert (first.method, first.args) == ("from_registry", ("nvidia/cuda:12.4.0-devel-ubuntu22.04",))
    assert dict(first.options) == {"add_python": "3.11"}
    assert steps[1] == image.step("entrypoint", [])
    torch_layer, with_models = [s for s in steps if "torch==2.6.0" in s.args]
    assert dict(torch_layer.options)["index_url"].endswith("/whl/cu124")
    assert {"torchvision==0.21.0", *pins.MODEL_PACKAGES} <= set(with_models.args)
    assert not set(pins.TORCH) & packages(steps)
    built = commands(steps)
    assert "flash-attn==2.7.3" in built
    assert "NVlabs/nvdiffrast@v0.4.0" in built
    assert "JeffreyXiang/nvdiffrec@b296927cc7fd01c2ac1087c8065c4d7248f72da4" in built
    assert "checkout cf1a2f07304b5fe388ed86a16e4a0474599df914" in built
    assert "checkout 6dd94a859c26ee8246888502eada3dd8ad85532e" in built
    assert "forest.exr" in built
    wanted = {
        "TORCH_CUDA_ARCH_LIST": "8.0",
        "OPENCV_IO_ENABLE_OPENEXR": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "HF_HUB_OFFLINE": "1",
    }
    assert wanted.items() <= environment(steps).items()


@pytest.mark.parametrize("settings", [FULL, LEAN], ids=["full", "lean"])
def test_no_image_forces_a_backend(settings: DeploySettings) -> None:
    assert not [name for name in environment(image.gpu_steps(settings)) if name.endswith("_BACKEND")]


def test_the_default_image_has_the_torch_of_the_gpu_figures() -> None:
    figures = json.loads((ROOT / "benchmarks" / "results" / "gpu.json").read_text())
    torch = next(name for name in packages(image.gpu_steps(DeploySettings())) if name.startswith("torch=="))
    assert f"torch {torch.partition('==')[2]}+" in figures["machine"]


def test_the_lean_image_compiles_nothing_and_is_free_of_non_commercial_parts() -> None:
    steps = image.gpu_steps(LEAN)
    assert methods(steps)[0] == "debian_slim"
    assert "run_commands" not in methods(steps)
    text = repr(steps)
    for extension in pins.EXTENSIONS:
        assert extension.name not in text
    assert [e.name for e in pins.EXTENSIONS if not e.commercial] == ["nvdiffrast", "nvdiffrec_render"]


@pytest.mark.parametrize("gpu", sorted(set(CUDA_ARCHITECTURES) - set(LEAN_ONLY)))
def test_extensions_are_compiled_for_the_gpu(gpu: str) -> None:
    built = environment(image.gpu_steps(DeploySettings(gpu=gpu, image="full")))
    assert built["TORCH_CUDA_ARCH_LIST"] == CUDA_ARCHITECTURES[gpu]


def test_an_edit_of_our_code_builds_nothing_again() -> None:
    """What is mounted comes last and without a copy; what is copied changes seldom."""
    for steps in (image.gpu_steps(FULL), image.gpu_steps(LEAN)):
        mounted = [s for s in steps if s.method == "add_local_dir" and "copy" not in dict(s.options)]
        assert list(steps[-len(mounted) :]) == mounted
        assert [s.args[1] for s in mounted] == ["/root/trellis2", "/root/trellis2_pictures", "/root/o_voxel"]
        assert all(Path(s.args[0]).is_dir() for s in mounted)


def test_every_installer_is_pinned() -> None:
    for steps in (
        image.gpu_steps(FULL),
        image.gpu_steps(LEAN),
        image.gateway_steps(FULL),
        image.download_steps(FULL),
    ):
        for step in steps:
            if step.method == "uv_pip_install":
                options = dict(step.options)
                assert options["uv_version"] == pins.UV
                without_dependencies = step.args in (pins.FULL_TORCH, pins.BUILD_PACKAGES)
                assert options.get("extra_options") == (None if without_dependencies else image.CONSTRAINED)
        assert all("==" in name for name in packages(steps))
    for extension in pins.EXTENSIONS:
        assert re.fullmatch(r"[0-9a-f]{40}|v?\d+\.\d+\.\d+", extension.ref), extension


def test_gateway_and_download_images_are_slim() -> None:
    for steps in (image.gateway_steps(FULL), image.download_steps(FULL)):
        names = {name.partition("==")[0] for name in packages(steps)}
        assert not {"torch", "transformers", "warp-lang", "gradio"} & names
    configs = image.light_source_steps(FULL)[-1]
    assert dict(configs.options)["ignore"] == ("**", "!**/pipeline.json")


def test_the_forest_can_be_pinned() -> None:
    def fetch(settings: DeploySettings) -> str:
        commands = [s.args[0] for s in image.full_steps(settings) if s.method == "run_commands"]
        return str(next(command for command in commands if "forest" in command))

    digest = "a" * 64
    assert f'echo "{digest}  {image.FOREST}" | sha256sum --check' in fetch(
        replace(FULL, forest_digest=digest)
    )
    assert fetch(FULL).endswith(f"sha256sum {image.FOREST}")  # printed by the build
    with pytest.raises(SettingsError, match="TRELLIS2_FOREST_DIGEST='x; rm': choose any, or a SHA-256"):
        replace(FULL, forest_digest="x; rm").check()


def test_the_gateway_cuts_out_with_what_its_image_has() -> None:
    installed = closure({name.partition("==")[0] for name in pins.GATEWAY_PACKAGES})
    assert not {"torch", "transformers", "trimesh", "warp-lang", "huggingface-hub"} & installed
    code = (
        "import io, sys; sys.modules |= dict.fromkeys(['torch', 'transformers', 'trimesh', 'warp',"
        " 'huggingface_hub', 'o_voxel']); from PIL import Image;"
        " from trellis2.conditioning.registry import build_background_remover;"
        " from trellis2_modal.service.deploy.warm_up import picture;"
        " from trellis2_modal.service.http.pictures.matte import GRABCUT, cut_out;"
        " made = cut_out(picture(), build_background_remover(GRABCUT));"
        " print(Image.open(io.BytesIO(made)).getchannel('A').getextrema())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "(0, 255)"), done.stderr
    added = [step for step in image.gateway_source_steps(FULL) if step.method == "add_local_dir"]
    shipped = {Path(str(step.args[0])).name for step in added}
    assert {"trellis2", "trellis2_pictures"} <= shipped


def test_containers_get_the_settings_of_who_deploys() -> None:
    settings = DeploySettings(app="mine", gpu="H100", proxy_auth=True, model="bundled", gpu_max_containers=5)
    baked = baked_environment(settings, {"TRELLIS2_QUEUE_LIMIT": "3", "TRELLIS2_DATA_DIR": "/home/me"})
    assert DeploySettings.from_env(baked) == settings
    assert baked["TRELLIS2_QUEUE_LIMIT"] == "3"
    assert "TRELLIS2_DATA_DIR" not in baked
    for steps in (image.model_source_steps(settings), image.light_source_steps(settings)):
        assert environment(steps)["TRELLIS2_APP"] == "mine"


def test_recipes_build_without_a_network() -> None:
    import modal

    for steps in (image.gpu_steps(FULL), image.gpu_steps(LEAN)):
        assert isinstance(image.build(steps), modal.Image)


def test_a_deploy_from_the_wrong_folder_says_what_to_run(tmp_path: Path) -> None:
    missing = [path.name for path in image.missing_sources(tmp_path)]
    assert missing == ["assets", "trellis2", "trellis2_pictures", "o_voxel"]
    package = tmp_path / "trellis2_modal"
    package.symlink_to(ROOT / "trellis2_modal")
    copied = tmp_path / "lonely"
    copied.mkdir()
    for file in (ROOT / "trellis2_modal").rglob("*.py"):
        target = copied / "trellis2_modal" / file.relative_to(ROOT / "trellis2_modal")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", "import trellis2_modal.service.service"],
        env=os.environ | {"PYTHONPATH": str(copied), "PYTHONSAFEPATH": "1"},
        cwd=copied,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "clone the repository" in done.stderr
    assert "modal deploy trellis2_modal/service/service.py" in done.stderr


# --- pins ---------------------------------------------------------------------------------------------------


def test_pins_agree_with_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    known = dict(line.partition(";")[0].strip().split("==") for line in lines if "==" in line)
    known = {canonicalize_name(name): version for name, version in known.items()}
    pinned = {*pins.GATEWAY_PACKAGES, *pins.MODEL_PACKAGES, *pins.DOWNLOAD_PACKAGES}
    for requirement in pinned:
        name, version = requirement.split("==")
        assert known[canonicalize_name(name)] == version, requirement


def test_everything_that_comes_along_is_pinned_too() -> None:
    """The closure of what the images install, as installed here, is in the containers' constraints."""
    text = (Path(image.__file__).parent / "deploy" / "constraints.txt").read_text()
    locked = {canonicalize_name(line.partition("==")[0]) for line in text.splitlines() if "==" in line}
    asked = {*pins.GATEWAY_PACKAGES, *pins.MODEL_PACKAGES, *pins.DOWNLOAD_PACKAGES}
    names = closure({name.partition("==")[0] for name in asked})
    assert len(names) > 30
    assert names - locked <= {"setuptools"}
    for requirement in (*asked, *pins.REMOVER_PACKAGES):
        name, version = requirement.split("==")
        assert f"{canonicalize_name(name)}=={version}" in text


def test_pinned_versions_fit_what_our_packages_ask_for() -> None:
    pinned = {
        canonicalize_name(name.partition("==")[0]): name.partition("==")[2]
        for name in (*pins.GATEWAY_PACKAGES, *pins.MODEL_PACKAGES, *pins.TORCH)
    }
    asked = [
        *(importlib.metadata.requires("trellis2-modal") or []),
        *(importlib.metadata.requires("o-voxel") or []),
    ]
    checked = 0
    for text in asked:
        requirement = Requirement(text)
        version = pinned.get(canonicalize_name(requirement.name))
        if version is not None:
            assert requirement.specifier.contains(version), (text, version)
            checked += 1
    assert checked >= 15


def test_every_source_of_weights_has_a_licence() -> None:
    from trellis2_modal.service import config

    sources = {
        config.PUBLISHED_MODEL,
        config.STRUCTURE_DECODER_MODEL,
        config.GATED_ENCODER,
        config.OPEN_ENCODER,
        config.GATED_REMOVER,
        config.OPEN_REMOVER,
    }
    assert set(pins.WEIGHTS_LICENCES) == sources
    assert pins.WEIGHTS_LICENCES[config.GATED_REMOVER][2].startswith("no")


# --- what runs in an image needs nothing that is not in it --------------------------------------------------

GATE = """
import importlib, importlib.abc, json, sys
allowed = set(json.loads(sys.argv[1]))
owners = json.loads(sys.argv[2])
class Gate(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in owners and not set(owners[top]) & allowed:
            raise ModuleNotFoundError(f"{name} is not in this image", name=name)
sys.meta_path.insert(0, Gate())
"""

ASK_HEALTH = """
import asyncio
from trellis2_modal.service import service
app = service.web.local()
sent = []
async def ask():
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": "GET", "path": "/health", "raw_path": b"/health", "headers": []}
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
    await app(scope | {"client": ("c", 1), "server": ("s", 80)}, receive, send)
asyncio.run(ask())
assert sent[0]["status"] == 200, sent
"""


def closure(names: set[str]) -> set[str]:
    """Distributions with all that they require, as installed here."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in requires:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    return found


def run_in_image(installed: tuple[str, ...], code: str) -> None:
    """Run code where only these packages, theirs, Modal's and our own can be imported."""
    allowed = closure({name.partition("==")[0] for name in installed} | {"modal"})
    owners = {
        module: [canonicalize_name(name) for name in names]
        for module, names in importlib.metadata.packages_distributions().items()
        if not {"trellis2-modal", "o-voxel"} & {canonicalize_name(name) for name in names}
    }
    done = subprocess.run(
        [sys.executable, "-c", GATE + code, json.dumps(sorted(allowed)), json.dumps(owners)],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "o-voxel")]), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_gate_closes() -> None:
    with pytest.raises(AssertionError, match="torch is not in this image"):
        run_in_image(pins.GATEWAY_PACKAGES, "import torch")


def test_the_gateway_runs_in_its_image() -> None:
    run_in_image(pins.GATEWAY_PACKAGES, ASK_HEALTH)


def test_the_download_runs_in_its_image() -> None:
    run_in_image(
        pins.DOWNLOAD_PACKAGES,
        "import huggingface_hub, trellis2_modal.service.deploy.weights.download as w\n"
        "from trellis2_modal.service.deploy.dinov3_timm import convert\n"
        "from safetensors.numpy import load_file",
    )


def model_modules() -> list[str]:
    """Every module that the model's image may import: all of ours but training and the gateway's side."""
    names = []
    for package, parent in (("trellis2", ROOT), ("o_voxel", ROOT / "o-voxel")):
        for file in sorted((parent / package).rglob("*.py")):
            parts = file.relative_to(parent).with_suffix("").parts
            if "training" not in parts and "triton" not in parts[-1] and parts[-1] != "__main__":
                names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [*names, *(f"trellis2_modal.service.{n}" for n in ("service", "deploy.verification", "exporter"))]


def test_the_model_runs_in_its_images() -> None:
    code = "import importlib\n" + "\n".join(
        f"try: importlib.import_module({name!r})\n"
        "except ModuleNotFoundError as error:\n"
        "    if error.name.partition('.')[0] not in ('triton',): raise"
        for name in model_modules()
    )
    code += "\nimport transformers, cv2, imageio_ffmpeg\n"
    run_in_image((*pins.MODEL_PACKAGES, *pins.TORCH), code)


def test_arguments_of_steps_are_plain_data() -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return all(plain(item) for item in value)
        if isinstance(value, dict):
            return all(plain(item) for pair in value.items() for item in pair)
        return isinstance(value, (str, int, float, bool))

    for steps in (image.gpu_steps(FULL), image.gpu_steps(LEAN), image.gateway_steps(FULL)):
        assert all(plain(step.args) and plain(step.options) for step in steps)
