"""What tests of limits, rollouts and approvals share."""

from stanchion.gateway.ports import ApiSurface, RequestFacts


def facts(**changes) -> RequestFacts:
    given = {"id": "r", "surface": ApiSurface.OPENAI_CHAT, "key_id": "k1", "feature": "support", "model": "m"}
    return RequestFacts(**{**given, **changes})


def process_of_limits(url: str, results, number: int) -> None:
    """One worker that asks until it is refused; for two processes that share counts in Redis."""
    import asyncio

    from stanchion.core.clock import CountingIds, SystemClock
    from stanchion.gateway.limits import make_limits
    from stanchion.gateway.limits_file import LimitsSection
    from stanchion.gateway.ports import Refused

    class Ids(CountingIds):
        def new(self, kind: str) -> str:
            return f"{number}_{super().new(kind)}"

    async def ask() -> tuple[int, int]:
        text = f'{{"storage": "redis", "redis_url": "{url}", "timeout_ms": 5000, "on_failure": "closed",' + (
            '"rules": [{"id": "r", "requests": 100, "every": "24h"}, {"id": "c", "concurrency": 60}]}'
        )
        limits = make_limits(
            LimitsSection.model_validate_json(text, strict=True), clock=SystemClock(), ids=Ids()
        )
        taken, refused = 0, 0
        for _ in range(80):
            try:
                held = await limits.reserve(facts(), input_tokens=1, max_output_tokens=1)
            except Refused:
                refused += 1
            else:
                taken += 1
                if taken % 2:
                    from stanchion.core.interaction import Usage

                    await held.settle(Usage())
        await limits.close()
        return taken, refused

    results.put(asyncio.run(ask()))
