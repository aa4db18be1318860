"""The Python that draws, and the proof: a window that it opens, seen on the local display."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from xsshpy.doctor.examination import Check
from xsshpy.doctor.findings import Opinion, Verdict, broken, warning, well
from xsshpy.doctor.forced import FILE_BACKENDS, judge_forced
from xsshpy.doctor.machine import LIBX11, PYTHON_TK, Package, describe_install, find_package
from xsshpy.doctor.probes import (
    display_command,
    python_command,
    read_answers,
    read_object,
    read_program,
)
from xsshpy.doctor.server_checks import COMMAND_DEADLINE, ServerSide
from xsshpy.doctor.sight import see_window
from xsshpy.doctor.speed import AGENT, NATIVE, Arrivals, Distance, estimate_rate, read_pace
from xsshpy.doctor.wrappers import explain_no_window, find_wrapper, judge_wrapper
from xsshpy.doctor.x11_checks import X11Side
from xsshpy.ssh.environment import BACKEND_VARIABLE, decide_backend, wrap_command
from xsshpy.values import dataclass, field
from xsshpy.x11_ways import Way

if TYPE_CHECKING:
    from xsshpy.ssh.capture import CapturedProcess

FACTS_DEADLINE = 60.0
"""Importing matplotlib from a cold network drive takes its time (seconds)."""

PROOF_DEADLINE = 60.0
"""Tk natively over a slow link takes half a minute for its first window (seconds)."""

SPEED_DEADLINE = 30.0
"""How long the measurements may take together (seconds)."""
_MISMATCH = re.compile(r"undefined symbol|version [`']\S+' not found|wrong ELF class")
_MISSING = re.compile(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object file")
_NAMES_FILES = re.compile(rf"(?i)MPLBACKEND[=\s]+[\"']?({'|'.join(FILE_BACKENDS)})\b")
_VOLUME = 1 << 19
"""Bytes whose way here is timed."""
_VOLUME_SECONDS = 5.0
"""How long they may take; what came by then counts."""
_WORD_SECONDS = 5.0
_WORD_PAUSE = 0.02
_TRIPS = 3


@dataclass
class PythonSide:
    """What the checks of the remote Python look at."""

    x11: X11Side
    facts: Mapping[str, object] = field(default_factory=dict)

    def checks(self) -> list[Check]:
        """Return the checks, each after those it needs."""
        return [
            Check(
                "python.found",
                "Python there",
                self._look_at_python,
                # srun --x11 starts nothing without a display.
                needs=("session.display",) if self._has_wrapper else ("server.command",),
                deadline=FACTS_DEADLINE,
                late="see what it waits for on the server: a network drive, a start file, a module "
                "of its site-packages (python -X importtime -c 'import matplotlib')",
            ),
            Check("python.script", "the script", self._look_at_script, needs=("python.found",)),
            Check(
                "python.matplotlib", "matplotlib", self._look_at_matplotlib, needs=("python.found",)
            ),
            Check("python.tkinter", "Tk", self._look_at_tk, needs=("python.found",)),
            Check(
                "python.backend",
                "backend",
                self._look_at_backend,
                needs=("python.matplotlib", "python.tkinter"),
            ),
            Check(
                "session.command",
                "the command",
                self._look_at_command,
                needs=("session.display",),
                deadline=COMMAND_DEADLINE,
                late="see what the words before the Python wait for",
            ),
            Check(
                "proof.window",
                "a window",
                self._prove,
                needs=("session.command", "python.found"),
                deadline=PROOF_DEADLINE,
                late="xssh -v says what X11 did",
            ),
            Check(
                "speed",
                "speed",
                self._measure,
                needs=(
                    "session.command",
                    "proof.window",
                ),  # so that nothing else is on the way meanwhile
                deadline=SPEED_DEADLINE,
            ),
        ]

    @property
    def server(self) -> ServerSide:
        """The server that it runs on."""
        return self.x11.server

    @property
    def _backend(self) -> str | None:
        settings = self.server.host.settings
        assert settings is not None
        chosen = dict(reversed(settings.set_env))
        return decide_backend(chosen, self.server.host.invocation.backend)

    @property
    def _has_wrapper(self) -> bool:
        named = read_program(self.server.host.invocation.command).interpreter
        return bool(find_wrapper(named)[0])

    @property
    def _program_interpreter(self) -> str:
        named = read_program(self.server.host.invocation.command).interpreter
        return named or self.server.answers.first_of("python")

    def _text(self, name: str) -> str:
        value = self.facts.get(name)
        return value if isinstance(value, str) else ""

    async def _look_at_python(self) -> Opinion:
        from xsshpy.ssh.session_plan import SessionPlan

        program = read_program(self.server.host.invocation.command)
        interpreter = self._program_interpreter
        if not interpreter:
            return broken(
                "there is neither python3 nor python on the PATH of the server",
                remedy="name yours: xssh --doctor HOST /path/to/python",
            )
        nonce = secrets.token_hex(8)
        arguments = [program.script] if program.script else []
        command = python_command(interpreter, "python_facts", nonce, *arguments)
        variables = {BACKEND_VARIABLE: self._backend} if self._backend else {}
        plan = SessionPlan(command=wrap_command(command, variables))
        if self.server.way is Way.NATIVE and self.server.accepts_backend:
            plan = SessionPlan(command=command, variables=variables)  # start files may change it
        if self._has_wrapper:
            plan = self.x11.plan(wrap_command(command, variables))
        done = await self.server.run(plan)
        facts = read_object(done.out, nonce)
        if facts is None:
            words = done.err.decode("utf-8", "replace").strip().splitlines()[-2:]
            return broken(
                f"{interpreter} does not run",
                *words,
                remedy="see that this path names a Python there",
            )
        self.facts = facts
        return well(f"{self._text('version')}, {self._text('executable')}")

    async def _look_at_script(self) -> Opinion:
        typed = read_program(self.server.host.invocation.command).script
        found = self.facts.get("script")
        if not typed or not isinstance(found, dict):
            return well("none is named")
        path, error = found.get("path"), found.get("error")
        if not error:
            return well(str(path))
        return broken(f"{path} can't be read there: {error}", remedy=self._script_remedy(typed))

    def _script_remedy(self, typed: str) -> str:
        destination = self.server.host.invocation.destination
        if os.path.isfile(os.path.expanduser(typed)):
            return f"xssh --script {typed} {destination} runs the file of this machine over there"
        return "name its place on the server; a path begins in the home folder there"

    async def _look_at_matplotlib(self) -> Opinion:
        version, error = self._text("matplotlib"), self._text("matplotlib_error")
        python = self._text("executable")
        if not version and "No module named" in error and "matplotlib" in error:
            return warning(
                f"{python} has no matplotlib",
                remedy=f"{self._program_interpreter} -m pip install matplotlib, or name the Python "
                "that has it: xssh --doctor HOST PYTHON",
            )
        if "is not a valid value for backend" in error:
            return broken(
                f"this matplotlib knows no such backend: {error}",
                remedy=f"{self._program_interpreter} -m pip install -U matplotlib, or --backend "
                "with a name that it knows: Qt5Agg for QtAgg",
            )
        if error:
            return broken(
                f"matplotlib can't be imported: {error}",
                remedy=f"{self._program_interpreter} -c 'import matplotlib' shows all of it",
            )
        return well(version)

    async def _look_at_tk(self) -> Opinion:
        needed = (self._backend or "").lower() == "tkagg"
        return self.judge_tk(is_needed=needed and bool(self.facts.get("matplotlib")))

    def judge_tk(self, *, is_needed: bool) -> Opinion:
        """Return what the facts say of Tk; without it plots fail only where it ``is_needed``."""
        version, error = self._text("tk"), self._text("tk_error")
        give = broken if is_needed else warning
        if _MISMATCH.search(error):
            return give(
                f"Tk can't be loaded, two libraries don't fit: {error}",
                *self._list("libraries")[:2],
                remedy=self._library_remedy(error, PYTHON_TK),
            )
        missing = _MISSING.search(error)
        if "libX11" in error or missing:
            package = LIBX11 if "libX11" in error else PYTHON_TK
            return give(f"Tk can't be loaded: {error}", remedy=self._library_remedy(error, package))
        if not version:
            return give(f"{self._text('executable')} has no Tk: {error}", remedy=self._tk_remedy())
        if self._text("tcl_error"):
            return give(
                f"Tcl does not start: {self._text('tcl_error')}",
                remedy=self._tcl_remedy(),
            )
        return well(f"Tk {version}")

    def _tcl_remedy(self) -> str:
        named = self._variable("TCL_LIBRARY")
        if named:
            return f"unset TCL_LIBRARY, which is {named}, where it is set"
        return "set TCL_LIBRARY to the folder with init.tcl below this Python's lib/"

    def _library_remedy(self, error: str, package: Package) -> str:
        folders = [each for each in self._variable("LD_LIBRARY_PATH").split(":") if each]
        found = (error, *self._list("libraries"))
        guilty = [each for each in folders if any(f"{each.rstrip('/')}/lib" in it for it in found)]
        if guilty:
            return f"take {guilty[0]} out of LD_LIBRARY_PATH"
        if re.search(r"(?i)conda|mamba", error + self._text("executable")):
            return "conda install --force-reinstall xorg-libx11 tk"
        return f"{describe_install(self.server.family, package)} on the server"

    def _list(self, name: str) -> list[str]:
        """Return a list of texts among the facts."""
        value = self.facts.get(name)
        return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []

    def _variable(self, name: str) -> str:
        """Return a variable of that Python's environment."""
        variables = self.facts.get("environment")
        value = variables.get(name) if isinstance(variables, dict) else None
        return value if isinstance(value, str) else ""

    def _tk_remedy(self) -> str:
        python = self._text("executable")
        qt = self.facts.get("qt")
        if isinstance(qt, list) and qt:
            return f"--backend QtAgg: {qt[0]} is there"
        if "conda" in python or "mamba" in python:
            return "conda install tk"
        if python.startswith(("/usr/bin/", "/bin/")):
            return (
                f"xssh --setup {self.server.host.invocation.destination}, or "
                f"{describe_install(self.server.family, PYTHON_TK)} on the server"
            )
        return f"{self._program_interpreter} -m pip install PySide6, and --backend QtAgg"

    async def _look_at_backend(self) -> Opinion:
        backend, decider = self._text("backend"), self._text("backend_from")
        forced = judge_forced(self.facts.get("forced"), self._backend)
        if forced is not None:
            return forced
        if not backend:
            return well("no matplotlib to choose one")
        culprits = self._start_lines("MPLBACKEND")
        if backend.lower() in FILE_BACKENDS:
            return broken(
                f"{backend} draws into files only; {decider} says so",
                *culprits,
                remedy="without --backend none, or with another backend in that place",
            )
        if backend.lower().startswith("qt"):
            opinion = self._judge_qt(backend)
            if opinion is not None:
                return opinion
        if self._text("backend_error"):
            return broken(
                f"{backend} can't be imported: {self._text('backend_error')}",
                remedy="--backend with one whose packages are there: TkAgg, QtAgg",
            )
        return self._judge_start_files(culprits) or well(f"{backend}, decided by {decider}")

    def _start_lines(self, name: str) -> tuple[str, ...]:
        """Return the lines of start files that set a variable."""
        sets = re.compile(rf":\d+:\s*[^#\s].*\b{name}\b|:\d+:\s*{name}\b")
        return tuple(line for line in self.server.answers.all_of("start") if sets.search(line))[:3]

    def _judge_start_files(self, lines: tuple[str, ...]) -> Opinion | None:
        """A login shell reads them after MPLBACKEND is set; a command is run after them."""
        wrong = [line for line in lines if _NAMES_FILES.search(line)]
        if not wrong:
            return None
        interactive = not self.server.host.invocation.command
        return (broken if interactive else warning)(
            "a start file chooses a backend without windows, for interactive shells:",
            *wrong,
            remedy="take that line out of it",
        )

    def _judge_qt(self, backend: str) -> Opinion | None:
        qt = self.facts.get("qt")
        if not isinstance(qt, list) or not qt:
            return broken(
                f"{backend} needs PyQt or PySide, and neither is there",
                remedy=f"{self._program_interpreter} -m pip install PySide6",
            )
        platform = self._variable("QT_QPA_PLATFORM")
        if platform and not platform.startswith("xcb"):
            return broken(
                f"QT_QPA_PLATFORM={platform}: Qt opens no window on an X display",
                *self._start_lines("QT_QPA_PLATFORM"),
                remedy="unset QT_QPA_PLATFORM where it is set",
            )
        error = self._text("qt_error")
        if error:
            found = _MISSING.search(error)
            package = find_package(found[1]) if found else None
            where = "on the server"
            return broken(
                f"Qt's plugin for X11 can't be loaded: {error}",
                remedy=f"{describe_install(self.server.family, package)} {where}"
                if package is not None
                else f"install the package with {found[1] if found else 'that library'} {where}",
            )
        return None

    async def _look_at_command(self) -> Opinion:
        """Does what stands before the Python leave it the display?"""
        words, name = find_wrapper(self._program_interpreter)
        if not words:
            return well("nothing stands between the session and the Python")
        nonce = secrets.token_hex(8)
        done = await self.server.run(self.x11.plan(f"{words} {display_command(nonce)}"))
        opinion = judge_wrapper(name, self.x11.seen, read_answers(done.out, nonce))
        said = done.err.decode("utf-8", "replace").strip().splitlines()[-1:]
        if opinion.verdict is Verdict.BROKEN:
            return broken(*opinion.evidence, *said, remedy=opinion.remedy)
        return opinion

    async def _prove(self) -> Opinion:
        """Open a window there and see it here."""
        return await self.server.patiently(self._open_window)

    async def _open_window(self) -> Opinion:
        from xsshpy.console import Console
        from xsshpy.ssh.capture import CapturedProcess
        from xsshpy.ssh.session import start_process

        session, forwarding = self.server.host.session, self.x11.forwarding
        assert session is not None
        assert forwarding is not None
        nonce = secrets.token_hex(8)
        command = python_command(self._program_interpreter, "proof_window", nonce)
        process, has_begun = CapturedProcess(Console()), False
        started = time.monotonic()
        sight = asyncio.create_task(see_window(forwarding.local, f"xssh doctor {nonce}"))
        try:
            await start_process(session.connection, self.x11.plan(command), process, lambda: None)
            has_begun = True
            ended = asyncio.create_task(process.closed.wait())
            await asyncio.wait({sight, ended}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if sight.done():
                sight.result()
                seconds = time.monotonic() - started
                by = await _wait_for_word(process, nonce)
            else:
                said = read_object(bytes(process.out), nonce) or {}
                words = bytes(process.err).decode("utf-8", "replace").strip().splitlines()[-2:]
                reason = str(said.get("error") or "the program ended without one")
                display = self.x11.variables.get("DISPLAY", self.x11.native_display)
                return explain_no_window(reason, display, words)
        finally:
            sight.cancel()
            process.write_eof()
            if has_begun:
                with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(process.closed.wait(), 5.0)
            process.end()
            await asyncio.gather(sight, return_exceptions=True)
        return well(f"opened there{by}, seen here after {seconds:.1f} s, and closed")

    async def _measure(self) -> Opinion:
        """How far away is the server, and what does that mean for a plot?"""
        from xsshpy.ssh.capture import measure_round_trip

        session = self.server.host.session
        assert session is not None
        trips = [await measure_round_trip(session.connection) for _ in range(_TRIPS)]
        rate = estimate_rate(await self.server.patiently(self._time_stream))
        distance = Distance(min(trips), rate, read_pace(self.facts))
        way = f"{distance.trip * 1000:.1f} ms there and back"
        if rate is None:
            return well(way)
        theirs = distance.predict(NATIVE)
        ours = distance.predict(AGENT) if self.x11.variables else theirs
        return well(
            f"{way}, at least {rate * 8 / 1e6:.3g} Mbit/s from there",
            f"first plot in about {ours:.1f} s, imports not counted; with ssh -X {theirs:.1f} s",
        )

    async def _time_stream(self) -> Arrivals:
        """Return how a stream of bytes came from there."""
        from xsshpy.console import Console
        from xsshpy.ssh.capture import TimedProcess
        from xsshpy.ssh.session import start_process
        from xsshpy.ssh.session_plan import SessionPlan

        session = self.server.host.session
        assert session is not None
        process = TimedProcess(Console())
        # Random bytes: a connection that compresses would carry others in no time.
        plan = SessionPlan(command=f"head -c {_VOLUME} /dev/urandom")
        try:
            await start_process(session.connection, plan, process, lambda: None)
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(process.closed.wait(), _VOLUME_SECONDS)
        finally:
            process.end()
        return process.arrivals


async def _wait_for_word(process: CapturedProcess, nonce: str) -> str:
    """Return what the window was opened by, in brackets; nothing where that takes too long."""
    end = time.monotonic() + _WORD_SECONDS
    while time.monotonic() < end and not process.closed.is_set():
        said = read_object(bytes(process.out), nonce)
        if said is not None:
            return f" ({said.get('by')})"
        await asyncio.sleep(_WORD_PAUSE)
    return ""
