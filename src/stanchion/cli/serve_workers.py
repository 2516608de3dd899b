"""Several serving processes behind one socket: started, watched, started again, told to stop together."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from stanchion.cli.output import err_console, note, show_error
from stanchion.core.clock import SortableIds, SystemClock
from stanchion.core.errors import ExitCode, StanchionError
from stanchion.telemetry.metrics import forget_worker, share_between_workers

if TYPE_CHECKING:
    from stanchion.bootstrap_gateway import GatewaySources
    from stanchion.gateway.serving import ServeOptions

_YOUNG_S = 5.0
_LONGEST_PAUSE_S = 30.0


def run_workers(
    sources: GatewaySources, options: ServeOptions, bound: Any, *, workers: int, is_quiet: bool
) -> int:
    """Keep so many processes serving until a signal ends them; the exit code.

    The processes are forked before anything heavy is loaded, and accept from the same socket. A process that
    cannot be made ends all: the next one could not either.
    """
    group = SortableIds(SystemClock()).new("gateway")
    sources = dataclasses.replace(sources, group=group, workers=workers)
    return _Supervisor(sources, options, bound, is_quiet=is_quiet).run(workers)


class _Supervisor:
    def __init__(self, sources: GatewaySources, options: ServeOptions, bound: Any, *, is_quiet: bool) -> None:
        self._sources, self._options, self._bound = sources, options, bound
        self._is_quiet = is_quiet
        self._slots: dict[int, int] = {}
        self._began: dict[int, float] = {}
        self._is_stopping = False
        self._ready = os.pipe()  # a worker that serves says so
        os.set_blocking(self._ready[0], False)
        self._has_served = False

    def run(self, workers: int) -> int:
        folder = self._sources.metrics_folder
        if folder is not None:
            from stanchion.config import pass_on

            variables: dict[str, str] = {}
            share_between_workers(folder, variables)
            pass_on(variables)
        for slot in range(workers):
            self._start(slot)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        code, pause_s = 0, 0.5
        while self._slots:
            pid, status = os.waitpid(-1, 0)
            if pid not in self._slots:
                continue
            slot = self._slots.pop(pid)
            if folder is not None:
                forget_worker(folder, slot)
            ended = os.waitstatus_to_exitcode(status)
            if ended == ExitCode.USAGE or (ended == ExitCode.NOT_JUDGED and not self._served()):
                code = ended
                self._stop(signal.SIGTERM)
            if self._is_stopping:
                continue
            is_young = time.monotonic() - self._began[slot] < _YOUNG_S
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S) if is_young else 0.5
            note(f"worker {slot} ended with {ended}; another one starts in {pause_s:g} s.")
            time.sleep(pause_s)
            if not self._is_stopping:
                self._start(slot)
        return code

    def _served(self) -> bool:
        """Whether any worker ever served; when none could, the next one could not either."""
        with contextlib.suppress(BlockingIOError):
            self._has_served = bool(os.read(self._ready[0], 4096)) or self._has_served
        return self._has_served

    def _start(self, slot: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._began[slot] = time.monotonic()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._work(slot, parent)
        self._slots[pid] = slot

    def _work(self, slot: int, parent: int) -> NoReturn:
        """The life of a worker; never returns."""
        from stanchion.cli.serve_process import make_process, run_process
        from stanchion.cli.serve_view import greet
        from stanchion.gateway.serving import shown_address

        code = int(ExitCode.NOT_JUDGED)
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            console = err_console()
            process = make_process(self._sources, console, is_quiet=self._is_quiet, worker=slot)
            os.write(self._ready[1], b".")
            if slot == 0:
                greet(console, process, shown_address(self._bound))
            run_process(process, self._options, self._bound, parent=parent)
            code = int(ExitCode.OK)
        except StanchionError as error:
            show_error(error)
            code = int(error.exit_code)
        except KeyboardInterrupt:
            code = int(ExitCode.OK)
        except Exception as error:
            note(f"worker {slot}: {type(error).__name__}")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _signalled(self, number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            self._tell(signal.SIGHUP)
        else:
            self._stop(number)

    def _stop(self, number: int) -> None:
        self._is_stopping = True
        self._tell(number)

    def _tell(self, number: int) -> None:
        for pid in self._slots:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
