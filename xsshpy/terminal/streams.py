"""The program's own stdin, stdout and stderr, without ever blocking the event loop.

stdin may be a terminal, a pipe, a socket, or something that cannot be polled (a regular file,
/dev/null, /dev/zero: epoll refuses those); each is read in the way that suits it. stdout and
stderr are written by a thread each. The descriptors keep their flags, which other processes share,
and neither a read that waits nor a terminal stopped with Ctrl-S stops anything else. What is
waiting is bounded: the source is asked to pause above the high-water mark and to go on below the
low one.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

READ_SIZE = 1 << 18
"""Bytes read at a time; several channel packets, few system calls and changes of thread."""
HIGH_WATER = 4 << 20
LOW_WATER = 1 << 20
ORDER_PATIENCE = 0.05
"""Seconds that one stream waits for what the other was given before; then that one is stuck."""
_PTY_MASTER = os.makedev(5, 2)
"""/dev/ptmx on Linux: opened anew, it is another terminal."""


class InputPump:
    """Reads a descriptor and hands the data on, until end of file, pausing on request.

    The loop waits until there is something. Whoever shares this stdin (the shell's other jobs) may
    take it first, so reading it may still wait for more: where the system allows it, it is read
    without waiting, else in a thread. Such a read begins only after the last one's data were
    handed on, so what is typed after an escape that suspends belongs to the shell.
    """

    def __init__(
        self, descriptor: int, data: Callable[[bytes], None], end: Callable[[], None]
    ) -> None:
        self._descriptor = descriptor
        self._data = data
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._paused = False
        self._held = False
        self._finished = False
        self._watching = False
        self._reading = False
        self._pollable = not _is_unpollable(descriptor)
        self._null = _is_null(descriptor)
        self._unshared = _open_unshared(descriptor)
        self._wanted: SimpleQueue[bool] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read."""
        self.resume()

    def pause(self) -> None:
        """Begin no more reads until :meth:`resume`; one that is under way may still bring data."""
        self._paused = True
        self._unwatch()

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        self._watch()

    def hold(self, held: bool) -> None:
        """Leave the descriptor to someone else for a while, whatever else pauses or resumes."""
        self._held = held
        if held:
            self._unwatch()
        else:
            self._watch()

    @property
    def is_reading(self) -> bool:
        """Whether a thread may be reading the descriptor, which must stay open meanwhile."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Stop for good, at once; what has not been read stays unread."""
        self._finished = True
        self._unwatch()
        self._wanted.put(False)
        if self._unshared is not None:
            os.close(self._unshared)
            self._unshared = None

    def _watch(self) -> None:
        busy = self._reading or self._watching
        if self._paused or self._held or self._finished or busy:
            return
        if self._pollable:
            try:
                self._loop.add_reader(self._descriptor, self._read)
                self._watching = True
                return
            except OSError:  # epoll: EPERM for what can't be polled
                self._pollable = False
        self._request_read()

    def _unwatch(self) -> None:
        if self._watching:
            self._loop.remove_reader(self._descriptor)
            self._watching = False

    def _read(self) -> None:
        if self._unshared is None:
            self._unwatch()
            self._request_read()
        else:
            self._take(_read(self._unshared))

    def _request_read(self) -> None:
        self._reading = True
        if self._null:
            self._loop.call_soon(self._take, b"")
            return
        self._wanted.put(True)
        if self._thread is None:
            # A daemon: a read that waits for someone's input must not keep the program from ending.
            self._thread = threading.Thread(target=self._work, name="input", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while self._wanted.get():
            data = _read(self._descriptor)
            try:
                self._loop.call_soon_threadsafe(self._take, data)
            except RuntimeError:  # the loop is gone: the program is ending
                return

    def _take(self, data: bytes | None) -> None:
        self._reading = False
        if self._finished:
            return
        if data:
            self._data(data)
        elif data is not None:
            self.stop()
            self._end()
        self._watch()


def _open_unshared(descriptor: int) -> int | None:
    """Return the same terminal or pipe with flags of its own, non-blocking; None where that fails.

    Linux alone opens it anew. Only to be read, not watched: a FIFO opened after its last writer is
    gone never polls as closed.
    """
    try:
        status = os.fstat(descriptor)
        terminal = os.isatty(descriptor) and status.st_rdev != _PTY_MASTER
        if terminal or stat.S_ISFIFO(status.st_mode):
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:  # no /proc, or the descriptor came from another user
        pass
    return None


def _read(descriptor: int) -> bytes | None:
    """Return what is there; nothing at the end; None where there is nothing now."""
    try:
        return os.read(descriptor, READ_SIZE)
    except BlockingIOError:
        return None
    except OSError:  # a terminal that went away reads as EIO: the end of input
        return b""


def _is_null(descriptor: int) -> bool:
    """Tell whether this is /dev/null, whose end needs no waiting: it goes out with the command."""
    try:
        return os.fstat(descriptor).st_rdev == os.stat(os.devnull).st_rdev
    except OSError:
        return False


def _is_unpollable(descriptor: int) -> bool:
    """Regular files are always ready; kqueue would signal their end instead of their data."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode)


class OutputOrder:
    """Lets several writers put out their data in the order in which it came.

    A terminal shows stdout and stderr together. A writer whose descriptor takes nothing holds the
    others up for :data:`ORDER_PATIENCE` once, and no longer.
    """

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self._writers: list[OutputWriter] = []
        self._given = 0

    def add(self, writer: OutputWriter) -> None:
        """Take one more writer in."""
        self._writers.append(writer)

    def next_number(self) -> int:
        """Return the place of what is written next. Call with the condition held."""
        self._given += 1
        return self._given

    def oldest_elsewhere(self, writer: OutputWriter) -> tuple[int, OutputWriter] | None:
        """Return what the others have not yet put out, the first of it, and who has it."""
        found = [
            (other.oldest, other)
            for other in self._writers
            if other is not writer and other.oldest and not other.stuck
        ]
        return min(found, key=lambda pair: pair[0]) if found else None


class OutputWriter:
    """Writes to a descriptor from a thread of its own, in order, reporting back to the loop."""

    def __init__(
        self,
        descriptor: int,
        *,
        pause: Callable[[], None],
        resume: Callable[[], None],
        broken: Callable[[OSError], None],
        order: OutputOrder | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.stuck = False
        self._pause = pause
        self._resume = resume
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._order = order or OutputOrder()
        self._order.add(self)
        self._condition = self._order.condition
        self._queue: deque[tuple[int, bytes]] = deque()
        self._writing = 0
        self._waiting = 0
        self._paused = False
        self._closing = False
        self._failed = False
        self._drained = asyncio.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be put out."""
        return not self._writing and not self._queue

    def survive_fork(self) -> None:
        """Go on in a child process, where the thread is not. Call with no one else about."""
        self._thread = None
        self._writing = 0
        if self._queue:
            self._start_thread()

    @property
    def oldest(self) -> int:
        """The place of the first data not yet put out; 0 where there is none."""
        return self._writing or (self._queue[0][0] if self._queue else 0)

    def write(self, data: bytes) -> None:
        """Add to the queue; returns at once."""
        with self._condition:
            if self._failed or self._closing:
                return
            self._queue.append((self._order.next_number(), data))
            self._waiting += len(data)
            over = self._waiting > HIGH_WATER and not self._paused
            self._paused = self._paused or over
            self._condition.notify_all()
        if self._thread is None:
            self._start_thread()
        if over:
            self._pause()

    def _start_thread(self) -> None:
        # A daemon: a reader that never reads again must not keep the program from ending.
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)
        self._thread.start()

    def abandon(self) -> None:
        """Write nothing more but what is being written."""
        with self._condition:
            self._failed = self._closing = True
            self._queue.clear()
            self._condition.notify_all()

    async def close(self) -> None:
        """Wait until everything is written, or can't be. May wait as long as the reader does."""
        if self._thread is None:
            return
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        await self._drained.wait()
        self._thread.join(1.0)

    def _work(self) -> None:
        while True:
            with self._condition:
                batch = self._take_batch()
            if not batch:
                break
            error = _write_all(self.descriptor, batch)
            with self._condition:
                self._writing = 0
                self.stuck = False
                self._waiting -= sum(map(len, batch))
                under = self._paused and self._waiting < LOW_WATER
                if under:
                    self._paused = False
                if error is not None:
                    self._failed = True
                    self._queue.clear()
                self._condition.notify_all()
            if error is not None:
                self._tell(self._broken, error)
                break
            if under:
                self._tell(self._resume)
        self._tell(self._drained.set)

    def _take_batch(self) -> list[bytes]:
        """Wait for data whose turn it is, and take it; nothing at the end."""
        while not self._queue and not self._closing:
            self._condition.wait()
        if not self._queue:
            return []
        limit = self._wait_for_turn()
        if not self._queue:  # abandoned meanwhile
            return []
        self._writing = self._queue[0][0]
        batch = []
        while self._queue and (limit is None or self._queue[0][0] < limit):
            batch.append(self._queue.popleft()[1])
        return batch

    def _wait_for_turn(self) -> int | None:
        """Let the others put out what came before; return where our turn ends, if it does."""
        while True:
            before = self._order.oldest_elsewhere(self)
            if before is None or not self._queue:
                return None
            number, other = before
            if number > self._queue[0][0]:
                return number
            other.stuck = not self._wait_for_progress(other, number)

    def _wait_for_progress(self, other: OutputWriter, number: int) -> bool:
        return self._condition.wait_for(lambda: other.oldest != number, ORDER_PATIENCE)

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is gone: the program is ending
            return


def _write_all(descriptor: int, batch: list[bytes]) -> OSError | None:
    """Write everything, waiting where the descriptor is non-blocking; return what went wrong."""
    data = batch[0] if len(batch) == 1 else b"".join(batch)
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            _wait_writable(descriptor)
        except OSError as error:
            return error
    return None


def _wait_writable(descriptor: int) -> None:
    """Wait until there is room. select(2) ends at 1023; poll(2) does not know every terminal."""
    try:
        select.select([], [descriptor], [])
    except ValueError:
        poller = select.poll()
        poller.register(descriptor, select.POLLOUT)
        poller.poll()
