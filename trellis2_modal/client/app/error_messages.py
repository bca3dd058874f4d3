"""Failures in a person's words: what happened, what is safe, and the one obvious next step."""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...protocol import errors
from ...protocol.errors import ServiceError
from ..errors import LocalServerError, NoAnswerError, NoReplyError, ProxyTokenError, UnreachableError
from ..stages import duration

Action = Literal["retry", "settings", "picture", "mesh", "none"]
ACTION_LABELS: dict[Action, str] = {
    "retry": "Try again",
    "settings": "Open settings",
    "picture": "Choose another picture",
    "mesh": "Choose another mesh",
    "none": "",
}


@dataclass(frozen=True)
class Explanation:
    """What happened, what is safe, and what the one button does."""

    title: str
    detail: str
    action: Action = "retry"

    def to_dict(self) -> dict[str, str]:
        return {name: str(value) for name, value in asdict(self).items()}


NO_SUBJECT = "no subject"
"""What the service's words about an empty matte have in common; its numbers help nobody who took a photo."""

NOTHING_FOUND = Explanation(
    "No object was found in the picture",
    "Use a picture of one object that stands out from what is behind it, or a PNG that is already cut out.",
    "picture",
)

NEW_UVS = "Trying again unwraps the mesh anew; its positions stay as they are."

LOCAL_SILENT = Explanation(
    "The local engine stopped",
    "Nothing is lost. It starts again with the next try.",
)


def explain(error: BaseException, made: bool = False, local: bool = False) -> Explanation:
    """What to tell a person about an error of the client, the service or the disk.

    `made`: the service has made what could not be kept here; `local`: it runs on this machine, so that
    neither an address nor a network is at fault.
    """
    if isinstance(error, OSError):
        return _disk(error, made)
    if not isinstance(error, ServiceError):
        return Explanation("Something went wrong in the app", f"{type(error).__name__}: {error}")
    if isinstance(error, errors.InvalidImageError) and NO_SUBJECT in error.detail:
        return NOTHING_FOUND
    if isinstance(error, errors.InvalidMeshError) and "new_uvs" in suggested_settings(error):
        return Explanation("The mesh's UVs cannot be used", f"{_said(error)} {NEW_UVS}")
    if local and isinstance(error, (UnreachableError, NoReplyError)):
        return LOCAL_SILENT
    title, detail = error.title, ""
    action: Action = "retry"
    for kind, found_title, found_detail, found_action in _TABLE:
        if isinstance(error, kind):
            title, detail, action = found_title, found_detail, found_action
            break
    said = _said(error)
    wait = f" Try again in {duration(error.retry_after)}." if error.retry_after else ""
    return Explanation(title, f"{said} {detail}".strip() + wait, action)


def _said(error: ServiceError) -> str:
    """What the service says, as a sentence."""
    said = (error.detail[:1].upper() + error.detail[1:]).replace(" (new_uvs)", "")
    return said + ("" if said.endswith((".", "!", "?")) else ".")


def suggested_settings(error: BaseException) -> dict[str, Any]:
    """Smaller settings that the service says will fit."""
    hints = error.hints.get("suggested") if isinstance(error, ServiceError) else None
    return dict(hints) if isinstance(hints, dict) else {}


def _disk(error: OSError, made: bool) -> Explanation:
    safe = " What was made waits on the service: it is only fetched, not made a second time." if made else ""
    if error.errno == errno.ENOSPC:
        return Explanation(
            "Your disk is full",
            f"Free some space, or delete old entries under History, then try again.{safe}",
        )
    return Explanation(
        "A file could not be written",
        f"{error.strerror or error} ({error.filename or 'history folder'}).{safe}",
    )


_TABLE: tuple[tuple[type[ServiceError], str, str, Action], ...] = (
    (LocalServerError, "The service on this computer did not start", "", "settings"),
    (
        UnreachableError,
        "The service cannot be reached",
        "Nothing is lost. Check your network, then try again.",
        "retry",
    ),
    (
        ProxyTokenError,
        "This address asks for a proxy token",
        "Enter both parts of the token under Settings.",
        "settings",
    ),
    (NoAnswerError, "The service did not answer", "If the job was started it goes on there.", "retry"),
    (errors.UnauthenticatedError, "The service does not know this key", "Enter a valid key.", "settings"),
    (errors.ForbiddenError, "This key may not do that", "Use a key with that permission.", "settings"),
    (
        errors.QuotaExceededError,
        "Today's GPU time is used up",
        "Your pictures and results are kept.",
        "retry",
    ),
    (errors.RateLimitedError, "Too many requests in a short time", "", "retry"),
    (errors.TooManyJobsError, "Too many unfinished jobs", "Wait for one to end or cancel one.", "retry"),
    (errors.QueueFullError, "The service is busy", "Your picture is kept; try again in a minute.", "retry"),
    (errors.StorageFullError, "The service has no room left", "Try again later.", "retry"),
    (errors.UnavailableError, "The service is not ready", "Your picture is kept.", "retry"),
    (errors.EmptyResultError, "No object was found in the picture", "", "picture"),
    (errors.InvalidImageError, "The picture cannot be used", "", "picture"),
    (errors.InvalidMeshError, "The mesh cannot be used", "", "mesh"),
    (errors.TooLargeError, "That is too big to send", "", "picture"),
    (
        errors.OutOfMemoryError,
        "That does not fit into the service's memory",
        "Trying again uses the smaller setting.",
        "retry",
    ),
    (errors.JobTimeoutError, "That took too long", "Try fewer steps or a smaller pipeline.", "retry"),
    (errors.ExpiredError, "The service no longer keeps this result", "Trying again makes it anew.", "retry"),
    (errors.NotFoundError, "The service does not know this job", "Trying again makes it anew.", "retry"),
    (errors.WorkerDiedError, "The service had to stop this job", "Try again.", "retry"),
    (errors.InternalError, "Something went wrong on the service", "Your picture is kept.", "retry"),
    (errors.InvalidStateError, "The service cannot read this asset", "Generate it again.", "retry"),
    (errors.InvalidRequestError, "The service refuses these settings", "", "retry"),
)
