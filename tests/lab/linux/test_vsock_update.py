# SPDX-License-Identifier: Apache-2.0
"""Live update and vsock: Linux's driver, and the host's vhost-vsock, whose CID changes hands."""
import ctypes
import hashlib
import os
import socket
import struct
import threading
import time
import unittest

from linux_guest import Files, LinuxGuest
from ferry import SLOW, ApiError, wait_for
from test_live_update import COMMIT, STEPS, Fails, LiveUpdate
from test_live_update_vsock import CREDIT, HEADER, REQUEST, RESPONSE, RST, RW, TX_AT, Guest
from update import update

CONNECT_TIMEOUT = 6  # SO_VM_SOCKETS_CONNECT_TIMEOUT


class Linux(Files):
    def serve_echo(self, vm, port):
        vm.agent.send_line(f"run (while :; do agent vsock-echo {port}; done > /dev/null 2>&1 &) ; sleep 1")
        vm.agent.expect(rb"FERRY-END \d+ 0", 20 * SLOW)

    def connect(self, path, port):
        host = socket.socket(socket.AF_UNIX)
        self.addCleanup(host.close)
        host.settimeout(60 * SLOW)
        host.connect(path)
        host.sendall(b"CONNECT %d\n" % port)
        line = b""
        while not line.endswith(b"\n"):
            byte = host.recv(1)
            if not byte:
                return None
            line += byte
        return host

    def test_an_echo_goes_on_over_many_updates(self):
        path = os.path.join(self.dir, "vsock")
        with LinuxGuest("--vsock", f"cid=3,socket={path}") as vm:
            self.serve_echo(vm, 5000)
            host = wait_for(lambda: self.connect(path, 5000), 20, "the guest's echo server")
            sent, returned, stop = hashlib.sha256(), hashlib.sha256(), threading.Event()
            count = [0, 0]

            def send():
                while not stop.is_set():
                    data = os.urandom(7000)
                    host.sendall(data)
                    sent.update(data)
                    count[0] += len(data)
                host.shutdown(socket.SHUT_WR)

            def receive():
                while data := host.recv(65536):
                    returned.update(data)
                    count[1] += len(data)
                    if count[1] >> 16 & 7 == 0:
                        time.sleep(0.05)  # and what waits fills the buffers

            threads = [threading.Thread(target=function, daemon=True) for function in (send, receive)]
            for thread in threads:
                thread.start()
            pauses = [update(vm)["downtime_us"]["total"] // 1000 for _ in range(12)]
            stop.set()
            for thread in threads:
                thread.join(60 * SLOW)
            print(f"     {count[0]} bytes through the guest and back, pauses of {pauses} ms")
            self.assertGreater(count[0], 1 << 20)
            self.assertEqual(count[1], count[0])
            self.assertEqual(returned.hexdigest(), sent.hexdigest())

    def test_a_guest_by_vhost_takes_connections_again(self):
        with LinuxGuest("--vsock", "cid=42") as vm:
            self.serve_echo(vm, 5001)

            def connect():
                host = socket.socket(socket.AF_VSOCK)
                self.addCleanup(host.close)
                host.settimeout(20 * SLOW)
                try:
                    host.connect((42, 5001))
                except ConnectionResetError:
                    return None  # nobody listens there yet
                return host

            for n in range(3):
                host = wait_for(connect, 20, "the guest's echo server")
                host.sendall(b"over the kernel")
                self.assertEqual(host.recv(100), b"over the kernel")
                update(vm)
                try:
                    self.assertEqual(host.recv(1), b"")
                except ConnectionResetError:
                    pass
            host = wait_for(connect, 20, "the guest's echo server")
            host.sendall(b"and again")
            self.assertEqual(host.recv(100), b"and again")


class Vhost(LiveUpdate):
    CID = 77

    def start(self):
        self.told = 0
        vm = self.vm("--vsock", f"cid={self.CID}")
        return vm, self.guest(vm)

    def guest(self, vm):
        guest = Guest(vm)
        for n in range(8):
            guest.driver.post(guest.event, (TX_AT + 65536 + 8 * n, 8, True))
        return guest

    def connect(self, guest):
        """From the host, answered by the guest."""
        host = socket.socket(socket.AF_VSOCK)
        self.addCleanup(host.close)
        host.settimeout(60 * SLOW)
        # The probe may take longer than the two seconds the kernel waits by itself. Python sets
        # nothing but numbers on such a socket.
        limit = struct.pack("ll", int(60 * SLOW), 0)
        self.assertEqual(ctypes.CDLL(None).setsockopt(host.fileno(), socket.AF_VSOCK, CONNECT_TIMEOUT,
                                                      limit, len(limit)), 0)
        thread = threading.Thread(target=host.connect, args=((self.CID, 52),))
        thread.start()
        header, _ = guest.receive()
        while header[6] == RST:  # of a connection that was before
            header, _ = guest.receive()
        self.assertEqual(header[6], REQUEST)
        guest.send(HEADER.pack(self.CID, 2, 52, header[2], 0, 1, RESPONSE, 0, CREDIT, 0))
        thread.join(60 * SLOW)
        host.sendall(b"hello")
        header, data = guest.receive()
        self.assertEqual((header[6], data), (RW, b"hello"))
        return host

    def has_ended(self, host):
        try:
            return host.recv(1) == b""
        except ConnectionResetError:
            return True

    def is_told(self, guest):
        """Of one reset more."""
        self.told += 1
        guest.driver.wait_used(guest.event, self.told)

    def is_taken(self):
        with self.assertRaises((ApiError, AssertionError)) as caught:
            self.vm("--vsock", f"cid={self.CID}")
        self.assertIn(f"CID {self.CID} is in use", str(caught.exception))

    def test_its_connections_end_and_new_ones_are_made(self):
        vm, guest = self.start()
        for _ in range(3):
            host = self.connect(guest)
            took = update(vm)
            print(f"     {took['downtime_us']['total'] / 1000:.1f} ms")
            self.assertTrue(self.has_ended(host))
            self.is_told(guest)
            self.is_taken()
        self.connect(guest)

    def test_without_a_driver(self):
        vm = self.vm("--vsock", f"cid={self.CID}")
        update(vm)
        self.is_taken()
        self.told = 0
        self.connect(self.guest(vm))


class VhostRollback(Vhost, Fails):
    # Those are run where they are.
    test_its_connections_end_and_new_ones_are_made = test_without_a_driver = None
    test_the_steps_are_these = test_the_new_process_killed_at_each_step = None
    test_the_old_process_killed_at_each_step = test_a_connection_cut_at_each_step = None
    test_counters_that_make_no_sense = test_damaged_frames = test_every_kind_of_state_is_asked_for_first = None
    test_a_new_process_that_is_older = test_no_process_waits_there = None
    test_a_vm_that_is_not_there_or_does_not_run = test_an_adopter_ends_when_nobody_hands_over = None

    def test_the_old_process_takes_the_cid_back(self):
        vm, guest = self.start()
        for step in STEPS[STEPS.index(("S", "KEPT", 0)):COMMIT + 1]:
            with self.subTest(step=step):
                host = self.connect(guest)

                def act(waiting):
                    waiting.process.kill()
                    waiting.process.wait()

                _, error, _ = self.through(vm, self.at_step(step, act))
                self.assertIsInstance(error, ApiError)
                if STEPS.index(step) >= STEPS.index(("S", "KEPT", 1)):
                    self.assertTrue(self.has_ended(host))
                    self.is_told(guest)
                self.is_taken()
        self.connect(guest)
        update(vm)
        self.is_told(guest)
        self.connect(guest)


del Fails, Files, LiveUpdate

if __name__ == "__main__":
    unittest.main()
