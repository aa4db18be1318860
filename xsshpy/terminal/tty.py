"""The local terminal: its size, its modes in SSH's encoding, raw mode and job control.

The modes are those of RFC 4254 §8, in the set that OpenSSH sends; raw mode is OpenSSH's. A
terminal that has gone away is no error here: there is nobody left to tell.
"""

from __future__ import annotations

import atexit
import fcntl
import signal
import struct
import sys
import termios
from types import TracebackType

from xsshpy.ttyguard import (
    Modes,
    SignalGuard,
    TerminalErrors,
    get_modes,
    is_in_foreground,
    restore_modes,
    set_modes,
    wait_for_foreground,
)
from xsshpy.values import dataclass

_INPUT, _OUTPUT, _CONTROL, _LOCAL, _INPUT_SPEED, _OUTPUT_SPEED, _CHARACTERS = range(7)

_OP_INPUT_SPEED = 128
_OP_OUTPUT_SPEED = 129
_DISABLED = 255

_CHARACTER_OPCODES = {
    "VINTR": 1,
    "VQUIT": 2,
    "VERASE": 3,
    "VKILL": 4,
    "VEOF": 5,
    "VEOL": 6,
    "VEOL2": 7,
    "VSTART": 8,
    "VSTOP": 9,
    "VSUSP": 10,
    "VDSUSP": 11,
    "VREPRINT": 12,
    "VWERASE": 13,
    "VLNEXT": 14,
    "VSTATUS": 17,
    "VDISCARD": 18,
}

_FLAG_OPCODES = (
    ("IGNPAR", _INPUT, 30),
    ("PARMRK", _INPUT, 31),
    ("INPCK", _INPUT, 32),
    ("ISTRIP", _INPUT, 33),
    ("INLCR", _INPUT, 34),
    ("IGNCR", _INPUT, 35),
    ("ICRNL", _INPUT, 36),
    ("IUCLC", _INPUT, 37),
    ("IXON", _INPUT, 38),
    ("IXANY", _INPUT, 39),
    ("IXOFF", _INPUT, 40),
    ("IMAXBEL", _INPUT, 41),
    ("IUTF8", _INPUT, 42),
    ("ISIG", _LOCAL, 50),
    ("ICANON", _LOCAL, 51),
    ("XCASE", _LOCAL, 52),
    ("ECHO", _LOCAL, 53),
    ("ECHOE", _LOCAL, 54),
    ("ECHOK", _LOCAL, 55),
    ("ECHONL", _LOCAL, 56),
    ("NOFLSH", _LOCAL, 57),
    ("TOSTOP", _LOCAL, 58),
    ("IEXTEN", _LOCAL, 59),
    ("ECHOCTL", _LOCAL, 60),
    ("ECHOKE", _LOCAL, 61),
    ("PENDIN", _LOCAL, 62),
    ("OPOST", _OUTPUT, 70),
    ("OLCUC", _OUTPUT, 71),
    ("ONLCR", _OUTPUT, 72),
    ("OCRNL", _OUTPUT, 73),
    ("ONOCR", _OUTPUT, 74),
    ("ONLRET", _OUTPUT, 75),
    ("CS7", _CONTROL, 90),
    ("CS8", _CONTROL, 91),
    ("PARENB", _CONTROL, 92),
    ("PARODD", _CONTROL, 93),
)

# Python's termios lacks some names that the systems have. Both values of IUTF8 are 0x4000.
_UNNAMED = {"IUTF8": 0x4000}
if sys.platform == "darwin":
    _UNNAMED.update({"VDSUSP": 11, "VSTATUS": 18})

# Everything faster or stranger counts as 9600, as in OpenSSH.
_BAUDS = (
    *(0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 7200, 9600),
    *(14400, 19200, 28800, 38400, 57600, 76800, 115200, 230400),
)
_UNKNOWN_BAUD = 9600


@dataclass(frozen=True)
class TerminalSize:
    """A window's size in characters and in pixels; 0 means unknown."""

    columns: int = 0
    rows: int = 0
    width_pixels: int = 0
    height_pixels: int = 0


def read_size(fd: int) -> TerminalSize:
    """Return the size of the terminal ``fd``, all zero where it has none, as ssh sends it."""
    try:
        packed = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return TerminalSize()
    rows, columns, width, height = struct.unpack("HHHH", packed)
    return TerminalSize(columns, rows, width, height)


def read_modes(fd: int) -> dict[int, int]:
    """Return the modes of the terminal ``fd``, opcode to argument, in OpenSSH's order.

    Empty where ``fd`` is no terminal. Read them before the terminal becomes raw.
    """
    try:
        return encode_modes(get_modes(fd))
    except TerminalErrors:
        return {}


def encode_modes(modes: Modes) -> dict[int, int]:
    """Return ``modes`` as opcodes with their arguments (RFC 4254 §8), without the final TTY_OP_END.

    What this system doesn't know is left out.
    """
    encoded = {
        _OP_OUTPUT_SPEED: _baud(modes[_OUTPUT_SPEED]),
        _OP_INPUT_SPEED: _baud(modes[_INPUT_SPEED]),
    }
    characters = modes[_CHARACTERS]
    assert isinstance(characters, list)
    for name, opcode in _CHARACTER_OPCODES.items():
        index = _constant(name)
        if index is not None and index < len(characters):
            encoded[opcode] = _character(characters[index])
    for name, field, opcode in _FLAG_OPCODES:
        bits, flags = _constant(name), modes[field]
        if bits is not None:
            assert isinstance(flags, int)
            encoded[opcode] = int(flags & bits != 0)
    return encoded


def _constant(name: str) -> int | None:
    value = getattr(termios, name, _UNNAMED.get(name))
    return value if isinstance(value, int) else None


def _character(value: bytes | int) -> int:
    code = value if isinstance(value, int) else value[0]
    return _DISABLED if code == _POSIX_VDISABLE else code


_POSIX_VDISABLE = 0 if sys.platform.startswith("linux") else 255
_BAUD_OF_SPEED = {
    constant: baud for baud in _BAUDS if (constant := _constant(f"B{baud}")) is not None
}


def _baud(speed: object) -> int:
    return _BAUD_OF_SPEED.get(speed, _UNKNOWN_BAUD) if isinstance(speed, int) else _UNKNOWN_BAUD


class RawTerminal:
    """A terminal in raw mode while the block runs, and as it was before on every way out.

    The ways out are the block's end, :meth:`leave`, the interpreter's end, and a signal that
    nobody else handles and that would end or stop the process. After such a stop the terminal
    becomes raw again; a program that handles SIGCONT itself calls :meth:`reenter` there.

    In the background :meth:`enter` stops the process until it is brought to the foreground, as ssh
    does: a shell sends no signal to a job that runs when it brings it there, which would then
    find the terminal not raw. Where nothing can stop it, or after a SIGCONT in the background, the
    terminal is left alone, and ``active`` is False until a SIGCONT in the foreground.
    """

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._wanted = False
        self._saved: Modes | None = None
        self._raw: Modes | None = None
        self._guard = SignalGuard(self._put_back, self.reenter)

    @property
    def active(self) -> bool:
        """Whether the terminal is in raw mode by this object's doing."""
        return self._saved is not None

    @property
    def wanted(self) -> bool:
        """Whether the terminal is to be raw, though it may not be while in the background."""
        return self._wanted

    def enter(self) -> bool:
        """Enter raw mode; return whether the terminal is raw now. Does nothing the second time."""
        if not self._wanted:
            self._wanted = True
            atexit.register(self.leave)
            self._guard.install()
            wait_for_foreground(self._fd)
            self._make_raw()
        return self.active

    def leave(self) -> None:
        """Give the terminal its modes back. Does nothing while it is not raw; never raises."""
        if not self._wanted:
            return
        self._put_back()
        self._wanted = False
        self._saved = self._raw = None
        self._guard.remove()
        atexit.unregister(self.leave)

    def reenter(self) -> None:
        """Make the terminal raw again if it should be: for SIGCONT, as a shell changes modes.

        Does nothing after :meth:`leave`, and nothing in the background.
        """
        if self._wanted:
            self._make_raw()

    def __enter__(self) -> RawTerminal:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def _put_back(self) -> None:
        if self._saved is not None and self._raw is not None:
            restore_modes(self._fd, self._saved, self._raw)

    def _make_raw(self) -> None:
        if not is_in_foreground(self._fd):
            return
        try:
            saved = self._saved or get_modes(self._fd)
            raw = raw_modes(saved)
            # Noted before the change: a signal may end the process directly after it.
            self._saved, self._raw = saved, raw
            set_modes(self._fd, termios.TCSADRAIN, raw)
            self._raw = get_modes(self._fd)
        except TerminalErrors:
            self.leave()


def raw_modes(modes: Modes) -> Modes:
    """Return ``modes`` changed to raw mode as OpenSSH understands it."""
    flags = [flag for flag in modes[:_INPUT_SPEED] if isinstance(flag, int)]
    characters = modes[_CHARACTERS]
    assert isinstance(characters, list) and len(flags) == _INPUT_SPEED
    flags[_INPUT] |= termios.IGNPAR
    flags[_INPUT] &= ~_bits("ISTRIP INLCR IGNCR ICRNL IXON IXANY IXOFF IUCLC")
    flags[_LOCAL] &= ~_bits("ISIG ICANON ECHO ECHOE ECHOK ECHONL IEXTEN")
    flags[_OUTPUT] &= ~termios.OPOST
    characters = list(characters)
    characters[termios.VMIN] = 1
    characters[termios.VTIME] = 0
    return [*flags, modes[_INPUT_SPEED], modes[_OUTPUT_SPEED], characters]


def _bits(names: str) -> int:
    bits = 0
    for name in names.split():
        bits |= _constant(name) or 0
    return bits


def suspend(raw: RawTerminal) -> None:
    """Stop this process as ``~^Z`` does, and return once it is continued.

    The terminal is as it was while the process is stopped, and raw again afterwards if it was
    raw before. The window's size may have changed meanwhile. Where SIGTSTP is ignored, or nobody
    could continue the process (an orphaned process group), nothing stops.
    """
    wanted = raw.wanted
    raw.leave()
    # To this thread, not to the process: the stop then comes before the next instruction.
    signal.raise_signal(signal.SIGTSTP)
    if wanted:
        raw.enter()
