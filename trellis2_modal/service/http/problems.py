"""Errors raised anywhere become RFC 9457 problem documents here, and only here."""

from __future__ import annotations

import difflib
import json
import logging
import math
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ...protocol import errors
from ...protocol.errors import (
    PROBLEM_MEDIA_TYPE,
    FieldError,
    InternalError,
    InvalidRequestError,
    ServiceError,
)
from ...protocol.requests import ExtractRequest, GenerateRequest
from .context import context_of

logger = logging.getLogger(__name__)

BY_STATUS: dict[int, type[ServiceError]] = {
    400: errors.InvalidRequestError,
    404: errors.NotFoundError,
    405: errors.MethodNotAllowedError,
    413: errors.TooLargeError,
    415: errors.UnsupportedMediaTypeError,
}


def problem_response(error: ServiceError, request_id: str) -> Response:
    """The reply for an error."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="trellis2", ApiKey realm="trellis2", header="X-API-Key"'
    body = json.dumps(error.problem(request_id)).encode() + b"\n"
    return Response(body, error.status, headers, PROBLEM_MEDIA_TYPE)


def invalid_request(error: ValidationError | RequestValidationError) -> InvalidRequestError:
    """Pydantic's findings as one error; the offending values are not repeated."""
    found = [
        FieldError(".".join(str(part) for part in item["loc"]) or "body", _message(item))
        for item in error.errors()[:20]
    ]
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in found[:3])
    return InvalidRequestError(detail, errors=found)


def _message(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return f"is not a known field{_hint(str(item['loc'][-1]))}"
    return "is missing" if item["type"] == "missing" else str(item["msg"])


def _hint(name: str) -> str:
    """Where an unknown field belongs, or what it may be a slip of."""
    generation, extraction = GenerateRequest.model_fields.keys(), ExtractRequest.model_fields.keys()
    if name in extraction - generation:
        return " here: it belongs to an extraction (/extract_glb), or inside export of a generation"
    if name in generation - extraction:
        return " here: it belongs to a generation (/generate)"
    near = difflib.get_close_matches(name[:60], [*generation, *extraction], 1, 0.75)
    return f"; did you mean {near[0]}?" if near else ""


def _framework_error(error: HTTPException) -> ServiceError:
    """What the framework found wrong with the address or the method, with what to do about it."""
    allowed = (error.headers or {}).get("Allow")
    if error.status_code == 404:
        return errors.NotFoundError("there is no such address; /docs lists those there are")
    if error.status_code == 405 and allowed:
        return errors.MethodNotAllowedError(f"this address takes {allowed}")
    return BY_STATUS.get(error.status_code, InternalError)()


def install(app: FastAPI) -> None:
    """Render every error of the app as a problem, those of the framework too.

    The handlers are coroutines: plain functions would each be sent to a thread.
    """

    async def service_error(request: Request, error: Any) -> Response:
        return problem_response(error, context_of(request).request_id)

    async def validation_error(request: Request, error: Any) -> Response:
        return problem_response(invalid_request(error), context_of(request).request_id)

    async def http_error(request: Request, error: Any) -> Response:
        response = problem_response(_framework_error(error), context_of(request).request_id)
        for name, value in (error.headers or {}).items():
            response.headers[name] = value
        return response

    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(ValidationError, validation_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
