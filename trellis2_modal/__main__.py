"""`python -m trellis2_modal` is the command `trellis2-modal`."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
