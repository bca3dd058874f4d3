"""The two pages about Modal: every command parses, every name exists, every table is the code's."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import click
import modal
import pytest
from modal.cli.entry_point import entrypoint_cli

from trellis2_modal.cli import main
from trellis2_modal.client.settings import (
    KEY_VARIABLE,
    MODAL_KEY_VARIABLE,
    MODAL_SECRET_VARIABLE,
    URL_VARIABLE,
)
from trellis2_modal.protocol.errors import ERRORS
from trellis2_modal.service import service
from trellis2_modal.service.config import (
    CUDA_ARCHITECTURES,
    ENV_PREFIX,
    NO_GPU,
    DeploySettings,
    Settings,
    gateway_settings,
)
from trellis2_modal.service.deploy import image_requirements as pins
from trellis2_modal.service.deploy.start_budget import BUDGET

DOCS = Path(__file__).parents[3] / "trellis2_modal" / "docs"
PAGES = {
    name: (DOCS / f"{name}.md").read_text("utf-8") for name in ("MODAL_INTEGRATION", "OPERATIONS_RUNBOOK")
}
PLAIN = ("git clone", "cd ", "pip install -e '.[deploy]'", "unset ")
VARIABLES = {
    *(
        ENV_PREFIX + field.name.upper()
        for cls in (DeploySettings, Settings)
        for field in dataclasses.fields(cls)
    ),
    URL_VARIABLE,
    KEY_VARIABLE,
    MODAL_KEY_VARIABLE,
    MODAL_SECRET_VARIABLE,
}
CURL_FLAGS = {"-sS", "-N", "-L", "-H", "-F", "-d", "-o"}
IN_TEXT = re.compile(r"`((?:modal|trellis2-modal|python -m) [^`]+)`")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.S | re.M)


def commands() -> list[str]:
    """Every command of both pages: from shell blocks, and those named in the text."""
    found = []
    for page, text in PAGES.items():
        for language in ("console", "bash"):
            for block in blocks(page, language):
                found += [line.removeprefix("$ ") for line in block.splitlines() if line.strip()]
        found += IN_TEXT.findall(re.sub(r"```.*?```", "", text, flags=re.S))
    return list(dict.fromkeys(found))


def parse(command: click.Command, words: list[str], name: str) -> None:
    """Resolve subcommands and parse the rest; raises click's UsageError for what does not exist."""
    parent: click.Context | None = None
    while isinstance(command, click.Group):
        parser = command.make_parser(click.Context(command, info_name=name, parent=parent))
        parser.allow_interspersed_args = False
        _, words, _ = parser.parse_args(list(words))
        parent = click.Context(command, info_name=name, parent=parent)
        assert words, f"{name} needs a subcommand"
        name, words = words[0], words[1:]
        found = command.get_command(parent, name)
        assert found is not None, f"there is no command {name}"
        command = found
    context = click.Context(command, info_name=name, parent=parent, resilient_parsing=False)
    command.parse_args(context, words)


def check_modal(words: list[str]) -> None:
    action = words[0]
    if action in ("run", "deploy"):
        by_module = words[1] == "-m"
        reference = words.pop(2) if by_module else words[1]
        module, _, function = reference.partition("::")
        if not by_module:
            assert (DOCS.parents[1] / module).is_file(), module
            module = module.removesuffix(".py").replace("/", ".")
        loaded = importlib.import_module(module)
        assert isinstance(loaded.app, modal.App)
        if action == "run":
            assert isinstance(getattr(loaded, function), modal.Function)
        if words[2:]:
            raise AssertionError(f"not checked: {words}")
        return
    parse(entrypoint_cli, words, "modal")


def check_curl(words: list[str]) -> None:
    flags = [word for word in words if word.startswith("-")]
    assert set(flags) <= CURL_FLAGS, flags
    url = next(word for word in words if "$TRELLIS2_URL" in word)
    path = url.removeprefix("$TRELLIS2_URL").replace("$JOB", "{job_id}")
    paths = service.web.local().openapi()["paths"]
    assert path in paths, path
    method = "post" if {"-d", "-F"} & set(flags) else "get"
    assert method in paths[path]


def check_python(words: list[str]) -> None:
    assert words[0] == "-m"
    module = importlib.import_module(words[1])
    command: click.Command = module.command
    command.parse_args(click.Context(command), [w for w in words[2:] if w != "photo.png"] + [__file__])


def check_variable(assignment: str) -> None:
    name, _, value = assignment.partition("=")
    assert name in VARIABLES | {"JOB"}, name
    if ENV_PREFIX + name.removeprefix(ENV_PREFIX) in VARIABLES and name not in (
        URL_VARIABLE,
        KEY_VARIABLE,
        "JOB",
    ):
        settings = {name: value}
        DeploySettings.from_env(settings)
        Settings.from_env(settings)


@pytest.mark.parametrize("command", commands())
def test_every_command_exists_with_these_options(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    (tmp_path / "keys.json").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    if command.startswith(PLAIN):
        return
    words = shlex.split(command)
    if words[0] == "export":
        for assignment in words[1:]:
            check_variable(assignment)
        return
    while "=" in words[0] and not words[0].startswith("-"):
        check_variable(words.pop(0))
    program, rest = words[0], words[1:]
    if program == "modal":
        check_modal(rest)
    elif program == "trellis2-modal":
        parse(main, rest, "trellis2-modal")
    elif program == "curl":
        check_curl(rest)
    elif program == "python":
        check_python(rest)
    else:
        raise AssertionError(f"nothing checks {program}")


def test_a_wrong_command_would_be_found() -> None:
    for words in (["volume", "rm", "--recursively", "a", "b"], ["app", "restart", "trellis2"]):
        with pytest.raises((click.UsageError, AssertionError)):
            check_modal(words)
    with pytest.raises(click.UsageError):
        parse(main, ["keys", "--modal", "create", "me", "--forever"], "trellis2-modal")
    with pytest.raises(AssertionError):
        check_variable("TRELLIS2_NOTHING=1")
    with pytest.raises(AssertionError):
        check_curl(["-sS", "$TRELLIS2_URL/nothing"])


def test_the_pages_have_commands() -> None:
    assert len(commands()) > 40


def test_every_variable_in_the_pages_exists() -> None:
    for page, text in PAGES.items():
        named = set(re.findall(r"\bTRELLIS2_[A-Z_]+", text))
        assert named <= VARIABLES, (page, named - VARIABLES)


def test_the_table_of_settings_is_complete_and_right() -> None:
    rows = dict(re.findall(r"^\| `(TRELLIS2_\w+)` \| `([^`]*)` \|", PAGES["MODAL_INTEGRATION"], re.M))
    defaults = DeploySettings()
    expected = {
        ENV_PREFIX + field.name.upper(): str(getattr(defaults, field.name))
        for field in dataclasses.fields(defaults)
    }
    expected = {
        name: value.lower() if value in ("True", "False") else value for name, value in expected.items()
    }
    assert rows == expected
    listed = next(line for line in PAGES["MODAL_INTEGRATION"].splitlines() if "TRELLIS2_GPU`" in line)
    assert set(re.findall(r"`([^`]+)`", listed)) == {"TRELLIS2_GPU", NO_GPU, *CUDA_ARCHITECTURES}


def test_numbers_of_the_service_on_modal() -> None:
    settings = gateway_settings(DeploySettings(), {})
    text = " ".join(PAGES["MODAL_INTEGRATION"].split())
    for name, value in (
        ("QUEUE_LIMIT", settings.queue_limit),
        ("MAX_ACTIVE_JOBS", settings.max_active_jobs),
        ("RETENTION", int(settings.retention)),
        ("KEYS_TTL", int(settings.keys_ttl)),
    ):
        assert f"`{ENV_PREFIX}{name}` {value} " in text, name
    limits = PAGES["OPERATIONS_RUNBOOK"]
    assert re.search(rf"TRELLIS2_QUEUE_LIMIT` \| {settings.queue_limit} \|", limits)
    assert re.search(rf"TRELLIS2_MAX_ACTIVE_JOBS` \| {settings.max_active_jobs} \|", limits)
    assert re.search(rf"TRELLIS2_GPU_MAX_CONTAINERS` \| {DeploySettings().gpu_max_containers} \|", limits)


def test_the_licences_are_those_of_the_pins() -> None:
    rows = re.findall(
        r"^\| `([^`]+/[^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGES["MODAL_INTEGRATION"], re.M
    )
    assert {row[0]: row[1:] for row in rows} == pins.WEIGHTS_LICENCES
    text = PAGES["MODAL_INTEGRATION"]
    for extension in pins.EXTENSIONS:
        ref = extension.ref[:12]
        licence = extension.licence + ("" if extension.commercial else " (non-commercial)")
        assert f"| {extension.name} | {ref} | {licence} |" in text


def test_the_budget_is_the_codes() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) s \|", PAGES["MODAL_INTEGRATION"], re.M)
    assert {name: float(seconds) for name, seconds in rows} == BUDGET


def test_python_examples_compile_and_import() -> None:
    found = 0
    for page in PAGES:
        for block in blocks(page, "python"):
            tree = ast.parse(block)
            found += 1
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    module: Any = importlib.import_module(node.module or "")
                    assert all(hasattr(module, alias.name) for alias in node.names)
    assert found == 3


def test_links_lead_somewhere() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
            assert (DOCS / target).is_file(), (page, target)


def test_statuses_and_slugs_are_ours() -> None:
    text = PAGES["OPERATIONS_RUNBOOK"]
    assert "worker-died" in ERRORS
    assert re.findall(r"^\| `(ok|starting|degraded|stopping)` \|", text, re.M) == [
        "ok",
        "starting",
        "degraded",
        "stopping",
    ]


@pytest.mark.parametrize(
    "message",
    [
        "no job can be taken",
        "there is no GPU",
        "out of memory",
        "over its budget",
        "has no revision",
        "is gated",
        "is not on the weights volume",
        "has no {MARKER}",
        "a deploy from here will fail",
        "there is no {KEYS_FILE} on the volume",
        "cannot read the key list",
        "not a key list",
    ],
)
def test_messages_that_the_runbook_names_are_in_the_code(message: str) -> None:
    assert any(message in file.read_text("utf-8") for file in DOCS.parent.rglob("*.py"))
