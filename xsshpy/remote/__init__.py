"""What both ends of an X11 connection share. Standard library only, Python 3.6 and later."""
