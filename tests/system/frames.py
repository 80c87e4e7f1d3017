# SPDX-License-Identifier: Apache-2.0
"""The frames of a migration (migration/protocol.h) on their way through a proxy, which may
do something at each, or change it."""
import os
import re
import socket
import struct
import threading

from ferry import ROOT

HEADER = struct.Struct("<IHHIIQQIIII")


def names():
    """By number, from the protocol's header."""
    with open(os.path.join(ROOT, "migration", "protocol.h")) as file:
        body = re.search(r"enum frame_type \{(.*?)FRAME_TYPES", file.read(), re.S).group(1)
    return ["", *re.findall(r"^\tFRAME_(\w+)", body, re.M)]


NAMES = names()


def table():
    rows = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        rows.append(n)
    return rows


TABLE = table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Frame:
    def __init__(self, header, meta=b"", payload=b"", fds=()):
        (self.magic, self.type, self.flags, self.stream, _, _, self.offset, _, self.payload_crc, _, _) = header
        self.meta, self.payload, self.fds = meta, payload, list(fds)
        self.unchanged = payload

    @property
    def name(self):
        return NAMES[self.type] if self.type < len(NAMES) else str(self.type)

    def data(self):
        crc = 0
        if self.payload and self.flags & 2:  # python takes its time
            crc = self.payload_crc if self.payload is self.unchanged else crc32c(self.payload)
        fields = [self.magic, self.type, self.flags, self.stream, len(self.meta), len(self.payload), self.offset,
                  crc32c(self.meta), crc, 0]
        head = struct.pack("<IHHIIQQIII", *fields)
        return head + struct.pack("<I", crc32c(head)) + self.meta + self.payload


def read_exactly(sock, size, fds):
    data = b""
    while len(data) < size:
        part, more, _, _ = socket.recv_fds(sock, size - len(data), 253)
        fds += more
        if not part:
            raise EOFError
        data += part
    return data


def read_frame(sock):
    fds = []
    header = HEADER.unpack(read_exactly(sock, HEADER.size, fds))
    meta = read_exactly(sock, header[4], fds)
    return Frame(header, meta, read_exactly(sock, header[5], fds), fds)


class Pair:
    """Two sockets that are one connection, through the proxy."""

    def __init__(self, source, destination):
        self.source, self.destination = source, destination
        self.stalled = False  # nothing moves on it any more, and nobody is told


class Proxy:
    """Between a source that connects to `path` and a destination that listens on `target`.
    at(direction, frame, number) is called before a frame goes on ("S" the source's, "D" the
    destination's; number: how many of its name came before): False keeps it back and cuts
    the connection, a Frame or None goes on (None: as it is)."""

    def __init__(self, path, target, at):
        self.path, self.target, self.at = path, target, at
        self.seen, self.seen_lock = [], threading.Lock()
        self.pairs = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                source, _ = self.listener.accept()
            except OSError:
                return
            destination = socket.socket(socket.AF_UNIX)
            try:
                destination.connect(self.target)
            except OSError:
                source.close()
                continue
            pair = Pair(source, destination)
            self.pairs.append(pair)
            for direction in "SD":
                threading.Thread(target=self.relay, args=(direction, pair), daemon=True).start()

    def stall(self):
        """From now on nothing moves on the connections there are; new ones come through."""
        for pair in self.pairs:
            pair.stalled = True

    def relay(self, direction, pair):
        a, b = (pair.source, pair.destination) if direction == "S" else (pair.destination, pair.source)
        try:
            while True:
                frame = read_frame(a)
                with self.seen_lock:
                    number = self.seen.count((direction, frame.name))
                    self.seen.append((direction, frame.name))
                verdict = self.at(direction, frame, number)
                if verdict is False or pair.stalled:
                    break
                data = (verdict or frame).data() if verdict else frame.data()
                sent = socket.send_fds(b, [data], frame.fds) if frame.fds else b.send(data)
                for fd in frame.fds:
                    os.close(fd)
                if sent < len(data):  # to send nothing to who has left would be an error
                    b.sendall(data[sent:])
        except (EOFError, OSError):
            pass
        for sock in () if pair.stalled else (a, b):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # or a thread would wait on it for ever
        except OSError:  # closed before
            pass
        self.listener.close()
        self.pairs.clear()
