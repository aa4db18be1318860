"""asyncssh without what no run of ours needs: loaded when it is first used, not before.

asyncssh is one package: whoever wants a connection gets SFTP, SCP, X.509 and servers with it, a
third of the time that its import takes. While it is imported, a few of its modules are held back,
and those that import names from them get stand-ins: to call one, to look into it or to inherit
from it loads the module it stands for, and the real thing answers. The package's own names that
are used here are there at once; to ask for another runs the whole of its ``__init__``.

It changes nothing in asyncssh and nothing of what it can do; a name that a later version asks of
a module held back, and that is not listed here, loads that module at once.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HELD_BACK: Mapping[str, Mapping[str, object]] = {
    "asyncssh.pkcs11": {"load_pkcs11_keys": None},
    "asyncssh.process": {
        "PIPE": -1,
        **dict.fromkeys(
            (
                "ProcessSource",
                "ProcessTarget",
                "SSHClientProcess",
                "SSHCompletedProcess",
                "SSHServerProcess",
                "SSHServerProcessFactory",
            )
        ),
    },
    "asyncssh.scp": {"run_scp_server": None},
    "asyncssh.server": {"SSHServer": None},
    "asyncssh.sftp": {
        "MIN_SFTP_VERSION": 3,
        "SFTPClient": None,
        "SFTPServer": None,
        "run_sftp_server": None,
        "start_sftp_client": None,
    },
    "asyncssh.subprocess": dict.fromkeys(
        (
            "SSHSubprocessProtocol",
            "SSHSubprocessTransport",
            "SSHSubprocessWritePipe",
            "SubprocessFactory",
        )
    ),
}
"""Modules, and the names that the rest of asyncssh takes from them while it is imported: constants
with their values, None for classes and functions. No exceptions: ``except`` takes no stand-ins."""

ABSENT = "asyncssh.crypto.x509"
"""X.509 certificates, which ssh doesn't know. asyncssh does without where pyOpenSSL is missing, but
finds that out only when most of it is loaded. Whoever imports it later gets it."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "constants": (
        "OPEN_ADMINISTRATIVELY_PROHIBITED",
        "OPEN_CONNECT_FAILED",
        "OPEN_RESOURCE_SHORTAGE",
        "OPEN_UNKNOWN_CHANNEL_TYPE",
    ),
    "misc": (
        "ChannelOpenError",
        "ConnectionLost",
        "DisconnectError",
        "Error",
        "HostKeyNotVerifiable",
        "KeyExchangeFailed",
        "PermissionDenied",
        "ProtocolError",
    ),
    "config": ("ConfigParseError",),
    "pbe": ("KeyEncryptionError",),
    "public_key": (
        "KeyExportError",
        "KeyImportError",
        "SSHCertificate",
        "SSHKey",
        "SSHKeyPair",
        "import_certificate",
        "import_private_key",
        "import_public_key",
    ),
    "session": ("SSHClientSession", "SSHTCPSession", "SSHTunTapSession"),
    "channel": ("SSHClientChannel", "SSHTCPChannel", "SSHUNIXChannel"),
    "client": ("SSHClient",),
    "connection": ("SSHClientConnection", "SSHClientConnectionOptions"),
}
"""Names of the package that are used here, by the module they come from."""

ALGORITHMS = ("rsa", "sk_eddsa", "sk_ecdsa", "eddsa", "ecdsa", "dsa", "kex_dh", "kex_rsa")
"""Modules that are imported for what they register, in the order of asyncssh's ``__init__``."""

_loading = threading.RLock()


class StandIn:
    """A class or function of a module held back, until it is used."""

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self.__name__ = self.__qualname__ = name

    def _real(self) -> object:
        module = sys.modules[self._module]
        if isinstance(module, HeldBack):
            module.load()
        return getattr(module, self.__name__)

    def __call__(self, *values: object, **named: object) -> object:  # noqa: D102
        real = self._real()
        assert callable(real)
        return real(*values, **named)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # typing's questions about what stands in an annotation
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __getitem__(self, _parameter: object) -> StandIn:
        return self  # in an annotation

    def __mro_entries__(self, _bases: tuple[object, ...]) -> tuple[object, ...]:
        return (self._real(),)

    def __instancecheck__(self, instance: object) -> bool:
        real = self._real_if_loaded()
        return isinstance(real, type) and isinstance(instance, real)

    def __subclasscheck__(self, subclass: type) -> bool:
        real = self._real_if_loaded()
        return isinstance(real, type) and issubclass(subclass, real)

    def _real_if_loaded(self) -> object:
        """Without its module a class has no instances and no subclasses."""
        return None if isinstance(sys.modules[self._module], HeldBack) else self._real()

    def __repr__(self) -> str:
        return f"<{self._module}.{self.__name__}>"


class HeldBack(ModuleType):
    """A module that is executed when something is asked of it; until then stand-ins do."""

    def __init__(self, name: str, names: Mapping[str, object]) -> None:
        super().__init__(name)
        self._names = names
        self._is_loading = False
        self._is_open = True
        """Whether asyncssh is still being imported, and stand-ins are given out."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # the import system's own questions
            raise AttributeError(name)
        if self._is_open and name in self._names:
            constant = self._names[name]
            return StandIn(self.__name__, name) if constant is None else constant
        self.load()
        if name in vars(self):
            return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name)

    def __dir__(self) -> Iterator[str]:
        self.load()
        return iter(dir(self))

    def give_out_no_more(self) -> None:
        """Be the module itself for those who ask from now on."""
        if type(self) is HeldBack:
            self._is_open = False

    def load(self) -> None:
        """Execute the module, and be it from now on."""
        with _loading:
            if type(self) is not HeldBack or self._is_loading:  # by another thread, or this one
                return
            self._is_loading = True
            try:
                self._execute()
            finally:
                self._is_loading = False
            del self._names, self._is_open, self._is_loading
            self.__class__ = ModuleType  # type: ignore[assignment]

    def _execute(self) -> None:
        from importlib.util import find_spec

        del sys.modules[self.__name__]
        try:
            spec = find_spec(self.__name__)
        finally:
            sys.modules[self.__name__] = self
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No module named {self.__name__!r}", name=self.__name__)
        self.__spec__, self.__loader__, self.__file__ = spec, spec.loader, spec.origin
        self.__package__ = spec.parent
        spec.loader.exec_module(self)


def execute_lightly(package: ModuleType, execute: Callable[[ModuleType], None]) -> None:
    """Do for asyncssh what its ``__init__`` does, as far as it is needed here.

    ``execute`` runs the real one, should a name be asked for that isn't there.
    """
    with _holding_back():
        for name, wanted in NAMES.items():
            module = import_module(f"asyncssh.{name}")
            for each in wanted:
                setattr(package, each, getattr(module, each))
        for name in ALGORITHMS:
            import_module(f"asyncssh.{name}")
    is_whole = False

    def complete(name: str) -> object:
        nonlocal is_whole
        if not name.startswith("__") or name == "__all__" or name in _ABOUT:
            with _loading:
                if not is_whole:
                    is_whole = True
                    execute(package)
            if name in vars(package):
                return vars(package)[name]
        raise AttributeError(f"module 'asyncssh' has no attribute {name!r}", name=name)

    package.__getattr__ = complete  # type: ignore[method-assign]


@contextlib.contextmanager
def _holding_back() -> Iterator[None]:
    held = [HeldBack(name, names) for name, names in HELD_BACK.items() if name not in sys.modules]
    sys.modules.update({module.__name__: module for module in held})
    is_absent = ABSENT not in sys.modules
    if is_absent:
        sys.modules[ABSENT] = None  # type: ignore[assignment]  # the import system's sign for it
    try:
        yield
    finally:
        for module in held:
            module.give_out_no_more()
        if is_absent:
            del sys.modules[ABSENT]


_ABOUT = ("__author__", "__author_email__", "__url__", "__version__")
