"""What each address answers. A file a subject: `generate` (and extraction), `jobs`, `estimate`, `info`,
`alias`; `documents` holds what OpenAPI says of bodies and errors."""

from .alias import router as alias
from .estimate import router as estimate
from .generate import router as generate
from .info import metrics_router as metrics
from .info import router as info
from .jobs import router as jobs

__all__ = ["alias", "estimate", "generate", "info", "jobs", "metrics"]
