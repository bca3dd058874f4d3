"""OpenAPI: request bodies that are read by hand, examples, and the errors of each route."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from ....protocol.errors import ERRORS, PROBLEM_MEDIA_TYPE
from ....protocol.limits import MAX_IDEMPOTENCY_KEY_LENGTH
from ....protocol.replies import EVENT_STREAM, EventType, JobEvent, Problem
from ....protocol.requests import (
    ExtractEstimate,
    ExtractRequest,
    ExtractSettings,
    GenerateEstimate,
    GenerateRequest,
    GenerateSettings,
    MatteRequest,
    MatteSettings,
    TextureEstimate,
    TextureRequest,
    TextureSettings,
)
from ....protocol.views import MAX_VIEWS

EXAMPLE_IMAGE = "iVBORw0KGgo..."
EXAMPLES: dict[str, dict[str, Any]] = {
    "generate": {"image": EXAMPLE_IMAGE, "seed": 42, "preview": "video", "export": {"simplify": "web"}},
    "texture": {"mesh": "Z2xURgIAAAA...", "image": EXAMPLE_IMAGE, "texture_size": 1024},
    "extract": {"job": "job_0123456789abcdef0123456789abcdef", "simplify": "web"},
}


def schema(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema with nothing left to reference."""
    document = model.model_json_schema()
    definitions = document.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(item) for item in part]
        if not isinstance(part, dict):
            return part
        named = definitions[part["$ref"].rpartition("/")[2]] if "$ref" in part else {}
        return {name: inlined(value) for name, value in (named | part).items() if name != "$ref"}

    found: dict[str, Any] = inlined(document)
    return found


def json_body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    content = {"schema": schema(model), "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


FILE = {"type": "string", "format": "binary"}
FILES = {"type": "array", "items": FILE, "minItems": 1, "maxItems": MAX_VIEWS}


def form_schema(
    settings: type[BaseModel], file: str, kind: str | None, value: dict[str, Any] = FILE
) -> dict[str, Any]:
    """The schema of a form: the fields of `settings`, a required part named `file`, and a fixed `kind`."""
    document = schema(settings)
    properties = document["properties"] | {file: value}
    if "views" in properties:
        text = "names with commas between them, or JSON"
        properties["views"] = {
            "type": "string",
            "description": f"{properties['views']['description']} As {text}.",
        }
    if "export" in properties:
        properties["export"] = {
            "type": "string",
            "contentMediaType": "application/json",
            "description": f"{properties['export']['description']} As JSON.",
        }
    if "box" in properties:
        properties["box"] = {
            "type": "string",
            "description": f"{properties['box']['description']} Four numbers with commas between them.",
        }
    if kind is not None:
        properties["kind"] = {"type": "string", "const": kind}
    return {"type": "object", "properties": properties, "required": [file], "additionalProperties": False}


def submission_body() -> dict[str, Any]:
    """The kinds of `POST /jobs`, as JSON or as a form with files."""
    kinds = []
    for model, kind in (
        (GenerateRequest, "generate"),
        (TextureRequest, "texture"),
        (ExtractRequest, "extract"),
    ):
        document = schema(model)
        document["properties"]["kind"] = {"type": "string", "const": kind}
        document["required"] = [*document.get("required", []), "kind"]
        kinds.append(document)
    forms = [
        form_schema(GenerateSettings, "image", "generate"),
        form_schema(GenerateSettings, "images", "generate", FILES),
        *texture_forms("texture"),
        form_schema(ExtractSettings, "state", "extract"),
    ]
    content = {
        "application/json": {
            "schema": {"oneOf": kinds},
            "examples": {kind: {"value": {"kind": kind, **example}} for kind, example in EXAMPLES.items()},
        },
        "multipart/form-data": {
            "schema": {"anyOf": forms},
            "example": {"image": "(the file)", "seed": 7, "export": '{"simplify": "web"}'},
        },
    }
    return {"requestBody": {"required": True, "content": content}}


def texture_forms(kind: str | None) -> list[dict[str, Any]]:
    """A mesh with one picture, and with several."""
    forms = []
    for name, value in (("image", FILE), ("images", FILES)):
        form = form_schema(TextureSettings, "mesh", kind)
        form["properties"][name] = value
        forms.append(form | {"required": ["mesh", name]})
    return forms


def texture_body() -> dict[str, Any]:
    content = {
        "application/json": {"schema": schema(TextureRequest), "example": EXAMPLES["texture"]},
        "multipart/form-data": {
            "schema": {"anyOf": texture_forms(None)},
            "example": {"mesh": "(the file)", "image": "(the file)", "texture_size": 1024},
        },
    }
    return {"requestBody": {"required": True, "content": content}}


def estimate_body() -> dict[str, Any]:
    """The kinds of `POST /estimate`."""
    kinds = [schema(model) for model in (GenerateEstimate, TextureEstimate, ExtractEstimate)]
    examples = {
        "generate": {"value": {"kind": "generate", "texture": False}},
        "variants": {"value": {"kind": "generate", "num_samples": 4}},
        "texture": {"value": {"kind": "texture", "texture_size": 1024}},
        "extract": {"value": {"kind": "extract", "simplify": "web"}},
    }
    content = {"application/json": {"schema": {"oneOf": kinds}, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


def matte_body() -> dict[str, Any]:
    form = form_schema(MatteSettings, "image", None)
    form["properties"]["trimap"] = FILE | {
        "description": str(MatteRequest.model_fields["trimap"].description).replace(" in base64", "")
    }
    content = {
        "application/json": {"schema": schema(MatteRequest), "example": {"image": EXAMPLE_IMAGE}},
        "multipart/form-data": {"schema": form, "example": {"image": "(the file)", "subjects": "largest"}},
    }
    return {"requestBody": {"required": True, "content": content}}


def header(name: str, description: str, example: str, **rules: Any) -> dict[str, Any]:
    """A request header that is read by hand."""
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", **rules},
        "example": example,
    }


IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "A word of your own: the same key and body is the same job, however often it is sent",
    "chair-photo-1",
    minLength=1,
    maxLength=MAX_IDEMPOTENCY_KEY_LENGTH,
    pattern="^[ -~]+$",
)
REQUEST_ID = header("X-Request-ID", "A word of your own, for the reply and the service's log", "photo-1")
PREFER = header("Prefer", "Answer 202 and the job at once", "respond-async", enum=["respond-async"])
LAST_EVENT_ID = header("Last-Event-ID", "Go on after this event", "7", pattern="^[0-9]{1,12}$")
RANGE = header(
    "Range", "One range of bytes (several are answered with the whole file)", "bytes=0-1023", maxLength=60
)
IF_NONE_MATCH = header("If-None-Match", "The ETag of the copy you have", '"job_...-glb"', maxLength=200)


def parameters(*headers: dict[str, Any], body: dict[str, Any] | None = None) -> dict[str, Any]:
    """`openapi_extra` of a route: its headers and, when it has one, its body."""
    return {"parameters": list(headers), **(body or {})}


Replies = dict[int | str, dict[str, Any]]


def errors(*statuses: int, **success: dict[str, Any]) -> Replies:
    """The problem replies of a route, with the slugs that each status can carry.

    `success` adds other replies, keyed `_200` and the like.
    """
    replies: Replies = {int(name.lstrip("_")): reply for name, reply in success.items()}
    for status in statuses:
        slugs = [slug for slug, cls in ERRORS.items() if cls.status == status]
        replies[status] = {
            "description": ", ".join(slugs),
            "model": Problem,
            "content": {PROBLEM_MEDIA_TYPE: {}},
        }
    return replies


def event_schema() -> dict[str, Any]:
    """The schema of each event of a stream; its `data` is the JSON of a `JobEvent`."""
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "Send it back as Last-Event-ID to go on from here"},
            "event": {"type": "string", "enum": list(get_args(EventType))},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": schema(JobEvent),
            },
        },
        "required": ["id", "event", "data"],
    }


def binary(description: str, *media_types: str) -> dict[str, Any]:
    file = {"schema": {"type": "string", "format": "binary"}}
    return {"description": description, "content": dict.fromkeys(media_types, file)}


def json_reply(model: type[BaseModel], description: str, *also: str) -> dict[str, Any]:
    """A 200 that is JSON, or one of the media types in `also`."""
    content: dict[str, Any] = {"application/json": {}}
    for media in also:
        kind = event_schema() if media == EVENT_STREAM else {"type": "string", "format": "binary"}
        content[media] = {"schema": kind}
    return {"description": description, "model": model, "content": content}


COMMON = (400, 401, 403, 408, 413, 415, 429, 500, 503)
"""What any call with a key and a body may answer."""

READS = (400, 401, 429, 500, 503)
