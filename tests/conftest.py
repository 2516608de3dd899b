"""What several areas use: servers, and the compiled patterns."""

import pytest
from hypothesis import settings

from pattern_cache import compile_patterns
from servers import postgres_server, redis_url

__all__ = ["postgres_server", "redis_url"]

# How long an example takes says something about the machine; bench/ measures, tests do not.
settings.register_profile("stanchion", deadline=None)
settings.load_profile("stanchion")


def pytest_configure(config: pytest.Config) -> None:
    """Compile the packaged patterns before the workers start, so that none does it for itself."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        compile_patterns()
