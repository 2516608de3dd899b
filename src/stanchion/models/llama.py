"""llama.cpp in this process, through `xllamacpp`: one engine answers one request at a time.

The settings were measured on SmolLM2-135M and are explained in docs/adr/0030: one slot and no flash
attention make an answer independent of what was asked before and beside it; several engines, not several
slots, use several cores.
"""

from __future__ import annotations

import importlib
import os
import secrets
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.errors import MissingExtraError, UnavailableError

_SOCKET_NAME = "s.sock"  # the library takes a host name that ends so for a Unix socket
_MAX_SOCKET_PATH = 100


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine is started.

    `context_tokens` bounds prompt and answer together. More than one thread pays only on idle machines:
    with another busy process beside it, two threads that wait for each other collapse to a few tokens a
    second.
    """

    context_tokens: int = 2048
    threads: int = 1
    batch_tokens: int = 512


class Engine:
    """One loaded model with one slot; not for two threads at once.

    The library always listens for HTTP. Here it listens on a Unix socket in a private folder, and both names
    are removed as soon as it does: nothing is left to connect to. Where there are no Unix sockets it is a
    loopback port behind a random key that nobody knows, with CORS closed.
    """

    def __init__(self, path: Path, options: EngineOptions, *, name: str) -> None:
        library = _library()
        params = library.CommonParams()
        params.model.path = str(path)
        params.model_alias = {name}
        params.n_ctx = options.context_tokens
        params.n_parallel = 1
        params.n_batch = params.n_ubatch = options.batch_tokens
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
        params.flash_attn_type = library.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_ram_mib = 0  # its default keeps up to 8 GiB of old prompts
        params.n_gpu_layers = 0
        params.offline = True
        _close_doors(params)
        self._server = _start(library, params, name)
        self.last_prompt = ""

    def generate(self, body: dict[str, Any], on_chunk: Callable[[Any], bool]) -> None:
        """Stream chat completion chunks to `on_chunk` until it returns True or the answer is over.

        Blocks. A failure arrives as a chunk with an `error` object; `on_chunk` must not raise: the library
        would swallow it.

        Raises:
            UnavailableError: when the library refuses the request.
        """
        if self._server is None:
            raise UnavailableError("the local model is closed.")
        try:
            self._server.handle_chat_completions(body, on_chunk)
        except (ValueError, RuntimeError) as error:
            raise UnavailableError(
                f"the local model refused the request ({type(error).__name__})."
            ) from error

    def close(self) -> None:
        """Let the model go; safe to call twice."""
        self._server = None


def _library() -> Any:
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise MissingExtraError("a local model", "local") from error


def _close_doors(params: Any) -> None:
    params.verbosity = -1  # its log goes to stderr, prompts included at higher levels
    params.api_keys = [secrets.token_urlsafe(32)]
    params.cors_origins = "http://localhost"
    params.cors_credentials = False
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_props = False
    params.endpoint_metrics = False
    params.n_threads_http = 1


def _start(library: Any, params: Any, name: str) -> Any:
    folder = _socket_folder()
    if folder is not None:
        params.hostnames = [str(folder / _SOCKET_NAME)]
    try:
        return library.Server(params)
    except RuntimeError as error:
        raise UnavailableError(
            f"llama.cpp could not load the model {name!r}.",
            hint="Check that the file is a GGUF model that this build supports, and that memory suffices.",
        ) from error
    finally:
        if folder is not None:
            (folder / _SOCKET_NAME).unlink(missing_ok=True)
            folder.rmdir()


def _socket_folder() -> Path | None:
    """A fresh folder that only this user may enter, with a path short enough for a socket."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    for base in (None, "/tmp"):  # noqa: S108  (mkdtemp makes a private folder below it)
        folder = Path(tempfile.mkdtemp(prefix="stanchion-", dir=base))
        if len(os.fsencode(folder / _SOCKET_NAME)) <= _MAX_SOCKET_PATH:
            return folder
        folder.rmdir()
    return None
