"""The container images on Modal, and `modal run trellis2_modal/service/image.py::verify_image`.

`gpu_image` is the full or the lean one (`TRELLIS2_IMAGE`), `gateway_image` the slim one for the CPU gateway,
`download_image` for fetching weights. Nothing is built or asked of the network here: a recipe is a tuple of
`Step`s, plain data, that `build` turns into Modal's object.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal

if not __package__:  # `modal run trellis2_modal/service/image.py::verify_image`
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from trellis2_modal.service.deploy.by_path import become

    become("trellis2_modal.service.image", globals())

from .config import CUDA_ARCHITECTURES, DeploySettings, SettingsError, baked_environment, gateway_settings
from .deploy import image_requirements as pins
from .deploy.weights.manifest import WEIGHTS_ROOT

logger = logging.getLogger(__name__)


def settings_of_deployer() -> DeploySettings:
    """The settings of the environment; a wrong one ends the command in a line that names it."""
    try:
        settings = DeploySettings.from_env()
        gateway_settings(settings)  # what its containers will read
        return settings
    except SettingsError as error:
        raise SystemExit(str(error)) from None


SETTINGS = settings_of_deployer()
CHECKOUT = Path(__file__).resolve().parents[2]
ASSETS = "/root/assets"
"""Where the packages find the bundled weights and the environment light: /root holds the packages."""

FOREST = f"{ASSETS}/hdri/forest.exr"
EXR_MAGIC = "762f3101"

COMPILED = ("**/__pycache__", "**/*.pyc")
NOT_CONFIG = ("**", "!**/pipeline.json")

RUNTIME_ENVIRONMENT = {
    "OPENCV_IO_ENABLE_OPENEXR": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    # torch then asks the driver library, not the runtime, whether there is a GPU: before a snapshot the
    # answer "none" must not stick to the process
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
FULL_ENVIRONMENT = {
    "FLEX_GEMM_USE_AUTOTUNE_CACHE": "1",
    "FLEX_GEMM_AUTOSAVE_AUTOTUNE_CACHE": "1",
}
TRUSTED_CODE = {"TRELLIS2_TRUST_CODE": "1"}
"""Who deploys names the background remover; its commit is recorded and its files are checked by digest."""

KERNELS_ROOT = "/kernels"
KERNEL_CACHES = {
    "WARP_CACHE_PATH": "warp",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "CUDA_CACHE_PATH": "cuda",
}
"""Variable to folder on the kernels volume; what is in them is keyed by source, version and architecture."""

CONSTRAINTS = "/constraints.txt"
CONSTRAINED = f"--constraint {CONSTRAINTS}"


@dataclass(frozen=True)
class Step:
    """One layer: the method of `modal.Image` and its arguments."""

    method: str
    args: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()


def step(method: str, *args: Any, **options: Any) -> Step:
    return Step(method, args, tuple(sorted(options.items())))


def install(*packages: str) -> Step:
    """Wheels, with every version that they bring along fixed too."""
    return step("uv_pip_install", *packages, uv_version=pins.UV, extra_options=CONSTRAINED)


def constraints() -> Step:
    source = CHECKOUT / "trellis2_modal" / "service" / "deploy" / "constraints.txt"
    return step("add_local_file", str(source), CONSTRAINTS, copy=True)


def full_steps(settings: DeploySettings) -> tuple[Step, ...]:
    """CUDA base, torch wheels, then every extension compiled for the chosen GPU, the slowest first."""
    build = {
        "TORCH_CUDA_ARCH_LIST": CUDA_ARCHITECTURES[settings.gpu],
        "CUDA_HOME": "/usr/local/cuda",
        "FORCE_CUDA": "1",
        "MAX_JOBS": "8",
    }
    fetch = (
        f"mkdir -p {ASSETS}/hdri && curl -fsSL --retry 3 -o {FOREST} {pins.FOREST_URL}"
        f' && test "$(head -c 4 {FOREST} | od -An -tx1 | tr -d " \\n")" = {EXR_MAGIC}'
        f" && sha256sum {FOREST}"
    )
    if settings.forest_digest != "any":
        fetch += f' && echo "{settings.forest_digest}  {FOREST}" | sha256sum --check'
    return (
        step("from_registry", pins.CUDA_BASE, add_python=pins.PYTHON),
        step("entrypoint", []),
        step("apt_install", "build-essential", "curl", "git"),
        step("env", pins.COMPILERS | build),
        step("uv_pip_install", *pins.FULL_TORCH, index_url=pins.FULL_TORCH_INDEX, uv_version=pins.UV),
        step("uv_pip_install", *pins.BUILD_PACKAGES, uv_version=pins.UV),
        constraints(),
        # torch once more: what needs it must not bring a newer one
        install(*pins.FULL_TORCH, *pins.MODEL_PACKAGES, *pins.REMOVER_PACKAGES),
        *(step("run_commands", *extension.install_commands()) for extension in pins.EXTENSIONS),
        step("run_commands", fetch),
        step("env", RUNTIME_ENVIRONMENT | FULL_ENVIRONMENT),
    )


def lean_steps(settings: DeploySettings) -> tuple[Step, ...]:
    """Wheels alone: nothing compiled, nothing non-commercial. gcc is for the launchers that Triton makes."""
    return (
        step("debian_slim", python_version=pins.PYTHON),
        step("apt_install", "gcc", "libc6-dev"),
        constraints(),
        install(*pins.TORCH, *pins.MODEL_PACKAGES, *pins.REMOVER_PACKAGES),
        step("env", RUNTIME_ENVIRONMENT),
    )


def gateway_steps(settings: DeploySettings) -> tuple[Step, ...]:
    return (
        step("debian_slim", python_version=pins.PYTHON),
        constraints(),
        install(*pins.GATEWAY_PACKAGES),
    )


def download_steps(settings: DeploySettings) -> tuple[Step, ...]:
    return (
        step("debian_slim", python_version=pins.PYTHON),
        constraints(),
        install(*pins.DOWNLOAD_PACKAGES),
        step("env", {"HF_XET_HIGH_PERFORMANCE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}),
    )


def model_source_steps(settings: DeploySettings) -> tuple[Step, ...]:
    """What comes last in the GPU image: bundled weights, settings, then our code: an edit rebuilds nothing.

    Modal itself brings the package that is deployed, `trellis2_modal`, and no other. The others are taken
    from the checkout by path, so that the machine that deploys needs neither installed, nor torch.
    """
    return (
        step("add_local_dir", str(CHECKOUT / "assets"), ASSETS, copy=True),
        step("env", baked_environment(settings) | kernel_caches(settings) | TRUSTED_CODE),
        *sources("trellis2", "trellis2_pictures", "o-voxel/o_voxel"),
    )


def sources(*packages: str) -> tuple[Step, ...]:
    """Packages of the checkout, where containers import from."""
    paths = [CHECKOUT / package for package in packages]
    return tuple(step("add_local_dir", str(path), f"/root/{path.name}", ignore=COMPILED) for path in paths)


def kernel_caches(settings: DeploySettings) -> dict[str, str]:
    """Where compiled kernels go: a folder for each image and GPU, which is only ever added to."""
    torch = (pins.TORCH if settings.image == "lean" else pins.FULL_TORCH)[0].replace("==", "-")
    warp = next(name for name in pins.MODEL_PACKAGES if name.startswith("warp-lang")).replace("==", "-")
    folder = f"{KERNELS_ROOT}/{torch}-{warp}-{settings.gpu.rstrip('!')}"
    return {variable: f"{folder}/{leaf}" for variable, leaf in KERNEL_CACHES.items()}


def light_source_steps(settings: DeploySettings) -> tuple[Step, ...]:
    """What comes last in the CPU images: settings, and what the bundled weights can do."""
    return (
        step("env", baked_environment(settings)),
        step("add_local_dir", str(CHECKOUT / "assets" / "weights"), f"{ASSETS}/weights", ignore=NOT_CONFIG),
    )


def gateway_source_steps(settings: DeploySettings) -> tuple[Step, ...]:
    """The same, and what cuts a subject out: it needs neither torch nor weights."""
    return (*light_source_steps(settings), *sources("trellis2", "trellis2_pictures"))


def build(steps: tuple[Step, ...]) -> modal.Image:
    """The recipe as Modal's object: steps applied in order."""
    image: Any = modal.Image
    for layer in steps:
        image = getattr(image, layer.method)(*layer.args, **dict(layer.options))
    built: modal.Image = image
    return built


def gpu_steps(settings: DeploySettings) -> tuple[Step, ...]:
    """All layers of the chosen GPU image."""
    chosen = full_steps if settings.image == "full" else lean_steps
    return (*chosen(settings), *model_source_steps(settings))


def missing_sources(checkout: Path) -> tuple[Path, ...]:
    """What an image is made of and `checkout` lacks; empty in a clone of the repository."""
    needed = (
        *(checkout / name for name in ("assets", "trellis2", "trellis2_pictures")),
        checkout / "o-voxel" / "o_voxel",
    )
    return tuple(path for path in needed if not path.is_dir())


if modal.is_local() and (missing := missing_sources(CHECKOUT)):
    logger.warning(
        "a deploy from here will fail, since %s is not there; clone the repository, and in it run: "
        "pip install -e '.[deploy]' && modal deploy trellis2_modal/service/service.py",
        ", ".join(map(str, missing)),
    )

gpu_image = build(gpu_steps(SETTINGS))
gateway_image = build((*gateway_steps(SETTINGS), *gateway_source_steps(SETTINGS)))
download_image = build((*download_steps(SETTINGS), *light_source_steps(SETTINGS)))

app = modal.App(f"{SETTINGS.app}-image")


weights = modal.Volume.from_name(SETTINGS.weights_volume, create_if_missing=True)


@app.function(
    image=gpu_image,
    gpu=SETTINGS.modal_gpu,
    cpu=4.0,
    memory=SETTINGS.gpu_memory,
    timeout=30 * 60,
    volumes={WEIGHTS_ROOT: weights.with_mount_options(read_only=True)},
)
def verify_image() -> list[dict[str, str]]:
    """Check the image, and the chosen weights where they are downloaded, from inside a GPU container.

    Prints a table; raises when a check fails.
    """
    from .deploy.verification import run_checks, table

    rows = run_checks(SETTINGS)
    print(table(rows), flush=True)
    failed = [row["check"] for row in rows if row["result"] == "failed"]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(rows)} checks failed: {', '.join(failed)}")
    return rows
