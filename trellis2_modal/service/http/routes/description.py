"""/openapi.json, and /docs: a page of it that loads nothing from elsewhere."""

from __future__ import annotations

import html
import json
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse

STYLE = """
body {font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color-scheme: light dark}
code, pre {font: 14px/1.4 ui-monospace, monospace}
pre {overflow: auto; padding: .5rem; border: 1px solid #8888}
summary {cursor: pointer; padding: .3rem 0}
table {border-collapse: collapse}
td {border: 1px solid #8888; padding: .2rem .5rem; text-align: left; vertical-align: top}
"""


def describe(app: FastAPI) -> None:
    """Add both addresses. The document is made once; it names the server as the caller reached it."""
    made: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not made:
            made.update(
                get_openapi(
                    title=app.title, version=app.version, description=app.description, routes=app.routes
                )
            )
            _without_422(made)
        return made

    async def openapi(request: Request) -> Response:
        place = request.scope.get("root_path", "") or "/"
        servers = [{"url": place, "description": "This service"}]
        return Response(json.dumps(document() | {"servers": servers}) + "\n", media_type="application/json")

    async def docs(request: Request) -> Response:
        return HTMLResponse(page(document()))

    app.add_api_route("/openapi.json", openapi, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)


def _without_422(document: dict[str, Any]) -> None:
    """The framework's own reply to invalid parameters: here they are 400, which the routes describe."""
    for operations in document["paths"].values():
        for operation in operations.values():
            invalid = operation["responses"].get("422", {}).get("content", {})
            if "HTTPValidationError" in json.dumps(invalid):
                del operation["responses"]["422"]
    schemas = document.get("components", {}).get("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)


def page(document: dict[str, Any]) -> str:
    """All calls of an OpenAPI document as HTML."""
    calls = "".join(
        _call(path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    info = document["info"]
    intro = "".join(f"<p>{html.escape(part)}</p>" for part in info["description"].strip().split("\n\n"))
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(info["title"])} API</title><style>{STYLE}</style>
<h1>{html.escape(info["title"])} API {html.escape(info["version"])}</h1>
{intro}<p><a href="openapi.json">openapi.json</a> has every schema.</p>{calls}</html>
"""


def _call(path: str, method: str, operation: dict[str, Any]) -> str:
    text = html.escape(operation.get("description", ""))
    parts = [f"<p>{text}</p>", _table("Parameters", operation.get("parameters", []))]
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        schema = body["schema"]
        for option in schema.get("oneOf") or schema.get("anyOf") or [schema]:
            fields = [
                {"name": name, "schema": field, "description": field.get("description", "")}
                for name, field in option.get("properties", {}).items()
            ]
            parts.append(_table(media, fields))
        examples = [body["example"]] if "example" in body else []
        examples += [example["value"] for example in body.get("examples", {}).values()]
        parts += [f"<pre>{html.escape(json.dumps(example, indent=2))}</pre>" for example in examples]
    replies = [
        {"name": status, "schema": {}, "description": reply.get("description", "")}
        for status, reply in operation["responses"].items()
    ]
    parts.append(_table("Replies", replies))
    title = f"<code>{method.upper()} {html.escape(path)}</code> {html.escape(operation.get('summary', ''))}"
    return f'<details id="{operation["operationId"]}"><summary>{title}</summary>{"".join(parts)}</details>'


def _table(title: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td><code>{html.escape(str(row['name']))}</code></td><td>{html.escape(_kind(row['schema']))}</td>"
        f"<td>{html.escape(str(row.get('description', '')))}</td></tr>"
        for row in rows
    )
    return f"<h4>{html.escape(title)}</h4><table>{cells}</table>"


def _kind(schema: dict[str, Any]) -> str:
    """What a value may be, with its default."""
    options = schema.get("anyOf", [schema])
    names = [
        " | ".join(map(str, option["enum"])) if "enum" in option else str(option.get("type", ""))
        for option in options
    ]
    default = f" = {schema['default']}" if schema.get("default") is not None else ""
    return " | ".join(name for name in names if name not in ("null", "")) + default
