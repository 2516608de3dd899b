"""Words that were pulled apart or spelled with digits: `i g n o r e`, `i.g.n.o.r.e`, `1gn0r3`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from stanchion.detectors.transforms.offsets import OffsetMap, Rewriter

_BREAKS = " \t\r\n.-_*~|/,+"
_BREAK = f"[{re.escape(_BREAKS)}]"
_LETTER = r"[A-Za-z0-9@$!]"
_SINGLE = r"[^\s.\-_*~|/,+]"  # any character that stands alone between breaks, such as a quotation mark
_PULLED_APART = re.compile(
    rf"(?<![A-Za-z0-9@$!]){_LETTER}(?:{_BREAK}{{1,5}}{_SINGLE}(?![A-Za-z0-9@$!])){{3,}}"
)
_CLASSES = bytes(
    0x61
    if chr(c).isascii() and (chr(c).isalnum() or chr(c) in "@$!")
    else 0x20
    if chr(c) in _BREAKS
    else 0x78
    for c in range(256)
)
_MAYBE_APART = re.compile(rb"[ x](?=a(?: {1,5}[ax](?!a)){3})")
_BETWEEN = re.compile(rf"{_BREAK}+")
_BORDERS = frozenset("/|")  # a break that holds only such a sign ends a word
_TOKEN = re.compile(r"[A-Za-z0-9@$!]{2,}")
_TOKENS = re.compile(r"[A-Za-z0-9@$!]+")
_TOKEN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@$!")
_SIGNS = "0134578@$!269"
_LONGEST_TOKEN = 24  # longer ones are keys, digests or encoded text
_MIXED = re.compile(r"[A-Za-z][0-9@$!]|[0-9@$!][A-Za-z]")
_LEET = str.maketrans("023456789@$", "ozeasgtbgas")
_PLAIN_MIX = re.compile(r"[0-9]+(?:st|nd|rd|th|am|pm|[A-Za-z])?|[A-Za-z]{1,2}[0-9]+|[A-Za-z]+!+")
_CLEAR = re.compile(r"[A-Za-z][0-9@$!]+[A-Za-z]|[0-9@$!][A-Za-z]{2,}[0-9@$!]|[0-9@$][A-Za-z]{3}")
_FEWEST_CLEAR = (
    3  # words that are clearly spelled with digits, and their share of the text: then all are read
)
_CLEAR_SHARE = 0.15
_SIGN_SHARE = 0.03
_LONGEST_NUMBER = 12

# After the letter (^: none), before which letters ($: none) a stroke is an l; elsewhere it is an i. Counted
# over the words of English texts (the training sources of the injection model). The second table is for a
# letter that begins the word.
_L_BEFORE = {
    "^": "aeikoquyz", "a": "abcefghiklopqstuvwy$", "b": "aeiouvy$", "c": "iouya", "d": "iy",
    "e": "abdefhilmopqsuy$", "f": "aiouy", "g": "aeiwxy$", "h": "iy", "i": "abdeiklmorstuvy$", "j": "dikpz",
    "k": "aeijy", "l": "aeiouy$", "m": "eiy", "n": "iy", "o": "abdefiklmoprsuvy$", "p": "aeiouy", "q": "$",
    "r": "iy$", "s": "aiy", "t": "iy", "u": "abdefiklnoptuy$", "w": "eiouxy$", "x": "$", "y": "aeilou$",
    "z": "eik",
}  # fmt: skip
_L_AFTER_FIRST = {
    "b": "aeiouv$", "c": "aeiou$", "e": "adeimosy$", "f": "aeiouy$", "g": "aioxy", "p": "aeiosu$",
    "s": "aeiou",
}  # fmt: skip


class Joined(NamedTuple):
    """A text with its pulled-apart words put together, the way back, and the share of it that stood apart."""

    text: str
    offsets: OffsetMap
    share: float


def respelled(text: str, signals: set[str]) -> tuple[str, float]:
    """The text with letters for digits in words, of the same length, and the share that was disguised so.

    Adds `leet` to `signals` where that changed it. A text that is full of words with digits is disguised as a
    whole: then all its digits are read as letters.
    """
    is_full = _is_full_of_it(text)
    letters = _TOKENS.sub(_read_all, text) if is_full else unleeted(text)
    if letters != text:
        signals.add("leet")
    return letters, 1.0 if is_full else 0.0


def joined(text: str) -> Joined | None:
    """Runs of four or more single characters as words; what is longer than the usual break ends a word.

    None where there is no such run.
    """
    rewriter = None
    apart = 0
    for run in _pulled_apart(text):
        whole = run.group()
        if sum(map(str.isalpha, whole)) < 3:
            continue
        rewriter = rewriter or Rewriter(text)
        apart += len(whole)
        breaks = list(_BETWEEN.finditer(whole))
        usual = Counter(map(re.Match.group, breaks)).most_common(1)[0][0]
        base = run.start()
        for found in breaks:
            start, end = found.span()
            rewriter.replace(base + start, base + end, _between_words(found.group(), usual))
    return None if rewriter is None else Joined(*rewriter.finish(), apart / len(text))


def _pulled_apart(text: str) -> Iterator[re.Match[str]]:
    """The runs; in ASCII text the places where one may begin are found with a fixed string."""
    if not text.isascii():
        yield from _PULLED_APART.finditer(text)
        return
    classes = text.encode().translate(_CLASSES)
    done = 0
    for place in _MAYBE_APART.finditer(b" " + classes):
        if place.start() >= done:
            run = _PULLED_APART.match(text, place.start())
            if run is not None:
                done = run.end()
                yield run


def _between_words(found: str, usual: str) -> str:
    """What a break leaves: nothing for the usual one, else a space and the signs that belong to the text."""
    if found == usual:
        return ""
    rest = found.removeprefix(usual).removesuffix(usual)
    signs = rest.strip()
    if not signs or set(signs) <= _BORDERS or not any(sign.isspace() for sign in found):
        return " "
    return f"{signs} " if rest[-1:].isspace() or len(signs) == len(rest) else f" {signs}"


def unleeted(text: str) -> str:
    """Tokens that mix letters with digits or signs, with letters in their place; offsets stay.

    Ordinals, units, names such as `b2`, closing exclamation marks and tokens too long for a word stay.
    """
    parts: list[str] = []
    done = 0
    for mixed in _MIXED.finditer(text):
        if mixed.start() < done:
            continue
        start = _token_start(text, mixed.start(), done)
        token = _TOKEN.match(text, start)
        if token is not None:
            parts.append(text[done:start])
            parts.append(_spelled(token.group()))
            done = token.end()
    return "".join([*parts, text[done:]]) if parts else text


def _is_full_of_it(text: str) -> bool:
    """Whether words that are clearly spelled with digits make up a good part of the text."""
    if sum(map(text.count, _SIGNS)) < max(_FEWEST_CLEAR, _SIGN_SHARE * len(text)):
        return False
    words = (word for word in text.split() if len(word) <= _LONGEST_TOKEN)
    lengths = [len(word) for word in words if _CLEAR.search(word)]
    return len(lengths) >= _FEWEST_CLEAR and sum(lengths) >= _CLEAR_SHARE * len(text)


def _read_all(token: re.Match[str]) -> str:
    word = token.group()
    if word.isalpha() or len(word) > (_LONGEST_NUMBER if word.isdigit() else _LONGEST_TOKEN):
        return word
    body = word.rstrip("!") if len(word) > 1 else word
    return _letters(body) + word[len(body) :]


def _token_start(text: str, position: int, least: int) -> int:
    while position > least and text[position - 1] in _TOKEN_CHARACTERS:
        position -= 1
    return position


def _spelled(token: str) -> str:
    if len(token) > _LONGEST_TOKEN or _PLAIN_MIX.fullmatch(token):
        return token
    body = token.rstrip("!")
    return _letters(body) + token[len(body) :]


def _letters(word: str) -> str:
    """A word with letters for its digits and signs; a stroke (`1`, `!`) is i or l by its neighbours."""
    read = word.translate(_LEET)
    if "1" not in read and "!" not in read:
        return read
    letters = list(read)
    for place, letter in enumerate(letters):
        if letter in "1!":
            left = letters[place - 1].lower() if place else "^"
            right = letters[place + 1].lower() if place + 1 < len(letters) else "$"
            table = _L_AFTER_FIRST if place == 1 and left in _L_AFTER_FIRST else _L_BEFORE
            is_l = ("l" if right in "1!" else right) in table.get(left, "")
            letters[place] = "l" if is_l else "i"
    return "".join(letters)
