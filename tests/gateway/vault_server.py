"""Vault's key-value engine version 2 on loopback, as far as it is read: data, deletion, tokens, outages.

Paths and shapes follow Vault's HTTP API documentation (secret/kv/kv-v2, auth/token).
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hvs.planted-token"


class VaultServer:
    """Secrets by path; `status` other than 200 makes every answer that error."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, Any]] = {}
        self.deleted: set[str] = set()
        self.status = 200
        self.token = TOKEN
        self.renewed = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, token: str) -> tuple[int, dict[str, Any]]:
        if self.status != 200:
            return self.status, {"errors": ["a message that might show planted-value"]}
        if token != self.token:
            return 403, {"errors": ["permission denied"]}
        if path == "/v1/auth/token/lookup-self":
            return 200, {"data": {"renewable": True, "ttl": 600}}
        if path == "/v1/auth/token/renew-self":
            self.renewed += 1
            return 200, {"auth": {"client_token": self.token, "renewable": True}}
        name = path.removeprefix("/v1/secret/data/")
        if name in self.deleted:
            return 404, {"data": {"data": None, "metadata": {"deletion_time": "2026-01-01T00:00:00Z"}}}
        if name not in self.secrets:
            return 404, {"errors": []}
        return 200, {"data": {"data": self.secrets[name], "metadata": {"version": 1}}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        vault = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                path = self.path.partition("?")[0]
                status, body = vault.answer(path, self.headers.get("x-vault-token", ""))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = _answer

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler
