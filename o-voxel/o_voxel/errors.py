"""Every error that `o_voxel` raises on purpose.

OVoxelError
├── MeshError (ValueError)       a mesh that cannot be used: empty, not finite, indices out of range
├── ArgumentError (ValueError)   a parameter outside what the call accepts
├── FormatError (ValueError)     a file that is not what it claims to be
└── BackendError                 a forced backend that is not installed or cannot run here
"""

from __future__ import annotations


class OVoxelError(Exception):
    """Base of all errors of this package."""


class MeshError(OVoxelError, ValueError):
    """The mesh cannot be used: empty, not finite, or with indices out of range."""


class ArgumentError(OVoxelError, ValueError):
    """A parameter is outside what the call accepts."""


class FormatError(OVoxelError, ValueError):
    """A file is not what it claims to be."""


class BackendError(OVoxelError):
    """A backend was forced that is not installed or cannot run here."""
