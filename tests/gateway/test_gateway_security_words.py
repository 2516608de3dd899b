"""What outsiders write is never taken for something else: addresses, log lines, markup, keys."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import statistics
import threading
import time
from datetime import timedelta

import msgspec
import pytest
import requests_raw
from chaos_fixtures import CHAT, in_front
from gateway_faults import Line, whole
from rich.console import Console

from stanchion.cli.serve_view import TerminalView
from stanchion.core.clock import SystemClock
from stanchion.gateway import access
from stanchion.gateway.access import KeyAccess
from stanchion.gateway.control_reader import Trust
from stanchion.gateway.key_state import KeySecret, Pepper, VirtualKey
from stanchion.gateway.ports import ApiSurface, ExchangeRecord, Outcome, Refused, RequestFacts, Stage

HARMLESS = {"role": "user", "content": "What is on this picture?"}

# --- addresses ----------------------------------------------------------------------------------------------


class Canary:
    """Listens, and counts who comes."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.came = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.came += 1
            client.close()

    def __exit__(self, *_):
        with socket.create_connection(self._listener.getsockname()):  # it does count, and it wakes
            pass
        end = time.monotonic() + 5
        while not self.came and time.monotonic() < end:
            time.sleep(0.01)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()
        assert self.came == 1, "the gateway asked an address that a request named"


def _image(url):
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def _extra(name):
    return lambda url: {"messages": [HARMLESS], name: url}


NAMED = {
    "an image": _image,
    "a file": lambda url: {
        "messages": [
            {"role": "user", "content": [{"type": "file", "file": {"file_data": url, "filename": "a"}}]}
        ]
    },
    "a model": lambda url: {"model": url, "messages": [HARMLESS]},
    "a tool's schema": lambda url: {
        "messages": [HARMLESS],
        "tools": [{"type": "function", "function": {"name": "a", "parameters": {"$ref": url}}}],
    },
    "base_url": _extra("base_url"),
    "api_base": _extra("api_base"),
    "extra_headers": lambda url: {"messages": [HARMLESS], "extra_headers": {"host": url}},
    "user": _extra("user"),
}


@pytest.fixture(scope="module")
def front(faulty, guard):
    with in_front(faulty, guard) as pair:
        yield pair


async def _answers(line: Line) -> None:
    await line.answer(whole("You can return anything."))


@pytest.mark.parametrize("name", NAMED)
def test_no_address_of_a_request_is_asked(front, faulty, name):
    served, records = front
    faulty.play = _answers
    faulty.asked.clear()
    with Canary() as canary:
        for url in (
            canary.address,
            f"{canary.address}/latest/meta-data",
            "file:///etc/passwd",
            "gopher://127.0.0.1:1/",
        ):
            records.clear()
            body = {"model": "m", **NAMED[name](url)}
            status, _, said = requests_raw.post(served.url, CHAT, json.dumps(body).encode())
            assert status in (200, 400, 404), said
            assert b"root:" not in said
            records.only()
        for head, _ in faulty.asked:
            assert canary.address.encode() not in head
            assert f"host: 127.0.0.1:{faulty.port}".encode() in head.lower()


def test_headers_of_a_client_choose_no_address(front, faulty):
    served, _ = front
    faulty.play = _answers
    faulty.asked.clear()
    body = json.dumps({"model": "m", "messages": [HARMLESS]}).encode()
    with Canary() as canary:
        host = canary.address.removeprefix("http://")
        for name in (
            "x-forwarded-host",
            "x-original-url",
            "x-rewrite-url",
            "forwarded",
            "x-base-url",
            "referer",
        ):
            headers = [("content-type", "application/json"), (name, host), ("x-custom", "mine")]
            assert requests_raw.post(served.url, CHAT, body, headers=headers)[0] == 200
    for head, _ in faulty.asked:
        assert host.encode() not in head
        assert b"x-custom" not in head


def test_a_redirect_takes_neither_key_nor_words_elsewhere(front, faulty):
    served, _ = front
    body = json.dumps({"model": "m", "messages": [HARMLESS]}).encode()
    with Canary() as canary:
        for status in ("301 Go", "302 Go", "303 Go", "307 Go", "308 Go", "300 Choose"):

            async def redirects(line, status=status, more=f"location: {canary.address}/\r\n"):
                await line.answer(b"{}", status=status, more=more)

            faulty.play = redirects
            said, headers, answer = requests_raw.post(served.url, CHAT, body)
            assert said == 502
            assert "location" not in headers
            assert canary.address.encode() not in answer


# --- keys ---------------------------------------------------------------------------------------------------

PEPPER = Pepper(b"p" * 32)
CLOCK = SystemClock()
NOW_US = int(CLOCK.now().timestamp() * 1e6)
DAY_US = int(timedelta(days=1).total_seconds() * 1e6)


class _NoReader:
    def subscribe(self, kind, take):
        pass


def key_access() -> KeyAccess:
    """Keys of every standing among a thousand others."""
    found = KeyAccess(_NoReader(), pepper=lambda: PEPPER, clock=CLOCK, is_loopback=False)
    found._trust, found._pepper = Trust.VERIFIED, PEPPER
    for name, more in (
        ("valid", {}),
        ("expired", {"expires_at_us": NOW_US - DAY_US}),
        ("revoked", {"revoked_at_us": NOW_US - DAY_US}),
        *((f"other{number}", {}) for number in range(1000)),
    ):
        secret = KeySecret(hash=PEPPER.hash(f"stn_{name:_<43}".encode()), made_at_us=0)
        key = VirtualKey(id=name, name=name, secrets=(secret,), made_at_us=0, made_by="ann", **more)
        found._by_hash[secret.hash] = (key, secret)
    return found


def bearer(name: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer stn_{name:_<43}".encode()}


WRONG = {
    "unknown": bearer("nobody"),
    "expired": bearer("expired"),
    "revoked": bearer("revoked"),
    "near a real one": {b"authorization": b"Bearer " + bearer("valid")[b"authorization"][7:-1] + b"-"},
    "malformed": {b"authorization": b"Bearer \xff\x00;"},
    "short": {b"x-api-key": b"a"},
    "endless": {b"x-api-key": b"a" * 30_000},
    "missing": {},
}


async def refusal(keys: KeyAccess, headers) -> Refused:
    with pytest.raises(Refused) as caught:
        await keys.authenticate(headers, surface=ApiSurface.OPENAI_CHAT)
    return caught.value


@pytest.mark.parametrize("name", WRONG)
async def test_whatever_is_wrong_with_a_key_the_same_work_is_done(monkeypatch, name):
    keys = key_access()
    done: list[str] = []
    real_hash, real_compare, real_valid = Pepper.hash, access.hmac.compare_digest, VirtualKey.is_valid

    class Noted:
        @staticmethod
        def compare_digest(first, second):
            done.append("compare")
            assert len(first) == len(second) == 64
            return real_compare(first, second)

    monkeypatch.setattr(Pepper, "hash", lambda self, said: (done.append("hash"), real_hash(self, said))[1])
    monkeypatch.setattr(access, "hmac", Noted)
    monkeypatch.setattr(
        VirtualKey, "is_valid", lambda self, *a, **k: (done.append("valid"), real_valid(self, *a, **k))[1]
    )
    refused = await refusal(keys, WRONG[name])
    assert done == ["hash", "compare", "valid"]
    assert (refused.status, refused.code, refused.message) == (
        401,
        "invalid_api_key",
        "The key is missing or not valid.",
    )


async def test_no_kind_of_wrong_key_takes_longer_than_another():
    """Medians of interleaved batches: within half of each other, where noise alone is a tenth."""
    keys = key_access()
    kinds = ("unknown", "expired", "revoked", "near a real one")
    batches: dict[str, list[int]] = {name: [] for name in kinds}
    for _ in range(60):
        for name in kinds:
            began = time.process_time_ns()
            for _ in range(30):
                with contextlib.suppress(Refused):
                    await keys.authenticate(WRONG[name], surface=ApiSurface.OPENAI_CHAT)
            batches[name].append(time.process_time_ns() - began)
    medians = [statistics.median(each) for each in batches.values()]
    assert max(medians) < 1.5 * min(medians), dict(zip(kinds, medians, strict=True))


# --- lines and markup ---------------------------------------------------------------------------------------

HOSTILE = (
    "m\n2026-11-23 allowed everything",
    "m\r\x1b[2J\x1b]0;owned\x07",
    "\x1b[31mred\x1b[0m",
    "[bold red]owned[/]",
    "\\[link=http://evil.example]click[/link]",
    "[/]",
    "\\",
    "m\u202egnp.exe",
    "m\u2028next\u0085line",
    "\x9b31m",
)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("outcome", [Outcome.ALLOWED, Outcome.BLOCKED, Outcome.INVALID])
def test_a_name_of_the_outside_stays_a_name_on_the_terminal(name, outcome):
    record = ExchangeRecord(
        facts=RequestFacts(id="req_1", surface=ApiSurface.OPENAI_CHAT, model=name, feature="default"),
        at="2026-11-23T10:00:00+00:00",
        outcome=outcome,
        stage=Stage.DONE,
        status=200,
        reference="req_1",
        guard_state="protecting",
    )

    def shown(one) -> str:
        out = io.StringIO()
        console = Console(
            file=out, force_terminal=True, width=200, color_system="truecolor", legacy_windows=False
        )
        TerminalView(console).finished(one)
        return out.getvalue()

    said = shown(record)
    assert said
    for sequence in ("\x1b[2J", "\x1b]", "\x07", "\r", "\u202e", "\u2028", "\x85", "\x9b", "\x1b[31mred"):
        assert sequence not in said
    plain = shown(msgspec.structs.replace(record, facts=msgspec.structs.replace(record.facts, model="m")))
    assert said.count("\n") == plain.count("\n")
    words = re.sub(r"\x1b\[[0-9;]*m", "", said)  # our own colours
    for marked in ("[bold red]owned[/]", "[link=http://evil.example]click[/link]", "[/]"):
        assert (marked in name) == (marked in words)
