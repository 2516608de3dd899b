"""`POST /v1/feedback`: a reference and what was wrong; the desk joins it with the decision."""

from __future__ import annotations

from typing import Any

from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import Interaction
from stanchion.gateway.answering import head
from stanchion.gateway.check_api import OwnApi
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.http_io import Answer
from stanchion.gateway.ports import Outcome, Refused, Stage
from stanchion.models.surface import SurfaceCodec, encode_json
from stanchion.models.wire import Request, as_object


class FeedbackApi(OwnApi):
    """`POST /v1/feedback`."""

    name = "feedback"

    def decode_request(self, body: Any) -> Request:
        """The report, which the desk reads itself."""
        return Request(interaction=Interaction(messages=()), extras={"read": as_object(body, "body")})


async def answer_feedback(exchange: Exchange, codec: SurfaceCodec, answer: Answer) -> None:
    """Hand the report to the desk."""
    desk = exchange.live.parts.feedback
    if desk is None:
        raise Refused(
            Outcome.INVALID, status=404, code="no_feedback", message="this gateway takes no feedback."
        )
    try:
        receipt = await desk.take(exchange.facts, encode_json(exchange.asked.extras["read"]))
    except UnavailableError:
        raise Refused(
            Outcome.INTERNAL_ERROR,
            status=503,
            code="feedback_not_written",
            message="the report could not be written.",
            hint="Try again later.",
            retry_after_s=5.0,
        ) from None
    exchange.outcome, exchange.stage, exchange.status = Outcome.ALLOWED, Stage.DONE, 202
    await answer.whole(202, head(exchange, is_stream=False), encode_json(receipt))
