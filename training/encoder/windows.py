"""From rows to windows of tokens: the readings, the tokens and the windows that the detector sees.

A row is one text; what is learnt from is one window of it at a time. Of a harmless text every window is
harmless. Of an attack the window that the linear model finds worst is taken, for want of knowing where it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pipeline.rows import Row
from tokenizers import Tokenizer

from stanchion.detectors.classifier import LinearModel
from stanchion.detectors.encoder_model import WINDOW, window_starts
from stanchion.detectors.linear import highest_logit, readings
from stanchion.detectors.views import build_views

LONGEST = 8000  # characters of a training row


@dataclass(frozen=True)
class Text:
    """A row as tokens, without the special ones, and its windows."""

    tokens: np.ndarray  # int32
    starts: tuple[int, ...]
    label: int
    source: str
    language: str
    is_jailbreak: bool
    worst: tuple[int, ...] = ()  # of an attack in several windows: their numbers, worst first

    def window(self, number: int) -> np.ndarray:
        """The tokens of one window."""
        return self.tokens[self.starts[number] : self.starts[number] + WINDOW]


def plain(text: str) -> str:
    """The reading that hides least, nothing decoded: what the detector reads of most texts."""
    view_set = build_views(text)
    return next((view.text for view in readings(view_set) if view.family != "decoded"), text)


def prepared(
    rows: Sequence[Row], tokenizer: Tokenizer, linear: LinearModel, jailbreaks: frozenset[str]
) -> list[Text]:
    """The rows that have tokens, in order."""
    texts = [plain(row.text[:LONGEST]) for row in rows]
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    made = []
    for row, text, encoding in zip(rows, texts, encodings, strict=True):
        if not encoding.ids:
            continue
        starts = tuple(window_starts(len(encoding.ids)))
        worst: tuple[int, ...] = ()
        if row.label == 1 and len(starts) > 1:
            worst = _worst(text, encoding.offsets, starts, linear)
        kind = row.source in jailbreaks or row.group in jailbreaks
        tokens = np.array(encoding.ids, dtype=np.int32)
        made.append(Text(tokens, starts, row.label, row.source, row.language, kind, worst))
    return made


def _worst(
    text: str, offsets: Sequence[tuple[int, int]], starts: Sequence[int], linear: LinearModel
) -> tuple[int, ...]:
    logits = []
    for start in starts:
        end = min(start + WINDOW, len(offsets)) - 1
        logits.append(highest_logit(linear, build_views(text[offsets[start][0] : offsets[end][1]])))
    return tuple(int(n) for n in np.argsort(-np.array(logits), kind="stable"))


def chosen_window(text: Text, turn: int, rng: random.Random) -> np.ndarray:
    """The tokens that are learnt from in this turn; attacks take turns between their two worst windows."""
    if len(text.starts) == 1:
        return text.tokens
    if text.label == 0:
        start = rng.randrange(len(text.tokens) - WINDOW + 1)
        return text.tokens[start : start + WINDOW]
    return text.window(text.worst[turn % 2])


def embedded(texts: Sequence[Text], rng: random.Random, *, count: int) -> list[tuple[np.ndarray, Text]]:
    """Windows of `count` documents, half of them with an attack inside, half with a harmless text inside.

    A window holds the whole of what was put in, anywhere in it, and what stands before and after it.
    """
    inside = {label: [t for t in texts if t.label == label and 6 <= len(t.tokens) <= 70] for label in (0, 1)}
    carriers = [t for t in texts if t.label == 0 and len(t.tokens) >= 20]
    made = []
    for index in range(count):
        text = rng.choice(inside[index % 2])
        room = rng.randint(8, WINDOW - len(text.tokens))
        before = rng.randint(0, room)
        pieces = [_piece(rng.choice(carriers), rng, before), text.tokens]
        pieces.append(_piece(rng.choice(carriers), rng, room - before))
        made.append((np.concatenate(pieces), text))
    return made


def _piece(carrier: Text, rng: random.Random, size: int) -> np.ndarray:
    start = rng.randint(0, max(len(carrier.tokens) - size, 0))
    return carrier.tokens[start : start + size]
