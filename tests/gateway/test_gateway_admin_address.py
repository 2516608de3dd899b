"""`stanchion serve` where the address of the admin API is taken: by default, and by choice."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import openai
from running_gateway import STANCHION, Running, until
from test_gateway_sections import ask, made, said


def test_a_taken_admin_address_stops_nobody_who_did_not_choose_it(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", 8701))
            holder.listen()
        except OSError:
            pass  # somebody else has it, which does as well
        run = Running(tmp_path, files={})
        command = [STANCHION, "serve", "--demo", "--listen", "127.0.0.1:0"]
        with (tmp_path / "log.txt").open("wb") as out:
            process = subprocess.Popen(command, cwd=tmp_path, env=run._environment, stdout=out, stderr=out)
        try:
            until(lambda: "no admin API here: cannot listen on 127.0.0.1:8701" in run.said(), seconds=60)
            found = re.search(r"serves at (http://[0-9.:]+)", run.said())
            assert found is not None
            run.url = found[1]
            assert said(until(lambda: _answered(run)))
        finally:
            process.terminate()
            assert process.wait(30) == 0


def _answered(run: Running) -> Any:
    try:
        return ask(run)
    except openai.APIConnectionError:
        return None


def test_a_taken_admin_address_that_was_chosen_is_an_error_that_names_it(tmp_path: Path) -> None:
    run = made(tmp_path)
    text = (tmp_path / "gateway.yaml").read_text()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        (tmp_path / "gateway.yaml").write_text(
            re.sub(r"admin_listen: .*", f"admin_listen: 127.0.0.1:{port}", text)
        )
        command = [STANCHION, "serve", "--config", "gateway.yaml"]
        done = subprocess.run(
            command, cwd=tmp_path, env=run._environment, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 2
    assert "the admin API: cannot listen" in done.stderr
    assert "admin_listen" in done.stderr
