"""The terminal in front of the user."""
