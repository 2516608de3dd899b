"""Prompts by name, version and label: what is served, and what is not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.clock import ManualClock
from stanchion.core.codec import digest_text
from stanchion.core.errors import FilesError, UnknownNameError, UsageError
from stanchion.core.signatures import key_id, new_key
from stanchion.files.schema import load_text
from stanchion.gateway.ports import Refused
from stanchion.gateway.prompts_registry import PromptRegistry, PromptsSection, PromptStore, make_prompts
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import open_database


@pytest.fixture
def database(tmp_path):
    with open_database(tmp_path / "records.db") as opened:
        yield opened


@pytest.fixture
def store(database):
    return PromptStore(database, clock=ManualClock())


def refused(registry, *arguments) -> Refused:
    with pytest.raises(Refused) as caught:
        registry.resolve(*arguments)
    return caught.value


def test_a_prompt_is_added_labelled_served_and_rolled_back(store, database):
    store.add("support", "You help with orders.", by="ann", label="prod")
    store.add("support", "You help with orders, kindly.", by="ann", label="prod")
    registry = make_prompts(PromptsSection(), store)
    found = registry.resolve("support@prod")
    assert (found.version, found.versioned) == (2, "support@v2")
    assert found.digest == digest_text("You help with orders, kindly.")
    assert registry.resolve("support").version == 2
    assert registry.resolve("support@v1").text == "You help with orders."
    assert store.rollback("support", "prod", by="bob").version == 1
    assert registry.resolve("support@prod").version == 2  # in memory until it is read again
    registry.load()
    assert registry.resolve("support@prod").version == 1
    with pytest.raises(UsageError, match="cannot go back"):
        store.rollback("support", "prod", by="bob")
    kinds = [(e.kind, e.actor) for e in AuditLog(database, clock=ManualClock()).entries()]
    assert kinds[-1] == ("prompt.rolled_back", "bob")
    assert kinds.count(("prompt.labelled", "ann")) == 2


def test_rolling_back_twice_goes_back_twice(store):
    for text in ("one", "two", "three"):
        store.add("p", text, by="ann", label="prod")
    assert [store.rollback("p", "prod", by="ann").version for _ in range(2)] == [2, 1]


def test_the_same_text_is_the_same_version(store):
    assert store.add("p", "text", by="a").version == store.add("p", "text", by="b").version == 1


@given(st.text(max_size=50))
@settings(max_examples=60, deadline=None)
def test_a_value_is_put_in_as_it_is_and_never_read_as_a_template(tmp_path_factory, value):
    with open_database(tmp_path_factory.mktemp("p") / "p.db") as opened:
        store = PromptStore(opened, clock=ManualClock())
        store.add("p", "Hello {{ name }}, of {{ shop }}.", by="a", label="prod")
        registry = make_prompts(PromptsSection(), store)
        text = registry.resolve("p@prod", {"name": value, "shop": "{{ name }}"}).text
    assert text == f"Hello {value}, of {{{{ name }}}}."


def test_variables_must_fit(store):
    store.add("p", "Hello {{ name }}.", by="a", label="prod")
    registry = make_prompts(PromptsSection(), store)
    for given_ in ({}, {"nam": "x"}, {"name": "x", "more": "y"}, {"name": "x" * 30_000}, {"name": 5}):
        no = refused(registry, "p@prod", given_)
        assert (no.status, no.code) == (400, "prompt_variables")
    assert (refused(registry, "q@prod").status, refused(registry, "p@beta").status) == (404, 404)
    assert refused(registry, "../etc/passwd\r\nx: y").status == 400


def test_only_signed_prompts_are_served_where_that_is_asked(store, database):
    key, stranger = new_key(), new_key()
    store.add("a", "signed", by="ann", label="prod", key=key)
    store.add("b", "not signed", by="ann", label="prod")
    store.add("c", "signed by a stranger", by="ann", label="prod", key=stranger)
    trusted = {key_id(key.public_key()): key.public_key()}
    registry = PromptRegistry(PromptsSection(require_signed=True), store, keys=trusted)
    registry.load()
    assert registry.resolve("a@prod").text == "signed"
    assert refused(registry, "b@prod").status == 404
    assert refused(registry, "c@prod").status == 404
    assert "not signed" in registry.refused["b@prod"]
    with pytest.raises(UsageError, match="no key is trusted"):
        PromptRegistry(PromptsSection(require_signed=True), store)


def test_a_changed_text_or_a_moved_signature_is_not_served(store, database):
    from stanchion.store.tables import prompts

    key = new_key()
    one = store.add("a", "first", by="ann", label="prod", key=key)
    store.add("a", "second", by="ann", key=key)
    with database.write() as connection:
        connection.execute(prompts.update().where(prompts.c.version == 1).values(text="evil"))
        connection.execute(prompts.update().where(prompts.c.version == 2).values(envelope=one.envelope))
    trusted = {key_id(key.public_key()): key.public_key()}
    registry = PromptRegistry(PromptsSection(require_signed=True), store, keys=trusted)
    registry.load()
    assert "does not match its digest" in registry.refused["a@prod"]
    assert "another prompt" in registry.refused["a@v2"]


def test_a_pin_holds_whatever_the_label_says(store):
    good = store.add("a", "first", by="ann", label="prod")
    section = PromptsSection(pins={"a@prod": good.digest})
    registry = make_prompts(section, store)
    assert registry.resolve("a@prod").version == 1
    store.add("a", "second", by="mallory", label="prod")
    registry.load()
    assert refused(registry, "a@prod").status == 404
    assert "pinned" in registry.refused["a@prod"]
    with pytest.raises(FilesError, match="digest"):
        load_text("pins: {a@prod: latest}", PromptsSection, file="g.yaml")


def test_names_and_versions_that_cannot_be_used_are_refused(store):
    for name in ("", "A", "a b", "a/b", "a" * 65):
        with pytest.raises(UsageError):
            store.add(name, "text", by="a")
    for text in ("", "x" * 200_001):
        with pytest.raises(UsageError):
            store.add("a", text, by="a")
    store.add("a", "text", by="a")
    with pytest.raises(UsageError, match="cannot be a label"):
        store.label("a", "v1", 1, by="a")
    with pytest.raises(UnknownNameError, match="v9"):
        store.label("a", "prod", 9, by="a")
    with pytest.raises(UnknownNameError):
        store.find("a@prod")
