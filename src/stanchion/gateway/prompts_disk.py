"""The last prompts of the registry on this host's disk: what is served after a start when the store is away.

One file, readable by its owner only, under a digest of its own; it says which store it came from. What holds
for the registry holds for it: digests of texts, pins and signatures are checked when it is read.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from stanchion.core.codec import Digest, digest_bytes
from stanchion.core.errors import IntegrityError
from stanchion.gateway.control_keys import write_private
from stanchion.gateway.prompts_registry import PromptState

_FILE = "prompts.json"
_MAX_BYTES = 64 * 1024 * 1024
_encode = msgspec.json.Encoder(order="sorted").encode


class _Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file: the state as JSON, its digest, and the store it was read from."""

    digest: Digest
    source: str
    state: msgspec.Raw


class PromptDisk:
    """The state of one host; its workers share the file. `source` names the store, without its password."""

    def __init__(self, state_dir: Path, *, source: str) -> None:
        self.path = state_dir / "control" / _FILE
        self._source = source
        self._written = b""

    def load(self) -> PromptState | None:
        """What was kept of this store; None when there is nothing.

        Raises:
            IntegrityError: when it cannot be read, or is not what was written.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
            kept = msgspec.json.decode(data, type=_Kept)
            if digest_bytes(self._signed(bytes(kept.state), kept.source)) != kept.digest:
                raise IntegrityError(f"{self.path} does not match its digest.")
            if kept.source != self._source:
                return None
            return msgspec.json.decode(kept.state, type=PromptState)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise IntegrityError(f"{self.path} cannot be read ({type(error).__name__}).") from None

    def store(self, state: PromptState) -> None:
        """Keep a state; nothing is written when it is the one that was kept last.

        Raises:
            OSError: when it cannot be written.
        """
        data = _encode(state)
        if data == self._written and self.path.exists():
            return
        digest = digest_bytes(self._signed(data, self._source))
        kept = _encode(_Kept(digest=digest, source=self._source, state=msgspec.Raw(data)))
        if len(kept) > _MAX_BYTES:
            raise OSError(f"the prompts need more than {_MAX_BYTES:,} bytes")
        write_private(self.path, kept)
        self._written = data

    def _signed(self, state: bytes, source: str) -> bytes:
        return source.encode() + b"\0" + state
