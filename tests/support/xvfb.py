"""A real X server without a screen: Xvfb, with a cookie of its own."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.processes import end_popen, send_signal
from tests.support.tools import need_tool

FAMILY_LOCAL = 256
COOKIE_NAME = b"MIT-MAGIC-COOKIE-1"


def pack_authority_entry(
    family: int, address: bytes, number: bytes, name: bytes, data: bytes
) -> bytes:
    """Return one entry of an Xauthority file (Xau, big-endian counted strings)."""
    parts = [struct.pack(">H", family)]
    for field in (address, number, name, data):
        parts.append(struct.pack(">H", len(field)) + field)
    return b"".join(parts)


class Xvfb:
    """One X server; ends with ``stop()``. Display numbers are chosen by the server itself.

    ``access``: "cookie" (clients must show ``cookie``) or "none" (anyone on the socket may come).
    ``reset``: start anew when the last client leaves, as X servers do unless told otherwise.
    ``arguments``: further ones for Xvfb, such as ``("-extension", "SECURITY")``.
    """

    def __init__(
        self,
        directory: Path,
        *,
        access: str = "cookie",
        reset: bool = False,
        arguments: Sequence[str] = (),
        screen: str = "1280x1024x24",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.cookie = os.urandom(16)
        self.authority = str(directory / "Xauthority")
        self._log = directory / "log"
        argv = [need_tool("Xvfb"), "-screen", "0", screen, "-nolisten", "tcp"]
        argv += [] if reset else ["-noreset"]
        if access == "cookie":
            server_side = directory / "server-authority"
            self._write_authority(server_side, b"")
            argv += ["-auth", str(server_side)]
        elif access == "none":
            argv += ["-ac"]
        else:
            raise ValueError(access)
        self._start([*argv, *arguments])
        self._write_authority(Path(self.authority), str(self.number).encode())

    def _write_authority(self, path: Path, number: bytes) -> None:
        host = socket.gethostname().encode()
        entry = pack_authority_entry(FAMILY_LOCAL, host, number, COOKIE_NAME, self.cookie)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(entry)

    def _start(self, argv: list[str]) -> None:
        reader, writer = os.pipe()
        try:
            with self._log.open("wb") as log:
                self.process = subprocess.Popen(
                    [*argv, "-displayfd", str(writer)],
                    pass_fds=(writer,),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            os.close(writer)
            writer = -1
            self.number = self._read_number(reader)
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)

    def _read_number(self, reader: int, timeout: float = 20.0) -> int:
        text = b""
        deadline = time.monotonic() + timeout
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(reader, 64) if ready else b""
            if not piece:
                end_popen(self.process)
                raise RuntimeError(f"Xvfb did not start: {self.log()[-2000:]}")
            text += piece
        return int(text)

    @property
    def display(self) -> str:
        """The DISPLAY value, such as ``:7``."""
        return f":{self.number}"

    @property
    def socket_path(self) -> str:
        """Where the server listens."""
        return f"/tmp/.X11-unix/X{self.number}"

    def environment(self) -> dict[str, str]:
        """Return what a client of this server has in its environment."""
        return {"DISPLAY": self.display, "XAUTHORITY": self.authority}

    def write_untrusted_authority(self, path: Path) -> str:
        """Write an Xauthority file with a cookie that makes clients untrusted; return its path."""
        words = ["-q", "-f", str(path), "generate", self.display, ".", "untrusted", "timeout", "0"]
        environment = {**os.environ, **self.environment()}
        subprocess.run([need_tool("xauth"), *words], env=environment, check=True, timeout=30)
        return str(path)

    def log(self) -> str:
        """Return what the server said so far."""
        return self._log.read_text(errors="replace")

    def suspend(self) -> None:
        """Let the server hang: it accepts nothing and answers nothing."""
        send_signal(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        send_signal(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Let the server die without a farewell."""
        self.process.kill()
        self.stop()

    def stop(self) -> None:
        """End the server and remove the socket that a killed one leaves."""
        end_popen(self.process)
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.socket_path)
            except ConnectionRefusedError:
                os.unlink(self.socket_path)  # nobody listens: it was killed
            except OSError:
                pass  # it ended in order and took its socket along
