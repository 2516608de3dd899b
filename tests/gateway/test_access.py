"""Virtual keys and the list of gated sets, as the data plane asks them."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from control_plane import ANN, Plane, facts
from hypothesis import given
from hypothesis import strategies as st

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.core.components import ComponentSet
from stanchion.core.errors import UsageError
from stanchion.gateway import access
from stanchion.gateway.access import KeyAccess
from stanchion.gateway.admission import AdmissionList, GatedSet, Ungated, admitted_digest, write_admission
from stanchion.gateway.control_document import ControlKind
from stanchion.gateway.key_acts import KeyActs, KeyWish
from stanchion.gateway.key_state import load_pepper, pepper_path
from stanchion.gateway.ports import ApiSurface, Refused

CHAT = ApiSurface.OPENAI_CHAT


class Keys:
    """A plane with keys, and the access of one replica."""

    def __init__(self, folder, *, is_loopback: bool = True) -> None:
        self.clock = ManualClock()
        self.plane = Plane(folder, clock=self.clock)
        self.acts = KeyActs(
            self.plane.store,
            pepper=lambda: load_pepper(self.plane.state_dir, create=True),
            clock=self.clock,
            ids=CountingIds(),
            announce=self.plane.announce,
        )
        self.reader = self.plane.reader()
        self.access = KeyAccess(
            self.reader,
            pepper=lambda: load_pepper(self.plane.state_dir, create=False),
            clock=self.clock,
            is_loopback=is_loopback,
        )

    def sync(self) -> None:
        data = self.plane.store.envelope(ControlKind.KEYS)
        if data is None:
            self.reader.absent(ControlKind.KEYS, source="database")
        else:
            self.reader.offer(ControlKind.KEYS, data, source="database", is_authority=True)

    def new(self, name: str = "shop", **wish) -> str:
        made = self.acts.new(KeyWish(name=name, **wish), actor=ANN).answer
        self.sync()
        return made.secret

    async def ask(self, secret: str | bytes, *, surface: ApiSurface = CHAT):
        raw = secret if isinstance(secret, bytes) else secret.encode()
        return await self.access.authenticate({b"authorization": b"Bearer " + raw}, surface=surface)

    async def refusal(self, secret: str | bytes) -> Refused:
        with pytest.raises(Refused) as caught:
            await self.ask(secret)
        return caught.value


@pytest.fixture
def keys(tmp_path):
    keys = Keys(tmp_path)
    yield keys
    keys.plane.close()


async def test_a_key_says_whose_it_is_and_what_for(keys) -> None:
    secret = keys.new(features=("checkout",), models=("m",), surfaces=(CHAT.value,))
    caller = await keys.ask(secret)
    assert (caller.key_id, caller.features, caller.models) == ("key_1", ("checkout",), ("m",))
    for header in (b"x-api-key", b"api-key"):
        assert (await keys.access.authenticate({header: secret.encode()}, surface=CHAT)).key_id == "key_1"
    with pytest.raises(Refused) as caught:
        await keys.ask(secret, surface=ApiSurface.OPENAI_EMBEDDINGS)
    assert (caught.value.status, caught.value.code) == (403, "surface_not_allowed")


async def test_every_wrong_key_gets_the_same_answer(keys) -> None:
    valid = keys.new()
    expired = keys.new("expired", ttl_s=60)
    revoked = keys.new("revoked")
    rotated = keys.new("rotated")
    keys.acts.revoke("revoked", reason="x", actor=ANN)
    keys.acts.rotate("rotated", grace_s=30, actor=ANN)
    keys.sync()
    assert (await keys.ask(rotated)).key_id == "key_4"
    keys.clock.advance(60)
    wrong = [expired, revoked, rotated, valid[:-1], valid + "x", "", "stn_", b"\xff\x00", "x" * 10_000]
    told = {
        (refused.status, refused.code, str(refused), refused.hint)
        for refused in [await keys.refusal(each) for each in wrong]
    }
    assert len(told) == 1
    assert next(iter(told))[0] == 401
    assert (await keys.ask(valid)).key_id == "key_1"


async def test_wrong_keys_take_the_same_time(keys) -> None:
    """Coarse on purpose: the look-up is over keyed hashes, so there is no prefix to find out by timing."""
    valid, expired = keys.new(), keys.new("expired", ttl_s=1)
    keys.clock.advance(2)

    async def median_ns(secret: str) -> float:
        times = []
        for _ in range(1500):
            begin = time.process_time_ns()
            with pytest.raises(Refused):
                await keys.ask(secret)
            times.append(time.process_time_ns() - begin)
        return sorted(times)[len(times) // 2]

    medians = [await median_ns(each) for each in (expired, valid[:-1] + "!", "nonsense", valid[:20])]
    assert max(medians) < 1.6 * min(medians), medians


@given(st.binary(max_size=300))
async def test_no_header_opens_anything_or_breaks(tmp_path_factory, data: bytes) -> None:
    keys = SHARED.setdefault("keys", None) or Keys(tmp_path_factory.mktemp("keys"))
    if SHARED["keys"] is None:
        SHARED["keys"] = keys
        keys.new()
    for headers in ({b"authorization": data}, {b"x-api-key": data}, {b"authorization": b"Bearer " + data}):
        with pytest.raises(Refused):
            await keys.access.authenticate(headers, surface=CHAT)


SHARED: dict[str, Keys | None] = {}


async def test_rotation_keeps_the_old_secret_for_the_grace_time_only(keys) -> None:
    old = keys.new()
    new = keys.acts.rotate("shop", grace_s=100, actor=ANN).answer.secret
    keys.sync()
    assert (await keys.ask(old)).key_id == (await keys.ask(new)).key_id
    keys.clock.advance(100)
    assert (await keys.refusal(old)).status == 401
    assert (await keys.ask(new)).key_id == "key_1"


async def test_while_no_key_was_ever_made_loopback_is_served_and_nothing_else(tmp_path) -> None:
    local, public = Keys(tmp_path / "a"), Keys(tmp_path / "b", is_loopback=False)
    for each in (local, public):
        each.sync()
    for host in (b"127.0.0.1:8700", b"localhost", b"[::1]:8700"):
        caller = await local.access.authenticate(
            {b"host": host, b"authorization": b"Bearer sk-x"}, surface=CHAT
        )
        assert caller.key_id == "local"
    for headers in (
        {b"host": b"evil.example"},
        {b"host": b"127.0.0.1", b"origin": b"https://evil.example"},
        {b"host": b"localhost.evil.example"},
        {},
        {b"host": b"[::1", b"origin": b"null"},
        {b"host": b"127.0.0.1:8700", b"x-forwarded-for": b"203.0.113.9"},
        {b"host": b"127.0.0.1:8700", b"forwarded": b"for=203.0.113.9"},
        {b"host": b"127.0.0.1:8700", b"x-real-ip": b"203.0.113.9"},
        {b"host": b"127.0.0.1:8700", b"via": b"1.1 proxy"},
    ):
        with pytest.raises(Refused) as caught:
            await local.access.authenticate(headers, surface=CHAT)
        assert caught.value.status == 403
    with pytest.raises(Refused) as caught:
        await public.access.authenticate({b"host": b"127.0.0.1"}, surface=CHAT)
    assert caught.value.status == 401
    local.new()
    local.acts.revoke("shop", reason="x", actor=ANN)
    local.sync()
    with pytest.raises(Refused):  # a key was made once: nobody falls back to none
        await local.access.authenticate({b"host": b"127.0.0.1"}, surface=CHAT)
    local.plane.close()
    public.plane.close()


async def test_keys_that_are_not_known_open_nothing(keys) -> None:
    assert (await keys.refusal("stn_x")).status == 503
    secret = keys.new()
    keys.reader.offer(ControlKind.KEYS, b"{}", source="database", is_authority=True)
    assert (await keys.refusal(secret)).code == "keys_unavailable"
    keys.sync()
    assert (await keys.ask(secret)).key_id == "key_1"


async def test_a_host_with_another_pepper_refuses_and_says_why(keys) -> None:
    keys.new()
    pepper_path(keys.plane.state_dir).write_text("ab" * 32)
    secret = "stn_x"
    keys.reader = keys.plane.reader()
    keys.access = KeyAccess(
        keys.reader,
        pepper=lambda: load_pepper(keys.plane.state_dir, create=False),
        clock=keys.clock,
        is_loopback=True,
    )
    keys.sync()
    assert (await keys.refusal(secret)).status == 503
    assert "this host has" in keys.access.trouble
    with pytest.raises(UsageError, match="made with pepper"):
        keys.acts.new(KeyWish(name="other"), actor=ANN)


def test_an_admin_key_needs_a_role_and_gives_its_person(keys) -> None:
    plain = keys.new()
    admin = keys.new("ann", person="ann", roles=("operator",))
    assert keys.access.actor_of(admin.encode()).person == "ann"
    with pytest.raises(Refused) as caught:
        keys.access.actor_of(plain.encode())
    assert caught.value.status == 403


# --- admission -------------------------------------------------------------------------------------------

GATED = ComponentSet(model="sha256:" + "a" * 64, policy="sha256:" + "b" * 64)


def gate(plane: Plane, **fields) -> None:
    entry = GatedSet(**{"components": admitted_digest(GATED), **fields})
    write_admission(plane.store, add=[entry], actor=ANN, announce=plane.announce)


def admission(plane: Plane, **options) -> AdmissionList:
    reader = plane.reader()
    found = AdmissionList(reader, clock=plane.clock, **options)
    reader.load()
    if plane.store.envelope(ControlKind.ADMISSION) is None:
        reader.absent(ControlKind.ADMISSION, source="database")
    return found


@pytest.fixture
def plane(tmp_path):
    plane = Plane(tmp_path, clock=ManualClock())
    yield plane
    plane.close()


def test_a_gated_set_is_admitted_and_its_suite_does_not_matter(plane) -> None:
    gate(plane)
    found = admission(plane, default=Ungated.BLOCK)
    tested_with = GATED.merged(ComponentSet(suite="sha256:" + "c" * 64))
    assert found.check(facts(), GATED).is_gated
    assert found.check(facts(), tested_with).is_gated
    other = found.check(facts(), GATED.merged(ComponentSet(model="sha256:" + "d" * 64)))
    assert (other.action, other.is_gated) == ("block", False)


def test_a_set_is_gated_for_its_feature_and_for_its_time(plane) -> None:
    until = int((plane.clock.now() + timedelta(hours=1)).timestamp() * 1e6)
    gate(plane, feature="checkout", expires_at_us=until)
    found = admission(plane, actions={"checkout": Ungated.BLOCK, "search": Ungated.WARN})
    assert found.check(facts(feature="checkout"), GATED).is_gated
    assert found.check(facts(feature="search"), GATED).action == "warn"
    assert found.check(facts(feature="other"), GATED).action == "allow"
    plane.clock.advance(3600)
    assert found.check(facts(feature="checkout"), GATED).action == "block"


def test_a_list_that_cannot_be_verified_admits_nothing(plane) -> None:
    gate(plane)
    path = plane.disk.path(ControlKind.ADMISSION)
    path.write_bytes(path.read_bytes().replace(b'"sig":"', b'"sig":"AA'))
    said = admission(plane, default=Ungated.BLOCK).check(facts(), GATED)
    assert (said.action, said.is_gated) == ("block", False)
    assert "cannot be verified" in said.reason


def test_the_list_is_written_and_taken_back(plane) -> None:
    gate(plane)
    with pytest.raises(UsageError, match="sha256 digests"):
        write_admission(plane.store, add=[GatedSet(components="x")], actor=ANN, announce=plane.announce)
    removed = write_admission(
        plane.store, remove=[("", admitted_digest(GATED))], actor=ANN, announce=plane.announce
    )
    assert removed.answer == 0
    assert not admission(plane).check(facts(), GATED).is_gated


async def test_what_is_remembered_of_hosts_is_bounded_and_makes_nobody_local(tmp_path) -> None:
    local = Keys(tmp_path)
    local.sync()
    ours, theirs = {b"host": b"localhost"}, {b"host": b"localhost", b"origin": b"https://evil.example"}
    for _ in range(2):  # asked again, the answer is the same
        assert (await local.access.authenticate(ours, surface=CHAT)).key_id == "local"
        with pytest.raises(Refused):
            await local.access.authenticate(theirs, surface=CHAT)
    for number in range(600):
        with pytest.raises(Refused):
            await local.access.authenticate({b"host": b"evil-%d.example" % number}, surface=CHAT)
    kept = access._is_local.cache_info()
    assert kept.currsize <= 256
    with pytest.raises(Refused):
        await local.access.authenticate({b"host": b"localhost:" + b"8" * 600}, surface=CHAT)
    assert access._is_local.cache_info().misses == kept.misses
    local.new()
    local.sync()
    with pytest.raises(Refused) as caught:  # keys are asked for as soon as there are any
        await local.access.authenticate(ours, surface=CHAT)
    assert caught.value.status == 401
