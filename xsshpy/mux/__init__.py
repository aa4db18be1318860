"""Shared connections: OpenSSH's multiplexing protocol, so that ssh and xssh use each other's."""
