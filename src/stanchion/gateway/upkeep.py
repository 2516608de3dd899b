"""What the parts of a gateway do beside requests: leases, budgets, counts, verdicts, prompts, notices.

One loop for a process. Every turn asks each part that is configured now; a part that fails is counted and
does not keep the others from their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from stanchion.core.clock import Clock
from stanchion.gateway.approval_notices import tell_people
from stanchion.gateway.approvals import ApprovalQueue, Notices
from stanchion.gateway.limits import Limiter
from stanchion.gateway.live import Parts
from stanchion.gateway.rollout import WeightedRollout
from stanchion.gateway.webhook import Webhook

_EVERY_S = 1.0
_PROMPTS_EVERY_S = 2.0
_FEEDBACK_EVERY_S = 5.0


class Upkeep:
    """The turns of one process. `parts` gives what is configured now, so that a reload is followed."""

    def __init__(
        self,
        parts: Callable[[], Parts],
        *,
        clock: Clock,
        every_s: float = _EVERY_S,
        notices: Notices | None = None,
    ) -> None:
        """`notices` is how clients that wait for a person hear of the decision."""
        self._parts = parts
        self._notices = notices
        self._clock = clock
        self._every_s = every_s
        self._next: dict[str, float] = {}
        self._webhook: Webhook | None = None
        self.failures: dict[str, int] = {}

    async def begin(self) -> None:
        """What must be known before the first request: who is slowed."""
        limits = self._parts().limits
        if isinstance(limits, Limiter):
            await self._turn("limits", 0.0, limits.tick)

    async def run(self) -> None:
        """Turns until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(self._every_s)

    async def tick(self) -> None:
        """One turn."""
        parts = self._parts()
        turns: list[tuple[str, float, Callable[[], Awaitable[object]]]] = []
        if parts.blocks is not None:
            turns.append(("blocks", 0.0, partial(asyncio.to_thread, parts.blocks.load)))
        if isinstance(parts.limits, Limiter):
            turns.append(("limits", 0.0, parts.limits.tick))
        if isinstance(parts.rollout, WeightedRollout):
            turns.append(("rollout", parts.rollout.section.every_s, parts.rollout.tick))
        if parts.prompts is not None:
            load = parts.prompts.load
            turns.append(("prompts", _PROMPTS_EVERY_S, lambda: asyncio.to_thread(load)))
        if parts.feedback is not None:
            turns.append(("feedback", _FEEDBACK_EVERY_S, parts.feedback.tick))
        if isinstance(parts.approvals, ApprovalQueue):
            queue = parts.approvals
            if self._notices is not None:
                queue.tell(self._notices)
            turns.append(("approvals", 0.0, lambda: self._approvals(queue)))
        for name, every_s, turn in turns:
            await self._turn(name, every_s, turn)

    async def close(self) -> None:
        """The last turn: budgets go back, counts are written, connections end."""
        parts = self._parts()
        if isinstance(parts.limits, Limiter):
            await parts.limits.close()
        if isinstance(parts.rollout, WeightedRollout):
            await parts.rollout.close()
        if parts.calls is not None:
            await parts.calls.close()
        if self._webhook is not None:
            await self._webhook.close()

    async def _turn(self, name: str, every_s: float, turn: Callable[[], Awaitable[object]]) -> None:
        now = self._clock.monotonic_ns() / 1e9
        if now < self._next.get(name, 0.0):
            return
        self._next[name] = now + every_s
        try:
            await turn()
        except Exception:  # an edge: one part must not stop the others
            self.failures[name] = self.failures.get(name, 0) + 1

    async def _approvals(self, queue: ApprovalQueue) -> None:
        await asyncio.to_thread(queue.expire)
        target = queue.section.webhook
        if target is None:
            return
        if self._webhook is None or self._webhook.target != target:
            if self._webhook is not None:
                await self._webhook.close()
            self._webhook = Webhook(target, clock=self._clock)
        await tell_people(queue, self._webhook)
