"""The commands against a service behind a socket: files, JSON, words, exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner, Result

from tests.trellis2_modal.client.service import (
    KEY,
    Service,
    answers,
    asset,
    listening,
    problem,
    state,
    until,
)
from trellis2_modal.cli import device as device_module
from trellis2_modal.cli import main
from trellis2_modal.cli.bars import Bars
from trellis2_modal.cli.connection import TellWaiting
from trellis2_modal.cli.exits import KINDS, Exit, exit_code, reported
from trellis2_modal.client import errors as client_errors
from trellis2_modal.client.api import Client
from trellis2_modal.client.batch import Batch
from trellis2_modal.client.history import HISTORY, STATE, History
from trellis2_modal.client.local import LocalServer
from trellis2_modal.client.options import Retry, Waiting
from trellis2_modal.client.report import describe_costs
from trellis2_modal.client.stats import Costs
from trellis2_modal.jobs.locks import FileLock
from trellis2_modal.protocol.errors import ERRORS, ServiceError
from trellis2_modal.protocol.replies import JobEvent
from trellis2_modal.running import RunningServer, announced

Run = Callable[..., Result]


@pytest.fixture
def live(service: Service) -> Iterator[str]:
    with listening(service) as url:
        yield url


@pytest.fixture
def run(live: str, data_home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command of this service; it does not wait long between tries."""
    monkeypatch.setattr(Retry, "delay", lambda self, attempt: 0.001)
    monkeypatch.setenv("TRELLIS2_URL", live)
    monkeypatch.setenv("TRELLIS2_API_KEY", KEY)

    def invoke(*arguments: str | Path, code: int = 0) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == code, f"{result.exit_code}: {result.output}"
        return result

    return invoke


def test_generate_writes_what_was_asked_for(
    run: Run, service: Service, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    result = run(
        "generate", picture, "-o", out / "disc.glb", "--preview", out / "disc.mp4",
        "--stills", out / "disc.webp", "--state", out / "disc.lz4",
        "--seed", "7", "--ss-sampling-steps", "5", "--simplify", "web",
    )  # fmt: skip
    assert (out / "disc.glb").read_bytes() == asset()
    assert (out / "disc.lz4").read_bytes() == state()
    assert (out / "disc.mp4").exists()
    assert (out / "disc.webp").exists()
    made, extracted = service.jobs()
    settings = made.settings
    assert (settings["seed"], settings["ss_sampling_steps"], settings["preview"]) == (7, 5, "frames")
    assert (extracted.settings["simplify"], extracted.source) == ("web", made.id)
    assert " faces" in result.stdout
    assert "Generating the shape" in result.stderr, "progress is not mixed into the output"


def test_generate_for_scripts(run: Run, service: Service, picture: Path) -> None:
    result = run("generate", picture, "--seed", "7", "--json")
    report = json.loads(result.stdout)
    assert Path(report["files"]["asset"]) == picture.with_suffix(".glb")
    assert (report["seed"], report["resolution"], report["job"]) == (7, 16, service.job(0).id)
    assert report["report"]["watertight"] is True
    assert report["seconds"]["generate"] == {"shape": 2.0, "texture": 1.0}
    assert result.stderr == ""


def test_extract_from_a_kept_state(run: Run, service: Service, tmp_path: Path) -> None:
    kept = tmp_path / "disc.lz4"
    kept.write_bytes(state())
    run("extract", kept, "-o", tmp_path / "disc.stl", "--decimation-target", "5000", "--no-remesh")
    fields = service.job().settings
    assert (fields["format"], fields["decimation_target"], fields["remesh"]) == ("stl", 5000, False)
    assert service.generator.payloads == [state()]
    report = json.loads(run("extract", kept, "-o", tmp_path / "d.glb", "--remesh", "true", "--json").stdout)
    assert service.job().settings["remesh"] is True
    assert report["files"]["asset"].endswith("d.glb")
    assert "extract" in report["seconds"]


def test_jobs(run: Run, service: Service, picture: Path, tmp_path: Path) -> None:
    run("generate", picture, "--preview", tmp_path / "disc.mp4")
    first, second = (job.id for job in service.jobs())
    listed = run("jobs", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [second, first]
    assert json.loads(run("jobs", "list", "--limit", "1", "--json").stdout)["jobs"][0]["id"] == second
    assert "video" in run("jobs", "show", first).stdout
    assert json.loads(run("jobs", "show", first, "--json").stdout)["status"] == "finished"
    assert "finished" in run("jobs", "watch", first).stdout
    files = json.loads(run("jobs", "download", first, "-o", tmp_path / "got", "--json").stdout)["files"]
    assert [Path(name).suffix for name in files] == [".lz4", ".mp4"]
    assert run("jobs", "download", second, "-o", tmp_path / "got").stdout.strip().endswith(".glb")


def test_a_job_is_cancelled(run: Run, service: Service, live: str, picture: Path) -> None:
    service.plans.append("hang")
    with Client(live, KEY) as client:
        job = client.submit(picture)
        run("jobs", "cancel", job.id)
        until(lambda: client.job(job.id).status.status == "cancelled", "the cancellation")
    assert "is cancelled" in run("jobs", "cancel", job.id).stdout


def test_usage_and_health(run: Run, service: Service) -> None:
    assert "anna (key_1), may generate and extract" in run("usage").stdout
    assert json.loads(run("usage", "--json").stdout)["gpu_seconds_left"] == 7200
    assert "Model fake" in run("health").stdout
    service.state_is("degraded")
    assert json.loads(run("health", "--json", code=Exit.BUSY).stdout)["status"] == "degraded"


def test_a_private_deployment_is_asked_with_its_token(
    run: Run, service: Service, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.proxy_token = ("wk-1", "ws-1")
    refused = run("generate", picture, code=Exit.KEY)
    assert "asks for a proxy token" in refused.stderr
    assert "give --modal-key and --modal-secret" in refused.stderr
    assert "Model fake" in run("health", "--modal-key", "wk-1", "--modal-secret", "ws-1").stdout
    monkeypatch.setenv("TRELLIS2_MODAL_KEY", "wk-1")
    monkeypatch.setenv("TRELLIS2_MODAL_SECRET", "ws-1")
    run("generate", picture)
    assert "two parts" in run("usage", "--modal-key", "wk-1", code=Exit.INPUT).stderr


def test_an_asset_is_told_what_it_cost(run: Run, service: Service, picture: Path) -> None:
    assert "costs" not in run("generate", picture).stdout  # no rate is set
    service.charges(gpu_price_per_hour=3.6e6, currency="EUR")
    assert re.search(r"costs +about [\d.]+ EUR for 0 s of GPU time", run("generate", picture).stdout)
    told = json.loads(run("generate", picture, "--json").stdout)["costs"]
    assert told["currency"] == "EUR"
    assert told["price"] == pytest.approx(1000 * told["gpu_seconds"], rel=0.5, abs=1)
    assert re.search(r"24 hours: [\d.]+ EUR \(3.6e\+06 EUR an hour\)", run("usage").stdout)


def test_costs_are_told_only_as_far_as_they_are_known() -> None:
    priced = {"gpu_seconds": 60.0, "price": 12.0, "currency": "USD"}
    assert describe_costs(Costs.of_all(priced)) == "about 12.00 USD for 1 min of GPU time"
    assert Costs.of_all(priced, {"gpu_seconds": 1.0}) == Costs(gpu_seconds=61.0, currency="USD")
    assert Costs.of_all(priced, {"price": "much"}) == Costs(currency="USD")
    assert describe_costs(Costs()) == ""


FAILURES = [
    (httpx.ConnectError("away"), Exit.NO_ANSWER, "trellis2-modal health"),
    (problem("unauthenticated"), Exit.KEY, "--key"),
    (problem("forbidden"), Exit.KEY, "may not"),
    (problem("invalid-image"), Exit.INPUT, "picture"),
    (problem("quota-exceeded", {"retry-after": "90"}), Exit.LIMIT, "trellis2-modal usage"),
    (problem("too-many-jobs"), Exit.LIMIT, "jobs list"),
    (problem("queue-full", {"retry-after": "900"}), Exit.BUSY, "try again in 900 s"),
    (problem("storage-full", {"retry-after": "900"}), Exit.BUSY, "room"),
    (problem("out-of-memory", suggested={"pipeline_type": "512"}), Exit.FAILED, "try --pipeline-type 512"),
    (problem("internal-error"), Exit.FAILED, "request req_1"),
]


@pytest.mark.parametrize(("failure", "code", "words"), FAILURES)
def test_a_failure_is_words_a_next_step_and_a_code(
    run: Run, service: Service, picture: Path, failure: Any, code: Exit, words: str
) -> None:
    if isinstance(failure, Exception):
        result = run("generate", picture, "--url", "http://127.0.0.1:9", code=code)
    else:
        service.faults += answers(failure)
        result = run("generate", picture, code=code)
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert not picture.with_suffix(".glb").exists()


def test_a_failure_for_scripts(run: Run, service: Service, picture: Path) -> None:
    service.faults += answers(problem("quota-exceeded"))
    result = run("generate", picture, "--json", code=Exit.LIMIT)
    assert json.loads(result.stderr)["type"] == "quota-exceeded"
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("slug", "code"),
    [("worker-died", Exit.FAILED), ("empty-result", Exit.INPUT), ("job-timeout", Exit.FAILED)],
)
def test_a_job_that_fails_has_the_code_of_its_failure(
    run: Run, service: Service, picture: Path, slug: str, code: Exit
) -> None:
    service.plans.append(slug)
    run("generate", picture, code=code)


def test_the_state_is_kept_when_the_extraction_fails(
    run: Run, service: Service, picture: Path, tmp_path: Path
) -> None:
    service.plans += ["finish", "out-of-memory"]
    run("generate", picture, "--seed", "7", "--state", tmp_path / "disc.lz4", code=Exit.FAILED)
    assert (tmp_path / "disc.lz4").read_bytes() == state(), "what was paid for"


def test_a_job_of_nobody(run: Run) -> None:
    run("jobs", "show", "job_9", code=Exit.GONE)


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "PICTURE", "-o", "x.fbx"],
        ["generate", "PICTURE", "-o", "x.obj"],
        ["generate", "PICTURE", "--seed", "-4"],
        ["generate", "PICTURE", "--pipeline-type", "9000"],
        ["generate", "missing.png"],
        ["extract", "missing.lz4", "-o", "x.glb"],
        ["jobs"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(
    run: Run, service: Service, picture: Path, arguments: list[str]
) -> None:
    run(*[picture if argument == "PICTURE" else argument for argument in arguments], code=Exit.USAGE)
    assert not service.requests


def test_a_place_that_cannot_be_written_is_found_before_the_work(
    run: Run, service: Service, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    run("generate", picture, "-o", tmp_path / "file" / "x.glb", code=Exit.DISK)
    assert not service.requests


def test_weights_are_for_this_machine(run: Run, picture: Path) -> None:
    assert "leave out --url" in run("generate", picture, "--weights", "x", code=Exit.USAGE).output


@pytest.mark.parametrize(
    ("found", "device", "words"),
    [
        (None, "cuda", "pip install 'trellis2-modal[local]'"),
        (("2.9.0", None, 0), "cuda", "built without CUDA"),
        (("2.9.0", "12.8", 0), "cuda", "nvidia-smi"),
        (("2.9.0", "12.8", 2), "cuda:2", "the last GPU here is cuda:1"),
        (None, "gpu", "none of cpu, cuda"),
    ],
)
@pytest.mark.parametrize("command", [["serve"], ["generate", "PICTURE"], ["app"], ["demo"]])
def test_a_device_that_is_not_here_is_told_at_once(
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    found: tuple[str, str | None, int] | None,
    device: str,
    words: str,
    command: list[str],
) -> None:
    monkeypatch.setattr(device_module, "probe", lambda: found)
    arguments = [str(picture) if argument == "PICTURE" else argument for argument in command]
    result = CliRunner().invoke(main, [*arguments, "--device", device])
    assert result.exit_code == Exit.USAGE, result.output
    assert words in " ".join(result.stderr.split()).replace("│ ", "")


def test_the_gpus_of_this_machine() -> None:
    torch = pytest.importorskip("torch")
    assert device_module.probe() == (torch.__version__, torch.version.cuda, torch.cuda.device_count())
    assert device_module.cuda_fault(("2.9.0", "12.8", 2), 1) is None


def test_commands_that_need_a_service_say_so(
    run: Run, monkeypatch: pytest.MonkeyPatch, data_home: Path
) -> None:
    monkeypatch.delenv("TRELLIS2_URL")
    assert "TRELLIS2_URL" in run("usage", code=Exit.NO_ANSWER).stderr
    for arguments in (["health"], ["jobs", "list"]):
        assert "no service is set" in run(*arguments, code=Exit.NO_ANSWER).stderr


@pytest.mark.parametrize("place", ["data", "home/server"])
def test_a_server_that_runs_here_is_used(
    run: Run,
    live: str,
    service: Service,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    place: str,
) -> None:
    """The one of `serve`, or that of the open app."""
    for name in ("TRELLIS2_URL", "TRELLIS2_API_KEY"):
        monkeypatch.delenv(name)
    folder, key = tmp_path / place, tmp_path / "key.txt"
    folder.mkdir(parents=True)
    key.write_text(KEY + "\n")
    server = RunningServer(live, str(key), os.getpid())
    with FileLock(folder / "server.lock"), announced(folder, server):
        told = run("generate", picture).stderr
        assert f"Using the server that runs on this machine, {live}" in told
        assert "starting one" not in told
        assert len(run("jobs", "list").stdout.splitlines()) == 2
        assert "anna" in run("usage").stdout
        assert live in run("health").stdout
        assert "no service is set" not in run("estimate").stderr
    run("health", code=Exit.NO_ANSWER)


def test_a_server_that_ended_is_none(
    run: Run, live: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TRELLIS2_URL")
    (tmp_path / "data").mkdir()
    lock = FileLock(tmp_path / "data" / "server.lock")
    for address in ("http://127.0.0.1:9", live + "/docs"):  # nothing, and something else, at the address
        with lock, announced(tmp_path / "data", RunningServer(address, "", os.getpid())):
            assert "none runs on this machine" in run("jobs", "list", code=Exit.NO_ANSWER).stderr


def test_what_listens_where_a_killed_server_did_gets_neither_key_nor_picture(
    run: Run, live: str, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its file is still there; its lock is free, or is that of another server which starts."""
    monkeypatch.delenv("TRELLIS2_URL")
    folder = tmp_path / "data"
    folder.mkdir()
    with announced(folder, RunningServer(live, "", os.getpid())):
        assert "none runs on this machine" in run("jobs", "list", code=Exit.NO_ANSWER).stderr
    with FileLock(folder / "server.lock"), announced(folder, RunningServer(live, "", os.getpid() + 1)):
        assert "none runs on this machine" in run("jobs", "list", code=Exit.NO_ANSWER).stderr
    assert not service.requests


@pytest.mark.parametrize("status", ["degraded", "stopping"])
def test_a_server_here_that_takes_no_jobs_is_passed_over(
    run: Run, live: str, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: str
) -> None:
    monkeypatch.delenv("TRELLIS2_URL")
    health = {"status": status, "version": "1", "model": "mini"}
    service.faults.append(lambda request: httpx.Response(200, json=health))
    folder = tmp_path / "data"
    folder.mkdir()
    with FileLock(folder / "server.lock"), announced(folder, RunningServer(live, "", os.getpid())):
        assert "none runs on this machine" in run("jobs", "list", code=Exit.NO_ANSWER).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "WRONG", "-o", "x.glb"],
        ["generate", "PICTURE", "--shape", "WRONG", "-o", "x.glb"],
        ["extract", "WRONG", "-o", "x.glb"],
        ["texture", "WRONG", "PICTURE", "-o", "x.glb"],
    ],
)
def test_a_file_that_is_not_what_it_should_be_starts_no_server(
    run: Run, picture: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    monkeypatch.delenv("TRELLIS2_URL")
    monkeypatch.chdir(tmp_path)
    files = {"PICTURE": picture, "WRONG": tmp_path / "paper.png"}
    files["WRONG"].write_bytes(b"%PDF-1.7 not a picture")
    result = run(*(files.get(argument, argument) for argument in arguments), code=Exit.INPUT)
    assert "starting one" not in result.stderr
    assert "object at" not in result.stderr


def test_a_folder_after_a_typing_error_is_not_made(
    run: Run, service: Service, picture: Path, tmp_path: Path
) -> None:
    lost = tmp_path / "typo" / "out"
    for arguments in (
        ["generate", picture, "-o", lost / "x.glb"],
        ["jobs", "download", "job_1", "-o", lost],
        ["batch", tmp_path, "--out", lost],
        ["demo", picture, "-o", lost],
    ):
        assert "make it first" in run(*arguments, code=Exit.DISK).stderr
    assert not lost.parent.exists()
    assert not service.requests


def test_a_mistyped_command_gets_a_suggestion() -> None:
    result = CliRunner().invoke(main, ["genrate", "x.png"])
    assert result.exit_code == Exit.USAGE
    assert "Did you mean generate?" in result.stderr


def test_what_the_command_makes_joins_the_history(
    run: Run, service: Service, picture: Path, data_home: Path, tmp_path: Path
) -> None:
    run("generate", picture, "-o", tmp_path / "x.glb")
    (entry,) = History(data_home / HISTORY).entries()
    assert entry.title == picture.name
    assert entry.status == "finished"
    folder = data_home / HISTORY / entry.id
    assert (folder / STATE).read_bytes()
    assert (folder / entry.exports[0].file).read_bytes() == (tmp_path / "x.glb").read_bytes()
    run("generate", picture, "-o", tmp_path / "y.glb", "--no-history")
    assert len(History(data_home / HISTORY).entries()) == 1


def test_every_error_has_a_code_and_each_code_a_meaning() -> None:
    every = [*ERRORS.values(), *vars(client_errors).values()]
    every = [kind for kind in every if isinstance(kind, type)]
    assert {exit_code(kind("x")) for kind in every} >= {code for _, code in KINDS}
    assert exit_code(ServiceError("x")) is Exit.INPUT
    assert len(set(Exit)) == len(list(Exit))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_on_a_terminal_and_lines_elsewhere(service: Service) -> None:
    events = [
        ("queued", {"position": 2}),
        ("started", {}),
        ("progress", {"stage": "shape", "step": 1, "steps": 2}),
        ("progress", {"stage": "texture", "step": 1, "steps": 2}),
        ("restarted", {"reason": "x"}),
        ("result", {}),
    ]
    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        bars = Bars(stream)
        for number, (kind, data) in enumerate(events, 1):
            bars(JobEvent(id=number, type=kind, time="2026-01-01T00:00:00Z", data=data))  # type: ignore[arg-type]
        text = stream.getvalue()
        assert ("[" in text) == drawn
        assert ("\r" in text) == drawn
        assert "2 ahead" in text
        assert "starts again" in text
        assert "Generating the shape" in text
    assert set(bars.seconds) == {"shape", "texture"}


@pytest.mark.parametrize(("columns", "drawn"), [(100, True), (60, False), (20, False)])
def test_progress_fits_into_one_line(monkeypatch: pytest.MonkeyPatch, columns: int, drawn: bool) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    bars = Bars(stream, forecast=lambda: {"sparse_structure": 50.0, "shape": 4000.0})
    steps: list[tuple[str, dict[str, Any]]] = [("started", {})]
    steps += [("progress", {"stage": "sparse_structure", "step": step, "steps": 12}) for step in (1, 12)]
    steps += [("progress", {"stage": "shape", "step": step, "steps": 12}) for step in (1, 12)]
    for number, (kind, data) in enumerate([*steps, ("result", {})], 1):
        bars(JobEvent(id=number, type=kind, time="2026-01-01T00:00:00Z", data=data))  # type: ignore[arg-type]
    lines = re.split(r"[\r\n]+", stream.getvalue())
    assert max(map(len, lines)) < columns
    assert ("[###" in stream.getvalue()) == drawn
    if columns > 20:
        assert any("step 1 of 12, 0 s, about 1 h" in line for line in lines)


def test_a_wait_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = TellWaiting()
    for attempt in range(1, 4):
        told(Waiting("starting", "The service is starting", 8.0, attempt))
    told(Waiting("working", "The service is still working on this", 0.0, 2))
    assert capsys.readouterr().err == "The service is starting ...\n"


def test_demo_makes_everything_through_the_service(
    run: Run, live: str, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of this machine is replaced by one that runs; all the rest is the command."""

    def ensure(self: LocalServer) -> str:
        self.url, self.key = live, KEY
        return live

    monkeypatch.setattr(LocalServer, "ensure", ensure)
    result = run("demo", picture, "-o", tmp_path / "demo")
    names = sorted(path.name for path in (tmp_path / "demo").iterdir())
    assert names == ["asset.glb", "input.png", "preview.mp4", "preview.png", "report.json"]
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert "seconds" in json.dumps(report)
    assert "In all" in result.stdout
    run("demo", picture, "-o", tmp_path / "demo", "--budget", "nonsense", code=Exit.INPUT)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(main, {}, "trellis2-modal", "_TRELLIS2_MODAL_COMPLETE")
    assert "trellis2-modal" in script.source_template % script.source_vars()
    assert "generate" in [item.value for item in script.get_completions([], "gen")]
    assert "--pipeline-type" in [item.value for item in script.get_completions(["generate"], "--pipe")]
    values = [item.value for item in script.get_completions(["generate", "--pipeline-type"], "")]
    assert values == ["512", "1024", "1024_cascade", "1536_cascade"]


def test_completion_in_a_real_process() -> None:
    env = dict(
        os.environ, _TRELLIS2_MODAL_COMPLETE="bash_complete", COMP_WORDS="trellis2-modal jo", COMP_CWORD="1"
    )
    code = "from trellis2_modal.cli import main; main(prog_name='trellis2-modal')"
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "jobs" in run.stdout


def test_an_interrupt_has_its_own_code(run: Run, service: Service, picture: Path) -> None:
    def interrupt(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught, reported():
        interrupt(httpx.Request("GET", "http://a.test"))
    assert caught.value.code == Exit.INTERRUPTED


def test_an_interrupt_says_what_becomes_of_the_job(
    run: Run, service: Service, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Bars, event: JobEvent) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bars, "__call__", interrupt)
    service.plans += ["hang", "hang"]
    result = run("generate", picture, code=Exit.INTERRUPTED)
    assert result.stderr == "Interrupted; a job that was running is cancelled.\n"
    until(lambda: service.job().status == "cancelled", "the cancellation")
    with Client(os.environ["TRELLIS2_URL"], KEY) as client:
        job = client.submit(picture)
    result = run("jobs", "watch", job.id, code=Exit.INTERRUPTED)
    assert result.stderr == "Interrupted; the job goes on.\n"
    assert service.job().status != "cancelled"


@pytest.mark.parametrize(
    ("own", "words"),
    [(False, "go on, and the next run takes"), (True, "ended with the server of this command")],
)
def test_an_interrupted_batch_says_what_becomes_of_its_jobs(
    run: Run,
    live: str,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: bool,
    words: str,
) -> None:
    def ensure(self: LocalServer) -> str:
        self.url, self.key = live, KEY
        return live

    def interrupt(self: Batch, at_once: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalServer, "ensure", ensure)
    monkeypatch.setattr(Batch, "run", interrupt)
    if own:
        monkeypatch.delenv("TRELLIS2_URL")
    result = run("batch", picture.parent, "--out", tmp_path / "out", code=Exit.INTERRUPTED)
    assert words in result.stderr.splitlines()[-1]


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM ends a process at once on Windows")
def test_sigterm_cancels_as_an_interrupt_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ended = []

    @contextmanager
    def server() -> Iterator[None]:
        try:
            yield
        finally:
            ended.append("the server that was started here")

    with pytest.raises(SystemExit) as caught, reported(), server():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == Exit.TERMINATED
    assert ended
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM ends a process at once on Windows")
def test_sigterm_is_told_whatever_the_interrupted_code_makes_of_it() -> None:
    def disturbed() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise RuntimeError("a callback of a compiled library failed") from error

    with pytest.raises(SystemExit) as caught, reported():
        disturbed()
    assert caught.value.code == Exit.TERMINATED


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM ends a process at once on Windows")
def test_sigterm_of_a_generation_leaves_nothing_behind(
    service: Service, live: str, picture: Path, data_home: Path, tmp_path: Path
) -> None:
    service.plans.append("hang")
    out = tmp_path / "out"
    out.mkdir()
    command = ["generate", str(picture), "-o", str(out / "disc.glb"), "--state", str(out / "disc.lz4")]
    env = dict(os.environ, TRELLIS2_URL=live, TRELLIS2_API_KEY=KEY, TMPDIR=str(out))
    with subprocess.Popen([sys.executable, "-m", "trellis2_modal", *command], env=env) as process:
        try:
            until(lambda: [job for job in service.jobs() if job.status == "running"], "the job", 60)
            process.terminate()
            assert process.wait(30) == Exit.TERMINATED
        finally:
            process.kill()
    until(lambda: service.job().status == "cancelled", "the cancellation")
    assert list(out.iterdir()) == []


def test_every_command_has_help() -> None:
    context = click.Context(main)
    for name in main.list_commands(context):
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0, name
        assert "Usage:" in result.output
