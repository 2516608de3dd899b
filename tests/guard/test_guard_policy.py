from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from guard_fakes import finding, rule
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.clock import ManualClock
from stanchion.core.decision import Effect, Mode, OnFailure, Surface
from stanchion.core.errors import FilesError, UsageError
from stanchion.core.finding import Severity
from stanchion.core.origin import Origin
from stanchion.core.taxonomy import taxonomy
from stanchion.guard.media_rules import MediaHandling
from stanchion.guard.policy import load_policy, packaged_policies, packaged_policy, read_policy
from stanchion.guard.rules import FoundIn, RuleTable, Selector

KNOWN = (
    "secrets", "pii", "injection.patterns", "injection.linear", "leakage", "obfuscation", "refusal", "custom",
    "content",
)  # fmt: skip
MINIMAL = "version: 1\ndetectors: {pii: {}}\n"


def write(folder: Path, text: str, name: str = "policy.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(FilesError) as caught:
        load_policy(write(folder, text), detectors=KNOWN)
    return [problem.render().removeprefix(f"{folder}/") for problem in caught.value.problems]


@pytest.mark.parametrize("name", packaged_policies())
def test_packaged_policies_load_and_their_digests_do_not_change_between_loads(name: str) -> None:
    policy = packaged_policy(name, detectors=KNOWN)

    assert policy.name == name
    assert policy.digest == packaged_policy(name).digest
    assert all(rule.id for rule in policy.rules)


def test_the_packaged_policies_are_there_and_differ() -> None:
    assert {"baseline", "default", "observe", "strict"} <= set(packaged_policies())
    assert len({packaged_policy(name).digest for name in packaged_policies()}) == len(packaged_policies())
    assert packaged_policy("observe").mode is Mode.SHADOW
    assert packaged_policy("strict").mode is Mode.ENFORCE


def test_an_unknown_packaged_policy_names_the_near_ones() -> None:
    with pytest.raises(UsageError, match="Did you mean 'strict'"):
        packaged_policy("stric")


def test_every_error_of_a_file_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    text = """version: 1
detectors:
  pij: {}
  pii: {threshold: 1.5, fail: degrade}
rules:
- id: a
  when: {category: pij.email, surface: inptu}
  effect: redact
- id: a
  effect: bloc
modee: enforce
"""
    unknown, *structural = problems(tmp_path, text)
    assert unknown.startswith("policy.yaml:3:3: unknown detector 'pij'")
    assert len(structural) == 5
    assert structural[0].startswith("policy.yaml:4:20: detectors.pii.threshold: must be at most 1")
    assert structural[1].startswith("policy.yaml:7:20: rules[0].when.category")
    assert "pii.email" in structural[1]
    assert "'inptu'" in structural[2]
    assert "'input'" in structural[2]
    assert structural[3].startswith("policy.yaml:10:11")
    assert "block" in structural[3]
    assert structural[4].startswith("policy.yaml:11:1")
    assert "'mode'" in structural[4]

    semantic = problems(
        tmp_path,
        text.replace("1.5", "0.5")
        .replace("pij.email", "pii.email")
        .replace("inptu", "input")
        .replace("bloc\n", "block\n")
        .replace("modee: enforce\n", ""),
    )
    assert [line.split(": ", 1)[0] for line in semantic] == [
        "policy.yaml:3:3",
        "policy.yaml:4:31",
        "policy.yaml:9:7",
    ]
    assert "Did you mean 'pii'" in semantic[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 1\n", "no detector is enabled"),
        ("version: 2\ndetectors: {pii: {}}\n", "version"),
        ("version: 1\nextends: [defualt]\n", "Did you mean 'default'"),
        ("version: 1\nextends: [missing.yaml]\n", "no such file"),
        ("version: 1\nextends: [/etc/passwd.yaml]\n", "absolute"),
        (MINIMAL + "rules:\n- {id: a, effect: block, redact: mask}\n", "Write 'effect: redact'"),
        (MINIMAL + "rules:\n- {id: a, effect: block, when: {detector: pi}}\n", "not part of this policy"),
        (MINIMAL + "rules:\n- {id: a, effect: transform}\n", "effect"),
        (MINIMAL + "tools: {named: {t: {arguments: {a: {pattern: '('}}}}}\n", "RE2"),
        (MINIMAL + "tools: {named: {t: {arguments: {a: {minimum: 3, maximum: 2}}}}}\n", "above maximum"),
        (MINIMAL + "safe_completions: {messages: {pii: 'a {refernce}'}}\n", "refernce"),
        (MINIMAL + "safe_completions: {messages: {pii: 'a {'}}\n", "brace"),
        (MINIMAL + "safe_completions: {language: xx}\n", "'xx'"),
        (MINIMAL + "safe_completions: {messages: {aproval: a}}\n", "aproval"),
        (MINIMAL + "rules:\n- {id: a, effect: block, message: 'b {who}'}\n", "who"),
        ("version: 1\ndetectors: {pii: {fail: degrade, stand_in: pii}}\n", "stand in"),
    ],
)
def test_bad_policies_are_refused_with_a_reason(tmp_path: Path, text: str, expected: str) -> None:
    assert any(expected in line for line in problems(tmp_path, text))


def test_a_missing_policy_is_an_error_and_never_an_empty_policy(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="no such file"):
        load_policy(tmp_path / "policy.yaml")


def test_a_cycle_of_extends_is_named(tmp_path: Path) -> None:
    write(tmp_path, "version: 1\nextends: [b.yaml]\n", "a.yaml")
    write(tmp_path, "version: 1\nextends: [a.yaml]\n", "b.yaml")

    with pytest.raises(FilesError, match=r"a\.yaml -> b\.yaml -> a\.yaml"):
        load_policy(tmp_path / "a.yaml")


def test_digest_ignores_order_comments_and_name_and_follows_every_setting(tmp_path: Path) -> None:
    first = load_policy(
        write(tmp_path, "version: 1\nname: a\ndetectors: {pii: {threshold: 0.4, fail: open}}\n")
    )
    second = load_policy(
        write(
            tmp_path,
            "# other\ndetectors:\n  pii: {fail: open, threshold: 0.4}\nname: b\nversion: 1\n",
            "b.yaml",
        )
    )
    third = load_policy(
        write(tmp_path, "version: 1\ndetectors: {pii: {threshold: 0.41, fail: open}}\n", "c.yaml")
    )

    assert first.digest == second.digest
    assert first.digest != third.digest


def test_a_child_keeps_what_it_does_not_say(tmp_path: Path) -> None:
    policy = load_policy(
        write(tmp_path, "version: 1\nextends: default\ndetectors: {pii: {threshold: 0.3}}\ncapture: none\n")
    )
    default = packaged_policy("default")

    assert policy.detectors["pii"].threshold == 0.3
    assert policy.detectors["pii"].deadline_ms == default.detectors["pii"].deadline_ms
    assert policy.rules == default.rules
    assert policy.loosenings == ()
    assert [source.file.rpartition("/")[2] for source in policy.sources] == [
        "baseline.yaml",
        "default.yaml",
        "policy.yaml",
    ]


LOOSER = [
    ("mode: shadow", "mode"),
    ("detectors: {pii: {threshold: 0.6}}", "detectors.pii.threshold"),
    ("detectors: {pii: {thresholds: {pii.card: 0.6}}}", "detectors.pii.thresholds.pii.card"),
    ("detectors: {pii: {enabled: false}}", "detectors.pii.enabled"),
    ("detectors: {pii: {fail: open}}", "detectors.pii.fail"),
    ("detectors: {pii: {options: {countries: [DE]}}}", "detectors.pii.options"),
    ("detectors: {secrets: {surfaces: [input]}}", "detectors.secrets.surfaces"),
    ("rules: [{id: secrets, when: {category: secret.*}, effect: allow}]", "rules.secrets.effect"),
    (
        "rules: [{id: secrets, when: {category: secret.*}, effect: redact, mode: shadow}]",
        "rules.secrets.mode",
    ),
    ("rules: [{id: secrets, when: {category: secret.cloud}, effect: block}]", "rules.secrets.when.category"),
    (
        "rules: [{id: secrets, when: {category: secret, surface: input}, effect: block}]",
        "rules.secrets.when.surface",
    ),
    (
        "rules: [{id: secrets, when: {category: secret, min_score: 0.9}, effect: block}]",
        "rules.secrets.when.min_score",
    ),
    (
        "rules: [{id: secrets, when: {category: secret, min_severity: critical}, effect: block}]",
        "rules.secrets.when.min_severity",
    ),
    (
        "rules: [{id: secrets, when: {category: secret}, unless: {text: 'x*'}, effect: block}]",
        "rules.secrets.unless",
    ),
    ("limits: {text_characters: 200001}", "limits.text_characters"),
    ("media: allow", "media"),
    ("media: {image: allow}", "media.image"),
    ("media: {remote: true}", "media.remote"),
    ("retrieval: {max_documents: 51}", "retrieval.max_documents"),
    ("retrieval: {citations: record}", "retrieval.citations"),
    ("detectors: {secrets: {mode: shadow}}", "detectors.secrets.mode"),
    ("opaque: allow", "opaque"),
    ("capture: redacted", "capture"),
    ("redaction: {operator: mask}", "redaction.operator"),
    ("redaction: {mask_keep_last: 4}", "redaction.mask_keep_last"),
    ("redaction: {vault_ttl_s: 86400}", "redaction.vault_ttl_s"),
    (
        "rules: [{id: secrets, when: {category: secret.*}, effect: redact, redact: mask}]",
        "rules.secrets.redact",
    ),
    (
        "rules: [{id: identifiers-out, when: {category: pii.*, surface: [output, reasoning], "
        "min_severity: high}, effect: redact, redact: vault}]",
        "rules.identifiers-out.redact",
    ),
    ("detectors: {injection.linear: {stand_in: secrets}}", "detectors.injection.linear.stand_in"),
]


@pytest.mark.parametrize(("text", "path"), LOOSER)
def test_a_looser_setting_is_refused_and_a_waiver_permits_exactly_it(
    tmp_path: Path, text: str, path: str
) -> None:
    body = f"version: 1\nextends: [default]\n{text}\n"
    found = problems(tmp_path, body)
    assert len(found) == 1
    assert f"{path} is looser than in 'default'" in found[0]
    assert found[0].startswith("policy.yaml:3:")

    waiver = f"""waivers:
- {{id: W-1, covers: {path}, reason: tried out, approved_by: A. Person, expires: "2099-01-01"}}
"""
    policy = load_policy(write(tmp_path, body + waiver), detectors=KNOWN)
    assert [(loosening.name, loosening.waiver) for loosening in policy.loosenings] == [(path, "W-1")]


def test_tools_may_only_become_tighter(tmp_path: Path) -> None:
    write(
        tmp_path,
        MINIMAL
        + """tools:
  default: block
  named:
    refund:
      arguments: {amount: {maximum: 50, required: true}}
      calls_per_session: 1
      only_named_arguments: true
    find: {effect: require_approval}
""",
        "base.yaml",
    )
    child = """version: 1
extends: base.yaml
tools:
  default: allow
  named:
    refund: {arguments: {amount: {maximum: 80}}, calls_per_session: 2}
    find: {effect: allow}
"""
    found = problems(tmp_path, child)
    names = {line.split(" is looser")[0].rpartition(" ")[2] for line in found}
    assert names == {
        "tools.default",
        "tools.named.refund.arguments.amount.maximum",
        "tools.named.refund.arguments.amount.required",
        "tools.named.refund.calls_per_session",
        "tools.named.refund.only_named_arguments",
        "tools.named.find.effect",
    }


def test_an_expired_waiver_covers_nothing(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """version: 1
extends: [default]
media: allow
waivers: [{id: W-1, covers: media, reason: r, approved_by: p, expires: "2026-06-30"}]
""",
    )
    before = ManualClock(datetime(2026, 6, 30, tzinfo=UTC))
    after = ManualClock(datetime(2026, 7, 1, tzinfo=UTC))

    assert load_policy(path, clock=before).media.image is MediaHandling.ALLOW
    with pytest.raises(FilesError, match="'W-1' expired on 2026-06-30"):
        load_policy(path, clock=after)


def test_a_waiver_that_covers_nothing_is_a_warning(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """version: 1
extends: [default]
waivers: [{id: W-1, covers: media, reason: r, approved_by: p, expires: "2099-06-30"}]
""",
    )
    read = read_policy(path)

    assert [problem.rule for problem in read.warnings] == ["unused-waiver"]
    assert read.warnings[0].severity == "warning"


def test_a_looser_parent_after_a_tighter_one_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL + "media: block\n", "tight.yaml")
    write(tmp_path, MINIMAL + "media: allow\n", "loose.yaml")

    assert any(
        "media is looser than in 'tight.yaml'" in line
        for line in problems(tmp_path, "version: 1\nextends: [tight.yaml, loose.yaml]\n")
    )


def test_the_redaction_key_comes_from_the_environment_mapping_and_stays_out_of_policy_and_repr(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, MINIMAL + "redaction: {key: '${env:REDACTION_KEY}'}\n")

    read = read_policy(path, env={"REDACTION_KEY": "hunter-two-hunter"})

    assert read.key is not None
    assert read.key.reveal() == "hunter-two-hunter"
    assert "hunter" not in repr(read)
    other = read_policy(path, env={"REDACTION_KEY": "another"})
    assert other.policy.digest == read.policy.digest


@pytest.mark.parametrize("effect", list(Effect))
def test_of_several_rules_the_strictest_holds(effect: Effect) -> None:
    table = RuleTable(
        [rule("allow", id="a"), rule(effect, id="b"), rule("redact", id="c")], threshold=lambda *_: 0.0
    )
    ruling = table.judge([FoundIn(finding=finding(), surface=Surface.INPUT, origin=Origin.USER)])

    assert ruling.effect is max(effect, Effect.REDACT, key=lambda e: e.rank)
    assert set(ruling.rule_ids) == {"a", "b", "c"}


def test_rules_in_shadow_mode_are_recorded_and_take_no_part() -> None:
    table = RuleTable(
        [rule("redact", id="on"), rule("block", id="trial", mode=Mode.SHADOW)], threshold=lambda *_: 0.0
    )
    ruling = table.judge([FoundIn(finding=finding(), surface=Surface.INPUT, origin=Origin.USER)])

    assert ruling.effect is Effect.REDACT
    assert ruling.rule_ids == ("on",)
    assert (ruling.shadow_effect, ruling.shadow_rule_ids) == (Effect.BLOCK, ("trial",))


@settings(deadline=None, max_examples=200)
@given(
    category=st.sampled_from(sorted(taxonomy())),
    selector=st.sampled_from(["*", "pii", "pii.*", "pii.email", "secret.*", "content"]),
    score=st.floats(0, 1),
    threshold=st.floats(0, 1),
    minimum=st.floats(0, 1),
    surface=st.sampled_from(list(Surface)),
    origin=st.sampled_from(list(Origin)),
    severity=st.sampled_from(list(Severity)),
)
def test_the_indexed_table_agrees_with_reading_the_rule(
    category: str,
    selector: str,
    score: float,
    threshold: float,
    minimum: float,
    surface: Surface,
    origin: Origin,
    severity: Severity,
) -> None:
    one = rule(
        "block",
        selector,
        surfaces=(Surface.INPUT, Surface.OUTPUT),
        origins=(Origin.USER, Origin.MODEL),
        min_score=minimum,
        min_severity=Severity.LOW,
    )
    found = finding(category=category, score=score)
    found = type(found)(**{**{n: getattr(found, n) for n in found.__struct_fields__}, "severity": severity})
    expected = (
        (
            selector == "*"
            or category == selector.removesuffix(".*")
            or category.startswith(selector.removesuffix(".*") + ".")
        )
        and score >= threshold
        and score >= minimum
        and severity.rank >= 1
        and surface in (Surface.INPUT, Surface.OUTPUT)
        and origin in (Origin.USER, Origin.MODEL)
    )
    table = RuleTable([one], threshold=lambda *_: threshold)

    for _ in range(2):  # the second time from the index
        ruling = table.judge([FoundIn(finding=found, surface=surface, origin=origin)])
        assert (ruling.effect is Effect.BLOCK) is expected


def test_an_exemption_by_text_never_applies_without_the_text() -> None:
    table = RuleTable([rule("block", unless=Selector(texts=("*@shop.example",)))], threshold=lambda *_: 0.0)

    def effect(text: str | None) -> Effect:
        return table.judge(
            [FoundIn(finding=finding(), surface=Surface.INPUT, origin=Origin.USER, text=text)]
        ).effect

    assert effect("Help@Shop.example") is Effect.ALLOW
    assert effect("help@shop.example.evil") is Effect.BLOCK
    assert effect(None) is Effect.BLOCK


def test_the_longest_selector_sets_the_threshold(tmp_path: Path) -> None:
    settings_ = load_policy(
        write(
            tmp_path,
            "version: 1\ndetectors: {pii: {threshold: 0.5, thresholds: {pii: 0.6, pii.card: 0.2}}}\n",
        )
    ).detectors["pii"]

    assert settings_.threshold_for("pii.card") == 0.2
    assert settings_.threshold_for("pii.email") == 0.6
    assert settings_.threshold_for("secret.jwt") == 0.5
    assert settings_.fail is OnFailure.CLOSED
