"""What a provider counts: kept where it can be a count, unknown where it cannot, in every API."""

from __future__ import annotations

import pytest

from stanchion.core.interaction import Usage
from stanchion.models.anthropic_answers import decode_usage as anthropic_usage
from stanchion.models.endpoint import Prices
from stanchion.models.openai_answers import decode_usage as chat_usage
from stanchion.models.wire import MOST_TOKENS

NO_COUNTS = [-1, MOST_TOKENS + 1, 2**63, 10**400]


@pytest.mark.parametrize("wrong", NO_COUNTS)
def test_a_number_that_can_be_no_count_is_not_known(wrong: int) -> None:
    chat = chat_usage(
        {
            "prompt_tokens": wrong,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": wrong},
            "completion_tokens_details": {"reasoning_tokens": wrong},
        }
    )
    assert chat == Usage(output_tokens=3)
    assert anthropic_usage({"input_tokens": 4, "output_tokens": wrong}) == Usage(input_tokens=4)


def test_the_most_that_is_a_count_is_kept() -> None:
    assert chat_usage({"prompt_tokens": MOST_TOKENS}).input_tokens == MOST_TOKENS


def test_more_cached_than_asked_costs_no_less_than_nothing() -> None:
    prices = Prices(input_usd=10.0, output_usd=30.0, cached_input_usd=1.0)
    usage = Usage(input_tokens=10, output_tokens=0, cached_input_tokens=2000)
    assert prices.cost_usd(usage) == pytest.approx(10 * 1.0 / 1e6)
