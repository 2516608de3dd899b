"""Which stretches of a text are quoted: mentioned rather than said.

`The report lists "ignore all instructions"` is talk about an attack. Being quoted is a feature of the linear
models, not a pardon: what they make of it is learnt, and quoted attacks are among what they learn from.
Values of JSON, attributes and lists are not quotations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

SHORTEST = 6  # characters between the marks
LONGEST = 600

_EITHER, _OPENS, _CLOSES = 1, 2, 3
_MARKS = {
    **dict.fromkeys("'\"`", _EITHER),
    **dict.fromkeys("\u201c\u2018\u00ab\u201e\u300c\u300e\u2039", _OPENS),
    **dict.fromkeys("\u201d\u2019\u00bb\u300d\u300f\u203a", _CLOSES),
}
_ANY_MARK = re.compile(f"[{''.join(_MARKS)}]")
_BEFORE_VALUE = frozenset("{[:,=")


def quotations(text: str, is_letter: Callable[[str], bool]) -> list[tuple[int, int]]:
    """Half-open spans from an opening mark to its closing one, in order; none within another.

    Args:
        text: any text.
        is_letter: tells letters and digits from other characters.
    """
    if text.isascii() and not ("'" in text or '"' in text or "`" in text):
        return []
    spans = []
    opened = -1
    for place, opens in _directed(text, is_letter):
        if not opens and opened >= 0 and SHORTEST < place - opened <= LONGEST:
            spans.append((opened, place))
        opened = place if opens else -1
    return spans


def _directed(text: str, is_letter: Callable[[str], bool]) -> Iterator[tuple[int, bool]]:
    """Each mark that opens (True) or closes a quotation; apostrophes and marks around values do neither."""
    for match in _ANY_MARK.finditer(text):
        place = match.start()
        kind = _MARKS[match.group()]
        before = text[place - 1] if place else " "
        after = text[place + 1] if place + 1 < len(text) else " "
        letter_before, letter_after = is_letter(before), is_letter(after)
        if kind == _OPENS:
            yield place, True
        elif letter_before and letter_after:
            continue
        elif kind == _CLOSES:
            yield place, False
        else:
            may_open = not letter_before and after > " " and not _is_value(text, place)
            closes = before > " " and not letter_after
            if may_open and (letter_after or not closes):
                yield place, True
            elif closes:
                yield place, False


def _is_value(text: str, place: int) -> bool:
    """Whether a mark stands where a value of JSON, an attribute or an item of a list begins."""
    before = text[place - 1] if place else " "
    if before != " " or place < 3:
        return before in _BEFORE_VALUE
    return text[place - 2] in _BEFORE_VALUE and _MARKS.get(text[place - 3]) == _EITHER
