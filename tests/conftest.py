"""What several areas use: servers, and the compiled patterns."""

import pytest

from pattern_cache import compile_patterns
from servers import postgres_server, redis_url

__all__ = ["postgres_server", "redis_url"]


def pytest_configure(config: pytest.Config) -> None:
    """Compile the packaged patterns before the workers start, so that none does it for itself."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        compile_patterns()
