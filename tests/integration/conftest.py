"""What several comparisons of ssh and xssh need."""

from __future__ import annotations

import pytest

from tests.integration._pairs import Pair
from tests.support.clients import ClientHome
from tests.support.sshd import SshServer


@pytest.fixture
def pair(sshd: SshServer, client_home: ClientHome) -> Pair:
    """Return a plain server, and ssh and xssh that know it as ``server``, without X11."""
    client_home.add(sshd, extra="ForwardX11 no")
    return Pair(sshd, client_home)
