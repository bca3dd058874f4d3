"""What each address answers. A file a subject: `generate` (and extraction), `jobs`, `estimate`, `info`,
`alias`; `documents` holds what OpenAPI says of bodies and errors, `description` shows it."""

from .alias import router as alias
from .description import describe
from .estimate import router as estimate
from .generate import router as generate
from .info import metrics_router as metrics
from .info import router as info
from .jobs import router as jobs

__all__ = ["alias", "describe", "estimate", "generate", "info", "jobs", "metrics"]
