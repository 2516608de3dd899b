"""One guard and one vendor for the tests of the integrations: loading a guard takes seconds."""

from collections.abc import Iterator

import pytest
from vendor_server import Vendor, serve_vendor

from stanchion.guard.pipeline import Guard
from stanchion.integrations.recording import GuardEvent


@pytest.fixture(scope="session")
def guard() -> Guard:
    return Guard.load()


@pytest.fixture(scope="session")
def _vendor() -> Iterator[Vendor]:
    with serve_vendor() as vendor:
        yield vendor


@pytest.fixture
def vendor(_vendor: Vendor) -> Vendor:
    _vendor.reset()
    return _vendor


@pytest.fixture
def events() -> list[GuardEvent]:
    return []
