"""Fixtures that several areas use."""

from servers import postgres_server, redis_url

__all__ = ["postgres_server", "redis_url"]
