"""Which Python code that weights bring along may run, and at which commit.

transformers and torch.hub run code of the repository that a model's configuration names. A configuration that
was downloaded must not be able to name code that then runs, nor another revision of code that may: on a hub
anybody can propose a revision. Code runs that is on the list below or in `TRELLIS2_TRUST_CODE`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import CheckpointError

logger = logging.getLogger(__name__)

TRUST_VARIABLE = "TRELLIS2_TRUST_CODE"
"""`owner/name@commit`, several with commas between them; or `1` for code of any origin at any revision."""

TRUSTED: Mapping[str, str | None] = {
    "briaai/RMBG-2.0": None,
    "ZhengPeng7/BiRefNet": None,
    "facebookresearch/dinov2": None,
}
"""Repositories whose code may run, with the commit that it runs at; None: the default branch, until the
variable pins it."""

PIN = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")


def trusted_revision(name: str, revision: str | None = None) -> str | None:
    """The revision at which the code of a repository or folder runs, None for its default branch.

    `revision` is what a configuration asks for. Raises `CheckpointError` when the code may not run.
    """
    said = os.environ.get(TRUST_VARIABLE, "").strip()
    if said == "1":
        return revision
    pins = {**TRUSTED, **_pins(said)}
    here = Path(name).exists()  # transformers prefers a folder to the repository of the same name
    if here or name not in pins:
        raise CheckpointError(
            f"{name!r} brings Python code of its own, which was not run; if you trust it, set "
            f"{TRUST_VARIABLE}=1 (serve and app: --trust-code), or name the repository and its commit there "
            f"(owner/name@commit), else name one of {', '.join(sorted(TRUSTED))} (rembg_model=...)"
        )
    if revision is not None and revision != pins[name]:
        raise CheckpointError(
            f"the configuration asks for the code of {name} at {revision!r}, which was not run; if you trust "
            f"it, set {TRUST_VARIABLE}={name}@ and the commit"
        )
    return pins[name]


def tell_how_to_pin(name: str, revision: str | None, commit: str | None) -> None:
    """Log the commit whose code runs when nothing pins it."""
    if revision is None and commit is not None:
        logger.warning(
            "the code of %s runs at commit %s, its newest; %s=%s@%s keeps it there",
            *(name, commit, TRUST_VARIABLE, name, commit),
        )


def _pins(said: str) -> dict[str, str]:
    pins = {}
    for item in filter(None, (part.strip() for part in said.split(","))):
        match = PIN.fullmatch(item)
        if match is None:
            raise CheckpointError(
                f"{TRUST_VARIABLE} has {item!r}; it takes owner/name@commit (40 digits), or 1 for everything"
            )
        pins[match[1]] = match[2]
    return pins
