"""Real things to test against: an SSH server, an X server, terminals, and what they leave behind.

Nothing here needs pytest, but for ``tools.require_tool``: the demo and the benchmark start their
server and their display with the same modules.
"""
