import pytest

import servers


@pytest.mark.redis
def test_a_private_redis_answers(redis_url):
    import redis

    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
        client.set("key", "value")
        assert client.get("key") == b"value"


@pytest.mark.postgres
def test_a_private_postgresql_makes_separate_databases(postgres_server):
    import psycopg

    first, second = postgres_server.new_database(), postgres_server.new_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE only_here (n int)")
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)
    postgres_server.drop_database(first)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(first)
    postgres_server.drop_database(second)


def test_a_missing_server_skips_unless_it_is_demanded(monkeypatch):
    monkeypatch.delenv("STANCHION_REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="not installed here"):
        servers._missing("X")
    monkeypatch.setenv("STANCHION_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="demands it"):
        servers._missing("X")
