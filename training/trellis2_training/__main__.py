"""Entry point of `python -m trellis2_training`."""

import sys

from .cli import main

# Worker processes of the table bank import this module under another name and must not run the command again.
if __name__ == "__main__":
    sys.exit(main())
