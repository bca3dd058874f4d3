"""The stages of a job in a person's words, and how long they will still take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..protocol.replies import JobEvent
from ..protocol.stages import STAGES

PHASES: dict[str, tuple[str, ...]] = {
    "Picture": ("image", "condition", "encode_shape"),
    "Structure": ("sparse_structure",),
    "Shape": ("shape", "shape_fine"),
    "Texture": ("texture",),
    "Mesh": ("decode_shape", "decode_texture", "mesh", "state"),
    "Preview": ("preview", "stills"),
}
"""A generation at a glance: a few words, and the stages behind each."""

EXPORT_PHASES: dict[str, tuple[str, ...]] = {
    "Surface": ("fill holes", "rebuild", "search tree"),
    "Budget": ("simplify",),
    "Texture": ("unwrap", "bake", "gutters"),
    "File": ("material",),
}
"""The same for an export."""

EXPORT_STAGES = ("fill holes", "rebuild", "search tree", "simplify", "unwrap", "bake", "gutters", "material")
"""These report which of the export's steps begins, not how far it is."""


def stage_title(stage: str) -> str:
    """A stage in a person's words; unknown ones are shown as they are named."""
    return STAGES.get(stage) or stage.replace("_", " ").capitalize()


def phases_of(tracker: Tracker) -> list[tuple[str, str]]:
    """Each phase with done, now or next; empty while nothing runs."""
    if not tracker.stage:
        return []
    table = PHASES if any(tracker.stage in stages for stages in PHASES.values()) else EXPORT_PHASES
    if table is PHASES and tracker.stage == "state" and not tracker.seconds:
        table = EXPORT_PHASES  # an export begins by unpacking the state
    current = next((i for i, stages in enumerate(table.values()) if tracker.stage in stages), 0)
    states = ["done" if i < current else "now" if i == current else "next" for i in range(len(table))]
    return list(zip(table, states, strict=True))


@dataclass
class Tracker:
    """Follows the events of one job: stage, step, time spent, time left.

    `expected` holds seconds by stage of an earlier job of the same kind; without it only the running stage
    can be extrapolated, and the time left is unknown.
    """

    expected: Mapping[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    state: str = "sending"
    stage: str = ""
    step: int = 0
    steps: int = 0
    message: str = ""
    position: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent by stage, the running one not included."""

    def __post_init__(self) -> None:
        self.began = self.clock()
        self._stage_began = self.began

    def feed(self, event: JobEvent) -> None:
        """Take an event in."""
        if event.type == "progress":
            self._progress(event)
            return
        self.state = {"result": "finished", "started": "running", "restarted": "queued"}.get(
            event.type, event.type
        )
        if event.type == "queued":
            ahead = event.data.get("position")
            self.position = ahead if isinstance(ahead, int) else None
        elif event.type in ("started", "restarted"):
            self._close_stage()
            self.stage, self.step, self.steps = "", 0, 0
            self.message = str(event.data.get("reason") or "") if event.type == "restarted" else ""
        else:
            self._close_stage()

    def _progress(self, event: JobEvent) -> None:
        self.state = "running"
        stage = str(event.data.get("stage", ""))
        if stage != self.stage:
            self._close_stage()
            self.stage = stage
        self.step = _whole(event.data.get("step"))
        self.steps = _whole(event.data.get("steps"))
        self.message = str(event.data.get("message") or "")

    def _close_stage(self) -> None:
        now = self.clock()
        if self.stage:
            self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self._stage_began
        self._stage_began = now

    @property
    def elapsed(self) -> float:
        return self.clock() - self.began

    @property
    def fraction(self) -> float:
        """Part of the running stage that is done."""
        if not self.steps or self.stage in EXPORT_STAGES:
            return 0.0
        return min(1.0, self.step / self.steps)

    def left(self) -> float | None:
        """Seconds that the job will probably still take; None when nothing is known."""
        if self.state != "running" or not self.expected or not self.stage:
            return None
        spent = self.clock() - self._stage_began
        whole = self.expected.get(self.stage, 0.0)
        if self.fraction > 0.2:
            whole = spent / self.fraction
        names = list(self.expected)
        later = names[names.index(self.stage) + 1 :] if self.stage in names else names
        ahead = sum(self.expected[name] for name in later if name not in self.seconds)
        return max(0.0, whole - spent) + ahead

    def overall(self) -> float:
        """Part of the whole job that is done, as far as it can be told; never quite 1 before the end."""
        if self.state == "finished":
            return 1.0
        left = self.left()
        spent = sum(self.seconds.values()) + (self.clock() - self._stage_began if self.stage else 0.0)
        if left is not None and spent + left > 0:
            return min(0.99, spent / (spent + left))
        if self.stage in EXPORT_STAGES and self.steps:
            return min(0.99, self.step / self.steps)
        known = [name for name in STAGES if name in self.seconds or name == self.stage]
        order = list(STAGES)
        if not known:
            return 0.0
        return min(0.99, (order.index(known[-1]) + self.fraction) / len(order))


def _whole(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


def duration(seconds: float) -> str:
    """Seconds as a person says them: 8 s, 1 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def size_text(size: float) -> str:
    """Bytes as a person says them."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
