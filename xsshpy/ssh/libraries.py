"""asyncssh loaded without starting a compiler, and without what no run needs (:mod:`deferred`).

asyncssh looks for two libraries that it can do without, by ctypes.util.find_library, which runs
ldconfig, gcc and ld for what is not there: a quarter of the time its import takes, and an error
where no temporary file can be made. While it is imported, these two are looked for by asking the
dynamic loader only; the search is then as it was.

Another asyncssh than pyproject.toml allows is refused: what is overridden in it decides, among
other things, whether a host key is trusted; a version that no longer asks must not be used.
"""

from __future__ import annotations

import sys

from xsshpy.errors import LibraryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_VERSIONS = {"nettle": (8, 9, 7, 6, 10, 11, 12), "oqs": (9, 8, 7, 6, 5, 4, 10, 11, 12)}
"""The ABI versions there are, or may be soon: those in use come first."""
_OTHER_NAMES = frozenset({"libnettle", "libnettle-6", "liboqs"})
"""How asyncssh calls them on Windows."""
_FIRST, _END = (2, 24, 1), (2, 25)
"""The versions of asyncssh whose inner parts are known: from the first, before the end."""


def speed_up_import() -> None:
    """Arrange for asyncssh's import, whoever asks for it. Costs nothing until then."""
    if "asyncssh" not in sys.modules:
        sys.meta_path.insert(0, _AsyncsshFinder())


class _AsyncsshFinder:
    """Leaves the import of asyncssh to those who do it anyway, and is there when it runs."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find asyncssh alone, once."""
        if name != "asyncssh":
            return None
        import importlib.util

        # A list of its own: a thread that goes through this one would miss a finder.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            _wrap(spec.loader)
        return spec


def _wrap(loader: Loader) -> None:
    """Let this loader, which is asyncssh's alone, run its module with the quick search."""

    def execute(module: ModuleType) -> None:
        from asyncssh.version import __version__

        from xsshpy.ssh.deferred import execute_lightly

        del loader.exec_module
        require_known(__version__)
        _search_quickly(lambda: execute_lightly(module, loader.exec_module))

    loader.exec_module = execute  # type: ignore[method-assign]


def require_known(version: str) -> None:
    """Raise LibraryError for a version of asyncssh whose inner parts are not known."""
    digits = [part for part in version.split(".")[:3] if part.isdecimal()]
    if _FIRST <= tuple(map(int, digits)) < _END:
        return
    first, end = (".".join(map(str, each)) for each in (_FIRST, _END))
    raise LibraryError(
        f"xssh: asyncssh {version} is installed: xssh works with {first} or later, below {end}",
        remedy=f"{sys.executable} -m pip install 'asyncssh>={first},<{end}'",
    )


def _search_quickly(load: Callable[[], None]) -> None:
    if not sys.platform.startswith("linux"):
        # The search starts no program, and knows places that the loader does not.
        load()
        return
    import ctypes.util

    search = ctypes.util.find_library

    def find_library(name: str) -> str | None:
        if name in _OTHER_NAMES:
            return None
        return _find_loadable(name) if name in _VERSIONS else search(name)

    ctypes.util.find_library = find_library
    try:
        load()
    finally:
        ctypes.util.find_library = search


def _find_loadable(name: str) -> str | None:
    import ctypes

    for version in _VERSIONS[name]:
        file = f"lib{name}.so.{version}"
        try:
            ctypes.CDLL(file)
        except OSError:
            continue
        return file
    return None
