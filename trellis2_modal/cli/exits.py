"""What the commands' exit codes mean, and the one place where errors become words and a code."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import FrameType

import click

from ..client.errors import (
    AppRunsError,
    EnvironmentVariableError,
    LocalServerError,
    NoAnswerError,
    NoServiceError,
    ProxyTokenError,
)
from ..protocol import errors
from ..protocol.errors import ServiceError


class Exit(IntEnum):
    """Exit codes of the commands; `MEANINGS` says what each stands for."""

    DONE = 0
    FAULT = 1
    USAGE = 2
    NO_ANSWER = 3
    KEY = 4
    INPUT = 5
    LIMIT = 6
    BUSY = 7
    FAILED = 8
    GONE = 9
    CANCELLED = 10
    DISK = 11
    UNSOUND = 12
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done",
    Exit.FAULT: "an unexpected error; please report it",
    Exit.USAGE: "wrong usage: an option or argument that does not exist or is out of range",
    Exit.NO_ANSWER: "the service cannot be reached, or does not answer; or none is set",
    Exit.KEY: "the key is missing, unknown, or lacks the scope",
    Exit.INPUT: "the picture, state or setting is refused; the message says which and why",
    Exit.LIMIT: "a limit of the key: requests a minute, unfinished jobs, or GPU seconds today",
    Exit.BUSY: "the service is busy, starting, stopping or full; or the app is already open",
    Exit.FAILED: "the job failed on the service: out of memory, too long, or a fault there",
    Exit.GONE: "there is no such job, or its files are no longer kept",
    Exit.CANCELLED: "the job was cancelled",
    Exit.DISK: "a file cannot be written here",
    Exit.UNSOUND: "`check` found faults in a file",
    Exit.INTERRUPTED: "interrupted (Ctrl-C); a running generation is cancelled",
    Exit.TERMINATED: "ended by SIGTERM; a running generation is cancelled",
}

KINDS: tuple[tuple[type[ServiceError], Exit], ...] = (
    (EnvironmentVariableError, Exit.USAGE),
    (ProxyTokenError, Exit.KEY),
    (NoAnswerError, Exit.NO_ANSWER),
    (AppRunsError, Exit.BUSY),
    (errors.UnauthenticatedError, Exit.KEY),
    (errors.ForbiddenError, Exit.KEY),
    (errors.JobCancelledError, Exit.CANCELLED),
    (errors.NotFoundError, Exit.GONE),
    (errors.ExpiredError, Exit.GONE),
    (errors.RateLimitedError, Exit.LIMIT),
    (errors.QuotaExceededError, Exit.LIMIT),
    (errors.TooManyJobsError, Exit.LIMIT),
    (errors.QueueFullError, Exit.BUSY),
    (errors.UnavailableError, Exit.BUSY),
    (errors.StorageFullError, Exit.BUSY),
    (errors.NotReadyError, Exit.BUSY),
    (errors.InternalError, Exit.FAILED),
    (errors.WorkerDiedError, Exit.FAILED),
    (errors.JobTimeoutError, Exit.FAILED),
    (errors.OutOfMemoryError, Exit.FAILED),
)


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class WriteError(Exception):
    """A file that was asked for cannot be written."""

    def __init__(self, reason: str, path: Path) -> None:
        super().__init__(f"{path}: {reason}")


def exit_code(error: ServiceError) -> Exit:
    """The code of an error; what is left is about the request itself."""
    return next((code for kind, code in KINDS if isinstance(error, kind)), Exit.INPUT)


def next_step(error: ServiceError) -> str:
    """The one thing to do about an error, on the command line."""
    if isinstance(error, LocalServerError):
        return "see: trellis2-modal doctor"
    if isinstance(error, ProxyTokenError):
        return "give --modal-key and --modal-secret, or set TRELLIS2_MODAL_KEY and TRELLIS2_MODAL_SECRET"
    if isinstance(error, NoServiceError):
        return "start one on this machine: trellis2-modal serve, or: trellis2-modal app"
    if isinstance(error, NoAnswerError):
        return "check --url (or TRELLIS2_URL): trellis2-modal health"
    if isinstance(error, errors.UnauthenticatedError):
        return "give a key with --key, or set TRELLIS2_API_KEY"
    if isinstance(error, errors.QuotaExceededError):
        return "see what is left: trellis2-modal usage"
    if isinstance(error, errors.TooManyJobsError):
        return "wait for one, or cancel one: trellis2-modal jobs list"
    if isinstance(error, errors.OutOfMemoryError) and error.hints.get("suggested"):
        pairs = error.hints["suggested"].items()
        return "try " + " ".join(f"--{name.replace('_', '-')} {value}" for name, value in pairs)
    if error.retryable and error.retry_after:
        return f"try again in {error.retry_after:.0f} s"
    return ""


CANCELLED = "; a job that was running is cancelled"


@contextmanager
def reported(as_json: bool = False, then: str | Callable[[], str] = "") -> Iterator[None]:
    """Errors of the client become a message (or a JSON problem) on stderr and an exit code.

    `then` is what an interrupt leads to, or gives it. SIGTERM is an interrupt here: jobs are cancelled, and a
    server that the command started ends with it.
    """
    came = threading.Event()

    def terminate(number: int, frame: FrameType | None) -> None:
        came.set()
        raise Terminated

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, terminate) if main else None
    try:
        try:
            yield
        except BaseException:
            if came.is_set():  # what it interrupted may have made another error of it
                raise Terminated from None
            raise
    except ServiceError as error:
        if as_json:
            click.echo(json.dumps(error.problem()), err=True)
        else:
            click.secho(f"{error.title}: {error.detail}", err=True, fg="red")
            if step := next_step(error):
                click.echo(f"  {step}", err=True)
            if error.request_id:
                click.echo(f"  request {error.request_id}", err=True)
        sys.exit(exit_code(error))
    except WriteError as error:
        click.secho(f"Writing failed: {error}", err=True, fg="red")
        sys.exit(Exit.DISK)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        click.secho(f"{error.strerror or error}{place}", err=True, fg="red")
        sys.exit(Exit.DISK)
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, Terminated)
        then = then if isinstance(then, str) else then()
        after_bar = "\n" if sys.stderr.isatty() else ""
        click.echo(f"{after_bar}{'Terminated' if terminated else 'Interrupted'}{then}.", err=True)
        sys.exit(Exit.TERMINATED if terminated else Exit.INTERRUPTED)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
