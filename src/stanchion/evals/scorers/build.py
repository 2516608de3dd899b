"""From the `scorers:` part of a suite to scorers.

Scorers that only read what a case expects are always there, so that no expectation goes unread; naming one in
the file changes its options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from stanchion.core.errors import UsageError
from stanchion.core.finding import AsyncDetector, Detector
from stanchion.core.target import Target
from stanchion.evals.scorer_file import (
    AnyScorerModel,
    CallsModel,
    CanaryModel,
    ContainsModel,
    DetectionModel,
    DetectorModel,
    ExactModel,
    ExcludesModel,
    GroundingModel,
    HumanModel,
    JsonSchemaModel,
    JudgeModel,
    NoCallsModel,
    RefusalModel,
    RegexModel,
)
from stanchion.evals.scorers.canary import CanaryScorer
from stanchion.evals.scorers.detectors import AsyncDetectorScorer, DetectorScorer, RefusalScorer
from stanchion.evals.scorers.grounding import GroundingScorer
from stanchion.evals.scorers.json_schema import JsonSchemaScorer
from stanchion.evals.scorers.judge import JudgeScorer
from stanchion.evals.scorers.labels import DetectionScorer, HumanScorer
from stanchion.evals.scorers.scorer import AnyScorer, Named, Selection
from stanchion.evals.scorers.text import ContainsScorer, ExactScorer, ExcludesScorer, RegexScorer
from stanchion.evals.scorers.tool_calls import ForbiddenCallScorer, RequiredCallScorer, ToolCallsScorer

DetectorFactory = Callable[..., Detector | AsyncDetector]
ModelFactory = Callable[[str], Target]

# Reads what a case expects, by the name that a file gives it.
_READERS: Mapping[str, type[Any]] = {
    "canary": CanaryModel,
    "exact": ExactModel,
    "contains": ContainsModel,
    "excludes": ExcludesModel,
    "regex": RegexModel,
    "json_schema": JsonSchemaModel,
    "calls": CallsModel,
    "no_calls": NoCallsModel,
    "detection": DetectionModel,
    "human": HumanModel,
    "refusal": RefusalModel,
}
_COVERS = {"tool_calls": ("calls", "no_calls")}


def no_judges(name: str) -> Target:
    """The model factory where no judge can be had."""
    raise UsageError(
        f"judge model {name!r} cannot be made here.", hint="Run the suite with `stanchion eval run`."
    )


def build_scorers(
    models: tuple[AnyScorerModel, ...],
    *,
    detectors: DetectorFactory,
    judges: ModelFactory = no_judges,
    expects_refusal: bool = True,
) -> tuple[AnyScorer, ...]:
    """The scorers of a suite: those of the file, then the readers of expectations that it does not name.

    Args:
        models: as the file has them.
        detectors: `Registry.create`.
        judges: a model by the name that the file gives it.
        expects_refusal: whether any case may say `expect.refusal`; if not, no refusal detector is made.

    Raises:
        UnknownNameError: for a detector that nobody registered.
        UsageError: for options that do not fit.
    """
    named = {use for model in models for use in _COVERS.get(model.use, (model.use,))}
    left_out = named if expects_refusal else named | {"refusal"}
    implied = [kind(use=use) for use, kind in _READERS.items() if use not in left_out]
    built = []
    for model in (*models, *implied):
        scorer = _build(model, detectors=detectors, judges=judges)
        if model.when.model_fields_set:
            scorer.select(Selection(**model.when.model_dump()))
        built.append(scorer)
    return tuple(built)


def _build(model: AnyScorerModel, *, detectors: DetectorFactory, judges: ModelFactory) -> Any:
    name = model.id or model.use
    options: dict[str, Any] = {} if model.concern is None else {"concern": model.concern}
    match model:
        case ExactModel():
            return ExactScorer(name, ignore_case=model.ignore_case, **options)
        case ContainsModel():
            return ContainsScorer(name, ignore_case=model.ignore_case, **options)
        case ExcludesModel():
            return ExcludesScorer(name, ignore_case=model.ignore_case, **options)
        case JsonSchemaModel():
            return JsonSchemaScorer(name, schema=model.json_schema, allow_fence=model.allow_fence, **options)
        case CanaryModel():
            return CanaryScorer(name, names=model.names, **options)
        case HumanModel():
            return HumanScorer(name, min_raters=model.min_raters, agreement=model.agreement, **options)
        case GroundingModel():
            return GroundingScorer(
                name, check=model.check, tolerance=model.tolerance, min_claims=model.min_claims, **options
            )
        case DetectorModel():
            return _detector(name, model, detectors, options)
        case RefusalModel():
            return _refusal(name, model, detectors, options)
        case JudgeModel():
            judge = judges(model.model)
            return JudgeScorer(
                name, judge, rubric=model.rubric, threshold=model.threshold, see=model.see, **options
            )
        case _:
            return _PLAIN[model.use](name, **options)


_PLAIN: Mapping[str, Callable[..., Named]] = {
    "regex": RegexScorer,
    "tool_calls": ToolCallsScorer,
    "calls": RequiredCallScorer,
    "no_calls": ForbiddenCallScorer,
    "detection": DetectionScorer,
}


def _detector(
    name: str, model: DetectorModel, detectors: DetectorFactory, options: Mapping[str, Any]
) -> Named:
    detector = detectors(model.detector, **model.options)
    given = {"categories": model.categories, "threshold": model.threshold, "read": model.read, **options}
    if hasattr(detector, "adetect"):
        return AsyncDetectorScorer(name, cast(AsyncDetector, detector), **given)
    return DetectorScorer(name, detector, **given)


def _refusal(name: str, model: RefusalModel, detectors: DetectorFactory, options: Mapping[str, Any]) -> Named:
    detector = detectors(model.detector)
    if hasattr(detector, "adetect"):
        raise UsageError(f"scorer {name!r}: detector {model.detector!r} waits on the outside.")
    return RefusalScorer(name, detector, threshold=model.threshold, **options)
