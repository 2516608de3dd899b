"""The categories every part speaks of: one file, `data/taxonomy.yaml`; an unknown id is an error."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType

import msgspec

from stanchion.core.errors import UnknownNameError
from stanchion.core.finding import Severity
from stanchion.core.resources import read_data_text


class Category(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of harm or signal, with the frameworks' ids it corresponds to (a citation, not a claim)."""

    id: str
    title: str
    severity: Severity
    mappings: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The first segment: `pii` of `pii.email`."""
        return self.id.partition(".")[0]


@lru_cache(maxsize=1)
def taxonomy() -> MappingProxyType[str, Category]:
    """All categories by id, in the file's order."""
    import yaml

    rows = yaml.safe_load(read_data_text("taxonomy.yaml"))["categories"]
    categories = msgspec.convert(rows, tuple[Category, ...], strict=True)
    return MappingProxyType({category.id: category for category in categories})


def category(category_id: str, *, where: str | None = None) -> Category:
    """The category of this id.

    Raises:
        UnknownNameError: with the nearest ids, and `where` in front when given.
    """
    known = taxonomy()
    found = known.get(category_id)
    if found is None:
        raise UnknownNameError("category", category_id, known, where=where)
    return found


def matches(selector: str, category_id: str) -> bool:
    """Whether a selector of a policy covers a category.

    `pii` and `pii.*` cover `pii` and everything below it; `*` covers everything.
    """
    stem = selector.removesuffix(".*")
    return selector == "*" or category_id == stem or category_id.startswith(f"{stem}.")


def check_selector(selector: str, *, where: str | None = None) -> None:
    """Raise UnknownNameError when a selector covers no known category."""
    if not any(matches(selector, known) for known in taxonomy()):
        stems = {f"{c.family}.*" for c in taxonomy().values()}
        raise UnknownNameError("category", selector, [*taxonomy(), *stems], where=where)
