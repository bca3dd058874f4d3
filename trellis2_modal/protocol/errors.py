"""The one tree of errors that cross the network: raised by the service, rendered as RFC 9457 problems, raised
again by the client.

ServiceError
├── InvalidRequestError 400            a field is missing, unknown or out of range
│   ├── InvalidImageError              the picture cannot be used
│   ├── InvalidMeshError               the mesh cannot be used
│   └── UnsupportedPipelineError       the loaded weights lack this pipeline type
├── UnauthenticatedError 401           no key, or one that is unknown, revoked or expired
├── ForbiddenError 403                 the key lacks the scope
├── NotFoundError 404                  no such thing, or not yours
├── MethodNotAllowedError 405
├── NotAcceptableError 406
├── RequestTimeoutError 408            timed out receiving the request body
├── ConflictError 409                  the same Idempotency-Key with another body
├── NotReadyError 409                  the job has not finished
├── JobCancelledError 409              the job was cancelled
├── ExpiredError 410                   the job's files are gone
├── TooLargeError 413
├── UnsupportedMediaTypeError 415
├── RangeNotSatisfiableError 416
├── InvalidStateError 422              a state that is invalid or corrupted
├── EmptyResultError 422               no object could be generated from the image
├── RateLimitedError 429               too many requests
├── QuotaExceededError 429             no GPU seconds left today
├── TooManyJobsError 429               too many unfinished jobs of this key
├── InternalError 500
├── WorkerDiedError 500                the worker ended under the job, more than once
├── QueueFullError 503
├── UnavailableError 503               shutting down, keys unreadable, model not loaded
├── StorageFullError 503
├── JobTimeoutError 504                the job ran longer than the service allows
└── OutOfMemoryError 507               names the smaller setting that fits
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import ValidationError

PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldError(dict[str, str]):
    """`{"field": ..., "message": ...}`: one thing wrong with one field."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field=field, message=message)


class ServiceError(Exception):
    """Base of all errors of the API.

    `detail` tells the caller what to do, `errors` names the fields, `retry_after` (seconds) becomes the
    header, `hints` become extra members of the problem document (such as `suggested` settings).
    """

    slug: ClassVar[str] = "internal-error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"
    retryable: ClassVar[bool] = False
    """Whether the same request can succeed later without being changed."""

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Iterable[FieldError] = (),
        retry_after: float | None = None,
        hints: dict[str, Any] | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.errors: list[FieldError] = list(errors)
        self.retry_after = retry_after
        self.hints = dict(hints or {})
        self.request_id = request_id

    def problem(self, request_id: str = "") -> dict[str, Any]:
        """The problem document (RFC 9457) as a JSON-ready dictionary."""
        document: dict[str, Any] = {
            "type": self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id or self.request_id,
            "errors": [dict(error) for error in self.errors],
        }
        if self.retry_after is not None:
            document["retry_after"] = self.retry_after
        return document | self.hints


class InvalidRequestError(ServiceError):
    slug, status, title = "invalid-request", 400, "A parameter is missing, unknown or out of range"


class InvalidImageError(InvalidRequestError):
    slug, status, title = "invalid-image", 400, "The picture cannot be used"


class InvalidMeshError(InvalidRequestError):
    slug, status, title = "invalid-mesh", 400, "The mesh cannot be used"


class UnsupportedPipelineError(InvalidRequestError):
    slug, status, title = "unsupported-pipeline", 400, "The loaded weights do not offer this pipeline type"


class UnauthenticatedError(ServiceError):
    slug, status, title = "unauthenticated", 401, "A valid API key is needed"


class ForbiddenError(ServiceError):
    slug, status, title = "forbidden", 403, "This key may not do that"


class MisdirectedError(ServiceError):
    slug, status, title = "misdirected", 421, "This server does not answer to that name or site"


class NotFoundError(ServiceError):
    slug, status, title = "not-found", 404, "There is nothing here, or it is not yours"


class MethodNotAllowedError(ServiceError):
    slug, status, title = "method-not-allowed", 405, "This address does not take that method"


class NotAcceptableError(ServiceError):
    slug, status, title = "not-acceptable", 406, "None of the accepted media types can be produced"


class RequestTimeoutError(ServiceError):
    slug, status, title = "request-timeout", 408, "Timed out receiving the request body"
    retryable = True


class ConflictError(ServiceError):
    slug, status, title = "idempotency-conflict", 409, "This Idempotency-Key was used with another request"


class NotReadyError(ServiceError):
    slug, status, title = "not-ready", 409, "The job has not finished"
    retryable = True


class JobCancelledError(ServiceError):
    slug, status, title = "cancelled", 409, "The job was cancelled"


class ExpiredError(ServiceError):
    slug, status, title = "expired", 410, "The files of this job are no longer kept"


class TooLargeError(ServiceError):
    slug, status, title = "too-large", 413, "The request is too big"


class UnsupportedMediaTypeError(ServiceError):
    slug, status, title = "unsupported-media-type", 415, "The request body is of a kind that is not accepted"


class RangeNotSatisfiableError(ServiceError):
    slug, status, title = "range-not-satisfiable", 416, "The requested range lies outside the file"


class InvalidStateError(ServiceError):
    slug, status, title = "invalid-state", 422, "The state is invalid or corrupted"


class EmptyResultError(ServiceError):
    slug, status, title = "empty-result", 422, "No object could be generated from this image"


class RateLimitedError(ServiceError):
    slug, status, title = "rate-limited", 429, "Too many requests"
    retryable = True


class QuotaExceededError(ServiceError):
    slug, status, title = "quota-exceeded", 429, "The key has no GPU seconds left"
    retryable = True


class TooManyJobsError(ServiceError):
    slug, status, title = "too-many-jobs", 429, "Too many unfinished jobs"
    retryable = True


class InternalError(ServiceError):
    slug, status, title = "internal-error", 500, "Unexpected error"


class WorkerDiedError(ServiceError):
    slug, status, title = "worker-died", 500, "The worker ended while it had this job"
    retryable = True


class QueueFullError(ServiceError):
    slug, status, title = "queue-full", 503, "The queue is full"
    retryable = True


class UnavailableError(ServiceError):
    slug, status, title = "unavailable", 503, "The service cannot take requests now"
    retryable = True


class StorageFullError(ServiceError):
    slug, status, title = "storage-full", 503, "The service has no room to store the job"
    retryable = True


class JobTimeoutError(ServiceError):
    slug, status, title = "job-timeout", 504, "The job ran longer than the service allows"


class OutOfMemoryError(ServiceError):
    slug, status, title = "out-of-memory", 507, "The job does not fit into the accelerator's memory"


def _tree(root: type[ServiceError]) -> list[type[ServiceError]]:
    classes = [root]
    for child in root.__subclasses__():
        classes += _tree(child)
    return classes


ERRORS: dict[str, type[ServiceError]] = {cls.slug: cls for cls in _tree(ServiceError)[1:]}
"""Every slug and its class: the error table of the documentation and of the client."""


def error_from_problem(document: dict[str, Any], retry_after: float | None = None) -> ServiceError:
    """The error that a problem document describes; an unknown slug falls back on the status."""
    slug, status = document.get("type"), document.get("status")
    cls = ERRORS.get(slug) if isinstance(slug, str) else None
    if cls is None:
        cls = next((c for c in ERRORS.values() if c.status == status), InternalError)
    known = {"type", "title", "status", "detail", "request_id", "errors", "retry_after"}
    stored = document.get("retry_after")
    if retry_after is None and isinstance(stored, (int, float)):
        retry_after = float(stored)
    return cls(
        str(document.get("detail") or document.get("title") or ""),
        errors=_field_errors(document.get("errors")),
        retry_after=retry_after,
        hints={k: v for k, v in document.items() if k not in known},
        request_id=str(document.get("request_id") or ""),
    )


def in_one_line(error: BaseException) -> str:
    """What is wrong, for a log: the fields that do not fit a model, else the first line of the message."""
    if isinstance(error, ValidationError):
        found = [(".".join(str(part) for part in item["loc"]), item["msg"]) for item in error.errors()]
        return "; ".join(f"{field}: {message}" if field else message for field, message in found[:3])
    return (str(error) or type(error).__name__).splitlines()[0]


def _field_errors(items: object) -> list[FieldError]:
    if not isinstance(items, Sequence) or isinstance(items, str):
        return []
    return [
        FieldError(str(item.get("field", "")), str(item.get("message", "")))
        for item in items
        if isinstance(item, dict)
    ]
