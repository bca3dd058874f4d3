# ruff: noqa: E501  (a line a file: name, bytes, SHA-256)
"""Files of the known models at their commits: bytes and SHA-256, known without asking the hub."""

from __future__ import annotations

from collections.abc import Mapping

from ...config import (
    PIXEL_MODEL,
    PIXEL_REVISION,
    PUBLISHED_MODEL,
    PUBLISHED_REVISION,
    STRUCTURE_DECODER_MODEL,
    STRUCTURE_DECODER_REVISION,
)

_PUBLISHED = """
ss_flow_img_dit_1_3B_64_bf16.safetensors 2584426920 ca01377c485bec418076d38ee80166d32dc776d744f2553b835cba1e97a7abf6
ss_flow_img_dit_1_3B_64_bf16.json 467 6cdfb636854f60ffcadd8c49244169cd449f34c5ccdb55b5ff7c04678f9c399e
slat_flow_img2shape_dit_1_3B_512_bf16.safetensors 2584574424 ec5e0917ef9b7e25ad51dffc7d19687a42019871f94239f2fa7f86264c55b70f
slat_flow_img2shape_dit_1_3B_512_bf16.json 458 ddbd7a1d34ce9a8e7af2f6ef9ae686d9ab49f69e62dacb98d8409b511cdbd5e2
slat_flow_img2shape_dit_1_3B_1024_bf16.safetensors 2584574424 07cd0596f634c5adc1890023d16023afc5eed02fb84b22bb23aff5bf0030fbbd
slat_flow_img2shape_dit_1_3B_1024_bf16.json 458 7ebd6d367393f52fee9e92c2b3d727a9026a338549c6a6fa84c7ea122140ffdd
slat_flow_imgshape2tex_dit_1_3B_512_bf16.safetensors 2584672728 8371aa1c5d13be79dcd5ddfd2cf3835e902e204dc34427169a1c702828e1a94d
slat_flow_imgshape2tex_dit_1_3B_512_bf16.json 458 3093796257a62f838d2e5578ac4580ca3b7d88d10b87d348065d3fdfcc4c2077
slat_flow_imgshape2tex_dit_1_3B_1024_bf16.safetensors 2584672728 580401269059a339b8318ab9ced459a13ba63391721c83a6c383198c29e77686
slat_flow_imgshape2tex_dit_1_3B_1024_bf16.json 458 31f4fdad9974930e5e9324ac9dfb6ef7de6b30cea51854ba515ef827a8d353b2
shape_dec_next_dc_f16c32_fp16.safetensors 948490494 e3b718d3e43e4f8780e9a24ac6fff231811a67e3b058e336e10fe654c911d581
shape_dec_next_dc_f16c32_fp16.json 678 5f1b856dffce79466fb18f5f0eefc08f08c673b24b3c05b20359c0b6d318a209
tex_dec_next_dc_f16c32_fp16.safetensors 948458812 97ea69addea2ecd9312910f5f548234665eef51c088386180b7cd5b258645e3c
tex_dec_next_dc_f16c32_fp16.json 705 22074e4ab5b28e2b72d33a3fe61bf416134b89e12d0fc5c729f37da75da0c4d1
"""
_STRUCTURE_DECODER = """
ss_dec_conv3d_16l8_fp16.safetensors 147591972 1c76d4a40519aa2d711cc263a8404105231ac26db31d946bed48b84fee79009a
ss_dec_conv3d_16l8_fp16.json 245 646781293f1cda74720de85d1cef50a957fb4aebd9a4bd014e454e32f2330ac5
"""
_PIXEL = """
ss_flow_img_dit_1_3B_64_bf16.safetensors 5359822584
ss_flow_img_dit_1_3B_64_bf16_mv.safetensors 5359822584
slat_flow_img2shape_dit_1_3B_512_bf16.safetensors 5546764048
slat_flow_img2shape_dit_1_3B_512_bf16_mv.safetensors 5546764048
slat_flow_img2shape_dit_1_3B_1024_bf16.safetensors 5546764048
slat_flow_img2shape_dit_1_3B_1024_bf16_mv.safetensors 5546764048
slat_flow_imgshape2tex_dit_1_3B_1024_bf16.safetensors 5546960656
slat_flow_imgshape2tex_dit_1_3B_1024_bf16_mv.safetensors 5546960656
ss_dec_conv3d_16l8_fp16.safetensors 147591972 1c76d4a40519aa2d711cc263a8404105231ac26db31d946bed48b84fee79009a
shape_dec_next_dc_f16c32_fp16.safetensors 948490494 e3b718d3e43e4f8780e9a24ac6fff231811a67e3b058e336e10fe654c911d581
tex_dec_next_dc_f16c32_fp16.safetensors 948458812 97ea69addea2ecd9312910f5f548234665eef51c088386180b7cd5b258645e3c
"""


def _files(repo: str, revision: str, table: str) -> dict[tuple[str, str, str], tuple[int, str | None]]:
    rows = (line.split() for line in table.split("\n") if line)
    return {
        (repo, revision, f"ckpts/{name}"): (int(size), digest[0] if digest else None)
        for name, size, *digest in rows
    }


PUBLISHED_FILES: Mapping[tuple[str, str, str], tuple[int, str | None]] = (
    _files(PUBLISHED_MODEL, PUBLISHED_REVISION, _PUBLISHED)
    | _files(STRUCTURE_DECODER_MODEL, STRUCTURE_DECODER_REVISION, _STRUCTURE_DECODER)
    | _files(PIXEL_MODEL, PIXEL_REVISION, _PIXEL)
)
"""(repository, revision, file) to bytes and SHA-256 (None: not known), known without asking the hub."""
