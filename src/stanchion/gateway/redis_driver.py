"""The Redis driver, imported by one thread at a time.

`redis` imports itself in a circle. Python gives a thread a half-imported module rather than let two threads
wait for each other, so threads that first need different parts of the package at once can fail with an
ImportError. Everything here that talks to Redis therefore gets the package from this place.
"""

from __future__ import annotations

import threading
from types import ModuleType

from stanchion.core.errors import MissingExtraError

_IMPORTING = threading.Lock()


def redis_driver() -> ModuleType:
    """The package `redis`, with its parts `asyncio` and `exceptions`.

    Raises:
        MissingExtraError: without the driver.
    """
    with _IMPORTING:
        try:
            import redis
            import redis.asyncio
            import redis.exceptions
        except ModuleNotFoundError as error:
            raise MissingExtraError("Redis", "redis") from error
        return redis
