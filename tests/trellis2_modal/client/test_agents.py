"""The MCP server through the SDK's own client: in this process, and as agents start it."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal.client.service import KEY, URL, Service, asset, listening, photo, state, until
from tests.trellis2_modal.server import running
from trellis2_modal.client.api import Client
from trellis2_modal.protocol.stages import stage_title
from trellis2_modal.service.dry_run import canned

mcp = pytest.importorskip("mcp", reason="needs trellis2-modal[mcp]")

Use = Callable[[Callable[[Any], Awaitable[Any]]], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "work"
    found.mkdir()
    (found / "cat.png").write_bytes(photo())
    return found


@pytest.fixture
def use(service: Service, folder: Path) -> Iterator[Use]:
    """Runs an agent's session with a server over the real app."""
    from trellis2_modal.cli.agent_tools import agent_server

    with Client(URL, KEY, transport=service.transport) as client:

        def run(session: Callable[[Any], Awaitable[Any]]) -> Any:
            async def inside() -> Any:
                async with mcp.Client(agent_server(client, folder)) as agent:
                    return await session(agent)

            return asyncio.run(inside())

        yield run


async def call(agent: Any, tool: str, **arguments: Any) -> Any:
    """What a tool answers; a refusal raises AssertionError with its words."""
    answer = await agent.call_tool(tool, arguments)
    assert not answer.is_error, answer.content[0].text
    found = answer.structured_content
    return found["result"] if isinstance(found, dict) and set(found) == {"result"} else found


async def refused(agent: Any, tool: str, **arguments: Any) -> str:
    answer = await agent.call_tool(tool, arguments)
    assert answer.is_error
    return str(answer.content[0].text)


def test_an_agent_makes_an_asset_and_a_file(use: Use, service: Service, folder: Path) -> None:
    async def session(agent: Any) -> None:
        tools = {tool.name: tool for tool in (await agent.list_tools()).tools}
        assert set(tools) == {*("generate", "extract", "texture"), *("status", "list", "cancel", "estimate")}
        assert "ss_guidance_strength" in str(tools["generate"].input_schema)
        made = await call(agent, "generate", picture="cat.png", settings={"seed": 7})
        assert made["seed"] == 7
        assert (folder / made["files"][0]).read_bytes() == state()
        file = await call(agent, "extract", output="cat.glb", job=made["job"], settings={"simplify": "web"})
        assert (folder / "cat.glb").read_bytes() == asset()
        assert file["report"]["watertight"] is True
        again = await call(agent, "extract", output="cat.stl", state=made["files"][0])
        assert again["files"] == ["cat.stl"]
        seen = await call(agent, "status", job=made["job"])
        assert seen["status"] == "finished"
        read = await agent.read_resource(seen["resources"][0])
        assert base64.b64decode(read.contents[0].blob) == state()
        assert [job["kind"] for job in await call(agent, "list")] == ["extract", "extract", "generate"]
        assert (await call(agent, "estimate"))["measured"] == 1

    use(session)
    assert service.jobs("generate")[0].settings["seed"] == 7
    assert "ss_sampling_steps" not in service.jobs("generate")[0].settings
    assert service.jobs("extract")[1].settings["format"] == "stl"


def test_a_mesh_gets_new_textures(folder: Path, tmp_path: Path) -> None:
    from trellis2_modal.cli.agent_tools import agent_server

    (folder / "mesh.glb").write_bytes(canned("glb"))

    async def session(client: Client) -> None:
        async with mcp.Client(agent_server(client, folder)) as agent:
            made = await call(agent, "texture", mesh="mesh.glb", picture="cat.png", output="new.glb")
            assert made["files"] == ["new.glb"]
            words = await refused(agent, "texture", mesh="../mesh.glb", picture="cat.png", output="a.glb")
            assert "outside" in words

    with running(tmp_path / "data") as live, Client(live.url, live.key) as client:
        asyncio.run(session(client))
        assert [job.kind for job in client.jobs()] == ["texture"]
    assert (folder / "new.glb").read_bytes()[:4] == b"glTF"


def test_progress_is_told(use: Use) -> None:
    steps: list[tuple[float, str]] = []

    async def session(agent: Any) -> None:
        async def told(progress: float, total: float | None, message: str | None) -> None:
            steps.append((progress, message or ""))

        await agent.call_tool("generate", {"picture": "cat.png"}, progress_callback=told)

    use(session)
    assert stage_title("shape") in {message for _, message in steps}


def test_a_job_may_be_left_running_and_stopped(use: Use, service: Service) -> None:
    service.plans.append("hang")

    async def session(agent: Any) -> str:
        begun = await call(agent, "generate", picture="cat.png", wait=False)
        assert begun["status"] in ("queued", "running")
        await call(agent, "cancel", job=begun["id"])
        return str(begun["id"])

    job = use(session)
    until(lambda: service.job().status == "cancelled", "the cancellation")
    assert service.job().id == job


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "link.png"])
def test_nothing_outside_of_the_folder_is_read_or_written(
    use: Use, service: Service, folder: Path, name: str
) -> None:
    (folder.parent / "secret.png").write_bytes(photo())
    (folder / "link.png").symlink_to(folder.parent / "secret.png")

    async def session(agent: Any) -> None:
        assert "outside" in await refused(agent, "generate", picture=name)
        assert "outside" in await refused(agent, "extract", output="../out.glb", job="job_1")
        assert "outside" in await refused(agent, "extract", output="out.glb", state=name)

    use(session)
    assert service.jobs() == []


def test_refusals_are_in_words(use: Use, folder: Path) -> None:
    async def session(agent: Any) -> None:
        assert "missing.png" in await refused(agent, "generate", picture="missing.png")
        assert "seed" in await refused(agent, "generate", picture="cat.png", settings={"seed": -1})
        assert "sed" in await refused(agent, "generate", picture="cat.png", settings={"sed": 1})
        assert "no such job" in await refused(agent, "status", job="job_" + "0" * 32)
        assert ".glb" in await refused(agent, "extract", output="cat.txt", job="job_1")
        assert "TRELLIS2_IMAGE_URLS" in await refused(agent, "generate", picture="https://x.example/a.png")

    use(session)


def test_the_command_speaks_on_stdio(service: Service, folder: Path, data_home: Path) -> None:
    from mcp.client.stdio import StdioServerParameters, stdio_client

    async def session(url: str) -> None:
        server = StdioServerParameters(
            command=sys.executable,
            args=["-m", "trellis2_modal", "mcp", "--folder", str(folder), "--url", url, "--key", KEY],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p)),
        )
        async with mcp.Client(stdio_client(server)) as agent:
            made = await call(agent, "generate", picture="cat.png", settings={"seed": 7})
            await call(agent, "extract", output="cat.glb", job=made["job"])

    with listening(service) as url:
        asyncio.run(session(url))
    assert (folder / "cat.glb").read_bytes() == asset()
