"""The generation under the address that routers of model APIs expect."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from ....protocol.replies import EVENT_STREAM, GenerateResponse
from ....protocol.requests import GenerateRequest
from ...auth import ApiKey
from ..authentication import WORK, caller
from . import documents
from .generate import ACCEPTED, ASSETS, generate

router = APIRouter(tags=["generation"])


@router.post(
    "/v1/3d/generations",
    response_model=GenerateResponse,
    openapi_extra=documents.parameters(
        documents.IDEMPOTENCY_KEY,
        documents.PREFER,
        body=documents.json_body(GenerateRequest, documents.EXAMPLES["generate"]),
    ),
    responses=documents.errors(
        *documents.COMMON,
        *(406, 409, 422, 504, 507),
        _200=documents.json_reply(
            GenerateResponse, "The asset's state and preview, or its file", EVENT_STREAM, *ASSETS
        ),
        _202=ACCEPTED,
    ),
)
async def create_3d_generation(
    request: Request, key: Annotated[ApiKey, Depends(caller("generate", WORK))]
) -> Response:
    """`POST /generate` under another name: the same body, the same answers."""
    return await generate(request, key)
