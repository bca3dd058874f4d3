"""Checks of an image from inside a container: each extension does a tiny computation with a known answer."""

from __future__ import annotations

import importlib
import io
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..config import BUNDLED_MODEL, BUNDLED_WEIGHTS, DeploySettings
from . import image_requirements as pins
from .warm_up import picture, resolutions
from .weights.manifest import (
    DOWNLOAD_COMMAND,
    ENCODER_FOLDER,
    PIPELINE_CONFIG,
    REMOVER_FOLDER,
    check_folder,
    weights_folder,
)

logger = logging.getLogger(__name__)

Row = dict[str, str]
"""`check`, `result` (ok, failed, skipped), `seconds`, `detail`."""


class CheckError(Exception):
    """A computation gave another answer than it must."""


class Skipped(Exception):  # noqa: N818  (not a fault)
    """The check does not apply to this image."""


@dataclass(frozen=True)
class Check:
    """`run` returns what to show; it raises when the check fails."""

    name: str
    run: Callable[[], str]


def run_checks(settings: DeploySettings) -> list[Row]:
    """Every check of the image that `settings` choose, in order; a failure does not end the run."""
    return [_row(check) for check in checks(settings)]


def checks(settings: DeploySettings) -> list[Check]:
    """What an image must be able to do. Extensions belong to the full image only."""
    device = settings.device
    found = [
        Check("python and torch", versions),
        Check("GPU", lambda: gpu(device)),
        Check("attention", lambda: attention(device)),
        Check("sparse convolution", lambda: convolution(device)),
    ]
    for extension in pins.EXTENSIONS:
        full = settings.image == "full"
        found.append(Check(extension.name, partial(check_extension, extension) if full else not_in_lean))
    found += [
        Check("environment light", environment),
        Check("image to GLB", lambda: f"{generation(settings, BUNDLED_WEIGHTS)}, bundled weights"),
        Check("image encoder", lambda: chosen_encoder(settings)),
        Check("background remover", lambda: chosen_remover(settings)),
        Check("published models", lambda: published_models(settings)),
    ]
    return found


def table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    head = {"check": "check", "result": "result", "seconds": "seconds", "detail": "detail"}
    widths = {key: max(len(row[key]) for row in [head, *rows]) for key in head}
    lines = ["  ".join(row[key].ljust(widths[key]) for key in head).rstrip() for row in [head, *rows]]
    lines.insert(1, "  ".join("-" * width for width in widths.values()))
    return "\n".join(lines)


def _row(check: Check) -> Row:
    start = time.perf_counter()
    try:
        result, detail = "ok", check.run()
    except Skipped as reason:
        result, detail = "skipped", str(reason)
    except Exception as error:
        logger.exception("check %s", check.name)
        result, detail = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
    seconds = f"{time.perf_counter() - start:.1f}"
    return {"check": check.name, "result": result, "seconds": seconds, "detail": detail}


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise CheckError(message)


def not_in_lean() -> str:
    raise Skipped("not in the lean image")


# --- the machine --------------------------------------------------------------------------------------------


def versions() -> str:
    import torch

    return f"{platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}"


def gpu(device: str) -> str:
    import torch

    if device == "cpu":
        raise Skipped("this deployment runs on the CPU")
    expect(torch.cuda.is_available(), "torch sees no GPU")
    a = torch.arange(64.0, device=device).reshape(8, 8)
    expect(torch.equal((a @ a).cpu(), a.cpu() @ a.cpu()), "a product differs from the CPU's")
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def attention(device: str) -> str:
    """The implementation that the model will use; its answer for equal values is that value."""
    import torch

    from trellis2.backends import attention_backend
    from trellis2.nn.attention import attention as attend
    from trellis2.nn.attention import attention_kernels
    from trellis2.nn.tokens import TokenLayout

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    q = torch.randn(24, 2, 64, device=device, dtype=dtype)
    layout = TokenLayout.of((16, 8), device)
    with torch.no_grad(), attention_kernels(q, layout):
        out = attend(q, q, torch.ones_like(q), layout, layout)
    expect(bool((out.float() - 1).abs().max() < 1e-2), "attention over ones is not one")
    choice = attention_backend(torch.device(device), dtype)
    return f"{choice.backend}: {choice.reason}"


def convolution(device: str) -> str:
    """A kernel that is one in its centre returns its input."""
    import torch

    from trellis2.backends import sparse_conv_backend
    from trellis2.sparse import SparseTensor
    from trellis2.sparse.conv import sparse_conv3d

    out, feats = _identity_convolution(device, sparse_conv3d, SparseTensor)
    expect(bool((out - feats).abs().max() < 1e-2), "the identity kernel changed its input")
    choice = sparse_conv_backend(torch.device(device), feats.dtype)
    return f"{choice.backend}: {choice.reason}"


def _identity_convolution(device: str, convolve: Any, tensor: Any) -> tuple[Any, Any]:
    import torch

    channels = 16
    cells = torch.stack(torch.meshgrid(*[torch.arange(4)] * 3, indexing="ij"), dim=-1).reshape(-1, 3)
    coords = torch.cat([torch.zeros(len(cells), 1), cells], dim=1).int().to(device)
    feats = torch.randn(len(cells), channels, device=device)
    weight = torch.zeros(channels, 3, 3, 3, channels, device=device)
    weight[:, 1, 1, 1] = torch.eye(channels, device=device)
    with torch.no_grad():
        return convolve(tensor(feats, coords), weight, None), feats


# --- the extensions of the full image -----------------------------------------------------------------------


def flash_attn() -> str:
    import torch
    from flash_attn import flash_attn_func

    q = torch.randn(1, 32, 4, 64, device="cuda", dtype=torch.bfloat16)
    k, v = torch.randn_like(q), torch.randn_like(q)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    expected = sdpa(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
    error = (flash_attn_func(q, k, v) - expected).abs().max().item()
    expect(error < 2e-2, f"differs from SDPA by {error:.3g}")
    return f"{_version('flash_attn')}, differs from SDPA by {error:.1g}"


def nvdiffrast() -> str:
    """A triangle over the lower left half covers half of the pixels."""
    import torch

    dr = importlib.import_module("nvdiffrast.torch")
    corners = torch.tensor([[[-1, -1, 0, 1], [1, -1, 0, 1], [-1, 1, 0, 1]]], device="cuda").float()
    faces = torch.tensor([[0, 1, 2]], device="cuda").int()
    rast, _ = dr.rasterize(dr.RasterizeCudaContext(), corners, faces, [64, 64])
    covered = (rast[..., 3] > 0).float().mean().item()
    expect(abs(covered - 0.5) < 0.02, f"a half screen covers {covered:.3f}")
    return f"{_version('nvdiffrast')}, a half screen covers {covered:.3f}"


def nvdiffrec_render() -> str:
    """A white diffuse surface in a white room is as bright as the room."""
    import torch

    light = importlib.import_module("nvdiffrec_render.light")
    room = light.EnvironmentLight(torch.ones(6, 512, 512, 3, device="cuda"))
    room.build_mips()
    shape = (1, 4, 4, 3)
    position = torch.zeros(shape, device="cuda")
    normal = torch.tensor([0.0, 0.0, 1.0], device="cuda").expand(shape).contiguous()
    eye = torch.tensor([0.0, 0.0, 3.0], device="cuda").expand(shape).contiguous()
    rough = torch.tensor([0.0, 1.0, 0.0], device="cuda").expand(shape).contiguous()
    shaded = room.shade(position, normal, torch.ones(shape, device="cuda"), rough, eye, specular=True)
    mean = shaded[..., :3].mean().item()
    expect(0.8 < mean < 1.2, f"a white surface in a white room has brightness {mean:.3f}")
    return f"white in white has brightness {mean:.3f}"


def cumesh() -> str:
    """Distance from the centre of a subdivided cube of side 1 to its surface."""
    import torch
    import trimesh

    package = importlib.import_module("cumesh")
    box = trimesh.creation.box().subdivide()
    vertices = torch.tensor(box.vertices, dtype=torch.float32, device="cuda")
    faces = torch.tensor(box.faces, dtype=torch.int32, device="cuda")
    mesh = package.CuMesh()
    mesh.init(vertices, faces)
    expect(mesh.num_faces == len(faces), f"{mesh.num_faces} faces after {len(faces)} were put in")
    distance = package.cuBVH(vertices, faces).unsigned_distance(torch.zeros(1, 3, device="cuda"))[0].item()
    expect(abs(distance - 0.5) < 1e-4, f"the cube's centre is {distance:.4f} from its surface, not 0.5")
    return f"{_version('cumesh')}, {mesh.num_faces} faces, distance {distance:.4f}"


def flex_gemm() -> str:
    from trellis2.sparse import SparseTensor
    from trellis2.sparse.conv_flex_gemm import submanifold_conv3d

    out, feats = _identity_convolution("cuda", submanifold_conv3d, SparseTensor)
    error = (out - feats).abs().max().item()
    expect(error < 1e-2, f"the identity kernel changed its input by {error:.3g}")
    return f"{_version('flex_gemm')}, identity to {error:.1g}"


def check_extension(extension: pins.Extension) -> str:
    """Import it, then compute with it."""
    importlib.import_module(extension.module)
    return EXTENSION_CHECKS[extension.name]()


EXTENSION_CHECKS: dict[str, Callable[[], str]] = {
    "flash-attn": flash_attn,
    "nvdiffrast": nvdiffrast,
    "nvdiffrec_render": nvdiffrec_render,
    "cumesh": cumesh,
    "flex_gemm": flex_gemm,
}


def _version(module: str) -> str:
    return str(getattr(importlib.import_module(module), "__version__", "no version"))


# --- our own packages ---------------------------------------------------------------------------------------


def environment() -> str:
    from trellis2.renderers.environment.environments import FOREST, default_envmap

    default_envmap()
    return "forest.exr" if FOREST.exists() else "studio (made in code)"


def generation(settings: DeploySettings, weights: Path) -> str:
    """A drawn picture becomes a state at each resolution, and then a GLB, in few steps."""
    from .model_host import ModelHost

    host = ModelHost(settings, weights)
    host.load_cpu()
    host.to_device()
    steps = {f"{part}_sampling_steps": 4 for part in ("ss", "shape_slat", "tex_slat")}
    for kind in resolutions(host.generator.pipeline_types):
        asked = steps | {"preview": "none", "seed": 1, "pipeline_type": kind}
        made = host.run("generate", asked, picture)
        expect(made["status"] == "finished", f"{kind}: {made.get('problem', {}).get('detail')}")
    state = made["files"]["state"]["data"]
    small = {"decimation_target": 2000, "texture_size": 256, "remesh": False}
    asset = host.run("extract", small, lambda: state)
    expect(asset["status"] == "finished", str(asset.get("problem", {}).get("detail")))
    glb = asset["files"]["glb"]["data"]
    expect(glb[:4] == b"glTF", "the file is no GLB")
    return f"{made['stats']['faces']:,} faces, GLB of {len(glb) / 1e3:.0f} kB on {host.device}"


# --- the chosen weights, where the volume has them ----------------------------------------------------------


def chosen_weights(settings: DeploySettings) -> Path:
    """Their folder. Raises `Skipped` where nothing was downloaded yet, `WeightsError` for half of it."""
    if settings.model == BUNDLED_MODEL:
        raise Skipped("the bundled weights have their own")
    folder = weights_folder(settings)
    if not folder.is_dir():
        raise Skipped(f"{folder.name} is not on the weights volume yet; run: {DOWNLOAD_COMMAND}")
    check_folder(folder)
    return folder


def _part(settings: DeploySettings, entry: str, name: str) -> tuple[Path, dict[str, Any]]:
    """The folder of one of the two image models, and its entry in the pipeline's config."""
    from trellis2.pipelines.config import read_pipeline_config

    folder = chosen_weights(settings)
    if not (folder / name).is_dir():
        raise Skipped("the pipeline's config names none")
    return folder / name, dict(read_pipeline_config(folder, PIPELINE_CONFIG).args[entry])


def chosen_encoder(settings: DeploySettings) -> str:
    """The encoder that jobs will use, loaded as they load it, sees a picture."""
    import torch

    from trellis2.conditioning.registry import build_image_encoder

    folder, entry = _part(settings, "image_cond_model", ENCODER_FOLDER)
    encoder = build_image_encoder(entry, override=str(folder))
    encoder.to(settings.device)
    tokens = encoder([_drawn()], 512)
    expect(tokens.ndim == 3 and bool(torch.isfinite(tokens).all()), "its tokens are not finite")
    return f"{settings.image_encoder}, {tokens.shape[1]} tokens of {tokens.shape[2]}"


def chosen_remover(settings: DeploySettings) -> str:
    """The background remover that jobs will use leaves the subject and takes the background."""
    import numpy as np

    from trellis2.conditioning.registry import build_background_remover

    folder, entry = _part(settings, "rembg_model", REMOVER_FOLDER)
    remover = build_background_remover(entry, override=str(folder))
    remover.to(settings.device)
    alpha = np.asarray(remover(_drawn()).getchannel("A"))
    corner, middle = int(alpha[4, 4]), int(alpha[300, 256])
    expect(corner < 64 < 192 < middle, f"alpha is {corner} in the corner and {middle} on the subject")
    return f"{settings.background_remover}, alpha {corner} and {middle}"


def published_models(settings: DeploySettings) -> str:
    """All of them at once, on the device, through every stage."""
    return generation(settings, chosen_weights(settings))


def _drawn() -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(picture())).convert("RGB")
