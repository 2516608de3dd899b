import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from writer_process import race

from stanchion.core.clock import SystemClock
from stanchion.core.errors import IntegrityError, MissingExtraError, UnavailableError, UsageError
from stanchion.store import migrate
from stanchion.store.audit_chain import NewEntry
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import open_database
from stanchion.store.schema_version import newest_file
from stanchion.store.tables import interaction_tombstones, metadata


def test_importing_the_store_loads_no_sqlalchemy():
    modules = [
        "database",
        "audit_log",
        "audit_verify",
        "interactions",
        "records",
        "retention",
        "holds",
        "identity",
    ]
    code = "".join(f"import stanchion.store.{name};" for name in modules)
    code += "import sys; print('sqlalchemy' in sys.modules, 'alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_a_migrated_database_has_the_tables_of_the_code(database):
    def is_ours(name, kind, _parents):
        return not (kind == "table" and name == migrate.VERSION_TABLE)

    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": is_ours, "compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert migrate.current_version(connection) == migrate.newest_version()


def test_migrations_are_numbered_in_one_line():
    scripts = migrate._scripts()
    numbers = [script.revision for script in scripts.walk_revisions()]
    assert numbers == [f"{n:04}" for n in range(len(numbers), 0, -1)]
    assert len(scripts.get_heads()) == 1


def test_opening_twice_changes_nothing_and_keeps_records(database_url, clock):
    with open_database(database_url) as first:
        written = AuditLog(first, clock=clock).append("test.entry", {"n": 1})
    with open_database(database_url) as second:
        assert AuditLog(second, clock=clock).head() == written.head


def test_a_newer_database_is_refused_and_left_alone(database_url):
    with open_database(database_url) as database, database.write() as connection:
        connection.execute(sa.text("UPDATE stanchion_schema SET version_num = '9999'"))
    for is_read_only in (False, True):
        with pytest.raises(UnavailableError, match="at version 9999, newer than this Stanchion") as caught:
            open_database(database_url, is_read_only=is_read_only)
        assert caught.value.hint == "Use the Stanchion that wrote it, or a later one."


def test_an_older_database_is_migrated_when_written_and_refused_when_read(database_url, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "newest_version", lambda: "0001")
        open_database(database_url).close()
    with pytest.raises(UnavailableError, match=r"at version 0001, and this Stanchion needs"):
        open_database(database_url, is_read_only=True)
    with open_database(database_url) as database, database.read() as connection:
        assert migrate.is_newest(connection)
        assert sa.inspect(connection).has_table("interactions")


def test_a_migration_that_fails_leaves_the_database_untouched(database_url, monkeypatch):
    original = Operations.create_table

    def create_table(self, name, *columns, **options):
        if name == "legal_holds":
            raise RuntimeError("the power went out")
        return original(self, name, *columns, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Operations, "create_table", create_table)
        with pytest.raises(RuntimeError, match="the power went out"):
            open_database(database_url)
    engine = sa.create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == []
    engine.dispose()
    open_database(database_url).close()


def test_several_processes_may_open_a_new_database_at_once(database_url, clock):
    assert race(database_url, raced="open", processes=3, appends=1) == [0, 0, 0]
    with open_database(database_url) as database:
        assert AuditLog(database, clock=clock).verify().entries == 3


def test_a_failing_block_writes_nothing(database, log):
    def fail_halfway():
        with database.write() as connection:
            log.append_within(connection, [NewEntry(kind="test.entry", payload={})])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert log.head().sequence == 0


def test_a_read_only_database_refuses_to_write(database_url, clock):
    open_database(database_url).close()
    with open_database(database_url, is_read_only=True) as database:
        with pytest.raises(UnavailableError, match="cannot be written"):
            AuditLog(database, clock=clock).append("test.entry", {})
        assert AuditLog(database, clock=clock).head().sequence == 0


def test_another_writer_that_does_not_end_is_an_unavailable_database(database_url, clock):
    with open_database(database_url) as holder, open_database(database_url, lock_wait_s=0.2) as other:
        with holder.write() as connection:
            AuditLog(holder, clock=clock).hold_appends(connection)
            with pytest.raises(UnavailableError, match="stayed locked by another"):
                AuditLog(other, clock=clock).append("test.entry", {})
        assert AuditLog(other, clock=clock).append("test.entry", {}).sequence == 1


def test_readers_do_not_wait_for_a_writer(database_url, clock):
    with open_database(database_url) as writer, open_database(database_url, lock_wait_s=0.2) as reader:
        log = AuditLog(writer, clock=clock)
        log.append("test.entry", {})
        with writer.write() as connection:
            log.append_within(connection, [])
            assert AuditLog(reader, clock=clock).head().sequence == 1


def test_errors_never_repeat_parameters(database):
    row = {"id": "jane.doe@example.com", "erased_at_us": 0, "reason": "x", "erased_by": 99}
    with pytest.raises(IntegrityError) as caught, database.write() as connection:
        connection.execute(interaction_tombstones.insert(), row)
    assert "jane" not in str(caught.value)
    assert caught.value.__suppress_context__


# --- SQLite alone ---


def test_a_new_sqlite_file_is_private_and_so_are_its_side_files(tmp_path, clock):
    path = tmp_path / "new folder" / "records.db"
    with open_database(path) as database:
        AuditLog(database, clock=clock).append("test.entry", {})
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "records.db-wal" in modes
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_sqlite_is_set_up_to_keep_what_it_has_said(tmp_path):
    with open_database(tmp_path / "records.db") as database, database.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in (
                "journal_mode",
                "temp_store",
                "synchronous",
                "foreign_keys",
                "secure_delete",
                "recursive_triggers",
            )
        }
    assert pragmas == {
        "journal_mode": "wal",
        "temp_store": 2,
        "synchronous": 2,
        "foreign_keys": 1,
        "secure_delete": 1,
        "recursive_triggers": 1,
    }


def test_a_full_disk_is_one_clear_error_and_nothing_is_half_written(tmp_path, clock):
    with open_database(tmp_path / "records.db") as database:
        log = AuditLog(database, clock=clock)
        log.append("test.entry", {"n": 0})

        def limit(connection, _record):
            connection.execute("PRAGMA max_page_count = 60").close()

        sa.event.listen(database._engine, "connect", limit)
        database._engine.dispose()
        with pytest.raises(UnavailableError, match="is full: no space is left") as caught:
            [log.append("test.big", {"filler": "x" * 20_000}) for _ in range(100)]
        assert "nothing was half-written" in caught.value.hint
        found = log.verify()
        assert found.is_intact
        assert found.entries >= 1
        with database.read() as connection:
            counts = [
                connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()
                for table in ("audit_entries", "audit_payloads")
            ]
        assert counts == [found.entries, found.entries]


def test_a_file_that_is_no_database_is_an_integrity_error(tmp_path):
    path = tmp_path / "records.db"
    path.write_bytes(b"These are not the pages you are looking for. " * 200)
    before = path.read_bytes()
    with pytest.raises(IntegrityError, match="damaged or is no database") as caught:
        open_database(path)
    assert str(path) in caught.value.message
    assert path.read_bytes() == before


@pytest.mark.parametrize("whole", [2 * 4096, 2 * 16384], ids=["schema", "rows"])
def test_a_corrupted_page_is_an_integrity_error(tmp_path, clock, whole):
    path = tmp_path / "records.db"
    with open_database(path) as database:
        log = AuditLog(database, clock=clock)
        for n in range(50):
            log.append("test.entry", {"n": n, "filler": "y" * 500})
        database.forget_deleted()
    pages = bytearray(path.read_bytes())
    for start in range(whole, len(pages), 4096):
        pages[start : start + 64] = b"\xff" * 64
    path.write_bytes(pages)
    with pytest.raises(IntegrityError, match="damaged"), open_database(path) as database:
        AuditLog(database, clock=clock).verify()


def test_a_new_database_has_large_pages_and_an_old_one_keeps_its_own(tmp_path):
    small, new = tmp_path / "small.db", tmp_path / "new.db"
    with closing(sqlite3.connect(small)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE theirs (n int)")
    for path, size in ((small, 4096), (new, 16384)):
        with open_database(path) as database, database.read() as connection:
            assert connection.exec_driver_sql("PRAGMA page_size").scalar() == size
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_another_programs_database_is_not_touched_by_reading(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (n int)")
    connection.close()
    with pytest.raises(UnavailableError, match="at version none"):
        open_database(path, is_read_only=True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("mysql://root@localhost/x", "'mysql' is not supported"),
        ("postgresql://user:hunter2@host:port/x", "cannot be read"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused_without_the_password(url, words):
    with pytest.raises(UsageError, match=words) as caught:
        open_database(url)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_not_made_for_a_reader(tmp_path):
    with pytest.raises(UsageError, match="there is no database"):
        open_database(tmp_path / "absent.db", is_read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made: "):
        open_database(tmp_path / "file" / "records.db")


# --- PostgreSQL alone ---


def test_an_unreachable_postgresql_is_one_clear_error_without_the_password():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=r"'records' at 127\.0\.0\.1 did not answer") as caught:
            open_database(f"postgresql://ann:hunter2@127.0.0.1:{port}/records")
    assert "hunter2" not in str(caught.value)
    assert caught.value.hint == "Check that the server runs and can be reached."


@pytest.mark.postgres
def test_a_postgresql_that_goes_away_is_unavailable_and_comes_back(postgres_server, clock):
    def lose_the_server(database):
        with database.write() as connection:
            pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
            AuditLog(database, clock=clock).append_within(
                connection, [NewEntry(kind="test.lost", payload={})]
            )
            _end_backend(postgres_server, pid)

    url = postgres_server.new_database()
    with open_database(url) as database:
        log = AuditLog(database, clock=clock)
        log.append("test.entry", {})
        with pytest.raises(UnavailableError, match=r"is shutting down|did not answer"):
            lose_the_server(database)
        assert log.append("test.entry", {}).sequence == 2
    postgres_server.drop_database(url)


def _end_backend(server, pid):
    import psycopg

    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


@pytest.mark.postgres
@pytest.mark.parametrize(("old", "new"), [("/postgres?", "/absent?"), ("stanchion@", "mallory@")])
def test_a_server_that_knows_no_such_database_or_user_refused(postgres_server, old, new):
    url = postgres_server.url().replace(old, new)
    with pytest.raises(UnavailableError, match="refused the connection") as caught:
        open_database(url)
    assert "names of database and user" in caught.value.hint


def test_without_the_driver_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match="'postgres'") as caught:
        open_database("postgresql://localhost/x")
    assert caught.value.hint == "Install it: pip install 'stanchion[postgres]'"


def test_threads_may_share_a_database(database, log):
    failures = []

    def work(worker):
        try:
            for n in range(10):
                log.append("test.entry", {"worker": worker, "n": n})
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert log.verify().entries == 40


def test_the_last_migration_file_is_the_newest_version():
    assert newest_file() == migrate.newest_version()


def test_a_second_opening_in_one_process_loses_no_commit_to_another_process(tmp_path):
    """POSIX locks belong to the process: closing any descriptor of the file would drop them all."""
    path = tmp_path / "records.db"
    code = (
        "import sys; from pathlib import Path; from stanchion.core.clock import SystemClock\n"
        "from stanchion.store.audit_log import AuditLog; from stanchion.store.database import open_database\n"
        "with open_database(Path(sys.argv[1])) as d:\n"
        "    print(AuditLog(d, clock=SystemClock()).head().sequence)\n"
    )

    def seen_elsewhere() -> str:
        command = [sys.executable, "-c", code, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with open_database(path) as first, open_database(path) as second:
        log = AuditLog(first, clock=SystemClock())
        log.append("gate.verdict", {"n": 1})
        third = open_database(path)
        assert seen_elsewhere() == "1"  # and at its end it must not delete the log of these two
        log.append("gate.verdict", {"n": 2})
        AuditLog(second, clock=SystemClock()).append("gate.verdict", {"n": 3})
        assert seen_elsewhere() == "3"
        third.close()
