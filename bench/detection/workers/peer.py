"""Runs one peer in its own environment; started by `peers.py`, speaks JSON, imports nothing of Stanchion.

    python workers/peer.py PEER < request.json > answer.json

The request holds `speed` (texts), `repeat` and `rows` (texts); the answer the peer's parts and version, CPU
microseconds per text (p50 over all calls) and, for each row, the best score of a finding (0 without any).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

Check = Callable[[str], float]

# Recognisers of Presidio that work by patterns, checksums or phonenumbers, without a language model.
PRESIDIO = (
    "CreditCardRecognizer", "CryptoRecognizer", "DateRecognizer", "EmailRecognizer", "IbanRecognizer",
    "IpRecognizer", "PhoneRecognizer", "UrlRecognizer", "UsBankRecognizer", "UsItinRecognizer",
    "UsLicenseRecognizer", "UsPassportRecognizer", "UsSsnRecognizer", "NhsRecognizer", "EsNifRecognizer",
    "ItFiscalCodeRecognizer", "PlPeselRecognizer", "SgFinRecognizer", "AuAbnRecognizer", "AuTfnRecognizer",
    "InPanRecognizer", "InAadhaarRecognizer", "FiPersonalIdentityCodeRecognizer", "MedicalLicenseRecognizer",
)  # fmt: skip
# Kinds that nobody counts as personal data by themselves, so that they count as no alarm either.
NOT_PERSONAL = {"URL", "DATE_TIME"}


def presidio() -> tuple[list[str], str, Check]:
    from presidio_analyzer import predefined_recognizers as known

    made = [getattr(known, name)() for name in PRESIDIO if hasattr(known, name)]

    def check(text: str) -> float:
        found = [r for each in made for r in each.analyze(text, each.supported_entities, None) or ()]
        return max((r.score for r in found if r.entity_type not in NOT_PERSONAL), default=0.0)

    return [type(each).__name__ for each in made], version("presidio-analyzer"), check


def detect_secrets() -> tuple[list[str], str, Check]:
    from detect_secrets.core import scan
    from detect_secrets.settings import default_settings, get_plugins, get_settings

    settings = default_settings()  # a context manager, which ends when nobody holds it
    settings.__enter__()
    assert not any("verification" in name for name in get_settings().filters), "it must not ask a network"

    def check(text: str, *, _held: Any = settings) -> float:
        # as in a file: `scan_line` is for one string that is known to be a value, and reports every word
        lines = list(enumerate(text.splitlines(), start=1))
        return float(any(True for _ in scan._process_line_based_plugins(lines, filename="text.txt")))

    return [type(plugin).__name__ for plugin in get_plugins()], version("detect-secrets"), check


def guardrails() -> tuple[list[str], str, Check]:
    from guardrails.checks.text import secret_keys

    settings = secret_keys.CONFIGS["balanced"]

    def check(text: str) -> float:
        return float(secret_keys._detect_secret_keys(text, settings, None).tripwire_triggered)

    return ["secret_keys, balanced"], version("openai-guardrails"), check


def gorget() -> tuple[list[str], str, Check]:
    from gorget.input_scanners import InvisibleText, Secrets

    scanners = [Secrets(), InvisibleText()]

    def check(text: str) -> float:
        return float(any(not scanner.scan(text)[1] for scanner in scanners))

    return [type(scanner).__name__ for scanner in scanners], version("gorget"), check


PEERS: dict[str, Callable[[], tuple[list[str], str, Check]]] = {
    "presidio": presidio,
    "detect-secrets": detect_secrets,
    "openai-guardrails": guardrails,
    "gorget": gorget,
}


def measured(check: Check, texts: list[str], repeat: int) -> float:
    """CPU microseconds of a call, p50."""
    for text in texts:
        check(text)
    taken = []
    for _ in range(repeat):
        for text in texts:
            started = time.process_time_ns()
            check(text)
            taken.append((time.process_time_ns() - started) / 1000)
    return statistics.median(taken)


def main() -> int:
    request: dict[str, Any] = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with contextlib.redirect_stdout(io.StringIO()):
        parts, number, check = PEERS[sys.argv[1]]()
        answer = {
            "peer": sys.argv[1], "version": number, "parts": parts,
            "cpu_us": {kind: measured(check, of, request["repeat"]) for kind, of in request["speed"].items()},
            "scores": {name: [check(text) for text in rows] for name, rows in request["rows"].items()},
        }  # fmt: skip
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
