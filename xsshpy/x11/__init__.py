"""The local side of X11: display, cookie, proof that the server works, and the relay."""
