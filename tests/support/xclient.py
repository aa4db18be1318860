"""A bare X client, to be run on the host: it sees every message, with its number and its order.

    xclient.py ORDER WHAT [COUNT]

ORDER is ``l`` or ``B``, the byte order. WHAT is one of the functions below, COUNT how often;
``stranger`` has a wrong cookie. It
prints one line where all was right, else it ends with a message. Python 3.6 and later, standard
library only.
"""

import os
import random
import socket
import struct
import sys

REPLY, ERROR = 1, 0
BAD_WINDOW = 3


def find_cookie(number):
    """Return the cookie for a display of this host, from the file that XAUTHORITY names."""
    with open(os.environ["XAUTHORITY"], "rb") as file:
        data = file.read()
    position = 0
    while position < len(data):
        fields = []
        position += 2
        for _ in range(4):
            size = struct.unpack_from(">H", data, position)[0]
            fields.append(data[position + 2 : position + 2 + size])
            position += 2 + size
        if fields[1] == str(number).encode("ascii"):
            return fields[3]
    raise SystemExit("no cookie")


class Client:
    """One connection. ``sent`` counts requests; ``last`` is the number of the last message."""

    def __init__(self, order, cookie=None):
        self.order = {"l": "<", "B": ">"}[order]
        number = int(os.environ["DISPLAY"].rpartition(":")[2].partition(".")[0])
        self.socket = socket.create_connection(("localhost", 6000 + number))
        self.socket.settimeout(60)
        self.input = self.socket.makefile("rb")
        self.sent = self.last = 0
        name = b"MIT-MAGIC-COOKIE-1"
        cookie = find_cookie(number) if cookie is None else cookie
        head = order.encode("ascii") + b"\0" + self.pack("HHHHxx", 11, 0, len(name), len(cookie))
        self.socket.sendall(head + name + b"\0\0" + cookie)
        status, length, _, _, units = self.unpack("BBHHH", self.read(8))
        rest = self.read(4 * units)
        if status != 1:
            raise SystemExit("refused: " + rest[:length].decode("ascii").strip())
        self.base = self.unpack("I", rest[4:8])[0]
        (vendor,) = self.unpack("H", rest[16:18])
        formats = rest[21]
        self.root = self.unpack("I", rest[32 + (vendor + 3) // 4 * 4 + 8 * formats :][:4])[0]

    def pack(self, form, *values):
        return struct.pack(self.order + form, *values)

    def unpack(self, form, data):
        return struct.unpack(self.order + form, data)

    def read(self, size):
        data = self.input.read(size)
        if len(data) != size:
            raise SystemExit("the server closed the connection")
        return data

    def send(self, opcode, detail=0, body=b""):
        """Send a request; return its number."""
        self.socket.sendall(self.build(opcode, detail, body))
        return self.sent

    def build(self, opcode, detail=0, body=b""):
        self.sent += 1
        return self.pack("BBH", opcode, detail, 1 + len(body) // 4) + body

    def message(self):
        """Return kind, number (as if it had no 16 bits), and the whole of the next message."""
        data = self.read(32)
        if data[0] == REPLY:
            data += self.read(4 * self.unpack("I", data[4:8])[0])
        number = self.unpack("H", data[2:4])[0]
        number += self.last & ~0xFFFF
        if number < self.last:
            number += 0x10000
        if not self.last <= number <= self.sent:
            raise SystemExit(f"number {number} after {self.last} of {self.sent}")
        self.last = number
        return data[0] & 0x7F, number, data

    def expect(self, kind, number):
        """Read messages until a reply or an error comes; it must be this one."""
        while True:
            found = self.message()
            if found[0] in (REPLY, ERROR):
                if found[:2] != (kind, number):
                    raise SystemExit(f"{found[:2]} instead of {(kind, number)}")
                return found[2]

    def sync(self):
        return self.expect(REPLY, self.send(43))

    def intern(self, name):
        body = self.pack("Hxx", len(name)) + name + bytes(-len(name) % 4)
        return self.unpack("I", self.expect(REPLY, self.send(16, 0, body))[8:12])[0]

    def create_window(self, number, parent=None, mask=0):
        shape = self.pack("hhHHHHI", 0, 0, 10, 10, 0, 1, 0)
        values = self.pack("II", 1 << 11, mask) if mask else self.pack("I", 0)
        head = self.pack("II", self.base + number, parent or self.root)
        self.send(1, 0, head + shape + values)
        return self.base + number


def burst(client, count):
    """Many requests of many kinds, in pieces of all sizes, with a reply now and then."""
    name = b"XSSH_BURST"
    atom = client.intern(name)
    window = client.create_window(1)
    pieces, wanted = [], []
    for number in range(count):
        if number % 50 == 0:
            body = client.pack("Hxx", len(name)) + name + b"\0\0"
            pieces.append(client.build(16, 0, body))
            wanted.append((client.sent, client.pack("I", atom)))
        elif number % 50 == 25:
            pieces.append(client.build(43))
            wanted.append((client.sent, None))
        elif number % 50 == 40:
            pieces.append(client.build(14, 0, client.pack("I", window)))
            wanted.append((client.sent, client.pack("I", client.root)))
        elif number % 2:
            value = client.pack("III", window, atom, 31) + b"\x08\0\0\0" + client.pack("I", 4)
            pieces.append(client.build(18, 0, value + b"text"))
        else:
            pieces.append(client.build(127))
        if len(pieces) == 1000 or number == count - 1:
            client.socket.sendall(b"".join(pieces))
            for sequence, value in wanted:
                data = client.expect(REPLY, sequence)
                if value is not None and data[8:12] != value:
                    raise SystemExit(f"wrong reply {data!r} to {sequence}")
            pieces, wanted = [], []
    client.sync()


def trap(client, count):
    """A request that fails, others with known answers, and XSync: the error comes before all."""
    client.intern(b"WM_NAME")
    for number in range(count):
        missing = client.base + 0x10000 + number
        text = client.pack("III", missing, 39, 31) + b"\x08\0\0\0" + bytes(4)
        for opcode, body in (
            (8, client.pack("I", missing)),
            (18, text),
            (42, client.pack("II", missing, 0)),
            (60, client.pack("I", missing)),
        ):
            failing = client.send(opcode, 0, body)
            client.send(98, 0, client.pack("Hxx", 5) + b"SHAPE\0\0\0")
            client.send(16, 0, client.pack("Hxx", 7) + b"WM_NAME\0")
            focus = client.send(43)
            client.expect(ERROR, failing)
            client.expect(REPLY, focus - 2)
            client.expect(REPLY, focus - 1)
            client.expect(REPLY, focus)


def grab(client, count):
    """GrabServer, changes of a root property and looks at it, UngrabServer."""
    atom = client.intern(b"XSSH_GRAB")
    for number in range(count):
        client.send(36)
        value = client.pack("III", client.root, atom, 31) + b"\x08\0\0\0" + client.pack("I", 4)
        text = b"%04d" % number
        client.send(18, 0, value + text)
        body = client.pack("IIIII", client.root, atom, 0, 0, 100)
        data = client.expect(REPLY, client.send(20, 0, body))
        if data[32:36] != text:
            raise SystemExit(f"{data[32:36]!r} instead of {text!r}")
        client.send(37)
    client.send(19, 0, client.pack("II", client.root, atom))
    client.sync()


def images(client, count):
    """PutImage to a pixmap and GetImage back: every byte as it was."""
    pixmap, context, width, height = client.base + 1, client.base + 2, 64, 48
    client.send(53, 24, client.pack("IIHH", pixmap, client.root, width, height))
    client.send(55, 0, client.pack("III", context, pixmap, 0))
    for number in range(count):
        row = bytes((number + i * 7) & 0xFF if i % 4 != 3 else 0 for i in range(width * 4))
        picture = b"".join(row[4 * (y % width) :] + row[: 4 * (y % width)] for y in range(height))
        head = client.pack("IIHHhhBBxx", pixmap, context, width, height, 0, 0, 0, 24)
        client.send(72, 2, head + picture)
        body = client.pack("IhhHHI", pixmap, 0, 0, width, height, 0xFFFFFFFF)
        data = client.expect(REPLY, client.send(73, 2, body))[32:]
        if data != picture:
            raise SystemExit(f"the image {number} is another")


def garbage(client, count):
    """Nonsense behind a setup, and in its place; each ends its own connection at most."""
    order = {"<": "l", ">": "B"}[client.order]
    for number in range(count):
        dice = random.Random(number)
        noise = bytes(dice.randrange(256) for _ in range(dice.choice((1, 4, 40, 4000, 40000))))
        if number % 2:
            speaker = Client(order)
            # Lengths that make sense lead deeper than the first of them that makes none.
            if number % 4 == 1:
                noise = b"".join(
                    client.pack("BBH", dice.choice((20, 43, 55, 72, 98, dice.randrange(256))), 0, 2)
                    + noise[at : at + 4].ljust(4, b"\0")
                    for at in range(0, min(len(noise), 4000), 4)
                )
            raw = speaker.socket
        else:
            raw = socket.create_connection(client.socket.getpeername()[:2])
            noise = dice.choice((b"l\0", b"B\0", b"")) + noise
        try:
            raw.sendall(noise)
            raw.shutdown(socket.SHUT_WR)
            raw.settimeout(20)
            while raw.recv(65536):
                pass
        except (ConnectionError, BrokenPipeError):
            pass
        raw.close()
    client.sync()


def stay(client, count):
    """Stay connected, and say how the connection ended."""
    client.sync()
    print("in", flush=True)
    client.socket.settimeout(count)
    try:
        while client.socket.recv(4096):
            pass
        print("closed", flush=True)
    except TimeoutError:
        print("late", flush=True)
    except OSError:
        print("reset", flush=True)


def crowd(client, count):
    """As many connections at once."""
    order = {"<": "l", ">": "B"}[client.order]
    clients = [client] + [Client(order) for _ in range(count - 1)]
    for each in clients:
        each.sync()


if __name__ == "__main__":
    order, what = sys.argv[1:3]
    opened = Client(order, b"\0" * 16 if what == "stranger" else None)
    globals()[what](opened, int(sys.argv[3]) if sys.argv[3:] else 1)
    print("right", flush=True)
