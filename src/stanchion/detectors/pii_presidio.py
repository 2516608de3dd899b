"""`pii.presidio`: Presidio's recognisers as a detector of personal data, with the categories of `pii`.

Presidio is a plug-in: it is loaded when a guard is made, or on the first text. Its own loading of models
would download what is missing; here a pipeline that is installed (or none: patterns only) is handed to it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from stanchion.core.codec import digest, short
from stanchion.core.errors import JudgementError, UnavailableError, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.core.taxonomy import category
from stanchion.detectors.ner_spacy import installed_version, load_pipeline, pipeline_identity
from stanchion.detectors.scan import Scanner

ID = "pii.presidio"
CODE_VERSION = 2
BLANK = "blank"  # no model: only Presidio's patterns
ENTITIES: Mapping[str, str] = {
    "PERSON": "pii.person",
    "LOCATION": "pii.address",
    "EMAIL_ADDRESS": "pii.email",
    "PHONE_NUMBER": "pii.phone",
    "CREDIT_CARD": "pii.card",
    "IBAN_CODE": "pii.iban",
    "US_BANK_NUMBER": "pii.account",
    "US_SSN": "pii.national_id",
    "US_ITIN": "pii.national_id",
    "UK_NHS": "pii.health",
    "UK_NINO": "pii.national_id",
    "ES_NIF": "pii.national_id",
    "ES_NIE": "pii.national_id",
    "IT_FISCAL_CODE": "pii.national_id",
    "PL_PESEL": "pii.national_id",
    "SG_NRIC_FIN": "pii.national_id",
    "AU_TFN": "pii.national_id",
    "AU_MEDICARE": "pii.health",
    "IN_PAN": "pii.national_id",
    "IN_AADHAAR": "pii.national_id",
    "FI_PERSONAL_IDENTITY_CODE": "pii.national_id",
    "US_PASSPORT": "pii.passport",
    "IT_PASSPORT": "pii.passport",
    "IN_PASSPORT": "pii.passport",
    "US_DRIVER_LICENSE": "pii.driver_licence",
    "IT_DRIVER_LICENSE": "pii.driver_licence",
    "IP_ADDRESS": "pii.ip",
    "MAC_ADDRESS": "pii.mac",
    "CRYPTO": "pii.crypto_wallet",
}


class PresidioDetector:
    """Reports what Presidio's analyser finds of the mapped entities, with Presidio's scores."""

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MILLISECONDS

    def __init__(
        self,
        *,
        model: str = BLANK,
        language: str = "en",
        entities: Mapping[str, str] = ENTITIES,
        max_characters: int = 100_000,
        engine: Any = None,
    ) -> None:
        """`engine` is an AnalyzerEngine of the user's own; else one is made on the first text."""
        for name in entities.values():
            category(name, where=f"detector {ID!r}, option 'entities'")
        self._model = model
        self._language = language
        self._entities = dict(entities)
        self._most = max_characters
        self._engine = engine
        self._loading = threading.Lock()
        self.categories = tuple(sorted(set(entities.values())))
        pipeline = pipeline_identity("" if model == BLANK else model)
        presidio = installed_version("presidio-analyzer")
        identity = [CODE_VERSION, model, pipeline, presidio, language, self._entities]
        self.version = f"{CODE_VERSION}+{short(digest(identity))}"

    def prepare(self) -> None:
        """Make the analyser, so that no text waits for it.

        Raises:
            UsageError: when Presidio or the model is not installed.
        """
        self._opened()

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Entities by position.

        Raises:
            JudgementError: when the text is longer than the limit.
            UsageError: when Presidio or the model is not installed.
            UnavailableError: when the analyser fails.
        """
        text = detector_input.text
        if len(text) > self._most:
            raise JudgementError(
                f"detector {ID!r}: the text has {len(text):,} characters, the limit is {self._most:,}.",
                hint="Raise its option `max_characters`.",
            )
        engine, wanted = self._opened()
        try:
            results = engine.analyze(text=text, language=self._language, entities=wanted)
        except Exception as error:  # recognisers may be anybody's
            raise UnavailableError(
                f"detector {ID!r}: the analyser failed ({type(error).__name__})."
            ) from error
        found = [self._finding(result) for result in results]
        return sorted(found, key=lambda f: (f.location.start, f.location.end, f.category))

    def _opened(self) -> tuple[Any, list[str]]:
        """The analyser, and which of the mapped entities it knows."""
        with self._loading:
            if self._engine is None:
                self._engine = make_engine(self._model, self._language)
            offered = set(self._engine.get_supported_entities(self._language))
        wanted = sorted(offered & self._entities.keys())
        if not wanted:
            raise UsageError(f"detector {ID!r}: the analyser knows none of the mapped entities.")
        return self._engine, wanted

    def _finding(self, result: Any) -> Finding:
        name = self._entities[result.entity_type]
        return Finding(
            detector=ID,
            version=self.version,
            category=name,
            score=round(max(0.0, min(1.0, float(result.score))), 6),
            location=Location(start=int(result.start), end=int(result.end)),
            severity=category(name).severity,
            rule=f"{ID}.{result.entity_type.lower()}",
            reason="a recogniser of Presidio",
        )


def make_engine(model: str, language: str) -> Any:
    """An AnalyzerEngine over an installed spaCy pipeline, or over a blank one.

    Raises:
        UsageError: when something is not installed.
    """
    check_installed()
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    pipeline = spacy.blank(language) if model == BLANK else load_pipeline(model)
    engine = SpacyNlpEngine(models=[{"lang_code": language, "model_name": model}])
    engine.nlp = {language: pipeline}  # loaded already: Presidio would download what it does not find
    return AnalyzerEngine(nlp_engine=engine, supported_languages=[language])


def check_installed() -> None:
    """That Presidio and spaCy are there; nothing is imported.

    Raises:
        UsageError: when one is not.
    """
    if any(find_spec(module) is None for module in ("presidio_analyzer", "spacy")):
        raise UsageError(
            f"The detector {ID!r} needs presidio-analyzer and spaCy, which are not installed.",
            hint="Install them: pip install presidio-analyzer spacy",
        )


def create(
    *,
    scanner: Scanner,
    model: str = BLANK,
    language: str = "en",
    entities: Mapping[str, str] | None = None,
    max_characters: int = 100_000,
) -> PresidioDetector:
    """Presidio with an installed spaCy pipeline by name, or with its patterns alone (`blank`).

    Raises:
        UsageError: when Presidio or spaCy is not installed, or an option does not fit.
        UnknownNameError: for an unknown category in `entities`.
    """
    check_installed()
    if max_characters < 1:
        raise UsageError(f"detector {ID!r}: max_characters is at least 1.")
    return PresidioDetector(
        model=model,
        language=language,
        entities=ENTITIES if entities is None else entities,
        max_characters=max_characters,
    )
