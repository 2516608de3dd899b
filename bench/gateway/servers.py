"""What is measured: nginx, LiteLLM's proxy and the gateway, each started in front of the same upstream.

Every server runs in a folder of its own, listens on the loopback interface and is ended by the process id
that was started here. `cpu_s` is the user and system time of its whole process tree.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from upstream import ANSWERS

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A started server: where it listens, and what it has cost so far."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.port = port
        self.process = process
        self.log = log

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self.port}"

    def tree(self) -> list[int]:
        """The process and all its descendants."""
        parents: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                fields = _stat(int(entry))
                if fields:
                    parents.setdefault(int(fields[1]), []).append(int(entry))
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting += parents.get(pid, [])
        return found

    def cpu_s(self) -> float:
        """User and system time of the tree, in seconds."""
        stats = [_stat(pid) for pid in self.tree()]
        return sum((int(f[11]) + int(f[12])) / TICKS for f in stats if f)

    def rss_kb(self) -> int:
        """Resident memory of the tree, in KiB (shared pages are counted for every process)."""
        total = 0
        for pid in self.tree():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            total += next((int(x.split()[1]) for x in status.splitlines() if x.startswith("VmRSS:")), 0)
        return total


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def started(
    name: str,
    command: Sequence[str],
    *,
    port: int,
    folder: Path,
    env: Mapping[str, str] | None = None,
    wait_s: float = 120.0,
) -> Iterator[Server]:
    """The server, once its port answers; ended at the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(command), stdout=out, stderr=out, cwd=folder, env={**os.environ, **(env or {})},
            start_new_session=True,
        )  # fmt: skip
    server = Server(name, port, process, log)
    try:
        _await(server, wait_s)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(server: Server, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise SystemExit(f"{server.name} ended at once:\n{server.log.read_text()[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", server.port), 0.5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{server.name} did not listen within {wait_s:.0f} s:\n{server.log.read_text()[-2000:]}")


@contextmanager
def upstream(folder: Path, *, pause_ms: float = 0.0) -> Iterator[Server]:
    """The endpoint that every proxy asks."""
    port = free_port()
    command = [sys.executable, str(HERE / "upstream.py"), str(port), "--pause-ms", str(pause_ms)]
    with started("upstream", command, port=port, folder=folder) as server:
        yield server


NGINX = """
daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err warn;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; keepalive_requests 1000000000;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering {buffering};
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, model: Server, *, is_stream: bool = False) -> Iterator[Server]:
    """nginx with one worker and kept-alive connections to the upstream."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    shape = NGINX.format(
        folder=folder, upstream=model.port, port=port, buffering="off" if is_stream else "on"
    )
    (folder / "nginx.conf").write_text(shape)
    command = [str(shutil.which("nginx")), "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    with started("nginx", command, port=port, folder=folder) as server:
        yield server


LITELLM = """
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""


@contextmanager
def litellm(folder: Path, model: Server, program: Path) -> Iterator[Server]:
    """LiteLLM's proxy with one worker, no guardrails, no database."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "litellm.yaml").write_text(LITELLM.format(upstream=model.port))
    command = [str(program), "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1"]
    env = {
        "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONWARNINGS": "ignore",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }  # fmt: skip
    with started("litellm", command, port=port, folder=folder, env=env) as server:
        yield server


GATEWAY = """
providers:
  model: {{api: openai, base_url: "http://127.0.0.1:{upstream}/v1"{gather}}}
  messages: {{api: anthropic, base_url: "http://127.0.0.1:{upstream}"}}
models:
  bench: {{provider: model, model: bench}}
  bench-messages: {{provider: messages, model: bench}}
features:
  bench: {{policy: {policy}}}
default_feature: bench
admin_listen: ""
"""


@contextmanager
def gateway(
    folder: Path, model: Server, *, policy: str, workers: int = 1, gather_ms: float | None = None
) -> Iterator[Server]:
    """The gateway, with `policy` ("none" decodes and records and checks nothing) and its own `gather_ms`."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    gather = "" if gather_ms is None else f", gather_ms: {gather_ms:g}"
    (folder / "gateway.yaml").write_text(GATEWAY.format(upstream=model.port, policy=policy, gather=gather))
    program = Path(sys.executable).with_name("stanchion")
    command = [str(program), "serve", "--config", str(folder / "gateway.yaml"), "--workers", str(workers)]
    command += ["--listen", f"127.0.0.1:{port}", "--quiet"]
    env = {"STANCHION_STATE_DIR": str(folder / "state")}
    with started(f"gateway-{policy}", command, port=port, folder=folder, env=env) as server:
        _await_ready(server)
        yield server


def _await_ready(server: Server, *, wait_s: float = 120.0) -> None:
    """Its address answers before its detectors are loaded; what it does until then is not its service."""
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        with suppress(OSError), urllib.request.urlopen(f"{server.url}/readyz", timeout=wait_s):
            return
        time.sleep(0.1)
    raise SystemExit(f"{server.name} was not ready within {wait_s:.0f} s:\n{server.log.read_text()[-2000:]}")


REPLY_BYTES = len(ANSWERS[b"chat"])
