"""`judge` and its packaged rubrics: a model rates a text, and what it could not rate never passes.

A verdict that is refused, cut off, of another form, or given by a judge that followed the judged text is an
error of the check: what that means is for the policy to say, and a pass is not among its meanings unless it
says `fail: open`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from stanchion.core.clock import Ids, SortableIds, SystemClock
from stanchion.core.codec import digest, short
from stanchion.core.errors import DeadlineError, JudgementError, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.core.interaction import Usage
from stanchion.core.target import Target
from stanchion.core.taxonomy import category
from stanchion.detectors.judge_prompt import PROMPT_VERSION, make_question, read_verdict
from stanchion.detectors.judge_rubric import Criterion, Rubric, read_rubric
from stanchion.detectors.model_start import start
from stanchion.detectors.scan import Scanner

ID = "judge"
CODE_VERSION = 1
Form = Literal["schema", "tool", "text"]
ModelFactory = Callable[[str], Target]
MOST_VOTES = 9
DISAGREEMENT = 0.5  # votes that lie further apart than this share of the scale count as the highest of them


class Spent(msgspec.Struct, kw_only=True):
    """What a judge used; tokens and money are None as soon as one answer did not tell them."""

    calls: int = 0
    errors: int = 0
    disagreements: int = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cost_usd: float | None = 0.0

    def add(self, usage: Usage) -> None:
        """Count one answer."""
        for name in ("input_tokens", "output_tokens", "cost_usd"):
            so_far, more = getattr(self, name), getattr(usage, name)
            setattr(self, name, None if so_far is None or more is None else so_far + more)

    def words(self) -> str:
        """One line about it."""
        known = self.input_tokens is not None and self.output_tokens is not None
        tokens = (
            f"{self.input_tokens:,} tokens in, {self.output_tokens:,} out" if known else "tokens not told"
        )
        money = "cost not told" if self.cost_usd is None else f"{self.cost_usd:.4f} USD"
        return (
            f"judge: {self.calls:,} calls, {self.errors} without a verdict, {self.disagreements} times votes "
            f"disagreed; {tokens}; {money}"
        )


class JudgeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a judge is asked.

    `votes` asks so often, every other time with criteria and levels in the opposite order; `control` puts a
    text with a known verdict beside the judged one. `deadline_s` is for each call.
    """

    form: Form = "schema"
    votes: int = 1
    control: bool = True
    deadline_s: float = 30.0
    max_characters: int = 20_000
    minimum: float = 0.0


class JudgeDetector:
    """Reports one finding for each criterion whose level is above the lowest: score = level / highest level.

    With several votes the score is their mean; votes that lie more than half of the scale apart disagree, and
    the highest of them counts.
    """

    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.REMOTE

    def __init__(
        self,
        rubric: Rubric,
        model: Callable[[], Target],
        *,
        name: str,
        detector_id: str = ID,
        options: JudgeOptions | None = None,
        ids: Ids | None = None,
    ) -> None:
        """`model` makes the model on the first call; `name` is its name in the version.

        `ids` are drawn on for marks that nobody can guess.
        """
        self.id = detector_id
        self.rubric = rubric
        self.spent = Spent()
        self._options = options or JudgeOptions()
        self._make_model = model
        self._model: Target | None = None
        self._ids = ids or SortableIds(SystemClock())
        self.categories = tuple(sorted({one.category for one in rubric.criteria}))
        shaping = msgspec.structs.replace(self._options, deadline_s=0.0, minimum=0.0)
        identity = [CODE_VERSION, PROMPT_VERSION, rubric.digest, name, shaping]
        self.version = f"{CODE_VERSION}+{rubric.rubric}.{rubric.version}+{short(digest(identity))}"

    def prepare(self) -> None:
        """Make the model's client, and load a local model, so that no text waits for it.

        Raises:
            UsageError: when no model is configured, or it cannot be reached from here.
        """
        start(self._opened())

    async def adetect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """The findings.

        Raises:
            JudgementError: when there is no whole verdict, or the text is longer than the limit.
            UnavailableError: when the model does not answer.
            DeadlineError: when it does not answer in time.
        """
        text = detector_input.text
        length = len(text) + sum(
            len(one) for name in self.rubric.reads for one in detector_input.context.get(name, ())
        )
        if length > self._options.max_characters:
            raise JudgementError(
                f"the material has {length:,} characters, the limit is {self._options.max_characters:,}.",
                hint="Raise its option `max_characters`, or judge shorter pieces.",
            )
        if not text.strip():
            return ()
        try:
            votes = [
                await self._ask(detector_input, reverse=bool(number % 2))
                for number in range(self._options.votes)
            ]
        except Exception:
            self.spent.errors += 1
            raise
        found = [self._finding(one, [vote[one.id] for vote in votes], text) for one in self.rubric.criteria]
        return [one for one in found if one is not None]

    async def aclose(self) -> None:
        """Let go of the model's connections."""
        if self._model is not None:
            await self._model.aclose()
            self._model = None

    def _opened(self) -> Target:
        if self._model is None:
            self._model = self._make_model()
        return self._model

    async def _ask(self, given: DetectorInput, *, reverse: bool) -> Mapping[str, int]:
        options = self._options
        marks = random.Random(self._ids.new("mark"))  # noqa: S311 - seeded with 80 random bits a call
        controls = self.rubric.controls if options.control else ()
        question = make_question(
            self.rubric,
            given.text,
            given.context,
            marks=marks,
            form=options.form,
            control=marks.choice(controls) if controls else None,
            reverse=reverse,
        )
        self.spent.calls += 1
        try:
            async with asyncio.timeout(options.deadline_s):
                done = await self._opened().invoke(question.interaction)
        except TimeoutError as error:
            raise DeadlineError(f"the judge gave no verdict within {options.deadline_s:g} s.") from error
        if done.reply is not None:
            self.spent.add(done.reply.usage)
        return read_verdict(done.reply, question, self.rubric, form=options.form)

    def _finding(self, criterion: Criterion, levels: Sequence[int], text: str) -> Finding | None:
        shares = [level / self.rubric.highest for level in levels]
        disagree = max(shares) - min(shares) > DISAGREEMENT
        self.spent.disagreements += disagree
        score = round(max(shares) if disagree else sum(shares) / len(shares), 6)
        if score <= 0.0 or score < self._options.minimum:
            return None
        said = ", ".join(str(level) for level in levels)
        reason = f"level {said} of {self.rubric.highest} for {criterion.id}"
        return Finding(
            detector=self.id,
            version=self.version,
            category=criterion.category,
            score=score,
            location=Location(start=0, end=len(text)),
            severity=category(criterion.category).severity,
            rule=f"{self.rubric.rubric}.{criterion.id}",
            reason=f"{reason}; the votes disagree" if disagree else reason,
        )


def create(
    *,
    scanner: Scanner,
    models: ModelFactory | None = None,
    rubric: str = "content",
    model: str = "",
    base: Path | None = None,
    form: str = "schema",
    votes: int = 1,
    control: bool = True,
    deadline_s: float = 30.0,
    max_characters: int = 20_000,
    minimum: float = 0.0,
    detector_id: str = ID,
) -> JudgeDetector:
    """A judge by rubric (a packaged name, or a `.yaml` file) and model (`local`, `openai/NAME`, ...).

    `models` makes a model by its name; the command line and `bootstrap.make_registry` bring it with the keys
    of the settings. `base` is the folder of the policy that names the rubric. The rest: see `JudgeOptions`.

    Raises:
        UnknownNameError: for an unknown rubric.
        UsageError: for an option that does not fit.
    """
    options = {
        "form": form,
        "votes": votes,
        "control": control,
        "deadline_s": deadline_s,
        "max_characters": max_characters,
        "minimum": minimum,
    }
    checked = _checked(detector_id, options)

    def make() -> Target:
        if not model:
            raise UsageError(
                f"detector {detector_id!r} has no model.", hint="Give it the option `model`: openai/NAME."
            )
        if models is None:
            raise UsageError(
                f"detector {detector_id!r} cannot reach models here.",
                hint="Make the registry with `bootstrap.make_registry`, or give Registry(models=...).",
            )
        return models(model)

    read = read_rubric(rubric, folder=base)
    return JudgeDetector(read, make, name=model, detector_id=detector_id, options=checked)


create_content = partial(create, rubric="content", detector_id="content.judge")
create_grounding = partial(create, rubric="grounding", detector_id="grounding.judge")
create_refusal = partial(create, rubric="refusal", detector_id="refusal.judge")


def _checked(detector_id: str, options: Mapping[str, Any]) -> JudgeOptions:
    where = f"detector {detector_id!r}"
    try:
        made = msgspec.convert(options, JudgeOptions)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{where}: {error}.", hint=f"See `stanchion detectors show {detector_id}`."
        ) from error
    if not 1 <= made.votes <= MOST_VOTES or made.deadline_s <= 0 or not 0.0 <= made.minimum <= 1.0:
        raise UsageError(f"{where}: votes are 1 to {MOST_VOTES}, deadline_s above 0, minimum 0 to 1.")
    return made
