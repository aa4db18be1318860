"""Speaks SSH. The only package that imports asyncssh."""
