from __future__ import annotations

import pytest

from tests.trellis2_modal.service.fuzz import SLOWEST, fuzz, sample_state
from trellis2_modal.protocol.state import pack_state, unpack_state


def test_mutations_are_refused_and_nothing_else() -> None:
    findings = fuzz(3000, seed=11)
    assert findings.faults == []
    assert findings.slowest < SLOWEST
    refused = sum(n for name, n in findings.outcomes.items() if name.endswith("refused"))
    assert refused > 1500


def test_a_fault_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(data: bytes) -> None:
        raise IndexError(len(data))

    monkeypatch.setattr("tests.trellis2_modal.service.fuzz.check_structure", careless)
    assert any("IndexError" in fault for fault in fuzz(50).faults)


def test_the_samples_are_stored_as_flags() -> None:
    sheet = sample_state(12)
    back = unpack_state(pack_state(sheet, lossless=True))
    assert (back.faces == sheet.faces).all()
