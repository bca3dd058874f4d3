"""`python -m trellis2_modal.cli.parent_guard ARGS` runs `trellis2-modal ARGS` until stdin closes.

Whoever started it holds the other end of stdin: when that process ends, however it ends, the server ends too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> None:
    def wait_for_the_end() -> None:
        while sys.stdin.buffer.read(1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_the_end, name="parent guard", daemon=True).start()
    from . import main as command

    command(sys.argv[1:])


if __name__ == "__main__":
    main()
