"""The doctor's proof: a small window, opened on the other host as a plot would be.

Run there with ``python -c``; its argument is a nonce, which becomes the window's title, so that the
display it appears on can be told. It takes Tk where Tk works, else speaks X11 itself: what is to be
proved is the way of the window, and Tk has a check of its own. It prints ``xssh-doctor NONCE`` and
a JSON object (``by``; ``error`` where no window opened), keeps the window until stdin ends, and
leaves by itself after a minute. It must compile on Python 2.7.

Follows the X Window System Protocol, version 11, §8 (connection setup), §9 (CreateWindow,
ChangeProperty, MapWindow, GetInputFocus) and Xau(3) for the cookie.
"""

import json
import os
import select
import socket
import struct
import sys
import time

SECONDS = 60.0
WIDTH, HEIGHT = 240, 60
TITLE = "xssh doctor "
LIMIT = 1 << 20


def say(**facts):
    """Print the line."""
    line = "\nxssh-doctor %s %s\n" % (sys.argv[1], json.dumps(facts))
    os.write(1, line.encode("ascii"))


def stdin_has_ended():
    """Tell whether nobody wants the window any more."""
    ready, _, _ = select.select([0], [], [], 0)
    return bool(ready) and not os.read(0, 4096)


def show_by_tk(end):
    """Show the window until it is no longer wanted."""
    if sys.version_info[0] > 2:
        import tkinter
    else:
        import Tkinter as tkinter
    root = tkinter.Tk()
    root.title(TITLE + sys.argv[1])
    root.geometry("%dx%d+40+40" % (WIDTH, HEIGHT))
    tkinter.Label(root, text="xssh: this is what a plot's way looks like").pack()
    root.update()
    say(by="Tk %s" % root.tk.eval("info patchlevel"), error="")
    while time.time() < end and not stdin_has_ended():
        root.update()
        time.sleep(0.02)
    root.destroy()


def show_by_x11(end):
    """The same without Tk."""
    sock, order = open_display()
    setup = exchange_setup(sock, order)
    base, _, _, vendor = struct.unpack_from("=IIIH", setup, 4)
    formats = struct.unpack_from("=B", setup, 21)[0]
    screen = 32 + (vendor + 3) // 4 * 4 + 8 * formats
    root = struct.unpack_from("=I", setup, screen)[0]
    white = struct.unpack_from("=I", setup, screen + 8)[0]
    window = base
    name = (TITLE + sys.argv[1]).encode("ascii")
    sock.sendall(
        struct.pack(
            "=BBHIIhhHHHHIII", 1, 0, 9, window, root, 40, 40, WIDTH, HEIGHT, 0, 1, 0, 2, white
        )
        + struct.pack("=BBHIIIBxxxI", 18, 0, 6 + (len(name) + 3) // 4, window, 39, 31, 8, len(name))
        + name
        + b"\0" * (-len(name) % 4)
        + struct.pack("=BBHI", 8, 0, 2, window)
        + struct.pack("=BBH", 43, 0, 1)
    )
    answer = receive(sock, 32)
    while answer[0:1] not in (b"\0", b"\1"):
        answer = receive(sock, 32)
    if answer[0:1] == b"\0":
        raise RuntimeError("the X server answers with error %d" % bytearray(answer)[1])
    say(by="X11 alone", error="")
    while time.time() < end and not stdin_has_ended():
        select.select([0], [], [], 1.0)


def open_display():
    """Connect to DISPLAY; return the socket and the display's number as in Xauthority."""
    name = os.environ.get("DISPLAY", "")
    host, _, rest = name.rpartition(":")
    number = rest.split(".")[0]
    if not number.isdigit():
        raise RuntimeError("DISPLAY is %r there" % name)
    if host in ("", "unix"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(SECONDS)
        sock.connect("/tmp/.X11-unix/X" + number)  # noqa: S108  (X's own fixed place)
    else:
        sock = socket.create_connection((host.strip("[]"), 6000 + int(number)), SECONDS)
    return sock, number


def exchange_setup(sock, number):
    """Log in at the display; return the server's setup, without its first 8 bytes."""
    cookie = find_cookie(number)
    name = b"MIT-MAGIC-COOKIE-1" if cookie else b""
    order = b"l" if sys.byteorder == "little" else b"B"
    head = struct.pack("=cxHHHHxx", order, 11, 0, len(name), len(cookie))
    sock.sendall(head + name + b"\0" * (-len(name) % 4) + cookie + b"\0" * (-len(cookie) % 4))
    status, length = struct.unpack("=B5xH", receive(sock, 8))
    rest = receive(sock, 4 * length)
    if status != 1:
        words = rest.decode("latin-1").strip("\0 \n")
        raise RuntimeError("the display refuses: %s" % words)
    return rest


def receive(sock, size):
    """Return exactly ``size`` bytes."""
    data = b""
    while len(data) < size:
        piece = sock.recv(min(size - len(data), LIMIT))
        if not piece:
            raise RuntimeError("the display closes the connection")
        data += piece
    return data


def find_cookie(number):
    """Return the last cookie for a display of this number, or nothing."""
    path = os.environ.get("XAUTHORITY") or os.path.expanduser("~/.Xauthority")
    try:
        with open(path, "rb") as file:
            data = file.read(LIMIT)
    except (IOError, OSError):
        return b""
    found = b""
    while len(data) > 2:
        data, fields = data[2:], []
        for _ in range(4):
            length = struct.unpack(">H", data[:2])[0] if len(data) > 1 else 0
            fields.append(data[2 : 2 + length])
            data = data[2 + length :]
        if fields[2] == b"MIT-MAGIC-COOKIE-1" and fields[1] in (b"", number.encode("ascii")):
            found = fields[3]
    return found


def main():
    """Show a window, one way or the other."""
    end = time.time() + SECONDS
    try:
        show_by_tk(end)
        return
    except Exception:
        pass
    try:
        show_by_x11(end)
    except Exception as error:
        say(by="", error=("%s: %s" % (type(error).__name__, error)).splitlines()[0][:300])


main()
