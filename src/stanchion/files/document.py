"""YAML that remembers where everything stands.

The reading is the YAML 1.2 core schema: only `true` and `false` are booleans, `no` and `on` are text, dates
stay text, keys are text. Every problem of a file is collected; nothing is executed, and nothing grows beyond
the limits (bytes, depth, values, values repeated by aliases).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from stanchion.core.codec import Digest, digest_bytes
from stanchion.core.errors import FilesError, Problem

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 100
MAX_NODES = 1_000_000
MAX_ALIASED_NODES = 100_000
_TEXT_PER_VALUE = (
    64  # characters that weigh as much as one more value, so that long texts cannot be repeated freely
)

Step = str | int
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NONE: Mapping[Any, Any] = MappingProxyType({})
_CORE = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}|0o[0-7]{1,400}|0x[0-9a-fA-F]{1,400}")
# JSON writes a character beyond U+FFFF as two escapes, YAML as one; other escapes are stepped over whole.
_SURROGATE_PAIR = re.compile(r"\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)|\\[^u]")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(slots=True, eq=False)  # not frozen: a frozen one takes twice as long to make
class Node:
    """One place of a document; `value` is the plain Python value of everything below it."""

    line: int
    column: int
    value: Any
    children: Mapping[Step, Node] = field(default_factory=lambda: _NONE)
    keys: Mapping[str, tuple[int, int]] = field(default_factory=lambda: _NONE)
    size: int = (
        1  # values below and including this one, aliases as often as they are used, long texts as several
    )


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """The content of one file, its digest, and the place of every value in it."""

    file: str
    root: Node
    digest: Digest

    @property
    def value(self) -> Any:
        """What the file says, as plain lists, dicts and scalars; references are not resolved."""
        return self.root.value

    def position(self, path: Sequence[Step]) -> tuple[int, int]:
        """The (line, column), 1-based, of the value at `path`, or of the nearest value around it."""
        node = self.root
        for step in path:
            child = node.children.get(step)
            if child is None:
                return node.line, node.column
            node = child
        return node.line, node.column

    def key_position(self, path: Sequence[Step]) -> tuple[int, int]:
        """The place of the key that leads to `path`; for an item of a list, of the item itself."""
        node = self.root
        for step in path[:-1]:
            child = node.children.get(step)
            if child is None:
                return node.line, node.column
            node = child
        last = path[-1] if path else ""
        return node.keys.get(str(last)) or self.position(path)

    def problem(self, path: Sequence[Step], *, rule: str, message: str, hint: str | None = None) -> Problem:
        """A problem of this file at the value of `path`."""
        line, column = self.position(path)
        return Problem(file=self.file, line=line, column=column, rule=rule, message=message, hint=hint)


def read_document(path: Path, *, max_bytes: int = MAX_BYTES) -> YamlDocument:
    """The one YAML (or JSON) document of a file.

    Raises:
        FilesError: with every problem: unreadable, too large, not UTF-8, not YAML, several documents, a key
            given twice, a cyclic or exploding alias, a tag that is not of the core schema.
    """
    document, problems = attempt_document(path, max_bytes=max_bytes)
    if document is None or problems:
        raise FilesError(problems)
    return document


def attempt_document(
    path: Path, *, max_bytes: int = MAX_BYTES
) -> tuple[YamlDocument | None, tuple[Problem, ...]]:
    """What could be read of a file, and all that is wrong with it; for callers that collect problems."""
    name = str(path)
    try:
        data = read_limited(path, max_bytes=max_bytes)
    except FilesError as error:
        return None, error.problems
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return None, (_not_utf8(name, data, error),)
    if path.suffix == ".json":
        text = _SURROGATE_PAIR.sub(_joined_pair, text)
    return compose(text, file=name, digest=digest_bytes(data))


def read_limited(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file a person wrote.

    Raises:
        FilesError: when it is missing, a folder, unreadable or larger than `max_bytes`.
    """
    name = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except FileNotFoundError:
        problem = Problem(file=name, rule="file-missing", message="there is no such file.")
    except IsADirectoryError:
        problem = Problem(file=name, rule="file-missing", message="this is a folder, not a file.")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        problem = Problem(file=name, rule="file-unreadable", message=f"cannot be read: {reason}.")
    else:
        if len(data) <= max_bytes:
            return data
        problem = Problem(
            file=name,
            rule="file-too-large",
            message=f"larger than the limit of {max_bytes:,} bytes.",
            hint="Keep rows in a JSONL, CSV or Parquet file: those are read as streams.",
        )
    raise FilesError([problem])


def compose(text: str, *, file: str, digest: Digest) -> tuple[YamlDocument | None, tuple[Problem, ...]]:
    """The document of a text; `None` when the text is not one YAML document at all."""
    composer = _Composer(file)
    root: Node | None = None
    try:
        root = composer.run(_LOADER(text))
    except yaml.MarkedYAMLError as error:
        composer.problems.append(_syntax_problem(file, text, error))
    except yaml.reader.ReaderError as error:
        composer.problems.append(_character_problem(file, text, error))
    except _StopComposingError:
        pass
    if root is None:
        if not composer.problems:
            composer.report(None, "file-empty", "the file is empty.")
        return None, tuple(composer.problems)
    return YamlDocument(file=file, root=root, digest=digest), tuple(composer.problems)


class _StopComposingError(Exception):
    """A limit is reached: reading on would be the harm the limit prevents."""


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    mark: Any
    anchor: str | None
    is_mapping: bool
    children: dict[Step, Node] = field(default_factory=dict)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    key: str | None = None
    expects_key: bool = True
    is_skipped: bool = False  # the pending key cannot be used; its value is read and dropped
    size: int = 1


class _Composer:
    """Builds nodes from parser events with a stack of its own, so depth is ours to limit."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._aliased = 0
        self._nodes = 0
        self._root: Node | None = None

    def report(self, mark: Any, rule: str, message: str, hint: str | None = None) -> None:
        line, column = (0, 0) if mark is None else _place(mark)
        self.problems.append(
            Problem(file=self.file, line=line, column=column, rule=rule, message=message, hint=hint)
        )

    def run(self, loader: Any) -> Node | None:
        documents = 0
        try:
            while loader.check_event():
                event = loader.get_event()
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self.report(
                            event.start_mark,
                            "yaml-documents",
                            "a second YAML document begins here.",
                            "One document a file: split the file, or remove the '---'.",
                        )
                        break
                else:
                    self._take(event)
        finally:
            loader.dispose()
        return self._root

    def _take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close()
            case _:
                pass

    def _open(self, event: Any) -> None:
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        self._check_tag(event, "map" if is_mapping else "seq")
        if len(self._stack) >= MAX_DEPTH:
            self.report(
                event.start_mark, "yaml-depth", f"nested deeper than the limit of {MAX_DEPTH} levels."
            )
            raise _StopComposingError
        self._stack.append(_Open(event.start_mark, event.anchor, is_mapping))

    def _close(self) -> None:
        frame = self._stack.pop()
        children = frame.children
        value: Any = (
            {key: child.value for key, child in children.items()}
            if frame.is_mapping
            else [child.value for child in children.values()]
        )
        node = Node(*_place(frame.mark), value, children, frame.keys, frame.size)
        self._keep(frame.anchor, node)
        self._place_node(node, frame.mark)

    def _scalar(self, event: Any) -> None:
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.is_mapping and frame.expects_key:
            self._key(frame, event)
            if event.anchor:
                self._anchors[event.anchor] = Node(*_place(event.start_mark), event.value)
            return
        size = 1 + len(event.value) // _TEXT_PER_VALUE
        node = Node(*_place(event.start_mark), self._resolve(event), size=size)
        self._keep(event.anchor, node)
        self._place_node(node, event.start_mark)

    def _key(self, frame: _Open, event: Any) -> None:
        key = str(event.value)
        frame.expects_key, frame.is_skipped, frame.key = False, False, key
        if key == "<<" and event.implicit[0]:
            frame.is_skipped = True
            self.report(
                event.start_mark, "yaml-merge", "merge keys ('<<') are not supported.", "Write the keys out."
            )
        elif key in frame.keys:
            frame.is_skipped = True
            self.report(
                event.start_mark,
                "yaml-duplicate-key",
                f"key {shown(key)} is given twice in one mapping.",
                f"The first stands in line {frame.keys[key][0]}; remove one of the two.",
            )
        else:
            frame.keys[key] = _place(event.start_mark)

    def _alias(self, event: Any) -> None:
        mark, name = event.start_mark, event.anchor
        node = self._anchors.get(name)
        if any(frame.anchor == name for frame in self._stack):
            self.report(mark, "yaml-cycle", f"alias '*{name}' stands inside the value it names: a cycle.")
            raise _StopComposingError
        if node is None:
            self.report(mark, "yaml-alias", f"alias '*{name}' names no anchor before it.")
            raise _StopComposingError
        self._aliased += node.size
        if self._aliased > MAX_ALIASED_NODES:
            self.report(
                mark,
                "yaml-alias-bomb",
                f"aliases repeat more than the limit of {MAX_ALIASED_NODES:,} values.",
            )
            raise _StopComposingError
        frame = self._stack[-1]
        if frame.is_mapping and frame.expects_key:
            self._complex_key(frame, mark)
            frame.is_skipped, frame.expects_key = True, False
            return
        self._place_node(node, mark)

    def _keep(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _place_node(self, node: Node, mark: Any) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self.report(
                mark,
                "yaml-nodes",
                f"more than the limit of {MAX_NODES:,} values.",
                "Keep rows in a JSONL, CSV or Parquet file: those are read as streams.",
            )
            raise _StopComposingError
        if not self._stack:
            self._root = node
            return
        frame = self._stack[-1]
        if not frame.is_mapping:
            frame.children[len(frame.children)] = node
        elif frame.expects_key:
            self._complex_key(frame, mark)
            frame.is_skipped, frame.expects_key = True, False
            return
        else:
            if not frame.is_skipped and frame.key is not None:
                frame.children[frame.key] = node
            frame.expects_key, frame.key = True, None
        frame.size += node.size

    def _complex_key(self, frame: _Open, mark: Any) -> None:
        del frame
        self.report(mark, "yaml-key", "a key must be plain text, not a list, a mapping or an alias.")

    def _check_tag(self, event: Any, kind: str) -> None:
        if event.tag not in (None, "!", f"{_CORE}{kind}"):
            self.report(
                event.start_mark,
                "yaml-tag",
                f"tag {shown(event.tag)} is not allowed here.",
                "Only plain values, lists and mappings are read.",
            )

    def _resolve(self, event: Any) -> Any:
        text = str(event.value)
        if event.tag in ("!", f"{_CORE}str") or (event.tag is None and not event.implicit[0]):
            return text
        if event.tag is None:
            return plain_value(text)
        wanted = {
            f"{_CORE}int": int,
            f"{_CORE}float": float,
            f"{_CORE}bool": bool,
            f"{_CORE}null": type(None),
        }
        kind = wanted.get(event.tag)
        value = plain_value(text)
        if kind is None or not isinstance(value, kind):
            self.report(
                event.start_mark, "yaml-tag", f"tag {shown(event.tag)} is not allowed here, or does not fit."
            )
        return value


def _joined_pair(match: re.Match[str]) -> str:
    if match[1] is None:
        return match[0]
    try:
        return f"\\U{0x10000 + ((int(match[1], 16) - 0xD800) << 10) + int(match[2], 16) - 0xDC00:08X}"
    except ValueError:
        return match[0]


def plain_value(text: str) -> Any:
    """What an unquoted scalar means in the YAML 1.2 core schema."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INTEGER.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text[2:] if base != 10 else text, base)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def shown(value: Any, *, limit: int = 40) -> str:
    """A value as a message may show it: short ones as they are, longer ones by their length."""
    text = repr(value)
    return text if len(text) <= limit else f"of {len(str(value))} characters"


def _place(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _not_utf8(name: str, data: bytes, error: UnicodeDecodeError) -> Problem:
    offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
    line = data.count(b"\n", 0, offset) + 1
    start = data.rfind(b"\n", 0, offset) + 1
    column = len(data[start:offset].decode("utf-8", "replace")) + 1
    return Problem(
        file=name,
        line=line,
        column=column,
        rule="file-encoding",
        message=f"not UTF-8: byte 0x{data[offset]:02x} at offset {offset}.",
        hint="Save the file as UTF-8.",
    )


def _syntax_problem(file: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (0, 0) if mark is None else _place(mark)
    lines = text.splitlines()
    source = lines[line - 1] if 0 < line <= len(lines) else ""
    indent = source[: len(source) - len(source.lstrip())]
    if "\t" in indent:
        message, column = "a tab cannot indent YAML.", indent.index("\t") + 1
        return Problem(
            file=file, line=line, column=column, rule="yaml-syntax", message=message, hint="Use spaces."
        )
    context = f" {error.context}" if error.context else ""
    message = f"not valid YAML: {error.problem or 'it cannot be parsed'}{context}."
    hint = "Quote text that holds ': ' or ' #', or that begins with one of @ ` % & * ! | > [ ] { }."
    return Problem(file=file, line=line, column=column, rule="yaml-syntax", message=message, hint=hint)


def _character_problem(file: str, text: str, error: yaml.reader.ReaderError) -> Problem:
    bad = next(
        (
            i
            for i, c in enumerate(text)
            if (ord(c) < 32 and c not in "\t\n\r") or (127 <= ord(c) < 160 and c != "\x85")
        ),
        None,
    )
    reason = str(error.reason)
    if bad is None:
        return Problem(file=file, rule="yaml-character", message=f"not valid YAML: {reason}.")
    line = text.count("\n", 0, bad) + 1
    return Problem(
        file=file,
        line=line,
        column=bad - (text.rfind("\n", 0, bad) + 1) + 1,
        rule="yaml-character",
        message=f"character U+{ord(text[bad]):04X} is not allowed in YAML.",
        hint="Remove it, or write it as an escape in a double-quoted text.",
    )
