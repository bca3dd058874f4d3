"""What an editor and a type checker know of the client, and what a session shows."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel

from tests.trellis2_modal.client.service import KEY, URL, Service, photo
from trellis2_modal.client.api import AsyncClient, Client, ExtractResult, GenerateResult
from trellis2_modal.protocol import fields
from trellis2_modal.protocol.requests import ExtractSettings, GenerateSettings, MatteSettings, TextureSettings

SAMPLE = """
from trellis2_modal.client.api import AsyncClient, Client

client = Client("http://127.0.0.1:8188")
reveal_type(client.generate("chair.png", seed=7, export={"simplify": "web"}))
reveal_type(client.submit("chair.png", quality="fast"))
client.generate("chair.png", sed=7)
client.generate("chair.png", quality="best")
client.extract_glb(job="job_1", export={})
client.texture("chair.glb", "chair.png", pipeline_type="1536_cascade")

async def main(client: AsyncClient) -> None:
    reveal_type(await client.extract_glb(b"", simplify="game"))
    reveal_type(await client.submit("chair.png"))
"""
TOLD = [
    (5, 'Revealed type is "trellis2_modal.client.results.GenerateResult"'),
    (6, 'Revealed type is "trellis2_modal.client.api.Job"'),
    (7, 'Unexpected keyword argument "sed"; did you mean "seed"?'),
    (8, 'Argument "quality" has incompatible type'),
    (9, 'Unexpected keyword argument "export"'),
    (10, 'Argument "pipeline_type" has incompatible type'),
    (13, 'Revealed type is "trellis2_modal.client.results.ExtractResult"'),
    (14, 'Revealed type is "trellis2_modal.client.api.AsyncJob"'),
]


def test_a_type_checker_knows_every_setting(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE)
    command = [sys.executable, "-m", "mypy", "--strict", "--hide-error-context", str(sample)]
    told = subprocess.run(command, capture_output=True, text=True).stdout
    found = [line.partition(".py:")[2] for line in told.splitlines() if "sample.py:" in line]
    assert len(found) == len(TOLD), told
    for (number, words), line in zip(TOLD, found, strict=True):
        assert line.startswith(f"{number}: "), told
        assert words in line


@pytest.mark.parametrize(
    ("typed", "model"),
    [
        (fields.GenerateFields, GenerateSettings),
        (fields.ExtractFields, ExtractSettings),
        (fields.TextureFields, TextureSettings),
        (fields.MatteFields, MatteSettings),
    ],
)
def test_keyword_arguments_are_the_settings(typed: Any, model: type[BaseModel]) -> None:
    found = get_type_hints(typed)
    hints = get_type_hints(model)
    wanted = {name: hints[name] for name in model.model_fields}
    if model is GenerateSettings:
        assert found.pop("export") == fields.ExtractFields | ExtractSettings | None
        assert wanted.pop("export") == ExtractSettings | None
        assert found.pop("views") == get_type_hints(GenerateSettings)["views"]
        del wanted["views"]
    assert found == wanted
    assert not typed.__required_keys__


def test_help_shows_what_a_call_gives() -> None:
    for client in (Client, AsyncClient):
        signature = inspect.signature(client.generate)
        assert list(signature.parameters) == ["self", "image", "shape", "on_event", "settings"]
        assert signature.return_annotation == "GenerateResult"
        assert "The asset in a picture" in (client.generate.__doc__ or "")


def test_a_session_shows_what_counts_and_never_the_key(service: Service) -> None:
    with Client("http://anna:secret@service.test/", KEY, transport=service.transport) as client:
        assert repr(client) == "<Client of http://service.test, with a key>"
        job = client.submit(photo())
        made = job.wait()
        job.refresh()
        assert repr(job) == f"<Job {job.id}: generate, finished>"
        assert isinstance(made, GenerateResult)
        assert repr(made).startswith(f"<GenerateResult of {job.id}: seed 42, resolution 16; state ")
        file = client.extract_glb(made)
        assert repr(file).startswith(f"<ExtractResult of {file.job}: glb")
        assert len(repr(made)) < 200
    assert repr(AsyncClient(URL)) == "<AsyncClient of http://service.test, without a key>"
    assert repr(ExtractResult("job_1", bytes(1200), "stl")) == ("<ExtractResult of job_1: stl; data 1.2 kB>")
    for told in (repr(client), repr(job), repr(made)):
        assert KEY not in told
        assert "secret" not in told
