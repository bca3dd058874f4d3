"""Sends the message of a job's end to the address that the job names, signed for its key."""

from __future__ import annotations

import asyncio
import json
import time

from ...jobs.callbacks import Sent
from ...jobs.job import Attempt, Job
from ...protocol.webhooks import secret_of, signed_headers
from ..auth import KeyRing
from .requests import Limits, Outbound, OutboundError, RefusedAddressError

LIMITS = Limits(seconds=10.0, size=1024)
FIELD = "callback_url"
GONE = 410


class CallbackSender:
    """See `jobs.callbacks.Send`. A key that has ended, or lost the scope, sends nothing any more."""

    def __init__(self, ring: KeyRing, outbound: Outbound) -> None:
        self._ring, self._outbound = ring, outbound

    async def __call__(self, job: Job) -> Sent:
        now = time.time()
        key = await self._ring.find(job.owner)
        if job.callback is None or key is None or "webhook" not in key.scopes:
            return Sent(Attempt(now, None, "the key has ended or lacks the scope webhook"), False, final=True)
        body = message(job, now)
        headers = signed_headers(secret_of(key.digest), job.id, body, now)
        headers |= {"Content-Type": "application/json"}
        try:
            answer = await asyncio.to_thread(
                self._outbound.post, job.callback.url, FIELD, headers, body, LIMITS
            )
        except RefusedAddressError as error:
            return Sent(Attempt(now, None, error.detail), False, final=True)
        except OutboundError as error:
            return Sent(Attempt(now, None, str(error)), False)
        delivered = 200 <= answer.status < 300
        return Sent(Attempt(now, answer.status, ""), delivered, final=answer.status == GONE)


def message(job: Job, now: float) -> bytes:
    """What is sent: `type` is job. and the job's status, `data` the job as GET /jobs/{job_id} shows it."""
    shown = job.view(now, None, None).model_dump(mode="json", exclude={"callback"})
    return json.dumps({"type": f"job.{job.status}", "timestamp": shown["finished"], "data": shown}).encode()
