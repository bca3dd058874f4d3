"""The key list on a Modal Volume, read and written through Modal's API, never through a mount.

A mounted volume shows what it held when the container started, and looks empty while it is reloaded; the API
always gives what was committed.
"""

from __future__ import annotations

import io
from typing import Any

import modal
from modal import exception as modal_errors

from ..auth import KeyAdmin
from ..config import DeploySettings

KEYS_FILE = "keys.json"
CREATE_COMMAND = "trellis2-modal keys --modal create NAME"


class KeysUnreachableError(OSError):
    """The key list cannot be read or written; the text says what to do."""


class VolumeKeys:
    """`keys.json` on a volume; writing replaces the whole file, so let one person at a time change keys."""

    def __init__(self, volume: Any, name: str) -> None:
        self._volume = volume
        self._name = name

    def read(self) -> bytes:
        """Raises FileNotFoundError when no key was ever made, `KeysUnreachableError` otherwise."""
        try:
            data = b"".join(self._volume.read_file(KEYS_FILE))
        except (FileNotFoundError, modal_errors.NotFoundError) as error:
            raise FileNotFoundError(
                f"there is no {KEYS_FILE} on the volume {self._name}; run: {CREATE_COMMAND}"
            ) from error
        except (modal_errors.Error, OSError) as error:
            raise _unreachable(self._name, error) from error
        if not data.strip():
            raise KeysUnreachableError(
                f"{KEYS_FILE} on the volume {self._name} is empty; "
                f"run: modal volume rm {self._name} {KEYS_FILE} && {CREATE_COMMAND}"
            )
        return data

    def write(self, data: bytes) -> None:
        """Replace the file. Raises `KeysUnreachableError`."""
        try:
            with self._volume.batch_upload(force=True) as batch:
                batch.put_file(io.BytesIO(data), f"/{KEYS_FILE}")
        except (modal_errors.Error, OSError) as error:
            raise _unreachable(self._name, error) from error


def open_keys(settings: DeploySettings) -> VolumeKeys:
    """The key list of a deployment; nothing is asked of Modal before it is read."""
    volume = modal.Volume.from_name(settings.data_volume, create_if_missing=True)
    return VolumeKeys(volume, settings.data_volume)


def modal_admin() -> KeyAdmin:
    """The keys of the deployment that the environment's settings name."""
    return KeyAdmin(open_keys(DeploySettings.from_env()))


def _unreachable(name: str, error: Exception) -> KeysUnreachableError:
    advice = "run: modal setup" if isinstance(error, modal_errors.AuthError) else "try again"
    return KeysUnreachableError(
        f"the volume {name} cannot be reached ({type(error).__name__}: {error}); {advice}"
    )
