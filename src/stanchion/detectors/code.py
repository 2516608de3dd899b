"""Dangerous code in answers: calls that run data, destroy, leak, download and run, or weaken a protection.

Python is read by its syntax tree, other languages by tokens; comments and strings are not code. It says what
a piece of code does, not whether it should: an answer about deleting files rightly holds `rm`. Code is never
run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stanchion.core.codec import digest, short
from stanchion.core.errors import JudgementError, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.detectors.code_bandit import Bandit
from stanchion.detectors.code_blocks import Block, blocks_of, cells, language_of
from stanchion.detectors.code_python import parse, python_dangers
from stanchion.detectors.code_rules import Danger, code_rules, token_dangers
from stanchion.detectors.code_tokens import LANGUAGES, missing_end, strip
from stanchion.detectors.folding import folded
from stanchion.detectors.scan import Scanner
from stanchion.detectors.surrogates import replaced

ID = "code"
CODE_VERSION = "2"
MOST_TEXT = 1_000_000  # characters of an answer; a longer one is a failed check
_INDENTING = "if 1:\n"  # what indented code parses behind


class CodeDetector:
    """Reports dangerous code in fences, in runs of lines that look like code, and in inline spans.

    With `language` the whole text is code of that language (`auto` finds out which).
    """

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MILLISECONDS
    categories = (
        "code.dangerous_call", "code.destructive", "code.download_and_run", "code.injection", "code.insecure",
        "code.secret_access",
    )  # fmt: skip

    def __init__(self, *, language: str = "", bandit: Bandit | None = None) -> None:
        self._language = language
        self._bandit = bandit
        parts: list[Any] = [CODE_VERSION, code_rules().digest, language, bandit.version if bandit else ""]
        self.version = f"{CODE_VERSION}+{short(digest(parts))}"

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings in order of position; one for each rule and place.

        Where a rule holds more often than a thousand times, its last finding goes on to the last place.

        Raises:
            JudgementError: for a text that is too long to be read to its end.
        """
        text = replaced(detector_input.text)
        if len(text) > MOST_TEXT:
            raise JudgementError(
                f"{ID}: {len(text):,} characters are more than the {MOST_TEXT:,} that are read.",
                hint="Check the answer in parts, or lower the policy's limit output_characters.",
            )
        found: dict[tuple[int, int, str], Finding] = {}
        for block in self._blocks(text):
            for cell in cells(block):
                for danger in self._dangers(cell):
                    finding = self._finding(cell, danger, len(text))
                    key = (finding.location.start, finding.location.end, finding.rule)
                    if key not in found or found[key].score < finding.score:
                        found[key] = finding
        return folded(sorted(found.values(), key=lambda f: (f.location.start, f.location.end, f.rule)))

    def _blocks(self, text: str) -> list[Block]:
        if not self._language:
            return blocks_of(text)
        language = language_of(text) if self._language == "auto" else self._language
        return [Block(0, text, language)] if language else []

    def _dangers(self, cell: Block) -> Iterator[Danger]:
        if cell.language == "python":
            yield from self._of_python(cell.text)
            return
        stripped = strip(cell.text, cell.language)
        yield from token_dangers(stripped, cell.language)
        if cell.language in ("docker", "yaml"):
            yield from token_dangers(strip(cell.text, "shell"), "shell")

    def _of_python(self, code: str) -> Iterator[Danger]:
        whole = _parsed(code)
        if whole is not None:
            yield from whole
            if self._bandit is not None:
                yield from self._bandit.dangers(code)
            return
        for start, chunk in _chunks(code):
            dangers = _parsed(chunk)
            if dangers is None:
                dangers = _parsed(f"{chunk}{missing_end(chunk)}")
            if dangers is None:
                dangers = list(token_dangers(strip(chunk, "python"), "python"))
            yield from (d._replace(start=d.start + start, end=d.end + start) for d in dangers)

    def _finding(self, cell: Block, danger: Danger, size: int) -> Finding:
        rule = danger.rule
        start = min(cell.start + danger.start, max(size - 1, 0))
        end = min(cell.start + danger.end, size)
        return Finding(
            detector=ID, version=self.version, category=rule.category, score=round(danger.score, 4),
            location=Location(start=start, end=max(end, start)), severity=rule.severity, rule=rule.id,
            reason=f"{cell.language}: {rule.reason} ({rule.cwe}){danger.note}",
        )  # fmt: skip


def _parsed(code: str) -> list[Danger] | None:
    """The dangers of Python that parses, also when all of it is indented; None when it does not."""
    tree = parse(code)
    if tree is not None:
        return python_dangers(code, tree)
    if not code.lstrip("\n")[:1].isspace():
        return None
    indented = f"{_INDENTING}{code}"
    tree = parse(indented)
    if tree is None:
        return None
    shift = len(_INDENTING)
    return [d._replace(start=d.start - shift, end=d.end - shift) for d in python_dangers(indented, tree)]


def _chunks(code: str) -> Iterator[tuple[int, str]]:
    """Top-level pieces of code that does not parse as a whole, with where each starts."""
    at = start = 0
    lines: list[str] = []
    for line in code.split("\n"):
        begins = (
            bool(line)
            and not line[0].isspace()
            and not line.startswith((")", "]", "}", "else", "elif", "except", "finally"))
        )
        if begins and lines and not lines[-1].startswith("@"):
            yield start, "\n".join(lines)
            lines, start = [], at
        lines.append(line)
        at += len(line) + 1
    if lines:
        yield start, "\n".join(lines)


def create(*, scanner: Scanner, language: str = "", bandit: bool = False) -> CodeDetector:
    """The detector.

    Args:
        scanner: not used; every factory is given it.
        language: the whole text is code of this language, or `auto`; by default code is looked for in it.
        bandit: ask bandit about Python as well; needs the package `bandit`.

    Raises:
        UsageError: for a language that is not known.
        MissingExtraError: when `bandit` is asked for and not installed.
    """
    if language and language != "auto" and language not in LANGUAGES:
        raise UsageError(
            f"code: unknown language {language!r}.", hint=f"Allowed: auto, {', '.join(sorted(LANGUAGES))}."
        )
    return CodeDetector(language=language, bandit=Bandit() if bandit else None)
