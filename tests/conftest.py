"""Set before anything imports torch, for this process and those that tests start."""

from __future__ import annotations

import os

# torch's threads yield while they wait: on shared cores spinning costs a hundredfold (benchmarks/NOTES.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
