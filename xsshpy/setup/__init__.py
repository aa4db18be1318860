"""``xssh --setup``: what a person would do by hand on a server, shown, asked, done, taken back."""
