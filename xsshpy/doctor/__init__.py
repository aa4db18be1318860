"""The diagnosis: which link of the chain from the remote plot to this screen is broken, and what
mends it."""
