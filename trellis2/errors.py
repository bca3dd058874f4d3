"""Every error that `trellis2` raises on purpose.

Trellis2Error
├── InvalidArgumentError (ValueError)   a parameter outside what the call accepts
│   ├── UnsupportedPipelineError        a pipeline type whose models are not loaded
│   └── InvalidCameraError              a field of view, a matrix or a set of views that cannot be
├── InvalidImageError (ValueError)      a picture that cannot be used: unreadable, empty matte, too small
├── CheckpointError                     missing, extra, misshapen or truncated weights or configs
├── EmptyStructureError                 the sparse structure came out without a single voxel
├── NumericalError                      NaN or infinity where finite numbers are needed
├── BackendError                        a forced backend that is not installed
└── Cancelled                           the caller's `cancel()` said stop
"""

from __future__ import annotations


class Trellis2Error(Exception):
    """Base of all errors of this package."""


class InvalidArgumentError(Trellis2Error, ValueError):
    """A parameter is outside what the call accepts."""


class UnsupportedPipelineError(InvalidArgumentError):
    """The pipeline type is unknown, or the loaded weights lack a model that it needs."""


class InvalidCameraError(InvalidArgumentError):
    """A field of view, a camera matrix or a set of views cannot be what it is said to be."""


class InvalidImageError(Trellis2Error, ValueError):
    """The picture cannot be used: unreadable, empty, or without a subject."""


class CheckpointError(Trellis2Error):
    """Weights or configs are missing, incomplete, misshapen or damaged."""


class EmptyStructureError(Trellis2Error):
    """Sampling gave a sparse structure without a single occupied voxel."""


class NumericalError(Trellis2Error):
    """A tensor holds NaN or infinity where finite numbers are needed."""


class BackendError(Trellis2Error):
    """A backend was forced that is not installed or cannot run here."""


class Cancelled(Trellis2Error):  # noqa: N818  (a request, not a fault)
    """The caller's `cancel()` returned true."""
