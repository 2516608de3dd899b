"""Who is told what by GET, and bodies that are refused in words that a client can read."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
import requests_raw
from running_gateway import Running, running

JSON = ("content-type", "application/json")
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}).encode()
FILES = {
    "gateway.yaml": """
listen: 127.0.0.1:0
admin_listen: ""
records: {every_s: 0.1}
providers:
  script: {api: scripted, script: script.yaml}
models:
  m: {provider: script}
  other: {provider: script}
""",
    "script.yaml": "name: s\ndefault: {text: Good day.}\n",
}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """A process with keys in force; one key may ask everything, the other one model."""
    made = Running(tmp_path_factory.mktemp("pages"), files=FILES)
    new = ("access-keys", "new", "--format", "json")
    everything = json.loads(made.cli(*new, "all"))["secret"]
    one = json.loads(made.cli(*new, "one", "--model", "m", "--tenant", "Acme Ltd"))["secret"]
    with running(made) as process:
        yield process, everything, one


def get(process, path, *headers):
    status, _, said = requests_raw.request("GET", process.url, path, headers=[("host", "x"), *headers])
    return status, said


def ids(said: bytes) -> list[str]:
    return [each["id"] for each in json.loads(said)["data"]]


def test_models_take_a_key_and_are_those_of_the_key(keyed):
    process, everything, one = keyed
    assert get(process, "/v1/models")[0] == 401
    assert get(process, "/v1/models", ("authorization", "Bearer wrong"))[0] == 401
    assert ids(get(process, "/v1/models", ("authorization", f"Bearer {everything}"))[1]) == ["m", "other"]
    assert ids(get(process, "/v1/models", ("authorization", f"Bearer {one}"))[1]) == ["m"]


def test_readiness_tells_details_to_this_machine_and_to_known_callers_only(keyed):
    process, everything, _ = keyed
    proxied = ("x-forwarded-for", "203.0.113.9")
    status, said = get(process, "/readyz", proxied)
    assert (status, json.loads(said)) == (200, {"status": "ready"})
    assert "configuration" in json.loads(get(process, "/readyz")[1])
    key = ("x-api-key", everything)
    assert "configuration" in json.loads(get(process, "/readyz", proxied, key)[1])
    assert get(process, "/metrics", proxied)[0] == 403
    assert get(process, "/metrics", proxied, ("x-api-key", "wrong"))[0] == 403
    assert get(process, "/metrics", proxied, key)[0] == 200


def test_a_tenant_is_named_by_its_name_and_kept_as_the_keyed_id_that_requests_get(keyed):
    process, everything, one = keyed
    listed = json.loads(process.cli("access-keys", "list", "--format", "json"))["keys"]
    tenant = next(key["tenant"] for key in listed if key["name"] == "one")
    assert re.fullmatch("tenant_[0-9a-f]{32}", tenant)
    again = process.cli("access-keys", "new", "same", "--tenant", tenant, "--dry-run", "--format", "json")
    assert json.loads(again)

    def asked(key: str) -> int:
        headers = [JSON, ("authorization", f"Bearer {key}")]
        return requests_raw.post(process.url, "/v1/chat/completions", BODY, headers=headers)[0]

    assert asked(one) == 200
    process.cli("switch", "engage", f"tenant:{tenant}", "--reason", "drill", "--wait", "20")
    assert asked(one) == 503
    assert asked(everything) == 200


def test_a_body_that_is_too_large_is_refused_in_words_that_urllib_reads(keyed):
    process, everything, _ = keyed
    headers = {"content-type": "application/json", "authorization": f"Bearer {everything}"}
    for size in (9_000_000, 20_000_000):
        request = urllib.request.Request(
            f"{process.url}/v1/chat/completions", b"x" * size, headers, method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
        assert caught.value.code == 413
        assert json.loads(caught.value.read())["error"]["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("charset", "status"), [("utf-8", 200), ('"UTF-8"', 200), ("utf-7", 415), ("utf-16le", 415), ("", 415)]
)
def test_no_other_charset_than_utf_8_is_read(keyed, charset, status):
    process, everything, _ = keyed
    kind = ("content-type", f"application/json; charset={charset}")
    found, _, _ = requests_raw.post(
        process.url, "/v1/chat/completions", BODY, headers=[kind, ("authorization", f"Bearer {everything}")]
    )
    assert found == status


def test_no_row_of_the_reference_is_there_twice():
    for path in (Path(__file__).parents[2] / "docs" / "reference").glob("*.md"):
        for section in re.split(r"^#+ ", path.read_text(), flags=re.MULTILINE):
            rows = Counter(re.findall(r"^\| `[^|]*`.*$", section, re.MULTILINE))
            assert not [row for row, count in rows.items() if count > 1], path
