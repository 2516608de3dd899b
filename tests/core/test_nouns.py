"""The shared nouns: round trips, precedence, identity."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.clock import CountingIds, ManualClock, SortableIds, SystemClock
from stanchion.core.components import ComponentKind, ComponentSet
from stanchion.core.decision import Decision, Effect, Mode, Surface, strictest
from stanchion.core.defect import Defect, DefectSource, Stage
from stanchion.core.errors import (
    DatasetError,
    ExitCode,
    FilesError,
    JudgementError,
    MissingExtraError,
    Problem,
    StanchionError,
    UnknownNameError,
    UsageError,
    did_you_mean,
)
from stanchion.core.finding import Finding, Location, Severity
from stanchion.core.interaction import (
    Interaction,
    Media,
    Message,
    Opaque,
    Reply,
    Role,
    Text,
    ToolCall,
    ToolResult,
    assistant,
    system,
    user,
)
from stanchion.core.origin import Origin
from stanchion.core.session import Change, Session
from stanchion.core.taxonomy import category, check_selector, matches, taxonomy


def test_an_interaction_survives_the_wire() -> None:
    call = ToolCall(id="1", name="refund", arguments={"order": 7})
    whole = Interaction(
        messages=(
            system("be kind"),
            user("hello"),
            assistant("one moment", call),
            Message(role=Role.TOOL, parts=(ToolResult(call_id="1", name="refund", text="done"),)),
            Message(
                role=Role.USER,
                parts=(
                    Media(media_type="image/png", origin=Origin.USER, digest="sha256:0"),
                    Opaque(kind="new", payload={"a": [1]}),
                ),
            ),
        ),
        at=datetime(2026, 1, 1, tzinfo=UTC),
        reply=Reply(message=assistant("done"), decisions=(decision(Effect.ALLOW),)),
    )
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Interaction) == whole
    assert whole.messages[2].tool_calls == (call,)
    assert whole.messages[2].text == "one moment"


def decision(effect: Effect, mode: Mode = Mode.ENFORCE) -> Decision:
    return Decision(effect=effect, surface=Surface.INPUT, mode=mode)


def test_the_strictest_effect_holds() -> None:
    order = ["allow", "redact", "transform", "replace", "route", "require_approval", "block"]
    assert [e.value for e in sorted(Effect, key=lambda e: e.rank)] == order
    assert strictest(Effect.REDACT, Effect.BLOCK, Effect.ALLOW) is Effect.BLOCK
    assert strictest() is Effect.ALLOW


def test_shadow_records_and_does_not_act() -> None:
    assert decision(Effect.BLOCK, Mode.SHADOW).enforced_effect is Effect.ALLOW
    assert decision(Effect.BLOCK).enforced_effect is Effect.BLOCK


def test_origins_that_third_parties_write_are_untrusted() -> None:
    trusted = {origin for origin in Origin if not origin.is_untrusted}
    assert trusted == {Origin.SYSTEM, Origin.USER, Origin.MODEL}


def test_a_component_set_is_its_digests() -> None:
    before = ComponentSet(model="sha256:1", prompt="sha256:2")
    after = before.merged(ComponentSet(prompt="sha256:3"))
    assert after == ComponentSet(model="sha256:1", prompt="sha256:3")
    assert Change(before=before, after=after).kinds == (ComponentKind.PROMPT,)
    assert Change(before=before, after=before).is_empty
    assert before.digest != after.digest
    assert {kind.value for kind in ComponentKind} == set(ComponentSet.__struct_fields__)


def test_a_fixed_defect_stays_open_until_someone_verified_it() -> None:
    defect = Defect(
        id="d1",
        title="leak",
        source=DefectSource.MONITOR,
        first_seen=Stage.PRODUCTION,
        severity=Severity.HIGH,
        owner="ana",
        confirmed_at=datetime(2026, 1, 1, tzinfo=UTC),
        fixed_by="sha256:1",
    )
    assert defect.is_open
    assert defect.escaped
    assert not msgspec.structs.replace(defect, verified_by="bo").is_open


def test_a_session_is_a_value() -> None:
    first = Session(id="s", started_at=datetime(2026, 1, 1, tzinfo=UTC))
    second = first.with_state("taint", b"1").next_turn()
    assert (first.turns, first.state) == (0, {})
    assert (second.turns, second.state) == (1, {"taint": b"1"})


def test_locations_overlap_by_characters_of_one_field() -> None:
    here = Location(start=0, end=5, field="a")
    assert here.overlaps(Location(start=4, end=9, field="a"))
    assert not here.overlaps(Location(start=5, end=9, field="a"))
    assert not here.overlaps(Location(start=0, end=5, field="b"))


def test_severity_has_an_order() -> None:
    assert all(low.rank < high.rank for low, high in pairwise(Severity))


def test_every_category_is_named_once_and_knows_its_family() -> None:
    assert len(taxonomy()) >= 50
    assert category("pii.email").family == "pii"
    with pytest.raises(UnknownNameError, match=r"rule\.yaml:3: unknown category 'pij\.email'.*'pii\.email'"):
        category("pij.email", where="rule.yaml:3")


@pytest.mark.parametrize(
    ("selector", "category_id", "expected"),
    [
        ("*", "pii.email", True),
        ("pii", "pii.email", True),
        ("pii.*", "pii.email", True),
        ("pii.email", "pii.email", True),
        ("pii.e", "pii.email", False),
        ("secret", "pii.email", False),
    ],
)
def test_selectors_cover_whole_segments(selector: str, category_id: str, expected: bool) -> None:
    assert matches(selector, category_id) is expected


def test_a_selector_that_covers_nothing_is_an_error() -> None:
    check_selector("secret.*")
    with pytest.raises(UnknownNameError, match="unknown category 'secrets'"):
        check_selector("secrets")


def test_exit_codes_follow_the_tree() -> None:
    assert StanchionError("x").exit_code is ExitCode.NOT_JUDGED
    assert UsageError("x").exit_code is ExitCode.USAGE
    assert JudgementError("x").exit_code is ExitCode.NOT_JUDGED
    assert str(UsageError("what and why.", hint="do this")) == "what and why. do this"
    assert str(MissingExtraError("Charts", "report")).endswith("pip install 'stanchion[report]'")


def test_all_problems_are_told_with_their_place() -> None:
    problems = [
        Problem(
            file="a.yaml",
            line=3,
            column=5,
            rule="key",
            message="unknown key 'modle'.",
            hint="Did you mean 'model'?",
        ),
        Problem(file="b.yaml", rule="read", message="no such file."),
    ]
    text = str(FilesError(problems))
    assert text.splitlines() == [
        "2 problems found",
        "  a.yaml:3:5: unknown key 'modle'. Did you mean 'model'?",
        "  b.yaml: no such file.",
    ]
    assert str(DatasetError("rows.jsonl", 7, "not JSON")) == "rows.jsonl:7: not JSON"


def test_near_names_come_before_the_list() -> None:
    assert did_you_mean("emial", ["email", "phone"]) == "Did you mean 'email'?"
    assert did_you_mean("zzz", ["email", "phone"]) == "Allowed: email, phone."
    assert did_you_mean("zzz", []) == "Nothing is allowed here."
    assert did_you_mean("zzz", [f"n{i}" for i in range(20)]).endswith("and 8 more.")


def test_clocks_and_ids() -> None:
    clock = ManualClock()
    ids = SortableIds(clock)
    first = ids.new("run")
    clock.advance(1.5)
    assert clock.monotonic_ns() == 1_500_000_000
    assert ids.new("run") > first
    assert len(first) == len("run_") + 26
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
    counting = CountingIds()
    assert [counting.new("run"), counting.new("run"), counting.new("case")] == ["run_1", "run_2", "case_1"]
    assert SystemClock().now().tzinfo is UTC
    assert SystemClock().monotonic_ns() <= SystemClock().monotonic_ns()


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=20))
@settings(deadline=None, max_examples=30)
def test_ids_sort_by_time(steps_ms: list[int]) -> None:
    clock = ManualClock()
    ids = SortableIds(clock)
    made = []
    for step in steps_ms:
        clock.advance(step / 1000 + 0.001)
        made.append(ids.new("x"))
    assert made == sorted(made)


def test_a_finding_never_holds_text() -> None:
    assert not {"text", "match", "value", "snippet"} & set(Finding.__struct_fields__)
    assert Text(text="a", origin=Origin.USER).source is None
