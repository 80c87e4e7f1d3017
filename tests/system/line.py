# SPDX-License-Identifier: Apache-2.0
"""A line between two ferries that can be cut: forwards TCP connections of this host."""
import socket
import threading

from arrival import free_port


def hang_up(*sockets):
    for s in sockets:
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Line:
    def __init__(self, to_port):
        self.port, self.to_port = free_port(), to_port
        self.open = True  # else new connections are closed at once
        self.first = []  # of each connection, the first bytes of who made it
        self.pairs = []
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.url = f"tcp:127.0.0.1:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                a, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                a.close()
                continue
            b = socket.create_connection(("127.0.0.1", self.to_port))
            self.pairs.append((a, b))
            threading.Thread(target=self.pump, args=(a, b, self.first), daemon=True).start()
            threading.Thread(target=self.pump, args=(b, a, None), daemon=True).start()

    @staticmethod
    def pump(a, b, first):
        try:
            while data := a.recv(1 << 16):
                if first is not None:
                    first.append(data)
                    first = None
                b.sendall(data)
        except OSError:
            pass
        hang_up(a, b)

    def cut(self):
        """All connections there are, and those to come."""
        self.open = False
        for pair in self.pairs:
            hang_up(*pair)

    def close(self):
        hang_up(self.listener)
        self.listener.close()
