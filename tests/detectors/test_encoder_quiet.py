"""Nothing on the encoder's path opens a socket or writes a file, from the import to the finding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("onnxruntime") is None:  # importing it would start its telemetry
    pytest.skip("the extra 'ml' is not installed", allow_module_level=True)
pytest.importorskip("tokenizers", reason="the extra 'ml' is not installed")
pytest.importorskip("onnx", reason="onnx makes the tiny network")

import msgspec
from tiny_encoder import network, package, tokenizer

SCRIPT = """
import json, os, sys

seen = []
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def watch(event, arguments):
    if event.startswith("socket."):
        seen.append(event)
    elif event == "open" and isinstance(arguments[0], str) and arguments[2] & WRITING:
        if arguments[0] != os.devnull:
            seen.append("write " + arguments[0])
    elif event in ("os.mkdir", "os.rename", "os.remove", "subprocess.Popen", "os.system", "urllib.Request"):
        seen.append(event)

if sys.argv[1] == "probe":
    sys.addaudithook(watch)
    import socket
    socket.socket(socket.AF_INET).close()
    open(sys.argv[2], "w").close()
    print(json.dumps([len(seen) >= 2, 1, []]))
    raise SystemExit

import msgspec
sys.dont_write_bytecode = True
sys.addaudithook(watch)
from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors import encoder, encoder_model
from stanchion.detectors.views import build_views

manifest = msgspec.json.decode(sys.argv[1], type=encoder_model.EncoderManifest)
encoder_model.PACKAGE = "quiet_weights"
encoder.read_manifest = encoder_model.read_manifest = lambda: manifest
text = "apple " * 300 + "seize" + " pear" * 300
given = DetectorInput(view_set=build_views(text), origin=Origin.USER)
found = encoder.EncoderDetector().detect(given)
kinds = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if
         os.path.exists(f"/proc/self/fd/{name}")]
print(json.dumps([seen, len(found), [kind for kind in kinds if kind.startswith("socket:")]]))
"""


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """An empty home, cache, temporary folder and working folder."""
    made = {name: tmp_path / name for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR", "PWD")}
    for folder in made.values():
        folder.mkdir()
    return made


def run(places: dict[str, Path], importable: Path, *arguments: str) -> list:
    environment = {name: str(folder) for name, folder in places.items()}
    environment |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(importable), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=environment, cwd=places["PWD"], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return list(json.loads(done.stdout))


def test_reading_a_text_opens_no_socket_and_writes_nothing(tmp_path: Path, places: dict[str, Path]) -> None:
    words = {"apple": (-4.0, -4.0), "pear": (-4.0, -4.0), "seize": (9.0, 0.0)}
    manifest = package(tmp_path / "packages", "quiet_weights", tokenizer(list(words)), network(words))
    given = msgspec.json.encode(manifest).decode()
    seen, findings, sockets = run(places, tmp_path / "packages", given)
    assert (seen, sockets) == ([], [])
    assert findings >= 1
    assert [path for folder in places.values() for path in folder.rglob("*")] == []


def test_the_watch_would_see_them(tmp_path: Path, places: dict[str, Path]) -> None:
    seen, *_ = run(places, tmp_path, "probe", str(tmp_path / "written"))
    assert seen is True
