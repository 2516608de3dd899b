"""Detectors that find words, and detectors that misbehave; a guard made of them."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.core.components import ComponentSet
from stanchion.core.decision import Effect
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind, Severity
from stanchion.core.interaction import Interaction, Message, Reply, Usage, assistant
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy import Policy
from stanchion.guard.policy_model import DetectorSettings
from stanchion.guard.rules import Rule, Selector

WHOLE = Reach(ReachKind.MESSAGE)


class PlainViews:
    """Only the raw reading."""

    def __init__(self, text: str) -> None:
        self.original = text
        self.memo: dict[str, Any] = {}
        self.views = ()
        self.signals = frozenset()


class Words:
    """Finds a regular expression; remembers what it was given."""

    def __init__(
        self,
        id: str = "pii",
        pattern: str = r"[\w.]+@[\w.]+",
        *,
        category: str = "pii.email",
        score: float = 0.9,
        severity: Severity = Severity.MEDIUM,
        cost: Cost = Cost.MICROSECONDS,
        reach: Reach = WHOLE,
    ) -> None:
        self.id = id
        self.version = "1"
        self.categories = (category,)
        self.reach = reach
        self.cost = cost
        self.seen: list[DetectorInput] = []
        self._pattern = re.compile(pattern)
        self._score = score
        self._severity = severity

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        self.seen.append(detector_input)
        return [
            Finding(
                detector=self.id,
                version="1",
                category=self.categories[0],
                score=self._score,
                location=Location(start=match.start(), end=match.end()),
                severity=self._severity,
            )
            for match in self._pattern.finditer(detector_input.text)
        ]


class Misbehaving(Words):
    """Does whatever it is told instead of detecting."""

    def __init__(self, behave: Callable[[DetectorInput], Any], **options: Any) -> None:
        super().__init__(**options)
        self._behave = behave

    def detect(self, detector_input: DetectorInput) -> Any:
        self.seen.append(detector_input)
        return self._behave(detector_input)


class Remote(Words):
    """An AsyncDetector."""

    detect = None  # type: ignore[assignment]

    def __init__(self, behave: Callable[[], Any] | None = None, **options: Any) -> None:
        super().__init__(cost=Cost.REMOTE, **options)
        self._behave = behave

    async def adetect(self, detector_input: DetectorInput) -> Any:
        self.seen.append(detector_input)
        await asyncio.sleep(0)
        if self._behave is not None:
            result = self._behave()
            return await result if asyncio.iscoroutine(result) else result
        return Words.detect(self, detector_input)


class Hang:
    """Hangs until released."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def __call__(self, detector_input: DetectorInput) -> list[Finding]:
        self.release.wait(30)
        return []


class Model:
    """A target that answers as it is told and remembers what it was asked."""

    id = "model"
    components = ComponentSet(model="sha256:" + "1" * 64)

    def __init__(self, answer: Any = "fine") -> None:
        self.answer = answer
        self.asked: list[Interaction] = []

    async def invoke(self, interaction: Interaction) -> Interaction:
        self.asked.append(interaction)
        answer = self.answer(interaction) if callable(self.answer) else self.answer
        message = assistant(answer) if isinstance(answer, str) else answer
        reply = Reply(message=message, model="m", usage=Usage(output_tokens=3))
        return msgspec.structs.replace(interaction, reply=reply)

    async def aclose(self) -> None:
        return None


def chat(*messages: Message, **fields: Any) -> Interaction:
    return Interaction(messages=messages, **fields)


def finding(start: int = 0, end: int = 1, *, category: str = "pii.email", score: float = 0.9) -> Finding:
    return Finding(
        detector="pii",
        version="1",
        category=category,
        score=score,
        location=Location(start=start, end=end),
    )


def rule(effect: Effect | str, category: str = "*", *, id: str = "r", **when: Any) -> Rule:
    options = {key: when.pop(key) for key in ("operator", "mode", "unless", "message") if key in when}
    return Rule(id=id, effect=Effect(effect), when=Selector(categories=(category,), **when), **options)


def policy(*rules: Rule, detectors: dict[str, DetectorSettings] | None = None, **fields: Any) -> Policy:
    settings = detectors or with_settings()
    return Policy(name="test", rules=rules, detectors=settings, **fields)


def guard(of: Policy, *detectors: Any, **options: Any) -> Guard:
    made = {detector.id: detector for detector in detectors or (Words(),)}
    clock = options.pop("clock", None) or ManualClock()
    return Guard(of, made, clock=clock, ids=CountingIds(), build_views=PlainViews, key=b"k" * 32, **options)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.monotonic()
    result = work()
    return result, time.monotonic() - started


def with_settings(**fields: Any) -> dict[str, DetectorSettings]:
    """Patient by default: a busy machine must not fail a test that is not about time."""
    return {"pii": msgspec.structs.replace(DetectorSettings(deadline_ms=10_000), **fields)}
