"""POST /estimate through the real app and both clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.trellis2_modal.client.service import KEY, Service, listening, until
from trellis2_modal.cli import main
from trellis2_modal.protocol.errors import InvalidRequestError, UnauthenticatedError


def test_an_estimate_is_what_the_last_job_took(client: Any, service: Service, picture: Path) -> None:
    assert client.estimate().model_dump(exclude={"kind", "currency", "wait_seconds"}) == {
        "seconds": None,
        "low": None,
        "high": None,
        "stages": {},
        "measured": 0,
        "price": None,
    }
    made = client.generate(picture)
    service.charges(gpu_price_per_hour=3600.0, currency="EUR")
    found = client.estimate(seed=9)
    assert found.stages == made.stats["seconds"] == {"shape": 2.0, "texture": 1.0}
    assert (found.seconds, found.measured, found.price, found.currency) == (3.0, 1, 3.0, "EUR")
    assert client.estimate(texture=False).seconds == 2.0
    assert client.estimate(shape_slat_sampling_steps=24).seconds == 5.0
    assert client.estimate("extract").seconds is None
    client.extract_glb(made)
    assert client.estimate("extract", simplify="web").measured == 1
    assert len(service.jobs()) == 2, "an estimate makes no job"


def test_an_estimate_says_how_long_a_job_would_wait(client: Any, service: Service, picture: Path) -> None:
    client.generate(picture)
    assert client.estimate().wait_seconds == 0
    service.plans.append("hang")
    client.submit(picture)
    until(lambda: service.job().status == "running", "the job")
    client.submit(picture, texture=False)
    assert 4.0 < client.estimate().wait_seconds <= 5.0


def test_bad_requests_are_refused(client: Any, connect: Any) -> None:
    with pytest.raises(InvalidRequestError, match="sed"):
        client.estimate(sed=1)
    with pytest.raises(InvalidRequestError, match="1536_cascade is not offered"):
        client.estimate(pipeline_type="1536_cascade")
    with pytest.raises(UnauthenticatedError):
        connect(key=None).estimate()


def test_the_command_tells_of_both_steps(service: Service, data_home: Path, picture: Path) -> None:
    with listening(service) as url:
        there = ["--url", url, "--key", KEY]
        shown = CliRunner().invoke(main, ["estimate", *there])
        assert shown.exit_code == 0, shown.output
        assert shown.output.count("not measured yet") == 2
        made = CliRunner().invoke(main, ["generate", str(picture), *there])
        assert made.exit_code == 0, made.output
        service.charges(gpu_price_per_hour=3600.0)
        shown = CliRunner().invoke(main, ["estimate", "--texture-size", "512", *there])
        assert "generate  about 3 s, 3.00 USD (as 1 job like it)" in shown.output


def test_what_variants_take_is_printed_before_they_are_made(
    service: Service, data_home: Path, picture: Path
) -> None:
    with listening(service) as url:
        run = ["generate", str(picture), "--url", url, "--key", KEY]
        made = CliRunner().invoke(main, [*run, "--num-samples", "2"])
        assert made.exit_code == 0, made.output
        words = "2 variants: about 1 min 16 s (typical of its device; this service has measured none)"
        assert made.output.startswith(words)
        service.charges(gpu_price_per_hour=1800.0)
        made = CliRunner().invoke(main, [*run, "--num-samples", "4"])
        assert made.output.startswith("4 variants: about 6 s, 3.00 USD (as 1 job like it)")
        assert "variants: about" not in CliRunner().invoke(main, run).output
