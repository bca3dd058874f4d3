"""Tables of the documentation, made from what the service enforces. A test compares the pages with them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from . import limits
from .controls import Control, controls
from .errors import ERRORS
from .presets import PRESETS

LIMITS = {
    "encoded picture": f"{limits.MAX_IMAGE_BYTES // limits.MIB} MiB",
    "picture": f"{limits.MIN_IMAGE_SIDE} to {limits.MAX_IMAGE_SIDE} pixels a side, "
    f"{limits.MAX_IMAGE_PIXELS // 10**6} million in all",
    "mesh to texture": f"{limits.MAX_MESH_BYTES // limits.MIB} MiB, "
    f"{limits.MAX_MESH_FACES // 10**6} million faces",
    "compressed state": f"{limits.MAX_STATE_BYTES // limits.MIB} MiB",
    "decompressed state": f"{limits.MAX_STATE_RAW_BYTES // limits.MIB} MiB",
    "any other body": f"{limits.MAX_JSON_BYTES // 1024} KiB",
    "Idempotency-Key": f"{limits.MAX_IDEMPOTENCY_KEY_LENGTH} printable characters",
}


def fields_table(model: type[BaseModel]) -> str:
    """Every field of a settings model with its default, what it may be, and its line of help."""
    rows = [
        (f"`{c.name}`", "" if c.default is None else f"`{_plain(c.default)}`", _range(c), c.help)
        for c in controls(model)
    ]
    return _table(("field", "default", "may be", "what it does"), rows)


def presets_table() -> str:
    """Every named budget with the fields that it sets."""
    rows = [
        (
            f"`{name}`",
            preset.help,
            ", ".join(f"`{field}` {_plain(value)}" for field, value in preset.settings.items()),
        )
        for name, preset in PRESETS.items()
    ]
    return _table(("simplify", "for", "sets"), rows)


def errors_table() -> str:
    """Every slug with its status, what it means, and whether the same request can succeed later."""
    rows = [
        (str(cls.status), f"`{slug}`", cls.title, "yes" if cls.retryable else "")
        for slug, cls in sorted(ERRORS.items(), key=lambda item: (item[1].status, item[0]))
    ]
    return _table(("status", "type", "meaning", "worth retrying"), rows)


def limits_table() -> str:
    return _table(("what", "the most"), list(LIMITS.items()))


def _range(control: Control) -> str:
    if control.choices:
        return ", ".join(f"`{choice}`" for choice in control.choices)
    if control.kind == "bool":
        return "`true`, `false`"
    if control.kind == "int":
        bounds = f"{control.minimum:.0f} to {control.maximum:.0f}"
        return f"{bounds}, in steps of {control.step:.0f}" if control.name == "texture_size" else bounds
    return f"{control.minimum:g} to {control.maximum:g}"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
