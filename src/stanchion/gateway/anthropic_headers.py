"""What a client says to Anthropic in headers: the version of the API, and beta features by name.

A beta can add blocks, tools and stored context that no check knows. `SAFE_BETAS` holds those that change no
surface: sizes, prices, counts, how thoughts and arguments are cut, forms of answers that are generally
available by now. Anything else is refused by name, or left out where the provider's section says so. A
version is sent on as it came; one whose shapes nobody looked at is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from stanchion.gateway.json_body import invalid
from stanchion.gateway.upstream import Provider

BETA, VERSION = "anthropic-beta", "anthropic-version"
VERSIONS = frozenset({"2023-06-01", "2026-10-21"})
SAFE_BETAS = frozenset(
    {"context-1m-2025-08-07", "extended-cache-ttl-2025-04-11", "fast-mode-2026-02-01"}
    | {"fine-grained-tool-streaming-2025-05-14", "interleaved-thinking-2025-05-14"}
    | {"model-context-window-exceeded-2025-08-26", "output-128k-2025-02-19", "output-300k-2026-03-24"}
    | {"pdfs-2024-09-25", "prompt-caching-2024-07-31", "structured-outputs-2025-11-13"}
    | {"thinking-token-count-2026-05-13", "token-counting-2024-11-01", "token-efficient-tools-2025-02-19"}
)
_PLAIN = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}\Z")


def check_headers(asked: Mapping[str, str], *, provider: Provider) -> None:
    """Stop a request for a version or a beta that this provider's section does not allow.

    Raises:
        Refused: `invalid` (400), naming it.
    """
    version = asked.get(VERSION, "")
    if version and version not in VERSIONS and version not in provider.allow_versions:
        raise invalid(
            "version_not_allowed",
            f"{VERSION}: the version {_shown(version)} is not known here.",
            f"Use one of {', '.join(sorted(VERSIONS))}; the provider's allow_versions can name more.",
        )
    if provider.unknown_betas == "drop":
        return
    for name in _names(asked.get(BETA, "")):
        if not _passes(name, provider):
            raise invalid(
                "beta_not_allowed",
                f"{BETA}: the beta {_shown(name)} may add what no check here knows.",
                "Leave it out; or the operator lists it in allow_betas of the provider.",
            )


def passed_headers(asked: Mapping[str, str], *, provider: Provider) -> tuple[dict[str, str], int]:
    """The headers that go to this provider after `check_headers`, and how many betas are left out."""
    names = _names(asked.get(BETA, ""))
    passed = [name for name in names if _passes(name, provider)]
    said = {VERSION: asked[VERSION]} if VERSION in asked else {}
    if passed:
        said[BETA] = ",".join(passed)
    return said, len(names) - len(passed)


def _passes(name: str, provider: Provider) -> bool:
    return (name in SAFE_BETAS or name in provider.allow_betas) and _PLAIN.match(name) is not None


def _names(asked: str) -> tuple[str, ...]:
    """The names in the header, each once, in their order."""
    return tuple(dict.fromkeys(name for part in asked.split(",") if (name := part.strip())))


def _shown(name: str) -> str:
    """A name for people; a client's text that is no name is not repeated."""
    return repr(name) if _PLAIN.match(name) else "of this name"
