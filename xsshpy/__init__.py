"""xssh: ``ssh -X`` in one word; remote plots open on the screen in front of you."""

__version__ = "0.1.0"
