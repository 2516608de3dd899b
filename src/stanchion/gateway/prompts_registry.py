"""Named prompts with versions, digests and labels; a request names one as `support@prod`.

A version never changes. A label (`prod`, `canary`) points at a version and can be moved back; every move is
an entry of the audit log, which is also the history that a rollback reads. Where signatures are required, a
version without a valid one is not served, whoever wrote the row. Requests are resolved in memory.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pydantic

from stanchion.core.clock import Clock
from stanchion.core.codec import Digest, digest_text, is_digest
from stanchion.core.errors import (
    IntegrityError,
    StanchionError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)
from stanchion.core.signatures import Envelope, sign, verified
from stanchion.files.schema import FieldError, FileModel
from stanchion.gateway.filled_prompt import ResolvedPrompt
from stanchion.gateway.ports import Outcome, Refused
from stanchion.models.template import pieces, placeholders
from stanchion.store.audit_chain import NewEntry
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import Database
from stanchion.store.times import to_us

if TYPE_CHECKING:
    import sqlalchemy as sa
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_log = logging.getLogger(__name__)

PAYLOAD_TYPE = "application/vnd.stanchion.prompt+json"
MAX_PROMPT_CHARS = 200_000
MAX_VALUE_CHARS = 20_000
MAX_VARIABLES = 50
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)
_DIGITS = re.compile(r"v[1-9][0-9]{0,8}", re.ASCII)


class PromptsSection(FileModel):
    """The section `prompts`: what may be served, whatever the registry says."""

    require_signed: bool = pydantic.Field(
        default=False, description="Serve only versions that a trusted key signed."
    )
    pins: dict[str, str] = pydantic.Field(
        default_factory=dict, description="name@label: the only digest that may be served under it."
    )

    @pydantic.field_validator("pins")
    @classmethod
    def _digests(cls, pins: dict[str, str]) -> dict[str, str]:
        for name, value in pins.items():
            split_reference(name)
            if not is_digest(value):
                raise FieldError(f"the pin of {name!r} is no digest.", hint="Write sha256: and 64 digits.")
        return pins


class PromptVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version; it never changes. `variables` are the placeholders of its text, in order."""

    name: str
    version: int
    digest: Digest
    text: str
    is_signed: bool
    at_us: int
    added_by: str
    envelope: str = ""

    @property
    def variables(self) -> tuple[str, ...]:
        """What must be filled in."""
        return tuple(dict.fromkeys(placeholders(self.text)))


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """Where a label points."""

    name: str
    label: str
    version: int
    at_us: int
    set_by: str


class PromptState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a registry holds at one moment."""

    versions: tuple[PromptVersion, ...]
    labels: tuple[Label, ...]


class KeptPrompts(Protocol):
    """Where the last state is kept for a start without the store; see `prompts_disk`."""

    def load(self) -> PromptState | None:
        """What was kept; None when there is nothing.

        Raises:
            IntegrityError: when it is damaged.
        """
        ...

    def store(self, state: PromptState) -> None:
        """Keep a state.

        Raises:
            OSError: when it cannot be written.
        """
        ...


def split_reference(text: str) -> tuple[str, str]:
    """Name and label (or `v3`) of `support@prod`; the label is `prod` when there is none.

    Raises:
        UsageError: for anything else; the text is not repeated.
    """
    name, _, label = text.partition("@")
    label = label or "prod"
    if not (_NAME.fullmatch(name) and _NAME.fullmatch(label)):
        raise UsageError(
            "a prompt is named NAME@LABEL or NAME@v3, in small letters.", hint="For example support@prod."
        )
    return name, label


class PromptStore:
    """The prompts of one database; every change is audited."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._log = AuditLog(database, clock=clock)

    def add(
        self, name: str, text: str, *, by: str, label: str = "", key: Ed25519PrivateKey | None = None
    ) -> PromptVersion:
        """A new version, signed when there is a key; the same text again gives the version it has.

        Raises:
            UsageError: for a name or text that cannot be used.
        """
        from stanchion.store.tables import prompts as t

        split_reference(name)
        if not 0 < len(text) <= MAX_PROMPT_CHARS:
            raise UsageError(f"a prompt has 1 to {MAX_PROMPT_CHARS:,} characters.")
        with self._database.write() as connection:
            self._log.hold_appends(connection)  # one writer at a time: versions have no gaps
            found = self._versions(connection, name)
            version = next((one for one in found if one.digest == digest_text(text)), None)
            if version is None:
                number = max((one.version for one in found), default=0) + 1
                version = self._new(name, number, text, by=by, key=key)
                row = msgspec.structs.asdict(version)
                del row["is_signed"]
                connection.execute(t.insert().values(row))
                payload = {"name": name, "version": number, "digest": version.digest}
                self._log.append_within(
                    connection, [NewEntry(kind="prompt.added", payload=payload, actor=by)]
                )
            if label:
                self._point(connection, version, label, by=by, kind="prompt.labelled")
        return version

    def label(self, name: str, label: str, version: int, *, by: str) -> Label:
        """Point a label at a version.

        Raises:
            UnknownNameError: for a version that is not there.
        """
        return self._move(name, label, version, by=by, kind="prompt.labelled")

    def rollback(self, name: str, label: str, *, by: str) -> Label:
        """Point a label at the version it had before the present one.

        Raises:
            UsageError: when it never pointed elsewhere.
        """
        now = next((one for one in self.labels(name) if one.label == label), None)
        before = self.version_before(name, label)
        if now is None or before is None:
            raise UsageError(f"{name}@{label} never pointed at another version, so it cannot go back.")
        return self._move(name, label, before, by=by, kind="prompt.rolled_back")

    def versions(self, name: str = "") -> list[PromptVersion]:
        """All versions by name and number."""
        with self._database.read() as connection:
            return self._versions(connection, name)

    def labels(self, name: str = "") -> list[Label]:
        """All labels."""
        import sqlalchemy as sa

        from stanchion.store.tables import prompt_labels as t

        statement = sa.select(t).order_by(t.c.name, t.c.label)
        if name:
            statement = statement.where(t.c.name == name)
        with self._database.read() as connection:
            return [Label(**row._mapping) for row in connection.execute(statement)]

    def state(self) -> PromptState:
        """All versions and labels."""
        return PromptState(versions=tuple(self.versions()), labels=tuple(self.labels()))

    def find(self, reference: str) -> PromptVersion:
        """The version behind `support@prod` or `support@v3`.

        Raises:
            UnknownNameError: when there is none.
        """
        name, label = split_reference(reference)
        number = int(label[1:]) if _DIGITS.fullmatch(label) else None
        if number is None:
            number = next((one.version for one in self.labels(name) if one.label == label), None)
        versions = self.versions()
        for one in versions:
            if (one.name, one.version) == (name, number):
                return one
        known = [f"{one.name}@v{one.version}" for one in versions]
        raise UnknownNameError("prompt", reference, known + [f"{x.name}@{x.label}" for x in self.labels()])

    def _new(
        self, name: str, number: int, text: str, *, by: str, key: Ed25519PrivateKey | None
    ) -> PromptVersion:
        digest = digest_text(text)
        envelope = ""
        if key is not None:
            signed = sign(_signed_bytes(name, number, digest), payload_type=PAYLOAD_TYPE, key=key)
            envelope = msgspec.json.encode(signed).decode()
        return PromptVersion(
            name=name,
            version=number,
            digest=digest,
            text=text,
            is_signed=bool(envelope),
            at_us=to_us(self._clock.now()),
            added_by=by,
            envelope=envelope,
        )

    def _move(self, name: str, label: str, version: int, *, by: str, kind: str) -> Label:
        split_reference(f"{name}@{label}")
        found = {one.version: one for one in self.versions(name)}
        if version not in found:
            raise UnknownNameError("version", f"v{version}", [f"v{n}" for n in found], where=name)
        with self._database.write() as connection:
            return self._point(connection, found[version], label, by=by, kind=kind)

    def _point(
        self, connection: sa.Connection, version: PromptVersion, label: str, *, by: str, kind: str
    ) -> Label:
        from stanchion.store.tables import insert_if_new
        from stanchion.store.tables import prompt_labels as t

        if _DIGITS.fullmatch(label) or not _NAME.fullmatch(label):
            raise UsageError(f"{label!r} cannot be a label.", hint="Use small letters, not v1, v2, ...")
        made = Label(
            name=version.name,
            label=label,
            version=version.version,
            at_us=to_us(self._clock.now()),
            set_by=by,
        )
        values = msgspec.structs.asdict(made)
        connection.execute(insert_if_new(connection, t).values(values))
        connection.execute(t.update().where(t.c.name == made.name, t.c.label == label).values(values))
        payload = {"name": made.name, "label": label, "version": made.version, "digest": version.digest}
        self._log.append_within(connection, [NewEntry(kind=kind, payload=payload, actor=by)])
        return made

    def version_before(self, name: str, label: str) -> int | None:
        """The version before the present one: moves back count as if what they undid had never been."""
        path: list[int] = []
        for entry in self._log.stream():
            if not entry.kind.startswith("prompt.") or entry.payload is None:
                continue
            if (entry.payload.get("name"), entry.payload.get("label")) != (name, label):
                continue
            if entry.kind == "prompt.rolled_back" and len(path) > 1:
                path.pop()
            elif not path or path[-1] != entry.payload["version"]:
                path.append(entry.payload["version"])
        return path[-2] if len(path) > 1 else None

    def _versions(self, connection: sa.Connection, name: str) -> list[PromptVersion]:
        import sqlalchemy as sa

        from stanchion.store.tables import prompts as t

        statement = sa.select(t).order_by(t.c.name, t.c.version)
        if name:
            statement = statement.where(t.c.name == name)
        return [
            PromptVersion(**row._mapping, is_signed=bool(row.envelope))
            for row in connection.execute(statement)
        ]


class PromptRegistry:
    """The prompts that may be served, in memory. `load` reads them again.

    With `kept`, what was read last is kept on disk, and a start without the store serves that: `is_from_disk`
    says so until the store answers.
    """

    def __init__(
        self,
        section: PromptsSection,
        store: PromptStore,
        *,
        keys: Mapping[str, Ed25519PublicKey] | None = None,
        kept: KeptPrompts | None = None,
    ) -> None:
        if section.require_signed and not keys:
            raise UsageError("signed prompts are required, and no key is trusted.")
        self.section = section
        self._store = store
        self._keys = dict(keys or {})
        self._kept = kept
        self._is_loaded = False
        self._served: dict[str, PromptVersion] = {}
        self.refused: dict[str, str] = {}
        self.is_from_disk = False

    def load(self) -> None:
        """Read the registry; a version that does not hold is left out, and `refused` says why.

        Raises:
            UnavailableError: when the database cannot be read; what is in memory stays. With nothing in
                memory, what was kept on disk is served instead, when that holds.
        """
        try:
            state = self._store.state()
        except UnavailableError as error:
            if self._is_loaded:
                raise
            state = self._last_state(error)
            self.is_from_disk = True
        else:
            self._keep(state)
            self.is_from_disk = False
        self._serve(state)
        self._is_loaded = True

    def _last_state(self, error: UnavailableError) -> PromptState:
        """What the disk holds; without it there is no start."""
        try:
            state = None if self._kept is None else self._kept.load()
        except IntegrityError as damage:
            raise UnavailableError(
                f"{error.message} The prompts on disk cannot stand in: {damage.message}", hint=error.hint
            ) from error
        if state is None:
            raise error
        return state

    def _keep(self, state: PromptState) -> None:
        if self._kept is None:
            return
        try:
            self._kept.store(state)
        except OSError as error:  # the store answers: nothing is lost but the start without it
            _log.error("the prompts could not be kept on disk: %s", error.strerror or error)

    def _serve(self, state: PromptState) -> None:
        versions = {(one.name, one.version): one for one in state.versions}
        references = {f"{name}@v{number}": one for (name, number), one in versions.items()}
        for label in state.labels:
            if (label.name, label.version) in versions:
                references[f"{label.name}@{label.label}"] = versions[label.name, label.version]
        served: dict[str, PromptVersion] = {}
        refused: dict[str, str] = {}
        for reference, one in references.items():
            try:
                self._check(reference, one)
            except StanchionError as error:
                refused[reference] = error.message
            else:
                served[reference] = one
        self._served, self.refused = served, refused

    def resolve(self, reference: str, variables: Mapping[str, str] | None = None) -> ResolvedPrompt:
        """The prompt of a request, filled in; in memory.

        Raises:
            Refused: `invalid` for a name that is not served (404), or variables that do not fit (400).
        """
        try:
            name, label = split_reference(reference)
        except UsageError as error:
            raise _invalid(error.message, status=400, code="prompt_name_invalid") from None
        one = self._served.get(f"{name}@{label}")
        if one is None:
            raise _invalid("there is no prompt of this name here.", status=404, code="prompt_not_found")
        given = dict(variables or {})
        _check_variables(one, given)
        return ResolvedPrompt(
            name=one.name,
            version=one.version,
            digest=one.digest,
            pieces=tuple(pieces(one.text, given)),
        )

    def _check(self, reference: str, one: PromptVersion) -> None:
        if digest_text(one.text) != one.digest:
            raise IntegrityError(f"the text of {reference} does not match its digest.")
        pin = self.section.pins.get(reference)
        if pin is not None and pin != one.digest:
            raise IntegrityError(f"{reference} is pinned to another digest.")
        if self.section.require_signed:
            if not one.envelope:
                raise IntegrityError(f"{reference} is not signed.")
            try:
                envelope = msgspec.json.decode(one.envelope, type=Envelope)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise IntegrityError(f"the signature of {reference} cannot be read.") from error
            signed = verified(envelope, payload_type=PAYLOAD_TYPE, keys=self._keys)
            if signed != _signed_bytes(one.name, one.version, one.digest):
                raise IntegrityError(f"the signature of {reference} is of another prompt.")


def _signed_bytes(name: str, version: int, digest: Digest) -> bytes:
    return msgspec.json.encode({"digest": digest, "name": name, "version": version}, order="sorted")


def _check_variables(one: PromptVersion, given: dict[str, Any]) -> None:
    """Exactly the variables that the text names, as texts of bounded length."""
    wanted = set(one.variables)
    missing, unknown = sorted(wanted - set(given)), sorted(set(given) - wanted)
    if len(given) > MAX_VARIABLES or missing or unknown:
        named = f"missing: {', '.join(missing)}" if missing else f"{len(unknown)} not in the prompt"
        raise _invalid(
            f"the variables do not fit {one.name}@v{one.version} ({named}).",
            status=400,
            code="prompt_variables",
        )
    if any(not isinstance(value, str) or len(value) > MAX_VALUE_CHARS for value in given.values()):
        raise _invalid(
            f"a variable is a text of at most {MAX_VALUE_CHARS:,} characters.",
            status=400,
            code="prompt_variables",
        )


def _invalid(message: str, *, status: int, code: str) -> Refused:
    return Refused(
        Outcome.INVALID,
        status=status,
        code=code,
        message=message,
        hint="List them with: stanchion prompts list",
    )


def make_prompts(
    section: PromptsSection,
    store: PromptStore,
    *,
    keys: Mapping[str, Ed25519PublicKey] | None = None,
    kept: KeptPrompts | None = None,
) -> PromptRegistry:
    """The registry, loaded.

    Raises:
        UnavailableError: when neither the store nor the disk says what may be served.
    """
    registry = PromptRegistry(section, store, keys=keys, kept=kept)
    registry.load()
    return registry
