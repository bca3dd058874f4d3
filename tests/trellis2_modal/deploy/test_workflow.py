"""The workflow of CI: what it runs exists, and what costs money is gated."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.trellis2_modal.deploy.test_docs import check_modal

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / ".github" / "workflows" / "modal-ci.yml").read_text()
JOBS: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["jobs"]


def commands(job: str) -> list[str]:
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def test_every_python_that_is_supported_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [c.rpartition(" ")[2] for c in project["classifiers"] if "Python :: 3." in c]
    allowed = SpecifierSet(project["requires-python"])
    assert JOBS["test"]["strategy"]["matrix"]["python"] == named
    assert named == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]


def test_make_targets_and_folders_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for job in JOBS:
        for command in commands(job):
            words = command.split()
            if words[0] == "make":
                assert words[1] in targets, command
            for word in words:
                if word.startswith("tests/"):
                    assert (ROOT / word).is_dir(), word


def test_modal_commands_exist() -> None:
    found = [c for job in JOBS for c in commands(job) if c.startswith("modal ")]
    assert len(found) == 2
    for command in found:
        check_modal(command.split()[1:])


def test_the_tests_of_the_client_need_what_is_installed_for_them() -> None:
    """Third-party imports of those tests are in the base install, or named in the command."""
    install = next(c for c in commands("client") if "pip install" in c)
    named = set(install.split())
    base = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[0]
    folders = [ROOT / word for word in commands("client")[-1].split() if word.startswith("tests/")]
    imported = {
        match
        for folder in folders
        for file in folder.rglob("*.py")
        for match in re.findall(r"^(?:import|from) (\w+)", file.read_text(), re.M)
    }
    third = imported & {"pytest", "hypothesis", "httpx", "torch", "yaml", "numpy", "click", "PIL", "trimesh"}
    distributions = {"PIL": "pillow"}
    for module in third:
        name = distributions.get(module, module)
        assert name in named or f'"{name}' in base, f"{module} is not installed in the client job"


@pytest.mark.parametrize("job", ["image", "deploy"])
def test_what_costs_money_waits_for_someone_to_ask(job: str) -> None:
    gate = JOBS["image"]["if"]
    assert "workflow_dispatch" in gate
    assert "inputs.deploy" in gate
    assert JOBS["deploy"]["needs"] == "image"
    assert "test" in JOBS["image"]["needs"]
    assert JOBS[job]["environment"] == "modal"
    assert "secrets.MODAL_TOKEN_SECRET" in JOBS[job]["env"]["MODAL_TOKEN_SECRET"]


def test_no_secret_outside_the_gated_jobs() -> None:
    for name, job in JOBS.items():
        if name not in ("image", "deploy"):
            assert "secrets." not in str(job)
