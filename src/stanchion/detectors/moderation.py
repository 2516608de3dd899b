"""`moderation.openai` and `moderation.azure`: two providers' moderation as detectors of content.

Both report the categories of `content`. A score of 0.5 is the provider's own operating point: what it calls
flagged is at least 0.5, what it does not is below. What the service flags under a name that is not known here
is reported as `content.policy`, and an answer of another form is an error, never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from stanchion.core.clock import Clock, SystemClock
from stanchion.core.codec import digest, short
from stanchion.core.errors import JudgementError, UnavailableError, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind, Severity
from stanchion.core.taxonomy import category
from stanchion.core.version import package_version
from stanchion.detectors.scan import Scanner
from stanchion.models.http_client import Call, HttpClient, HttpLimits, checked_url, json_body, shown_url
from stanchion.models.retry import Deadline, Retries, RetryPolicy

OPENAI, AZURE = "moderation.openai", "moderation.azure"
CODE_VERSION = 2
AZURE_VERSION = "2024-09-01"
OPENAI_MODEL = "omni-moderation-latest"
OTHER = "content.policy"
MOST_CHARACTERS = 10_000  # what Azure takes in one request; OpenAI's limit is in tokens and above that

_OPENAI = {
    "hate": "content.hate",
    "hate/threatening": "content.hate",
    "harassment": "content.harassment",
    "harassment/threatening": "content.harassment",
    "self-harm": "content.self_harm",
    "self-harm/intent": "content.self_harm",
    "self-harm/instructions": "content.self_harm",
    "sexual": "content.sexual",
    "sexual/minors": "content.minors",
    "violence": "content.violence",
    "violence/graphic": "content.violence",
    "illicit": "content.illicit",
    "illicit/violent": "content.weapons",
}
_AZURE = {
    "Hate": "content.hate",
    "SelfHarm": "content.self_harm",
    "Sexual": "content.sexual",
    "Violence": "content.violence",
}
_AZURE_LEVELS = {0: Severity.INFO, 2: Severity.LOW, 4: Severity.HIGH, 6: Severity.CRITICAL}
_AZURE_FLAGGED = 4  # "medium", the default of the provider's own filters
_BELOW = 0.499


class SecretLike(Protocol):
    """A value that shows itself only when asked to."""

    def reveal(self) -> str:
        """The value itself."""
        ...


class Service(msgspec.Struct, frozen=True):
    """Where a provider's service is, and the key for it; a key is never shown."""

    base_url: str
    key: Any = None  # a SecretLike

    def __repr__(self) -> str:
        return f"Service({self.base_url!r})"


ServiceFactory = Callable[[str], Service]


class _Judged(msgspec.Struct, frozen=True):
    """One name of a service, with its score and what it is here."""

    name: str
    category: str
    score: float
    severity: Severity


class ModerationDetector:
    """Asks a service about a whole text; one finding for each name that it scores at `minimum` or above."""

    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.REMOTE

    def __init__(
        self,
        detector_id: str,
        service: Callable[[], Service],
        *,
        limits: HttpLimits,
        model: str = "",
        minimum: float = 0.5,
        max_characters: int = MOST_CHARACTERS,
        clock: Clock | None = None,
    ) -> None:
        """`service` is asked on the first call, so that a detector can be described without a key."""
        self.id = detector_id
        names = _OPENAI if detector_id == OPENAI else _AZURE
        self.categories = tuple(sorted({*names.values(), OTHER}))
        self._service = service
        self._limits = limits
        self._model = model
        self._minimum = minimum
        self._most = max_characters
        self._http = HttpClient(limits, clock=clock or SystemClock())
        self._retries = Retries(RetryPolicy(attempts=3))
        identity = [CODE_VERSION, detector_id, model, names, AZURE_VERSION]
        self.version = f"{CODE_VERSION}+{short(digest(identity))}"

    def prepare(self) -> None:
        """Check address and key, so that what is missing is told before the first text; nothing is sent.

        Raises:
            UsageError: when there is no address or no key, or they cannot be used.
        """
        self._address_and_key()

    async def adetect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings over the whole text, by category.

        Raises:
            JudgementError: when the text is longer than the limit.
            UnavailableError: when the service does not answer as documented.
            DeadlineError: when it does not answer in time.
            UsageError: when there is no address or key.
        """
        text = detector_input.text
        if len(text) > self._most:
            raise JudgementError(
                f"detector {self.id!r}: the text has {len(text):,} characters, the limit is {self._most:,}.",
                hint="Raise its option `max_characters`, or check shorter pieces.",
            )
        if not text.strip():
            return ()
        call = self._call(text)
        deadline = Deadline(self._limits.deadline_s, what=call.what)
        answer = await self._retries.run(lambda: self._http.fetch_json(call), deadline)
        read = read_openai if self.id == OPENAI else read_azure
        found = [
            Finding(
                detector=self.id,
                version=self.version,
                category=judged.category,
                score=round(judged.score, 6),
                location=Location(start=0, end=len(text)),
                severity=judged.severity,
                rule=f"{self.id}.{judged.name}",
                reason=f"the service names it {judged.name!r}",
            )
            for judged in read(answer, what=call.what)
            if judged.score >= self._minimum
        ]
        return sorted(found, key=lambda finding: (finding.category, finding.rule))

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self._http.aclose()

    def _address_and_key(self) -> tuple[str, str]:
        service = self._service()
        base = checked_url(service.base_url, what=f"the address of {self.id!r}")
        if service.key is None:
            raise UsageError(f"detector {self.id!r} has no key.", hint=_KEY_HINTS[self.id])
        return base, _header_value(service.key.reveal())

    def _call(self, text: str) -> Call:
        base, key = self._address_and_key()
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"stanchion/{package_version()}",
        }
        body: dict[str, Any]
        if self.id == OPENAI:
            url = f"{base}/moderations"
            headers["authorization"] = f"Bearer {key}"
            body = {"model": self._model, "input": text}
        else:
            url = f"{base}/contentsafety/text:analyze?api-version={AZURE_VERSION}"
            headers["ocp-apim-subscription-key"] = key
            body = {"text": text, "categories": list(_AZURE), "outputType": "FourSeverityLevels"}
        return Call(what=f"{self.id} at {shown_url(url)}", url=url, headers=headers, body=json_body(body))


def read_openai(answer: Any, *, what: str) -> Iterator[_Judged]:
    """What an answer of OpenAI's moderation endpoint says of its one input.

    Raises:
        UnavailableError: when it has another form than documented.
    """
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or len(results) != 1 or not isinstance(results[0], dict):
        raise _other_form(what, "one entry in 'results'")
    flags, scores = results[0].get("categories"), results[0].get("category_scores")
    if not isinstance(flags, dict) or not isinstance(scores, dict) or not flags.keys() >= _OPENAI_ALWAYS:
        raise _other_form(what, "'categories' and 'category_scores'")
    anything = False
    for name, is_flagged in flags.items():
        score: Any = scores.get(name)
        if is_flagged is None and name not in _OPENAI_ALWAYS:
            continue  # older models give null for categories that they do not know
        if not isinstance(is_flagged, bool) or not _is_score(score):
            raise _other_form(what, f"a flag and a score for {name!r}")
        anything |= is_flagged
        kind = _OPENAI.get(name, OTHER)
        yield _Judged(name, kind, _bounded(score, is_flagged), category(kind).severity)
    if results[0].get("flagged") is True and not anything:
        yield _Judged("flagged", OTHER, 0.5, category(OTHER).severity)


_OPENAI_ALWAYS = frozenset({"hate", "self-harm", "sexual", "sexual/minors", "violence"})


def read_azure(answer: Any, *, what: str) -> Iterator[_Judged]:
    """What an answer of Azure AI Content Safety says; severities are 0, 2, 4, 6.

    Raises:
        UnavailableError: when it has another form than documented, or leaves out a category.
    """
    rows = answer.get("categoriesAnalysis") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise _other_form(what, "'categoriesAnalysis'")
    seen: set[str] = set()
    for row in rows:
        name = row.get("category") if isinstance(row, dict) else None
        level = row.get("severity") if isinstance(row, dict) else None
        if not isinstance(name, str) or level not in _AZURE_LEVELS or isinstance(level, bool):
            raise _other_form(what, "a category and a severity of 0, 2, 4 or 6")
        seen.add(name)
        yield _Judged(
            name, _AZURE.get(name, OTHER), _bounded(level / 6, level >= _AZURE_FLAGGED), _AZURE_LEVELS[level]
        )
    if not _AZURE.keys() <= seen:
        raise _other_form(what, f"a severity for {', '.join(sorted(_AZURE.keys() - seen))}")
    blocked = answer.get("blocklistsMatch") or []
    if blocked:
        yield _Judged("blocklist", OTHER, 1.0, category(OTHER).severity)


def _bounded(score: float, is_flagged: bool) -> float:
    return max(score, 0.5) if is_flagged else min(score, _BELOW)


def _is_score(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 <= value <= 1
    )


def _other_form(what: str, missing: str) -> UnavailableError:
    return UnavailableError(
        f"{what}: the answer is not of the documented form: {missing} expected.",
        hint="Check the address; another service may answer there.",
        is_retryable=False,
    )


def _header_value(secret: str) -> str:
    if not secret or not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        raise UsageError(
            "the key of the service is empty or holds characters that no HTTP header can carry.",
            hint="Look for a newline or a space at its end, where it is read from.",
        )
    return secret


_KEY_HINTS: Mapping[str, str] = {
    OPENAI: "Set `openai_api_key`, or OPENAI_API_KEY.",
    AZURE: "Set `azure_content_safety_key` and `azure_content_safety_endpoint`.",
}


def create_openai(
    *,
    scanner: Scanner,
    services: ServiceFactory | None = None,
    model: str = OPENAI_MODEL,
    minimum: float = 0.5,
    deadline_s: float = 5.0,
    max_characters: int = 40_000,
) -> ModerationDetector:
    """OpenAI's moderation endpoint, with the address and key of the settings.

    Raises:
        UsageError: for an option that does not fit.
    """
    checked = _checked(OPENAI, minimum, deadline_s, max_characters)
    return ModerationDetector(OPENAI, _lazily(OPENAI, services), model=model, **checked)


def create_azure(
    *,
    scanner: Scanner,
    services: ServiceFactory | None = None,
    minimum: float = 0.5,
    deadline_s: float = 5.0,
    max_characters: int = MOST_CHARACTERS,
) -> ModerationDetector:
    """Azure AI Content Safety, with the address and key of the settings.

    Raises:
        UsageError: for an option that does not fit.
    """
    checked = _checked(AZURE, minimum, deadline_s, max_characters)
    return ModerationDetector(AZURE, _lazily(AZURE, services), **checked)


def _checked(detector_id: str, minimum: float, deadline_s: float, max_characters: int) -> dict[str, Any]:
    if not 0.0 <= minimum <= 1.0 or not 0.0 < deadline_s <= 600.0 or max_characters < 1:
        raise UsageError(
            f"detector {detector_id!r}: minimum is 0 to 1, deadline_s above 0, max_characters at least 1."
        )
    return {
        "minimum": minimum,
        "limits": HttpLimits(deadline_s=deadline_s, max_response_bytes=1 << 20),
        "max_characters": max_characters,
    }


def _lazily(detector_id: str, services: ServiceFactory | None) -> Callable[[], Service]:
    def service() -> Service:
        if services is None:
            raise UsageError(
                f"detector {detector_id!r} knows no address and no key here.",
                hint="Make the registry with `bootstrap.make_registry`, or give Registry(services=...).",
            )
        return services(detector_id)

    return service
