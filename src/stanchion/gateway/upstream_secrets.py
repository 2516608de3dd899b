"""Secrets of upstreams that are read while the gateway runs, and read again: files and HashiCorp Vault.

`${env:NAME}` and `${file:path}` of a gateway file are resolved when the file is read. What is resolved here
is what that reading leaves alone: `${vault:MOUNT/PATH#FIELD}` (KV version 2), and with `$$` before it
`$${file:/run/secrets/key}`, a file that somebody replaces while the gateway runs. Values are kept in memory,
renewed in the background, and never part of a message.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from stanchion.core.errors import MissingExtraError, StanchionError, UnavailableError, UsageError
from stanchion.files.references import MASK, Secret

RENEW_S = 60.0
_TIMEOUT_S = 5.0
_MAX_BYTES = 64 * 1024
_REFERENCE = re.compile(r"\$\{(vault|file):([^{}]*)\}")
_VAULT = re.compile(r"(?P<mount>[\w.-]+)/(?P<path>[\w./-]+)#(?P<field>[\w.-]+)", re.ASCII)


class Gone(UnavailableError):
    """The source answers that the secret is not there any more, or may not be read: the old one ends too."""


class SecretSource(Protocol):
    """Where secrets of one kind come from."""

    def read(self, reference: str) -> str:
        """The value behind what stands after `${kind:`.

        Raises:
            Gone: it was deleted, or may not be read.
            UnavailableError: the source does not answer; the last value stays good.
            UsageError: for a reference that cannot be understood.
        """
        ...


class FileSource:
    """Files that are replaced while the gateway runs, as secret stores mount them."""

    def read(self, reference: str) -> str:
        """The text of a file, without the line break at its end."""
        try:
            with Path(reference).open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError as error:
            raise Gone(f"the secret file {reference!r} is not there.") from error
        except OSError as error:
            raise UnavailableError(f"the secret file {reference!r}: {error.strerror}.") from error
        if len(data) > _MAX_BYTES:
            raise UsageError(f"the secret file {reference!r} is larger than {_MAX_BYTES} bytes.")
        try:
            return data.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise UsageError(f"the secret file {reference!r} is not UTF-8.") from None


class VaultSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where Vault is and how we are known there; a token file is read anew for each renewal."""

    address: str
    token: Secret | None = None
    token_file: Path | None = None
    namespace: str = ""


class VaultSource:
    """HashiCorp Vault, key-value secrets engine version 2, with `hvac`."""

    def __init__(self, settings: VaultSettings) -> None:
        self._settings = settings
        if not settings.address.startswith(("http://", "https://")):
            raise UsageError("there is no address of Vault.", hint="Set `vault_addr`, or VAULT_ADDR.")
        if settings.token is None and settings.token_file is None:
            raise UsageError("there is no token for Vault.", hint="Set `vault_token` or `vault_token_file`.")

    def read(self, reference: str) -> str:
        """One field of the newest version of a secret."""
        found = _VAULT.fullmatch(reference)
        if found is None or ".." in found["path"]:
            raise UsageError(f"{reference!r} is no secret of Vault.", hint="Write ${vault:MOUNT/PATH#FIELD}.")
        client = self._client()
        answer: Any = self._asked(
            reference,
            lambda: client.secrets.kv.v2.read_secret_version(
                path=found["path"], mount_point=found["mount"], raise_on_deleted_version=True
            ),
        )
        try:
            value = answer["data"]["data"][found["field"]]
        except (KeyError, TypeError):
            raise Gone(f"Vault's {reference.partition('#')[0]!r} has no field {found['field']!r}.") from None
        if not isinstance(value, str) or not value:
            raise UsageError(f"Vault's {reference!r} is no text.")
        return value

    def renew(self) -> None:
        """Let the token live on, where it can be renewed; a refusal is not a failure yet."""
        client = self._client()
        found: Any = self._asked("the token", lambda: client.auth.token.lookup_self())
        if isinstance(found, dict) and (found.get("data") or {}).get("renewable"):
            self._asked("the token", lambda: client.auth.token.renew_self())

    def _client(self) -> Any:
        try:
            import hvac
        except ModuleNotFoundError as error:
            raise MissingExtraError("Vault", "vault") from error
        settings = self._settings
        token = settings.token.reveal() if settings.token is not None else ""
        if settings.token_file is not None:
            token = FileSource().read(str(settings.token_file))
        client = hvac.Client(
            url=settings.address, token=token, namespace=settings.namespace or None, timeout=_TIMEOUT_S
        )
        client.session.trust_env = False  # neither proxies nor .netrc of the environment
        return client

    def _asked(self, what: str, ask: Callable[[], object]) -> object:
        """Ask Vault; its own messages are not repeated, because they may hold more than they should."""
        import hvac.exceptions

        try:
            return ask()
        except (hvac.exceptions.InvalidPath, hvac.exceptions.Forbidden) as error:
            raise Gone(f"Vault refuses {what!r} ({type(error).__name__}).") from None
        except (hvac.exceptions.VaultError, OSError, ValueError) as error:
            raise UnavailableError(f"Vault did not answer for {what!r} ({type(error).__name__}).") from None


class LiveSecret:
    """A secret that may change; `reveal()` gives the value of now, as `Secret.reveal` does."""

    __slots__ = ("_pool", "_text")

    def __init__(self, pool: UpstreamSecrets, text: str) -> None:
        self._pool, self._text = pool, text

    def reveal(self) -> str:
        """The value now.

        Raises:
            UnavailableError: when there is none any more.
        """
        return self._pool.resolved(self._text)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"LiveSecret({MASK!r})"

    __str__ = __repr__


class UpstreamSecrets:
    """All references of a gateway's configuration, with their values of now.

    `track` reads a new reference at once; `renew` reads all again, and `start` does so in the background.
    """

    def __init__(self, *, vault: Callable[[], VaultSource] | None = None, renew_s: float = RENEW_S) -> None:
        self._make_vault = vault
        self._vault: VaultSource | None = None
        self._renew_s = renew_s
        self._values: dict[tuple[str, str], str | None] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.troubles: dict[str, str] = {}

    def track(self, secret: Secret) -> Secret | LiveSecret:
        """The same secret when it holds no reference, else one that is renewed.

        Raises:
            UnavailableError: when a reference cannot be read now.
            UsageError: when it cannot be understood.
        """
        text = secret.reveal()
        references = [(match[1], match[2]) for match in _REFERENCE.finditer(text)]
        if not references:
            return secret
        for kind, reference in references:
            value = self._source(kind).read(reference)
            with self._lock:
                self._values[kind, reference] = value
        return LiveSecret(self, text)

    def resolved(self, text: str) -> str:
        """A text with the values of now in place of its references.

        Raises:
            UnavailableError: when one is gone.
        """

        def value(match: re.Match[str]) -> str:
            found = self._values.get((match[1], match[2]))
            if found is None:
                raise UnavailableError(
                    f"the secret {match[1]}:{match[2]} is gone.", hint="Put it back, or name another."
                )
            return found

        return _REFERENCE.sub(value, text)

    def renew(self) -> None:
        """Read every reference again; what does not answer keeps its value and is told in `troubles`."""
        if self._vault is not None:
            self._try("vault token", self._vault.renew)
        for kind, reference in list(self._values):
            self._try(f"{kind}:{reference}", partial(self._read_again, kind, reference))

    def start(self) -> None:
        """Renew in the background."""
        self._thread = threading.Thread(target=self._run, name="stanchion-secrets", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the background renewal."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_TIMEOUT_S + 1)

    def _run(self) -> None:
        while not self._stopping.wait(self._renew_s):
            self.renew()

    def _read_again(self, kind: str, reference: str) -> None:
        try:
            value: str | None = self._source(kind).read(reference)
        except Gone:
            with self._lock:
                self._values[kind, reference] = None
            raise
        with self._lock:
            self._values[kind, reference] = value

    def _try(self, name: str, step: Callable[[], None]) -> None:
        try:
            step()
        except StanchionError as error:
            self.troubles[name] = str(error)
        else:
            self.troubles.pop(name, None)

    def _source(self, kind: str) -> SecretSource:
        if kind == "file":
            return FileSource()
        if self._vault is None:
            if self._make_vault is None:
                raise UsageError("there is no Vault here.", hint="Set `vault_addr` and `vault_token`.")
            self._vault = self._make_vault()
        return self._vault
