"""The command as its users have it: in a process of its own, or by its entry point in this one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

SCRIPT = Path(sys.executable).parent / "stanchion"
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


@dataclass(frozen=True)
class Done:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Its stdout as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Place:
    """A folder to work in, with a home, a cache and a state of its own."""

    folder: Path
    cache: Path
    command: tuple[str, ...] = (str(SCRIPT),)
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of this machine's user: no settings, no keys, no home."""
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        home = str(self.folder / "home")
        own = {"HOME": home, "XDG_CACHE_HOME": str(self.cache), "XDG_STATE_HOME": f"{home}/state"}
        return {**kept, **own, "COLUMNS": "100", **self.variables}

    def start(self, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        """The command in a process that goes on."""
        return subprocess.Popen(
            [*prefix, *self.command, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, prefix: Sequence[str] = (), timeout_s: float = 120.0) -> Done:
        """The command in a process of its own, to its end."""
        with self.start(*arguments, prefix=prefix) as process:
            out, err = process.communicate(timeout=timeout_s)
        return Done(process.returncode, out, err)

    def call(self, *arguments: str) -> Done:
        """The command in this process: quicker, and the same code from the entry point on."""
        from stanchion.cli.main import main

        out, err = _stream(), _stream()
        with (
            mock.patch.dict(os.environ, self.environment, clear=True),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main(arguments)
        return Done(code, _text(out), _text(err))

    def write(self, name: str, text: str | bytes) -> Path:
        """A file of the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """A dataset of JSON lines."""
        return self.write(name, "".join(json.dumps(row) + "\n" for row in rows))

    def run_ids(self) -> list[str]:
        """The runs there are, oldest first."""
        folder = self.folder / ".stanchion" / "runs"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def assert_one_complaint(done: Done, *, code: int, words: Sequence[str]) -> None:
    """One clear message on stderr, the right exit code, no traceback; whatever came before it is data."""
    assert done.code == code, done
    assert "Traceback" not in done.out + done.err
    assert "unexpected error" not in done.err
    assert sum(line.startswith("error: ") for line in done.err.splitlines()) == 1, done.err
    for word in words:
        assert word in done.err, f"{word!r} is not in: {done.err}"
