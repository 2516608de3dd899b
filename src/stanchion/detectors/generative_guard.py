"""`model.generative_guard`: a guard model behind a chat endpoint, asked and read as its configuration says.

The judged text goes into one slot. What could end that slot (control tokens of the model's template, the
delimiters of the prompt) is broken up in it, and marks are drawn anew for each call. An answer that is cut
off, refused, or of another form than configured is an error of the check, never a pass.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stanchion.core.clock import Ids, SortableIds, SystemClock
from stanchion.core.codec import digest, short
from stanchion.core.errors import DeadlineError, JudgementError, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.core.interaction import (
    FinishReason,
    Interaction,
    Message,
    Reasoning,
    Reply,
    Sampling,
    Text,
    assistant,
    system,
    user,
)
from stanchion.core.origin import Origin
from stanchion.core.target import Target
from stanchion.core.taxonomy import category
from stanchion.detectors.guard_model_file import GuardModelFile, PromptPart, read_guard_model
from stanchion.detectors.model_start import start
from stanchion.detectors.scan import Scanner

ID = "model.generative_guard"
CODE_VERSION = 1
OTHER = "content.policy"
ModelFactory = Callable[[str], Target]

_MESSAGES: Mapping[str, Callable[[str], Message]] = {"system": system, "user": user, "assistant": assistant}
_SLOT = re.compile(r"\{\{|\}\}|\{(text|question|risk|mark)\}")
_WORD = re.compile(r"^[\s\"'*]*([a-z_]+)[\s\"'*.!]*$", re.IGNORECASE)
_CONFIDENCE = re.compile(r"<confidence>\s*\w+\s*</confidence>")
_SCORE = re.compile(
    r"(?:<think>(?P<think>.*?)</think>)?\s*<score>(?P<score>[^<>]*)</score>", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(r"</?(?:score|think)\b", re.IGNORECASE)
_CODE = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,40}$")
_APART = "\u00b7"  # put between the characters of what must not be read as a delimiter


class GenerativeGuard:
    """Reports the categories that the guard model names, with a score of 1: it gives no probabilities."""

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.REMOTE

    def __init__(
        self,
        file: GuardModelFile,
        model: Callable[[], Target],
        *,
        name: str,
        deadline_s: float = 30.0,
        max_characters: int = 20_000,
        ids: Ids | None = None,
    ) -> None:
        """`model` makes the model on the first call; `name` is its name in the version."""
        self.file = file
        self._make_model = model
        self._model: Target | None = None
        self._deadline_s = deadline_s
        self._most = max_characters
        self._ids = ids or SortableIds(SystemClock())
        self.categories = tuple(sorted({*file.categories.values(), *file.risks.values(), OTHER}))
        identity = [CODE_VERSION, file.model_dump(mode="json"), name]
        self.version = f"{CODE_VERSION}+{file.guard_model}.{file.version}+{short(digest(identity))}"

    def prepare(self) -> None:
        """Make the model's client, and load a local model, so that no text waits for it.

        Raises:
            UsageError: when no model is configured, or it cannot be reached from here.
        """
        start(self._opened())

    async def adetect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """One finding over the whole text for each category that is violated.

        Raises:
            JudgementError: when an answer is not a verdict, or the text is longer than the limit.
            UnavailableError: when the model does not answer.
            DeadlineError: when it does not answer in time.
        """
        text = detector_input.text
        questions = detector_input.context.get("question", ())
        length = len(text) + sum(map(len, questions))
        if length > self._most:
            raise JudgementError(
                f"detector {ID!r}: the text has {length:,} characters, the limit is {self._most:,}.",
                hint="Raise its option `max_characters`, or check shorter pieces.",
            )
        if not text.strip():
            return ()
        violated: dict[str, str] = {}
        for risk in self.file.risks or {"": ""}:
            for code in await self._ask(detector_input, risk):
                known = self.file.risks.get(code) or self.file.categories.get(code, OTHER)
                violated.setdefault(known, code)
        return [self._finding(name, violated[name], text) for name in sorted(violated)]

    async def aclose(self) -> None:
        """Let go of the model's connections."""
        if self._model is not None:
            await self._model.aclose()
            self._model = None

    def _opened(self) -> Target:
        if self._model is None:
            self._model = self._make_model()
        return self._model

    async def _ask(self, given: DetectorInput, risk: str) -> Sequence[str]:
        mark = self._ids.new("mark")
        asked = make_request(self.file, given, risk=risk, mark=mark)
        try:
            async with asyncio.timeout(self._deadline_s):
                done = await self._opened().invoke(asked)
        except TimeoutError as error:
            raise DeadlineError(f"the guard model gave no verdict within {self._deadline_s:g} s.") from error
        return read_answer(done.reply, self.file, risk=risk)

    def _finding(self, name: str, code: str, text: str) -> Finding:
        return Finding(
            detector=ID,
            version=self.version,
            category=name,
            score=1.0,
            location=Location(start=0, end=len(text)),
            severity=category(name).severity,
            rule=f"{self.file.guard_model}.{_short_code(code)}",
            reason="the guard model calls it a violation",
        )


def make_request(file: GuardModelFile, given: DetectorInput, *, risk: str, mark: str) -> Interaction:
    """What the guard model is asked: about an answer, where a model wrote the text to a known question."""
    questions = given.context.get("question", ())
    is_answer = given.origin is Origin.MODEL and bool(questions)
    parts = file.answer if is_answer else file.user
    words = {
        "text": defused(given.text, (*file.reserved, mark)),
        "question": defused("\n".join(questions), (*file.reserved, mark)),
        "risk": risk,
        "mark": mark,
    }
    return Interaction(
        messages=tuple(_MESSAGES[part.role](_filled(part, words)) for part in parts),
        sampling=Sampling(temperature=0.0, max_output_tokens=file.max_tokens),
    )


def defused(text: str, reserved: Sequence[str]) -> str:
    """The text with every delimiter in it broken up, whatever its case; idempotent."""
    for word in reserved:
        apart = word[0] + _APART + word[1:] if len(word) > 1 else _APART
        text = re.sub(re.escape(word), lambda _, apart=apart: apart, text, flags=re.IGNORECASE)  # type: ignore[misc]
    return text


def _filled(part: PromptPart, words: Mapping[str, str]) -> str:
    """Slots filled in one pass, so that what a text holds is never read as a slot."""

    def fill(match: re.Match[str]) -> str:
        return words[match[1]] if match[1] else match[0][0]

    return _SLOT.sub(fill, part.text)


def read_answer(reply: Reply | None, file: GuardModelFile, *, risk: str) -> Sequence[str]:
    """The codes that the answer calls violated; for the form `word` the risk itself.

    Raises:
        JudgementError: when it is not a whole verdict of the configured form.
    """
    if reply is None or reply.finish_reason is not FinishReason.STOP:
        reason = "no answer" if reply is None else f"it ended with {reply.finish_reason.value!r}"
        raise _no_verdict(file, reason)
    parts = [part for part in reply.message.parts if not isinstance(part, Reasoning)]
    if not parts or not all(isinstance(part, Text) for part in parts):
        raise _no_verdict(file, "it holds something else than text")
    answer = "".join(part.text for part in parts if isinstance(part, Text)).strip()
    match file.verdict.form:
        case "lines":
            return _read_lines(answer, file)
        case "word":
            return [risk] if _read_word(_CONFIDENCE.sub("", answer), file) else []
        case "score":
            return [risk] if _read_word(_score(answer, file), file) else []
        case _:
            return _read_json(answer, file)


def _read_lines(answer: str, file: GuardModelFile) -> Sequence[str]:
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    word = lines[0].lower() if lines else ""
    if word == file.verdict.safe.lower() and len(lines) == 1:
        return []
    if word != file.verdict.unsafe.lower() or len(lines) != 2:
        raise _no_verdict(
            file, f"it is not {file.verdict.safe!r}, nor {file.verdict.unsafe!r} with a line of codes"
        )
    return _codes([code.strip() for code in lines[1].split(",")], file)


def _score(answer: str, file: GuardModelFile) -> str:
    """What stands in the one `<score>`; a `<think>` block may come first, and nothing else beside it."""
    found = _SCORE.fullmatch(answer)
    if found is None or _TAG.search(found["score"]) or _TAG.search(found["think"] or ""):
        raise _no_verdict(file, "it is not one <score>, with at most one <think> before it")
    return found["score"]


def _read_word(answer: str, file: GuardModelFile) -> bool:
    found = _WORD.match(answer)
    word = found[1].lower() if found else ""
    if word not in (file.verdict.safe.lower(), file.verdict.unsafe.lower()):
        raise _no_verdict(file, f"it is neither {file.verdict.safe!r} nor {file.verdict.unsafe!r}")
    return word == file.verdict.unsafe.lower()


def _read_json(answer: str, file: GuardModelFile) -> Sequence[str]:
    try:
        value = json.loads(answer, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        value = None
    violation = value.get(file.verdict.violation) if isinstance(value, dict) else None
    named = value.get(file.verdict.categories) if isinstance(value, dict) else None
    if violation not in (0, 1) or isinstance(violation, float) or not isinstance(named, list):
        raise _no_verdict(
            file, f"it is no JSON object with {file.verdict.violation!r} and {file.verdict.categories!r}"
        )
    codes = _codes(named, file)
    if bool(violation) is not bool(codes):
        raise _no_verdict(file, "its violation and its categories contradict each other")
    return codes


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is said twice")
    return found


def _codes(named: Sequence[Any], file: GuardModelFile) -> Sequence[str]:
    """Codes that are well formed, those too that the configuration does not know (`content.policy`)."""
    if not all(isinstance(code, str) and _CODE.match(code) for code in named):
        raise _no_verdict(file, "its codes are none")
    return [str(code) for code in named]


def _short_code(code: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", code.partition(":")[0].lower()).strip("_")[:40] or "verdict"


def _no_verdict(file: GuardModelFile, reason: str) -> JudgementError:
    return JudgementError(
        f"the guard model {file.guard_model!r} gave no verdict: {reason}.",
        hint="Check that the endpoint serves this model, and that the configuration fits it.",
    )


def create(
    *,
    scanner: Scanner,
    models: ModelFactory | None = None,
    configuration: str = "llama_guard_3",
    model: str = "",
    base: Path | None = None,
    deadline_s: float = 30.0,
    max_characters: int = 20_000,
) -> GenerativeGuard:
    """A guard model by configuration (a packaged name, or a `.yaml` file) and model (`openai/NAME`).

    `models` makes a model by its name; `bootstrap.make_registry` brings it with the addresses and keys of the
    settings. `base` is the folder of the policy that names the file.

    Raises:
        UnknownNameError: for an unknown configuration.
        UsageError: for an option that does not fit.
    """
    if not 0.0 < deadline_s <= 600.0 or max_characters < 1:
        raise UsageError(f"detector {ID!r}: deadline_s is above 0, max_characters at least 1.")

    def make() -> Target:
        if not model:
            raise UsageError(
                f"detector {ID!r} has no model.", hint="Give it the option `model`: openai/NAME."
            )
        if models is None:
            raise UsageError(
                f"detector {ID!r} cannot reach models here.",
                hint="Make the registry with `bootstrap.make_registry`, or give Registry(models=...).",
            )
        return models(model)

    file = read_guard_model(configuration, base=base)
    return GenerativeGuard(file, make, name=model, deadline_s=deadline_s, max_characters=max_characters)
