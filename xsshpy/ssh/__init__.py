"""Speaks SSH. The only package that imports asyncssh."""

from xsshpy.ssh.libraries import speed_up_import

speed_up_import()
