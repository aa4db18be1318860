"""Whether the user's files forbid to share a connection that he did not ask to be shared.

``ControlPath none`` and ``ControlMaster no`` in a file are the user's word, but ``ssh -G`` prints
the same where nothing is said. So OpenSSH reads the files once more, with other values after them:
the first one obtained wins. That is done only before a new connection is made for sharing, while
that which such a run needs is loaded; a connection that is there is the proof that nothing was
said, for whoever has changed a file since has another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from xsshpy.configuration import Question
from xsshpy.mux.control import read_control
from xsshpy.settings import Invocation, Settings, parse_keywords
from xsshpy.ssh_g import count_passes, files_with_defaults, ssh_g_arguments

_PATH = "/xssh"
_NAME_BYTES = 8


def may_begin(
    invocation: Invocation, settings: Settings, work_meanwhile: Callable[[], None]
) -> bool:
    """Tell whether the run may begin to share its connection; work as long as that is read."""
    folder = os.path.dirname(read_control(settings.keywords).path)
    try:
        with _Reading(invocation, folder, "Match all") as reading:
            work_meanwhile()
            is_silent, passes = reading.finish()
        if is_silent and passes > 1:
            with _Reading(invocation, folder, "Match final all") as reading:
                is_silent, _ = reading.finish()
    except OSError:  # TimeoutError is one: where the files can't be read again they may forbid it
        return False
    return is_silent


class _Reading:
    """The files, being read once more. Raises OSError."""

    def __init__(self, invocation: Invocation, folder: str, match: str) -> None:
        # It lies where nobody else can put one.
        self._path = os.path.join(folder, f"config.{os.urandom(_NAME_BYTES).hex()}")
        text = files_with_defaults(invocation, match, "ControlMaster auto", f"ControlPath {_PATH}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.write(descriptor, os.fsencode(text))
            again = invocation.with_options((("F", self._path), ("v", None)), without="Fq")
            self._question = Question(ssh_g_arguments(again))
        except BaseException:
            os.unlink(self._path)
            raise
        finally:
            os.close(descriptor)

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self._question.close()
        os.unlink(self._path)

    def finish(self) -> tuple[bool, int]:
        """Say whether nothing was found in the files, and how often ssh read them."""
        status, out, err = self._question.answer()
        found = parse_keywords(out)
        is_silent = found.get("controlpath") == (_PATH,) and found.get("controlmaster") == ("auto",)
        return status == 0 and is_silent, count_passes(err)
