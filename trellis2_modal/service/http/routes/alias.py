"""The generation under the address that routers of model APIs expect."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from ...auth import ApiKey
from ..authentication import WORK, caller
from .generate import GENERATION, generate

router = APIRouter(tags=["generation"])


@router.post("/v1/3d/generations", **GENERATION)
async def create_3d_generation(
    request: Request, key: Annotated[ApiKey, Depends(caller("generate", WORK))]
) -> Response:
    """`POST /generate` under another name: the same body, the same answers."""
    return await generate(request, key)
