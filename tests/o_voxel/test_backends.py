"""Which implementation is picked, when it is forced and when it is missing."""

from __future__ import annotations

import pytest
import torch
from o_voxel import backends
from o_voxel.errors import ArgumentError, BackendError


@pytest.fixture(autouse=True)
def _nothing_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    for operation in backends.OPERATIONS.values():
        monkeypatch.delenv(operation.variable, raising=False)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("operation", list(backends.OPERATIONS))
def test_an_installed_package_changes_nothing_by_itself(
    operation: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured to be faster is chosen, not what is installed."""
    monkeypatch.setattr(backends, "load_problem", lambda module, package: "")
    choice = backends.pick(operation, device)
    assert choice.portable
    assert backends.OPERATIONS[operation].package in choice.reason


@pytest.mark.parametrize("operation", list(backends.OPERATIONS))
def test_forcing_a_package_that_cannot_serve_names_it(
    operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = backends.OPERATIONS[operation]
    monkeypatch.setenv(spec.variable, spec.package)
    with pytest.raises(BackendError, match=spec.package):
        backends.pick(operation, torch.device("cpu"))
    row = next(r for r in backends.describe("cpu") if r.operation == operation)
    assert row.backend == "unavailable"
    assert spec.variable in row.reason


@pytest.mark.parametrize("operation", list(backends.OPERATIONS))
def test_a_missing_package_on_cuda(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = backends.OPERATIONS[operation]
    monkeypatch.setattr(backends, "load_problem", lambda module, package: f"{package} is not installed")
    assert backends.pick(operation, "cuda").portable
    monkeypatch.setenv(spec.variable, spec.package)
    with pytest.raises(BackendError, match=f"{spec.package} is not installed"):
        backends.pick(operation, "cuda")


def test_a_package_is_used_when_it_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "load_problem", lambda module, package: "")
    monkeypatch.setenv("MESH_BACKEND", "cumesh")
    assert backends.pick("mesh", "cuda").backend == "cumesh"
    monkeypatch.setenv("MESH_BACKEND", "portable")
    assert backends.pick("mesh", "cuda").portable


def test_a_package_that_breaks_on_import_is_reported(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_built.py").write_text("raise OSError('libcuda is missing')\n")  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "libcuda is missing" in backends.load_problem("half_built", "half_built")
    assert backends.load_problem("never_made_xyz.part", "never_made_xyz") == "never_made_xyz is not installed"


def test_unknown_names() -> None:
    with pytest.raises(ArgumentError, match="mesh, raster, sampling"):
        backends.pick("teleport", "cpu")


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_BACKEND", "cumehs")
    with pytest.raises(ArgumentError, match="cumehs"):
        backends.pick("mesh", "cpu")


def test_describe_has_a_row_an_operation() -> None:
    assert [row.operation for row in backends.describe("cpu")] == list(backends.OPERATIONS)
