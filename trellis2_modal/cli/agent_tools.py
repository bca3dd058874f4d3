"""The service as tools for agents, over the Model Context Protocol: `trellis2-modal mcp`.

Settings are the protocol's own models, so agents see every field with its bounds. Files are read and written
in one folder only, whatever an agent was talked into; files of jobs are resources too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from .. import __version__
from ..client.api import Client, Job
from ..client.results import EXTENSIONS, ExtractResult, GenerateResult
from ..protocol.errors import ServiceError
from ..protocol.events import payload_of
from ..protocol.replies import ArtifactName, JobEvent, JobStatus, ProgressReport
from ..protocol.requests import ExtractSettings, GenerateSettings, TextureSettings
from ..protocol.stages import stage_title

T = TypeVar("T")
INSTRUCTIONS = (
    "Makes textured 3D assets from pictures. `generate` takes a picture and gives a job; `extract` makes a "
    "file (GLB or another format) of that job, as often as needed, without generating again. Ask `estimate` "
    "first where costs matter. Paths lie in the server's folder."
)
JobId = Annotated[str, Field(description="Id of a job, as generate gives it.")]


def agent_server(client: Client, folder: Path) -> MCPServer[Any]:
    """An MCP server over a client that stays open; agents may read and write in `folder` alone."""
    server: MCPServer[Any] = MCPServer("trellis2", version=__version__, instructions=INSTRUCTIONS)
    root = folder.resolve()

    def inside(name: str) -> Path:
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise ToolError(f"{name} lies outside of {root}, the folder that this server may use")
        return path

    @server.tool()
    async def generate(
        context: Context[Any, Any],
        picture: Annotated[str, Field(description="A picture's path in the folder, or its https URL.")],
        settings: GenerateSettings | None = None,
        wait: Annotated[bool, Field(description="False: give the job's id at once; see status.")] = True,
    ) -> dict[str, Any]:
        """Make a 3D asset of a picture. With wait the state (for later extractions) and the turntable are
        written beside one another in the folder."""
        source = picture if picture.startswith("https://") else inside(picture)
        asked = {} if settings is None else settings.model_dump(exclude_unset=True)
        job = await _call(lambda: client.submit(source, **asked))
        if not wait:
            return _shown(job.status)
        made = await _finished(job, context)
        assert isinstance(made, GenerateResult)
        paths = await _call(lambda: made.save(root, made.job[-8:]))
        return {"job": made.job, "seed": made.seed, "files": _names(paths, root), "stats": made.stats}

    @server.tool()
    async def extract(
        context: Context[Any, Any],
        output: Annotated[str, Field(description="File to write in the folder; its ending says the format.")],
        job: Annotated[str | None, Field(description="A finished generation.")] = None,
        state: Annotated[
            str | None, Field(description="In place of job: a state's path in the folder.")
        ] = None,
        settings: ExtractSettings | None = None,
    ) -> dict[str, Any]:
        """Make a file of an asset: GLB, USDZ, OBJ (as .zip), STL, 3MF or PLY, with a budget (simplify)."""
        target = inside(output)
        asked = {} if settings is None else settings.model_dump(exclude_unset=True)
        formats = {ending: name for name, ending in EXTENSIONS.items()}
        if target.suffix.lower() not in formats:
            raise ToolError(f"end output with one of {', '.join(formats)}")
        asked.setdefault("format", formats[target.suffix.lower()])
        kept = None if state is None else inside(state)
        running = await _call(lambda: client.submit_extract(kept, job=job, **asked))
        made = await _finished(running, context)
        assert isinstance(made, ExtractResult)
        await _call(lambda: made.save(target))
        return {"job": made.job, "files": _names([target], root), "report": made.report}

    @server.tool()
    async def texture(
        context: Context[Any, Any],
        mesh: Annotated[str, Field(description="A GLB, OBJ, PLY or STL file in the folder.")],
        picture: Annotated[str, Field(description="A picture in the folder of what it shall look like.")],
        output: Annotated[str, Field(description="GLB file to write in the folder.")],
        settings: TextureSettings | None = None,
    ) -> dict[str, Any]:
        """Give a mesh new textures on its own UVs, by a picture; its vertices stay where they are."""
        target, paths = inside(output), (inside(mesh), inside(picture))
        if target.suffix.lower() != ".glb":
            raise ToolError("end output with .glb")
        asked = {} if settings is None else settings.model_dump(exclude_unset=True)
        running = await _call(lambda: client.submit_texture(*paths, **asked))
        made = await _finished(running, context)
        assert isinstance(made, ExtractResult)
        await _call(lambda: made.save(target))
        return {"job": made.job, "files": _names([target], root), "report": made.report}

    @server.tool()
    async def status(job: JobId) -> dict[str, Any]:
        """How far a job is, or what it left."""
        return _shown((await _call(lambda: client.job(job))).status)

    @server.tool(name="list")
    async def list_jobs(limit: Annotated[int, Field(ge=1, le=100)] = 20) -> list[dict[str, Any]]:
        """The latest jobs, newest first."""
        return [_shown(found) for found in await _call(lambda: client.jobs(limit))]

    @server.tool()
    async def cancel(job: JobId) -> dict[str, Any]:
        """Stop a job."""
        return _shown(await _call(lambda: client.job(job).cancel()))

    @server.tool()
    async def estimate(
        kind: Literal["generate", "extract"] = "generate",
        generate: GenerateSettings | None = None,
        extract: ExtractSettings | None = None,
    ) -> dict[str, Any]:
        """What a job with these settings would take and cost; makes none."""
        settings = generate if kind == "generate" else extract
        asked = {} if settings is None else settings.model_dump(exclude_unset=True)
        return (await _call(lambda: client.estimate(kind, **asked))).model_dump(mode="json")

    @server.resource("trellis2://jobs/{job}/{artifact}", mime_type="application/octet-stream")
    async def artifact(job: str, artifact: ArtifactName) -> bytes:
        """A file of a finished job: state, video, preview or glb (whatever its format)."""
        return await _call(lambda: client.job(job).download(artifact))

    return server


async def _call(work: Callable[[], T]) -> T:
    """Work of the client's in a thread, its errors in words."""
    try:
        return await asyncio.to_thread(work)
    except ServiceError as error:
        raise ToolError(f"{error.title}: {error.detail}") from error
    except OSError as error:
        raise ToolError(f"{error.filename or 'a file'}: {error.strerror or error}") from error


async def _finished(job: Job, context: Context[Any, Any]) -> GenerateResult | ExtractResult:
    """The job's files, with its progress told on the way; a caller who goes away cancels it."""
    loop = asyncio.get_running_loop()

    def report(event: JobEvent) -> None:
        if isinstance(progress := payload_of(event), ProgressReport):
            told: Awaitable[None] = context.report_progress(
                progress.step, progress.steps, stage_title(progress.stage)
            )
            asyncio.run_coroutine_threadsafe(_ignored(told), loop)

    try:
        return await _call(lambda: job.wait(report))
    except asyncio.CancelledError:
        await asyncio.shield(_call(job.cancel))
        raise


async def _ignored(told: Awaitable[None]) -> None:
    await told


def _shown(job: JobStatus) -> dict[str, Any]:
    document = job.model_dump(mode="json", exclude_none=True)
    names = job.result.artifacts if job.result is not None else ()
    return document | {"resources": [f"trellis2://jobs/{job.id}/{name}" for name in names]}


def _names(paths: list[Path], root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]
