import asyncio

from flow_fixtures import facts

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.core.decision import Decision, Effect, Surface
from stanchion.gateway.approvals import ApprovalQueue, ApprovalsSection
from stanchion.gateway.limits import make_limits
from stanchion.gateway.limits_file import LimitsSection, PenaltySection
from stanchion.gateway.live import Parts
from stanchion.gateway.penalties import BlockList
from stanchion.gateway.prompts_registry import PromptsSection, PromptStore, make_prompts
from stanchion.gateway.upkeep import Upkeep
from stanchion.store.database import open_database


def test_each_part_has_its_turn_and_one_that_fails_stops_no_other(tmp_path):
    clock = ManualClock()

    async def play() -> None:
        with open_database(tmp_path / "r.db") as database:
            store = PromptStore(database, clock=clock)
            prompts = make_prompts(PromptsSection(), store)
            blocks = BlockList(database, clock=clock)
            limits = make_limits(
                LimitsSection(penalties=PenaltySection()), clock=clock, ids=CountingIds(), blocks=blocks
            )
            queue = ApprovalQueue(ApprovalsSection(timeout_s=5.0), database, clock=clock, ids=CountingIds())
            decision = Decision(effect=Effect.REQUIRE_APPROVAL, surface=Surface.TOOL_CALL)
            parked = await queue.park(facts(), kind="answer", subject={"text": "x"}, decision=decision)

            class Broken(BlockList):
                def load(self) -> None:
                    raise RuntimeError("broken")

            parts = [
                Parts(limits=limits, blocks=each, prompts=prompts, approvals=queue)
                for each in (Broken(database, clock=clock), blocks)
            ]
            upkeep = Upkeep(lambda: parts[0], clock=clock)
            store.add("support", "text", by="ann", label="prod")
            BlockList(database, clock=clock).block("key:k1", seconds=60, reason="x", by="ann")
            clock.advance(6)
            await upkeep.tick()
            assert upkeep.failures == {"blocks": 1}
            assert prompts.resolve("support@prod").text == "text"
            assert queue.get(parked.ticket).status == "expired"
            del parts[0]
            await upkeep.tick()
            assert blocks.find("key:k1") is not None
            await upkeep.close()

    asyncio.run(play())
