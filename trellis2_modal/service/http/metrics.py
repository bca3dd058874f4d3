"""Counters in the Prometheus text format, for an operator who turns them on."""

from __future__ import annotations

from collections import Counter, defaultdict

from ...jobs.ports import QueueStats

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0)
METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})
MEDIA_TYPE = "text/plain; version=0.0.4"


class Metrics:
    """Requests by method, route and status, and how long they took."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._counts: Counter[str] = Counter()

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        method = method if method in METHODS else "other"  # a stranger may send any word
        self._requests[method, route, status] += 1
        self._counts[route] += 1
        self._seconds[route] += seconds
        for bound in BUCKETS:
            if seconds <= bound:
                self._buckets[route, bound] += 1

    def render(self, stats: QueueStats) -> str:
        """The whole exposition."""
        lines = _family("trellis2_requests_total", "counter", "Requests by method, route and status.")
        for (method, route, status), count in sorted(self._requests.items()):
            labels = f'method="{method}",route="{route}",status="{status}"'
            lines.append(f"trellis2_requests_total{{{labels}}} {count}")
        lines += _family("trellis2_request_seconds", "histogram", "Seconds until the reply had been sent.")
        for route in sorted(self._counts):
            for bound in BUCKETS:
                bucket = f'route="{route}",le="{bound:g}"'
                lines.append(f"trellis2_request_seconds_bucket{{{bucket}}} {self._buckets[route, bound]}")
            label = f'route="{route}"'
            lines.append(f'trellis2_request_seconds_bucket{{{label},le="+Inf"}} {self._counts[route]}')
            lines.append(f"trellis2_request_seconds_sum{{{label}}} {self._seconds[route]:.6f}")
            lines.append(f"trellis2_request_seconds_count{{{label}}} {self._counts[route]}")
        lines += _family("trellis2_jobs", "gauge", "Jobs in the store by status.")
        counts = {"queued": stats.queued, "running": stats.running, **stats.totals}
        lines += [f'trellis2_jobs{{status="{name}"}} {count}' for name, count in sorted(counts.items())]
        lines += _family("trellis2_queue_limit", "gauge", "Jobs that may wait; more are refused.")
        lines.append(f"trellis2_queue_limit {stats.limit}")
        lines += _family("trellis2_worker_restarts_total", "counter", "Workers that ended unasked.")
        lines.append(f"trellis2_worker_restarts_total {stats.worker_restarts}")
        return "\n".join(lines) + "\n"


def _family(name: str, kind: str, help: str) -> list[str]:
    return [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
