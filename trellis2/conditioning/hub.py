"""Loading through transformers: quietly, and of model code written for older versions of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Switch transformers' bars off, and back on afterwards where they were on."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def without_post_init() -> Iterator[None]:
    """Let model code load that never calls `post_init()`.

    transformers 4 did not need the call, and remote code of that time (RMBG-2.0 and its kind) leaves it out;
    transformers 5 reads what it sets. While loading, the class has the value that the call would give a model
    without tied weights.
    """
    from transformers import PreTrainedModel

    name = "all_tied_weights_keys"
    if hasattr(PreTrainedModel, name):
        yield
        return
    setattr(PreTrainedModel, name, {})
    try:
        yield
    finally:
        delattr(PreTrainedModel, name)
