"""The process that owns the model: `python -m trellis2_modal.jobs.worker`, started by the local backend.

Lines of JSON come in on stdin and go out on what was stdout; pictures, states and results are files. It ends
when stdin closes, so it never outlives its server. A job counts as done when its work folder has been renamed
to its result folder: that happens once, whoever is killed when.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import queue
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from trellis2.errors import Cancelled
from trellis2.progress import Progress

from ..durable import sync_folder, write_atomically, write_new
from ..protocol.errors import InternalError, ServiceError, StorageFullError
from .execution import DeviceLostError, Generator, JobFile, JobMonitor, JobOutput, run_job
from .locks import FileLock

logger = logging.getLogger(__name__)

HEARTBEAT = 1.0
RESULT_FILE = "result.json"
OPTIONAL = "light"
"""The file that a job may end without: it can be made anew from the state."""

EARLY = "early"
"""The folder of files that a job hands over before it ends; it goes with the job's input."""

LOCK_TIMEOUT = 60.0
NICENESS = 5
"""The model may use every processor, but the server, when it has something to do, goes first."""


class Channel:
    """Lines of JSON to the server; one writer at a time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, kind: str, **members: Any) -> None:
        line = json.dumps({"type": kind, **members}) + "\n"
        with self._lock:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (BrokenPipeError, ValueError, OSError):
                os._exit(0)  # the server is gone: nothing is left to work for


class Inbox:
    """Messages from the server, read by a thread of their own so that a cancel reaches a running job."""

    def __init__(self, stream: TextIO) -> None:
        self.jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._cancelled: set[str] = set()
        self._stream = stream
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def _read(self) -> None:
        for line in self._stream:
            message = json.loads(line)
            if message["type"] == "run":
                self.jobs.put(message)
            elif message["type"] == "cancel":
                self._cancelled.add(message["job"])
            elif message["type"] == "quit":
                self.jobs.put(None)
        os._exit(0)

    def wants_cancel(self, job: str) -> bool:
        return job in self._cancelled

    def forget(self, job: str) -> None:
        self._cancelled.discard(job)


def main() -> int:
    """Serve jobs until told to quit; 3 when the model could not be made, 4 when its device was lost."""
    stdin = sys.stdin
    # anything that prints goes to the log, never between the messages
    channel = Channel(os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    first = stdin.readline()
    if not first:
        return 0  # the server is gone already
    spec = json.loads(first)
    logging.basicConfig(
        level=spec.get("log_level", "INFO"), format="worker %(levelname)s %(name)s: %(message)s"
    )
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICENESS)
    inbox = Inbox(stdin)
    _start_heartbeat(channel)
    lock = FileLock(Path(spec["data_dir"]) / "worker.lock", timeout=LOCK_TIMEOUT)
    lock.acquire()  # an orphan of a killed server may still be writing its last result
    try:
        generator = make_generator(spec["factory"], spec["options"])
    except Exception as error:
        # a mistyped folder says it all in its message; the trace is for what no one foresaw
        logger.error("the model could not be loaded: %s", error, exc_info=not _foreseen(error))
        channel.send("broken", reason=f"{type(error).__name__}: {error}")
        return 3
    channel.send(
        "ready",
        model=generator.model,
        device=generator.device,
        pipeline_types=list(generator.pipeline_types),
        samplers=generator.samplers,
        backends=generator.backends,
        views=generator.views,
        texture_types=list(generator.texture_types),
        default_type=generator.default_type,
    )
    while True:
        message = inbox.jobs.get()
        if message is None:
            return 0
        if not serve(generator, message, channel, inbox):
            return 4


def _foreseen(error: Exception) -> bool:
    from trellis2.errors import Trellis2Error

    return isinstance(error, (Trellis2Error, OSError))


def make_generator(factory: str, options: dict[str, Any]) -> Generator:
    """Call `package.module:function` with the options."""
    module, _, name = factory.partition(":")
    generator: Generator = getattr(importlib.import_module(module), name)(**options)
    return generator


def serve(generator: Generator, message: dict[str, Any], channel: Channel, inbox: Inbox) -> bool:
    """Run one job and say how it ended; False when this process must not go on."""
    job, folder = message["job"], Path(message["folder"])
    start = time.perf_counter()

    def report(progress: Progress) -> None:
        channel.send("progress", job=job, **dataclasses.asdict(progress))

    def early(name: str, file: JobFile) -> None:
        try:
            (folder / EARLY).mkdir(exist_ok=True)
            write_atomically(folder / EARLY / name, file.data)
        except OSError as error:  # it comes with the result
            logger.warning("job %s: no early %s: %s", job, name, error)

    def ended(kind: str, **members: Any) -> None:
        channel.send(kind, job=job, seconds=time.perf_counter() - start, **members)

    result = folder / "result"
    try:
        if not (result / RESULT_FILE).exists():  # else done by an earlier worker whose word was lost
            payload = Path(message["payload"]).read_bytes()
            monitor = JobMonitor(report, lambda: inbox.wants_cancel(job), early)
            output = run_job(generator, message["kind"], message["settings"], payload, monitor)
            monitor.check()
            publish(output, folder, time.perf_counter() - start)
        ended("done")
    except Cancelled:
        ended("cancelled")
    except DeviceLostError as error:
        logger.error("device lost: %s", error)
        ended("lost", reason="the accelerator failed and the worker was restarted")
        return False
    except ServiceError as error:
        ended("failed", problem=error.problem())
    except OSError as error:
        logger.exception("job %s", job)
        full = error.errno in (28, 122)  # no space left, quota exceeded
        ended("failed", problem=(StorageFullError() if full else InternalError()).problem())
    except Exception:
        logger.exception("job %s", job)
        ended("failed", problem=InternalError("the job failed inside the model; it was logged").problem())
    finally:
        inbox.forget(job)
        shutil.rmtree(folder / "work", ignore_errors=True)
    return True


def publish(output: JobOutput, folder: Path, seconds: float) -> None:
    """Write every file into a work folder, then rename it to `result`: all appears at once, or nothing.

    It is on the disk when this returns. The job's folder must exist: that of a job that has ended is gone.
    The optional file is written last, and left out where there is no room for it.
    """
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    artifacts = {}
    for name, file in sorted(output.files.items(), key=lambda item: item[0] == OPTIONAL):
        try:
            write_new(work / name, file.data)
        except OSError as error:
            if name != OPTIONAL:
                raise
            logger.warning("%s: no %s: %s", folder.name, name, error)
            (work / name).unlink(missing_ok=True)
            continue
        artifacts[name] = {"media_type": file.media_type, "bytes": len(file.data)}
    document = {
        "seed": output.seed,
        "resolution": output.resolution,
        "stats": output.stats,
        "artifacts": artifacts,
        "seconds": seconds,
    }
    write_new(work / RESULT_FILE, json.dumps(document).encode())
    sync_folder(work)
    try:
        os.rename(work, folder / "result")
    except OSError:
        if not (folder / "result" / RESULT_FILE).exists():  # else another worker was first: its result stands
            raise
    sync_folder(folder)


def _start_heartbeat(channel: Channel) -> None:
    def beat() -> None:
        while True:
            time.sleep(HEARTBEAT)
            channel.send("alive")

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
