"""What each address answers. A file a subject: `generate` (and extraction), `jobs`, `info`; `documents` holds
what OpenAPI says of bodies and errors."""

from .generate import router as generate
from .info import metrics_router as metrics
from .info import router as info
from .jobs import router as jobs

__all__ = ["generate", "info", "jobs", "metrics"]
