"""Words that were pulled apart or spelled with digits: `i g n o r e`, `i.g.n.o.r.e`, `1gn0r3`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from stanchion.detectors.transforms.offsets import OffsetMap, Rewriter

_BREAKS = " \t\r\n.-_*~|/,+"
_BREAK_SIGNS = frozenset(_BREAKS)
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
_PLAIN_MIX = re.compile(
    r"[0-9]+[xX][0-9]+|[0-9]+(?:st|nd|rd|th|am|pm|[A-Za-z])?|[A-Za-z]{1,2}[0-9]+|[A-Za-z]+!+"
)
_CLEAR = re.compile(r"[A-Za-z][0-9@$!]+[A-Za-z]|[0-9@$!][A-Za-z]{2,}[0-9@$!]|[0-9@$][A-Za-z]{3}")
_FEWEST_CLEAR = (
    3  # words that are clearly spelled with digits, and their share of the text: then all are read
)
_CLEAR_SHARE = 0.15
_SIGN_SHARE = 0.03
_LONGEST_NUMBER = 12
_ITEM = re.compile(r"[0-9]{1,3}[.)]\s")  # a number of a list, which has no letters to be read
_DEEPEST_ITEM = 12
_DIGIT_WORDS = frozenset(("1", "4", "15", "17", "45", "47", "50", "70", "83", "90"))  # I, a, is, it, as, ...
_ALONE = " \t\r\n!'\"(),.;:?"  # what stands around a stroke that is a word

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


# Where the tables err: a letter, then what follows the stroke (1: another stroke, $: the end).
_L_BETWEEN_TEXT = """
    ^1$ ^1b ^1e ^1f ^1g ^1k ^1m ^1n ^1s ^1t ^1v are b1c b1s c1c c1e c1m c1n ce$ d1n de$ des eco f1c f1g
    fec g1s han k1s l1a l1g l1n l1o lme ls$ n1m n1n nes noc p1a p1c p1e p1t r1e r1n rd$ t1n te$
"""
_I_BETWEEN_TEXT = """
    a1a a1b a1u agh ass at$ at1 bas bo1 ca$ ca1 cat cou esu fa$ fat fe1 ges lan lef ler les lev me$ pec
    pen pon sa$ se$ sen u1d u1t uda ude ute we$
"""
_L_BETWEEN, _I_BETWEEN = frozenset(_L_BETWEEN_TEXT.split()), frozenset(_I_BETWEEN_TEXT.split())


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
        if _has_one_break(whole):
            rewriter.keep_every_other(*run.span())
            continue
        breaks = list(_BETWEEN.finditer(whole))
        usual = Counter(map(re.Match.group, breaks)).most_common(1)[0][0]
        base = run.start()
        for found in breaks:
            start, end = found.span()
            rewriter.replace(base + start, base + end, _between_words(found.group(), usual))
    return None if rewriter is None else Joined(*rewriter.finish(), apart / len(text))


def _has_one_break(run: str) -> bool:
    """Whether every other character of a run is the same break, and there is no other."""
    between = run[1::2]
    return (
        between[0] in _BREAKS
        and len(run) % 2 == 1
        and between == between[0] * len(between)
        and _BREAK_SIGNS.isdisjoint(run[::2])
    )


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
    if word.isdigit() and _is_number(token):
        return word
    if not word.strip("!"):
        around = token.string[max(0, token.start() - 1) : token.end() + 1]
        return "i" if len(word) == 1 and not around.strip(_ALONE) else word
    body = word.rstrip("!")
    return _letters(body) + word[len(body) :]


def _is_number(token: re.Match[str]) -> bool:
    """Whether digits are no word: one or two that spell none, or the number of a line in a list."""
    text, position = token.string, token.start()
    if token.end() - position <= 2 and token.group() not in _DIGIT_WORDS:
        return True
    if _ITEM.match(text, position) is None:
        return False
    before = text[max(0, position - _DEEPEST_ITEM) : position].rstrip(" \t")
    return before.endswith("\n") or (not before and position < _DEEPEST_ITEM)


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
    if "1" in read or "!" in read:
        read = _strokes_read(read)
    return read.upper() if word.isupper() and len(word) > 1 else read


def _strokes_read(read: str) -> str:
    letters = list(read)
    ahead = read.lower().replace("!", "1") + "$$"
    for place, letter in enumerate(letters):
        if letter in "1!":
            left = letters[place - 1].lower() if place else "^"
            letters[place] = "l" if _is_l(left, ahead[place + 1 : place + 3], is_second=place == 1) else "i"
    return "".join(letters)


def _is_l(left: str, ahead: str, *, is_second: bool) -> bool:
    """Whether a stroke behind a letter, with two more signs ahead, is an l; `is_second` letter of a word."""
    between = left + ahead.partition("$")[0] + "$" if "$" in ahead else left + ahead
    if between in _L_BETWEEN or between in _I_BETWEEN:
        return between in _L_BETWEEN
    table = _L_AFTER_FIRST if is_second and left in _L_AFTER_FIRST else _L_BEFORE
    return ahead[0].replace("1", "l") in table.get(left, "")
