"""Several processes that share the windows of a text; what comes out is in the order of the lines.

Each process builds what works on a window and is given one window after another. At most two windows a process are
read ahead, and they wait for the slowest: memory is constant. A process that dies has its window done again by a new
one; a window at which processes die again and again ends the command.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

from nmt_async.errors import RunFailure, UserError
from nmt_async.process.child import Child

T = TypeVar("T")
R = TypeVar("R")

WINDOWS_A_PROCESS = 2
"""Windows read and not given out yet, for each process."""

MOST_DEATHS = 3
"""Deaths of processes at the same window, or of one process before its first, that end the command."""

Work = Callable[[list[T], int], list[R]]
"""From the lines of a window and the number of the first, counted from one, to a result for each."""


class Builder(Protocol):
    """Can be pickled; makes, in a process of its own, what works on a window."""

    def __call__(self, device: str, warn: Callable[[str], None]) -> Work[Any, Any]:
        """Raises UserError where it cannot be made; ``warn`` takes sentences about lines."""


@dataclass(frozen=True)
class _Done:
    """Results of a window, and what there is to say about its lines; an empty one says that the process is ready."""

    results: list[Any]
    warnings: list[str]


@dataclass(frozen=True)
class _Failed:
    """The process ends with an exception: ``error`` is its text; ``mistake`` if it was a UserError."""

    error: str
    mistake: bool


@dataclass
class _Window:
    """Lines from ``first`` on; once they are done, with their results."""

    first: int
    lines: list[Any]
    deaths: int = 0
    done: _Done | None = None

    @property
    def place(self) -> str:
        return f"lines {self.first:,} to {self.first + len(self.lines) - 1:,}"


@dataclass
class _Seat:
    """A process and what it is at: a window, or none while it starts and while it waits."""

    process: Child
    device: str
    idle: bool = False
    window: _Window | None = None
    deaths: int = 0

    @property
    def pipe(self) -> Connection:
        return self.process.pipe


def run_process(build: Builder, device: str, pipe: Connection) -> None:
    """The body of one process."""
    warnings: list[str] = []
    try:
        work = build(device, warnings.append)
        pipe.send(_Done([], []))
        while True:
            first, lines = pipe.recv()
            results = work(lines, first)
            pipe.send(_Done(results, list(warnings)))
            warnings.clear()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone, or has all it wanted
    except UserError as error:
        pipe.send(_Failed(str(error), mistake=True))
    except Exception as error:
        pipe.send(_Failed((traceback.format_exception_only(error)[-1]).strip()[:500], mistake=False))


class Processes(Generic[T, R]):
    """Processes that work on windows, one for each of ``devices``; a context that ends them.

    Args:
        build: what each of them does first.
        threads: of each on the CPU.
        warn: takes sentences about lines, in the order of the lines, and about processes that died.
    """

    def __init__(self, build: Builder, devices: Sequence[str], threads: int, warn: Callable[[str], None]) -> None:
        self._build = build
        self._threads = threads
        self._warn = warn
        self._seats: list[_Seat] = []
        try:
            for device in devices:
                self._seats.append(self._start(device))
        except BaseException:
            self.close()
            raise

    def _start(self, device: str) -> _Seat:
        try:
            process = Child("translation", run_process, (self._build, device), self._threads)
        except OSError as error:
            raise RunFailure(f"a process could not be started ({error.strerror or error}).") from None
        return _Seat(process, device)

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [seat.process.pid for seat in self._seats]

    def results(self, windows: Iterable[list[T]]) -> Iterator[R]:
        """A result for each line, in their order.

        Raises:
            UserError: as the work raised it.
            RunFailure: the work failed, or processes died again and again.
        """
        feed = _Feed(windows, WINDOWS_A_PROCESS * len(self._seats))
        waiting: deque[_Window] = deque()
        in_order: deque[_Window] = deque()
        try:
            while not feed.ended or in_order:
                read = list(feed.take())
                waiting += read
                in_order += read
                while in_order and in_order[0].done is not None:
                    done = in_order.popleft().done
                    assert done is not None
                    for warning in done.warnings:
                        self._warn(warning)
                    yield from done.results
                    feed.consumed()
                self._deal(waiting)
                if not feed.ended or in_order:
                    self._listen(feed, waiting)
            if feed.problem is not None:
                raise feed.problem
        finally:
            feed.close()

    def _deal(self, waiting: deque[_Window]) -> None:
        for seat in self._seats:
            if seat.idle and waiting:
                seat.window, seat.idle = waiting.popleft(), False
                with contextlib.suppress(OSError):  # it just died, as its sentinel will say
                    seat.pipe.send((seat.window.first, seat.window.lines))

    def _listen(self, feed: _Feed, waiting: deque[_Window]) -> None:
        """Waits until there is something new: a window that was read, a result, or a death."""
        sources: list[Any] = [seat.pipe for seat in self._seats]
        sources += [seat.process.sentinel for seat in self._seats]
        ready = wait(sources if feed.ended else [*sources, feed.bell])
        for index, seat in enumerate(self._seats):
            if seat.pipe not in ready and seat.process.sentinel not in ready:
                continue
            try:
                while seat.pipe.poll():
                    self._hear(seat, seat.pipe.recv())
            except (EOFError, OSError):
                self._seats[index] = self._replace(seat, waiting)

    def _hear(self, seat: _Seat, message: _Done | _Failed) -> None:
        if isinstance(message, _Failed):
            if message.mistake:
                raise UserError(message.error)
            where = f" at {seat.window.place}" if seat.window else ""
            raise RunFailure(f"a process failed{where}: {message.error}")
        if seat.window is not None:
            seat.window.done = message
        seat.window, seat.idle, seat.deaths = None, True, 0

    def _replace(self, seat: _Seat, waiting: deque[_Window]) -> _Seat:
        """The process has ended: its window goes back, and a new one takes its place."""
        seat.process.end()
        how = seat.process.ending
        seat.process.close()
        deaths = seat.deaths + 1
        at = "as it started"
        if seat.window is not None:
            seat.window.deaths += 1
            deaths, at = seat.window.deaths, f"at {seat.window.place}"
            waiting.appendleft(seat.window)
        if deaths >= MOST_DEATHS:
            raise RunFailure(f"processes died {deaths} times {at}, the last one {how}; try fewer --workers.")
        self._warn(f"a process died {at} ({how}); a new one takes its place.")
        new = self._start(seat.device)
        new.deaths = deaths if seat.window is None else 0
        return new

    def close(self) -> None:
        """Ends them; what they are at is lost. Safe to call twice."""
        for seat in self._seats:
            seat.process.kill()
        for seat in self._seats:
            seat.process.close()
        self._seats = []

    def __enter__(self) -> Processes[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Feed:
    """Windows as a thread reads them, ``most`` at a time until they are consumed.

    Attributes:
        bell: can be read where there is news for `take`.
        ended: all windows were taken.
        problem: what the reading raised at its end.
    """

    def __init__(self, windows: Iterable[list[Any]], most: int) -> None:
        self.bell, self._ring = multiprocessing.Pipe(duplex=False)
        self.ended = False
        self.problem: BaseException | None = None
        self._room = threading.Semaphore(most)
        self._stopped = False
        self._read_ones: deque[_Window | None] = deque()
        threading.Thread(target=self._read, args=(windows,), name="windows", daemon=True).start()

    def _read(self, windows: Iterable[list[Any]]) -> None:
        first = 1
        remaining = iter(windows)
        try:
            while self._room.acquire() and not self._stopped:
                lines = next(remaining, None)
                if lines is None:
                    break
                self._tell(_Window(first, lines))
                first += len(lines)
        except BaseException as problem:
            self.problem = problem
        self._tell(None)

    def _tell(self, window: _Window | None) -> None:
        self._read_ones.append(window)
        with contextlib.suppress(OSError):  # nobody listens any more
            self._ring.send_bytes(b"!")

    def take(self) -> Iterator[_Window]:
        """What was read since the last time."""
        while not self.ended and self.bell.poll():
            self.bell.recv_bytes()
            window = self._read_ones.popleft()
            if window is None:
                self.ended = True
            else:
                yield window

    def consumed(self) -> None:
        """A window's results were taken: one more may be read."""
        self._room.release()

    def close(self) -> None:
        """Lets the thread end."""
        self._stopped = True
        self._room.release()
        self.bell.close()
