"""Recordings: request digest -> reply, one JSON object a line, so that a run can be played again offline."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec

from stanchion.core.codec import Digest, digest, is_digest
from stanchion.core.components import ComponentSet
from stanchion.core.errors import DatasetError, UsageError
from stanchion.core.interaction import Interaction, Reply, StreamEvent
from stanchion.models.client import ModelClient, request_digest
from stanchion.models.events import Assembler

MAX_LINE_BYTES = 16 * 1024 * 1024


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a recording."""

    request: Digest
    reply: Reply


class Recording:
    """Replies by request digest; of several for one request the last written holds."""

    def __init__(self, entries: Iterable[Recorded]) -> None:
        self._replies = {entry.request: entry.reply for entry in entries}

    def __len__(self) -> int:
        return len(self._replies)

    @property
    def digest(self) -> Digest:
        """The identity of the recording; the order of its lines does not matter."""
        return digest({key: digest(reply) for key, reply in self._replies.items()})

    def find(self, interaction: Interaction) -> Reply | None:
        """The recorded reply to this request, with `reused_from` filled; None when there is none."""
        key = request_digest(interaction)
        reply = self._replies.get(key)
        return None if reply is None else msgspec.structs.replace(reply, reused_from=key)


def read_recording(path: Path) -> Recording:
    """A recording from its JSONL file.

    Raises:
        DatasetError: with the line, when the file cannot be read or a line is no recorded reply. A last
            line that was cut off (the writer was killed) is an error too: delete it and go on.
    """
    decoder = msgspec.json.Decoder(Recorded)
    entries: list[Recorded] = []
    try:
        with path.open("rb") as lines:
            number = 0
            while line := lines.readline(MAX_LINE_BYTES + 1):
                number += 1
                if line.strip():
                    entries.append(_entry(decoder, line, path, number))
    except OSError as error:
        raise DatasetError(str(path), 0, f"cannot be read: {error.strerror}.") from error
    return Recording(entries)


def _entry(decoder: msgspec.json.Decoder[Recorded], line: bytes, path: Path, number: int) -> Recorded:
    if len(line) > MAX_LINE_BYTES:
        raise DatasetError(str(path), number, f"the line is longer than {MAX_LINE_BYTES} bytes.")
    try:
        entry = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(str(path), number, f"not a recorded reply: {error}.") from error
    if not is_digest(entry.request):
        raise DatasetError(str(path), number, "`request` is not a digest (sha256: and 64 hex digits).")
    return entry


class Recorder:
    """A model that passes everything on and appends each whole reply to a recording.

    The file holds the model's words: it is created readable by its owner only. One process writes a file.
    """

    def __init__(self, model: ModelClient, path: Path) -> None:
        self._model = model
        self._path = path

    @property
    def id(self) -> str:
        """The id of the recorded model."""
        return self._model.id

    @property
    def components(self) -> ComponentSet:
        """The components of the recorded model."""
        return self._model.components

    async def invoke(self, interaction: Interaction) -> Interaction:
        """Ask, and write the reply down."""
        answered = await self._model.invoke(interaction)
        if answered.reply is not None:
            self._write(interaction, answered.reply)
        return answered

    async def stream(self, interaction: Interaction) -> AsyncIterator[StreamEvent]:
        """Pass the events on; an answer that broke off is not written down."""
        assembler = Assembler()
        async for event in self._model.stream(interaction):
            assembler.feed(event)
            yield event
        if assembler.is_complete:
            self._write(interaction, assembler.reply())

    async def aclose(self) -> None:
        """Close the recorded model."""
        await self._model.aclose()

    def _write(self, interaction: Interaction, reply: Reply) -> None:
        line = msgspec.json.encode(Recorded(request=request_digest(interaction), reply=reply)) + b"\n"
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise UsageError(f"recording {str(self._path)!r} cannot be written: {error.strerror}.") from error
        with os.fdopen(descriptor, "ab") as file:
            file.write(line)
