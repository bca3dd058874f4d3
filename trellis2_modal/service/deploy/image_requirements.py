"""What the images on Modal are made of: base, versions, commits, licences. Plain data.

Versions of Python packages are those of constraints.txt (a test compares them), except for what is only in
the GPU images.
"""

from __future__ import annotations

from dataclasses import dataclass

CUDA_BASE = "nvidia/cuda:12.4.0-devel-ubuntu22.04"
PYTHON = "3.11"
UV = "0.13.9"

TORCH = ("torch==2.11.0", "torchvision==0.26.0")
"""Of the lean image, from PyPI with wheels of CUDA 13.0: what the GPU figures were measured with."""

FULL_TORCH = ("torch==2.6.0", "torchvision==0.21.0")
FULL_TORCH_INDEX = "https://download.pytorch.org/whl/cu124"

PROTOCOL_PACKAGES = (
    "click==8.5.1",
    "lz4==4.4.5",
    "numpy==2.4.6",
    "pillow==12.3.0",
    "platformdirs==4.14.7",
    "pydantic==2.14.3",
    "safetensors==0.8.0",
)
GATEWAY_PACKAGES = (
    *PROTOCOL_PACKAGES,
    "fastapi==0.165.0",
    "limits==5.8.0",
    "opencv-python-headless==5.0.0.93",
    "python-multipart==0.0.34",
    "scipy==1.17.1",
    "starlette==1.10.0",
)
MODEL_PACKAGES = (
    *PROTOCOL_PACKAGES,
    "DracoPy==2.2.0",
    "fast_simplification==0.2.0",
    "huggingface_hub==2.4.0",
    "imageio-ffmpeg==0.8.1",
    "opencv-python-headless==5.0.0.93",
    "scipy==1.17.1",
    "transformers==5.23.0",
    "trimesh==5.2.0",
    "usd-core==26.11",
    "warp-lang==1.19.0",
    "zstandard==0.25.0",
)
REMOVER_PACKAGES = ("einops==0.8.2", "kornia==0.9.0", "timm==1.0.31")
"""What the model code of the BiRefNet family imports."""

DOWNLOAD_PACKAGES = (
    "huggingface_hub==2.4.0",
    "hf-xet==1.8.0",
    "numpy==2.4.6",
    "platformdirs==4.14.7",
    "pydantic==2.14.3",
    "safetensors==0.8.0",
)
BUILD_PACKAGES = ("ninja==1.13.2", "packaging==26.3", "psutil==7.2.2", "setuptools==75.8.0", "wheel==0.45.1")
"""For compiling the extensions; setuptools as old as they are."""

COMPILERS = {
    "CC": "gcc",
    "CXX": "g++",
    "LDSHARED": "gcc -pthread -shared",
    "LDCXXSHARED": "g++ -pthread -shared",
}
"""The Python that Modal adds to a CUDA base was built with clang, and its configuration says so, so that an
extension looks for clang++ to compile and to link, and the image has gcc."""

FOREST_URL = "https://dl.polyhaven.org/file/ph-assets/HDRIs/exr/1k/forest_slope_1k.exr"
"""A forest by Poly Haven, CC0. The lean image lights previews with the studio made in code."""


@dataclass(frozen=True)
class Extension:
    """A compiled package of the full image. `module` is imported to see that it works."""

    name: str
    module: str
    source: str
    ref: str
    licence: str
    commercial: bool = True
    submodules: bool = False

    def install_commands(self) -> tuple[str, ...]:
        """Shell commands that compile it into the running Python."""
        pip = "python -m pip install --no-cache-dir --no-build-isolation --no-deps"
        if not self.source.startswith("https://"):
            return (f"{pip} {self.source}=={self.ref}",)
        if not self.submodules:
            return (f"{pip} git+{self.source}@{self.ref}",)
        folder = f"/tmp/{self.name}"
        return (
            f"git clone {self.source} {folder} && git -C {folder} checkout {self.ref}"
            f" && git -C {folder} submodule update --init --recursive"
            f" && {pip} {folder} && rm -rf {folder}",
        )


EXTENSIONS = (
    Extension("flash-attn", "flash_attn", "flash-attn", "2.7.3", "BSD-3-Clause"),
    Extension(
        "nvdiffrast",
        "nvdiffrast.torch",
        "https://github.com/NVlabs/nvdiffrast",
        "v0.4.0",
        "NVIDIA source code licence",
        commercial=False,
    ),
    Extension(
        "nvdiffrec_render",
        "nvdiffrec_render",
        "https://github.com/JeffreyXiang/nvdiffrec",
        "b296927cc7fd01c2ac1087c8065c4d7248f72da4",
        "NVIDIA source code licence",
        commercial=False,
    ),
    Extension(
        "cumesh",
        "cumesh",
        "https://github.com/JeffreyXiang/CuMesh",
        "cf1a2f07304b5fe388ed86a16e4a0474599df914",
        "MIT (its BVH: MIT and BSD)",
        submodules=True,
    ),
    Extension(
        "flex_gemm",
        "flex_gemm",
        "https://github.com/JeffreyXiang/FlexGEMM",
        "6dd94a859c26ee8246888502eada3dd8ad85532e",
        "MIT",
        submodules=True,
    ),
)

WEIGHTS_LICENCES = {
    "microsoft/TRELLIS.2-4B": ("MIT", "none", "yes"),
    "microsoft/TRELLIS-image-large": ("MIT", "none", "yes"),
    "facebook/dinov3-vitl16-pretrain-lvd1689m": (
        "DINOv3 licence",
        "accept on the hub, token",
        "yes, on its terms",
    ),
    "timm/vit_large_patch16_dinov3.lvd1689m": ("DINOv3 licence", "none", "yes, on its terms"),
    "briaai/RMBG-2.0": ("CC BY-NC 4.0", "accept on the hub, token", "no, without an agreement with Bria"),
    "ZhengPeng7/BiRefNet": ("MIT", "none", "yes"),
}
"""Repository: licence, what it takes to download it, whether commercial use is allowed."""
