# SPDX-License-Identifier: Apache-2.0
"""Postcopy over TLS: also the connections made anew, and those of strangers meanwhile."""
import socket
import ssl
import unittest

from arrival import Arrival, free_port
from certificates import NeedsOpenssl, tls_dir
from ferry import wait_for
from line import Line
from probe import Probe
from test_postcopy import Following
from test_snapshot import DIRTY, fill

HANDSHAKE = b"\x16\x03"  # how a record of TLS begins that has a message of the handshake


class PostcopyTls(NeedsOpenssl, Following):
    def setUp(self):
        super().setUp()
        self.tls = {"receive": {"tls_dir": self.tls_dir}, "tls_dir": self.tls_dir}

    def test_memory_follows_by_several_connections(self):
        self.moves(f"tcp:127.0.0.1:{free_port()}", cpus=4, connections=4, memory_mode="Postcopy", **self.tls)

    def test_with_checksums(self):
        self.moves(f"tcp:127.0.0.1:{free_port()}", memory_mode="Postcopy", checksum=True, **self.tls)

    def test_a_guest_that_writes_faster_than_the_line_moves_at_once(self):
        self.moves_at_once(f"tcp:127.0.0.1:{free_port()}", **self.tls)

    def test_there_and_back(self):
        with Probe() as vm, Arrival() as to, Arrival() as back:
            checksum = fill(vm)
            vm.ask(f"dirty {DIRTY:#x} 512 20 3")
            for source, target in ((vm, to), (to, back)):
                target.listen(f"tcp:127.0.0.1:{free_port()}", **self.tls["receive"])
                self.send(source, target, memory_mode="Postcopy", tls_dir=self.tls_dir)
                self.gone(source)
            self.same_memory(back, checksum)
            self.assertIn("verify ok", back.ask("verify"))

    def test_connections_that_are_lost_are_made_anew_over_tls(self):
        with Probe(memory="256M") as vm, Arrival() as to:
            line = self.recovers(vm, to, **self.tls)
            # Control, two for pages and that of requests; and those anew.
            self.assertGreaterEqual(len(line.first), 8)
            for first in line.first:
                self.assertEqual(first[:2], HANDSHAKE)

    def another_authority(self):
        other = tls_dir(f"{self.dir}/other")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(f"{other}/client-cert.pem", f"{other}/client-key.pem")
        return context

    def strangers(self, port, context):
        """Says nothing, speaks no TLS, is of another authority, leaves at once."""
        address = ("127.0.0.1", port)
        silent = socket.create_connection(address)
        self.addCleanup(silent.close)
        with socket.create_connection(address) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with socket.create_connection(address, timeout=20) as s:
            try:
                with context.wrap_socket(s) as tls:
                    tls.sendall(b"RECOVER")
                    answer = tls.recv(1)
            except OSError:  # refused, and told why
                answer = b""
            self.assertEqual(answer, b"")
        socket.create_connection(address).close()

    def test_strangers_meanwhile_change_nothing(self):
        context = self.another_authority()  # takes longer in the lab than the memory
        with Probe(memory="256M") as vm, Arrival() as to:
            checksum = fill(vm)
            vm.ask(f"dirty {DIRTY:#x} 40000 0 3")
            port = free_port()
            to.listen(f"tcp:127.0.0.1:{port}", **self.tls["receive"])
            sending = self.follow(vm, to, bandwidth=24 << 20, timeout_s=1, tls_dir=self.tls_dir)
            self.strangers(port, context)
            self.assertTrue(sending.is_alive(), "all memory was there before the strangers were")
            self.assertIsNone(sending.wait())
            self.assertIs(to.wait_received(), True)
            self.assertEqual(vm.get("vm.migration")["faults_us"]["recoveries"], 0)
            to.connect_serial()
            self.same_memory(to, checksum)
            self.assertIn("verify ok", to.ask("verify", 60))

    def test_strangers_while_the_line_is_cut_do_not_keep_the_source_out(self):
        context = self.another_authority()
        with Probe(memory="256M") as vm, Arrival() as to:
            checksum = fill(vm)
            vm.ask(f"dirty {DIRTY:#x} 40000 0 3")
            port = free_port()
            line = Line(port)
            self.addCleanup(line.close)
            to.listen(f"tcp:127.0.0.1:{port}", **self.tls["receive"])
            to.url = line.url
            sending = self.follow(vm, to, bandwidth=32 << 20, timeout_s=1, tls_dir=self.tls_dir)
            line.cut()
            wait_for(lambda: not vm.get("vm.migration")["connections"], 20, "the end of the connections")
            self.strangers(port, context)
            line.open = True
            self.assertIsNone(sending.wait())
            self.assertIs(to.wait_received(), True)
            self.assertEqual(vm.get("vm.migration")["faults_us"]["recoveries"], 1)
            to.connect_serial()
            self.same_memory(to, checksum)
            self.assertIn("verify ok", to.ask("verify", 60))


if __name__ == "__main__":
    unittest.main()
