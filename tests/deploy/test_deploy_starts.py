"""The gateway files of `deploy/`, started as their containers do, with the first key of the how-to."""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))

from running_gateway import Running, Upstream, running, until

DEPLOY = Path(__file__).parents[2] / "deploy"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def provider() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.close()


def _compose() -> tuple[str, list[str], list[str]]:
    """The gateway file, what the gateway is started with, and what the service `keys` does first."""
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    command = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.M)[-1]
    return (
        (DEPLOY / "compose/gateway.yaml").read_text(),
        json.loads(command)[1:],
        services["keys"]["command"],
    )


def _kubernetes() -> tuple[str, list[str], list[str]]:
    pod = yaml.safe_load((DEPLOY / "kubernetes/deployment.yaml").read_text())["spec"]["template"]["spec"]
    mapped = yaml.safe_load((DEPLOY / "kubernetes/configmap.yaml").read_text())["data"]["gateway.yaml"]
    return mapped, pod["containers"][0]["args"][1:], ["switch", "keys", "--export", "/etc/stanchion-fleet"]


def _asked(url: str, key: str = "") -> int:
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(BODY).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("files", [_compose, _kubernetes], ids=["compose", "kubernetes"])
def test_it_starts_with_nothing_made_and_serves_from_the_first_key_on(
    files: Any, provider: Upstream, tmp_path: Path, postgres_server: Any, redis_url: str
) -> None:
    text, options, first = files()
    text = text.replace("https://api.openai.com/v1", provider.url)
    fleet, database = tmp_path / "fleet", postgres_server.new_database()
    words = [word.replace("/etc/stanchion-fleet", str(fleet)) for word in (*first, *options)]
    first, options = words[: len(first)], words[len(first) :]
    at = options.index("--listen")
    assert options[at + 1].startswith("0.0.0.0:")
    options[at + 1] = "0.0.0.0:0"  # a free port; the rest as the container says it
    del options[options.index("--config") : options.index("--config") + 2]
    shared = {
        "STANCHION_STORE_URL": database,
        "STANCHION_REDIS_URL": redis_url,
        "STANCHION_FLEET_DIR": str(fleet),
        "OPENAI_API_KEY": "sk-of-the-provider",
        "ANTHROPIC_API_KEY": "",
    }
    (tmp_path / "keys").mkdir()
    (tmp_path / "gateway").mkdir()
    keys = Running(tmp_path / "keys", files={}, **shared)
    gateway = Running(tmp_path / "gateway", *options, files={"gateway.yaml": text}, **shared)
    try:
        keys.cli(*first)
        with running(gateway) as run:
            url = run.url.replace("0.0.0.0", "127.0.0.1")
            assert _asked(url) == 401
            assert provider.keys == []
            made = keys.cli("access-keys", "new", "my-app", "--for", "90d", "--format", "json")
            key = json.loads(made)["secret"]
            until(lambda: _asked(url, key) == 200)
            assert set(provider.keys) == {"sk-of-the-provider"}
            assert _asked(url) == 401
    finally:
        postgres_server.drop_database(database)


def test_grace_times_are_longer_than_what_a_stop_takes() -> None:
    pod = yaml.safe_load((DEPLOY / "kubernetes/deployment.yaml").read_text())["spec"]["template"]["spec"]
    args = pod["containers"][0]["args"]
    unready_s = float(args[args.index("--unready-s") + 1])
    probe = pod["containers"][0]["readinessProbe"]
    assert unready_s >= probe["periodSeconds"] + probe["timeoutSeconds"]
    assert pod["terminationGracePeriodSeconds"] > unready_s + 30 + 5
    service = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]["gateway-a"]
    assert int(service["stop_grace_period"].removesuffix("s")) > 30 + 5


def test_the_image_is_built_of_nothing_but_what_it_copies() -> None:
    ignored = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert copied == let_in
