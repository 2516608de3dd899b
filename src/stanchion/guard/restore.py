"""Putting values back in the place of vault tokens: in a text, in JSON source, and in either by pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

Lookup = Callable[[str], str | None]

_BODY = r"[A-Z][A-Z0-9_]{0,29}_[1-9][0-9]{0,7}_[0-9a-hjkmnp-tv-z]{13}"
_TEXT_ITEM = re.compile(rf"<(?P<body>{_BODY})>|<|[^<]+")
_JSON_ITEM = re.compile(
    rf"(?:<|\\u003[cC])(?P<body>{_BODY})(?:>|\\u003[eE])|\\u[0-9a-fA-F]{{4}}|\\[^u]|\\|<|[^<\\]+", re.DOTALL
)
_TEXT_BEGUN = re.compile(r"<[A-Za-z0-9_]{0,55}\Z")
_JSON_BEGUN = re.compile(
    r"(?:\\(?:u[0-9a-fA-F]{0,3})?|(?:<|\\u003[cC])[A-Za-z0-9_]{0,55}(?:\\(?:u(?:0(?:03?)?)?)?)?)\Z"
)
_RUN_ENDS = frozenset(" \t\r\n\"'`()<>")


def restore_text(text: str, lookup: Lookup, *, in_urls: bool = False) -> str:
    """A text with every token that `lookup` knows replaced."""
    restorer = Restorer(lookup, in_urls=in_urls)
    return restorer.feed(text) + restorer.finish()


def restore_json(text: str, lookup: Lookup, *, in_urls: bool = False) -> str:
    """JSON source with the tokens in its texts replaced by escaped values."""
    restorer = Restorer(lookup, json=True, in_urls=in_urls)
    return restorer.feed(text) + restorer.finish()


class Restorer:
    """Restores a text that comes in pieces; holds back at most one begun token.

    What it gives for the pieces of a text is what it would give for the whole, however the text is cut.
    """

    def __init__(self, lookup: Lookup, *, json: bool = False, in_urls: bool = False) -> None:
        self._lookup = lookup
        self._is_json = json
        self._in_urls = in_urls
        self._item = _JSON_ITEM if json else _TEXT_ITEM
        self._begun = _JSON_BEGUN if json else _TEXT_BEGUN
        self._held = ""
        self._run = ""

    def feed(self, piece: str) -> str:
        """What is certain after one more piece; may be empty."""
        text = self._held + piece
        self._held = ""
        out: list[str] = []
        at = 0
        while at < len(text):
            match = self._item.match(text, at)
            if match is None or (match["body"] is None and self._may_go_on(text, at)):
                self._held = text[at:]
                break
            out.append(self._written(match))
            at = match.end()
        return "".join(out)

    def finish(self) -> str:
        """What was still held back, as it is: a token that never ended is none."""
        rest, self._held = self._held, ""
        return rest

    def _may_go_on(self, text: str, at: int) -> bool:
        return text[at] in "<\\" and self._begun.match(text, at) is not None

    def _written(self, match: re.Match[str]) -> str:
        whole = match[0]
        value = None
        if match["body"] is not None and (self._in_urls or not self._is_in_url()):
            value = self._lookup(f"<{match['body']}>")
        self._remember(_unescaped(whole) if self._is_json else whole)
        if value is None:
            return whole
        return json.dumps(value, ensure_ascii=False)[1:-1] if self._is_json else value

    def _is_in_url(self) -> bool:
        """Whether the run is a link by any of the forms that renderers follow."""
        return "://" in self._run or self._run.startswith("//") or "www." in self._run.lower()

    def _remember(self, text: str) -> None:
        """Keep the run of characters since the last blank or bracket: enough to know a URL."""
        if _is_token(text):
            return  # a token goes on with the run it stands in
        for index in range(len(text) - 1, -1, -1):
            if text[index] in _RUN_ENDS:
                self._run = text[index + 1 :]
                break
        else:
            self._run += text
        if len(self._run) > 64:
            self._run = ("://" if self._is_in_url() else "-") + self._run[-8:]


def _is_token(text: str) -> bool:
    return text.startswith("<") and text.endswith(">")


def _unescaped(item: str) -> str:
    """One item of JSON source as the characters it means."""
    if "\\" not in item:
        return item
    try:
        return str(json.loads(f'"{item}"'))
    except ValueError:
        return item
