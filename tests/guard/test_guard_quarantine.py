"""What the policy quarantines stays out, whether or not a retrieval guard stands before it."""

from __future__ import annotations

import msgspec
import pytest
from guard_fakes import Words, chat, guard, policy, rule

from stanchion.core.codec import digest_text
from stanchion.core.interaction import Document, Message, Role, Text, user
from stanchion.core.origin import Origin
from stanchion.guard.policy_model import DetectorSettings
from stanchion.guard.retrieval_rules import Quarantined, RetrievalRules

RETURNS = "Shoes can be returned within 30 days after delivery. The customer pays for the postage."


@pytest.mark.parametrize(
    "held", [Quarantined(digests=(digest_text(RETURNS),)), Quarantined(sources=("hand*",))]
)
def test_what_the_policy_quarantines_stays_out_without_a_retrieval_guard_too(held: Quarantined) -> None:
    rules = policy(
        rule("redact", category="pii.email"),
        detectors={"pii": DetectorSettings(deadline_ms=10_000)},
        retrieval=RetrievalRules(quarantine=held),
    )
    made_guard = guard(rules, Words())
    document = Document(id="d", text=RETURNS, source="handbook")
    part = Text(text=RETURNS, origin=Origin.RETRIEVED, source="handbook")
    listed = made_guard.prepare(chat(user("hi"), documents=(document,)))
    said = made_guard.prepare(chat(Message(role=Role.USER, parts=(part,))))
    for prepared in (listed, said):
        assert prepared.blocked is not None
        assert "retrieval.quarantine" in {rule_id for one in prepared.decisions for rule_id in one.rule_ids}
    other = msgspec.structs.replace(document, text="Else.", source="wiki")
    assert made_guard.prepare(chat(user("hi"), documents=(other,))).blocked is None
