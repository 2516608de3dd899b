"""A small real chat model in this process: no endpoint, no key, no network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.clock import Clock, SystemClock
from stanchion.core.codec import Digest
from stanchion.core.components import ComponentSet
from stanchion.core.errors import DeadlineError, StanchionError, UnavailableError, UsageError
from stanchion.core.interaction import End, Interaction, Sampling, StreamEvent
from stanchion.models.events import Assembler
from stanchion.models.llama import Engine, EngineOptions
from stanchion.models.openai import Style, encode_request
from stanchion.models.openai_answers import ChunkDecoder
from stanchion.models.weights import SMOLLM2, PackagedWeights, file_digest, require_packaged, verify
from stanchion.models.wire import error_label

_STYLE = Style(max_tokens_field="max_tokens")
_DONE = object()


class LocalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a local model runs.

    Each of the `instances` holds its own copy of the model's working memory (160 MB for SmolLM2-135M) and
    uses one core; more of them than cores make everything slower.
    """

    instances: int = 1
    engine: EngineOptions = EngineOptions()
    max_output_tokens: int = 256
    deadline_s: float = 120.0


DEFAULTS = LocalOptions()


class LocalModel:
    """A GGUF model in process: the packaged SmolLM2-135M, or any file by path.

    Temperature 0 unless the request says otherwise: the same request then gives the same answer on the same
    machine, whatever was asked before and beside it. Loaded once, at the first request; the digest is
    verified before. Requests wait in order for a free instance. Event loops may come and go.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        expected: Digest | None = None,
        options: LocalOptions = DEFAULTS,
        clock: Clock | None = None,
        packaged: PackagedWeights = SMOLLM2,
    ) -> None:
        if options.instances < 1:
            raise UsageError(f"a local model needs at least one instance, not {options.instances}.")
        self._packaged = packaged if path is None else None
        self._path = path
        self._expected = packaged.digest if path is None else expected
        self._name = packaged.name if path is None else path.stem.lower()
        self._options = options
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._pool = _EnginePool(self._load, options.instances)

    @property
    def id(self) -> str:
        """`local:` and the model's name."""
        return f"local:{self._name}"

    @property
    def components(self) -> ComponentSet:
        """The digest of the weights; a file given by path is read once for it.

        Raises:
            UsageError: when that file cannot be read.
        """
        with self._lock:
            if self._expected is None:
                self._expected = file_digest(self._file())
            return ComponentSet(model=self._expected)

    async def start(self) -> None:
        """Verify and load now rather than at the first request.

        Raises:
            MissingExtraError: when llama.cpp is not installed.
            UsageError: when the weights are not there.
            IntegrityError: when the weights are not the expected ones.
            UnavailableError: when llama.cpp cannot load them.
        """
        await asyncio.to_thread(self._pool.start)

    async def invoke(self, interaction: Interaction) -> Interaction:
        """The request with the model's answer; raises what `start` and `stream` raise."""
        began = self._clock.monotonic_ns()
        assembler = Assembler()
        async for event in self.stream(interaction):
            assembler.feed(event)
        latency_ms = (self._clock.monotonic_ns() - began) / 1e6
        return msgspec.structs.replace(interaction, reply=assembler.reply(latency_ms=latency_ms))

    async def stream(self, interaction: Interaction) -> AsyncIterator[StreamEvent]:
        """The model's answer as it comes; closing the iterator stops the generation.

        Raises:
            UsageError: for tools, which the packaged model cannot see, and for parts that are not text.
            UnavailableError: when the prompt does not fit or the model fails.
            DeadlineError: when the answer takes longer than `deadline_s`, waiting for an instance included.
        """
        body = self._body(interaction)
        generation = _Generation(body, asyncio.get_running_loop(), self._options.deadline_s)
        self._pool.submit(generation, prompt=_prompt_key(interaction))
        decoder = ChunkDecoder()
        try:
            async for chunk in generation.chunks():
                for event in decoder.feed(_checked(chunk)):
                    yield event
            for event in decoder.finish(is_marked=False):
                yield msgspec.structs.replace(event, model=self._name) if isinstance(event, End) else event
        except TimeoutError as error:
            limit = self._options.deadline_s
            raise DeadlineError(
                f"model {self.id!r} did not finish within {limit:g} s.",
                hint="Ask for fewer output tokens, use fewer instances at once, or raise `deadline_s`.",
            ) from error
        finally:
            generation.stop()

    async def aclose(self) -> None:
        """Stop what runs and let the model go; safe to call twice."""
        await asyncio.to_thread(self._pool.close)

    def _file(self) -> Path:
        return require_packaged(self._packaged) if self._packaged is not None else Path(self._path or "")

    def _load(self) -> list[Engine]:
        path = self._file()
        if self._expected is not None:
            verify(path, self._expected)
        options = self._options
        return [Engine(path, options.engine, name=self._name) for _ in range(options.instances)]

    def _body(self, interaction: Interaction) -> dict[str, Any]:
        if interaction.tools and self._packaged is not None and not self._packaged.can_call_tools:
            raise UsageError(
                f"model {self.id!r} cannot call tools, and the request offers {len(interaction.tools)}.",
                hint="Use a scripted model for suites with tools, or bring a GGUF model that can.",
            )
        asked = interaction.sampling
        sampling: Sampling = msgspec.structs.replace(
            asked,
            temperature=0.0 if asked.temperature is None else asked.temperature,
            max_output_tokens=asked.max_output_tokens or self._options.max_output_tokens,
        )
        request = msgspec.structs.replace(interaction, sampling=sampling, model="")
        return encode_request(request, stream=True, style=_STYLE)


def _prompt_key(interaction: Interaction) -> str:
    return "\n".join(message.text for message in interaction.messages)


def _checked(chunk: Any) -> Any:
    if isinstance(chunk, dict) and isinstance(error := chunk.get("error"), dict):
        if error.get("type") == "exceed_context_size_error":
            asked, room = error.get("n_prompt_tokens"), error.get("n_ctx")
            raise UnavailableError(
                f"the prompt has {asked} tokens; the context holds {room}.",
                hint="Shorten the prompt, or raise `context_tokens`.",
            )
        raise UnavailableError(f"the local model failed ({error_label(chunk) or 'no reason given'}).")
    return chunk


class _Generation:
    """One answer on its way from an engine's thread to the event loop."""

    def __init__(self, body: dict[str, Any], loop: asyncio.AbstractEventLoop, deadline_s: float) -> None:
        self._body = body
        self._loop = loop
        self._ends_at = loop.time() + deadline_s
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._stopped = threading.Event()

    def run(self, engine: Engine, *, can_reuse: bool) -> None:
        """In a worker thread: generate, passing on the chunks.

        `can_reuse` lets the engine keep what it knows of a prompt that begins alike. Of the very same prompt
        one token would be left to read, which other arithmetic does than several: other last digits, and at
        temperature 0 now and then another word.
        """
        if not self._stopped.is_set():
            engine.generate(self._body | {"cache_prompt": can_reuse}, self._pass_on)

    def ended(self, job: Future[None]) -> None:
        """When the job is over, in whatever way: pass that on too."""
        if job.cancelled() or self._stopped.is_set():
            self._put(_closed())
            return
        error = job.exception()
        if error is None or isinstance(error, StanchionError):
            self._put(error or _DONE)
        else:
            self._put(UnavailableError(f"the local model broke ({type(error).__name__})."))

    def stop(self) -> None:
        """Ask the engine to stop at the next token."""
        self._stopped.set()

    async def chunks(self) -> AsyncIterator[Any]:
        """The chunks as they come; TimeoutError when the deadline passes first."""
        while True:
            async with asyncio.timeout_at(self._ends_at):
                item = await self._queue.get()
            if item is _DONE:
                return
            if isinstance(item, StanchionError):
                raise item
            yield item

    def _pass_on(self, chunk: Any) -> bool:
        if not self._stopped.is_set():
            self._put(chunk)
        return self._stopped.is_set()

    def _put(self, item: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # the loop is closed: nobody waits for this answer any more
            self._stopped.set()


def _closed() -> UnavailableError:
    return UnavailableError("the local model was closed.", hint="Make a new one.")


class _EnginePool:
    """Engines and as many threads; a job gets the free engine whose last prompt begins most alike."""

    def __init__(self, load: Callable[[], list[Engine]], size: int) -> None:
        self._load = load
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="stanchion-local")
        self._lock = threading.Lock()
        self._all: list[Engine] = []
        self._free: list[Engine] = []
        self._active: set[_Generation] = set()
        self._is_closed = False

    def start(self) -> None:
        """Load the engines once, in the calling thread."""
        with self._lock:
            if self._is_closed:
                raise _closed()
            if not self._all:
                self._all = self._load()
                self._free = list(self._all)

    def submit(self, generation: _Generation, *, prompt: str) -> None:
        """Run a generation in a thread, as soon as one is free."""
        with self._lock:
            if self._is_closed:
                raise _closed()
            self._active.add(generation)
            job = self._threads.submit(self._job, generation, prompt)
        job.add_done_callback(lambda done: self._over(generation, done))

    def close(self) -> None:
        """Stop what runs, wait for it, and let the engines go."""
        with self._lock:
            self._is_closed = True
            for generation in self._active:
                generation.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            for engine in self._all:
                engine.close()
            self._all, self._free = [], []

    def _job(self, generation: _Generation, prompt: str) -> None:
        self.start()
        with self._lock:
            engine = max(self._free, key=lambda e: _common_prefix(e.last_prompt, prompt))
            self._free.remove(engine)
        is_repeated = engine.last_prompt.split() == prompt.split()
        engine.last_prompt = prompt
        try:
            generation.run(engine, can_reuse=not is_repeated)
        finally:
            with self._lock:
                self._free.append(engine)

    def _over(self, generation: _Generation, job: Future[None]) -> None:
        with self._lock:
            self._active.discard(generation)
        generation.ended(job)


def _common_prefix(first: str, second: str) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))
