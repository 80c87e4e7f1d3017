# SPDX-License-Identifier: Apache-2.0
"""Live update on real KVM: connections of a vsock with a socket go on. (One by the host's
vhost-vsock: tests/lab/linux/test_vsock_update.py.)"""
import hashlib
import os
import random
import resource
import socket
import struct
import unittest

from ferry import SLOW, ApiError, wait_for
from test_live_update import COMMIT, STEPS, Fails, LiveUpdate
from update import update
from virtio import BUFFERS, Driver

HEADER = struct.Struct("<QQIIIHHIII")
REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST = range(1, 8)
RX_BUFFERS, RX_SIZE = 8, 4096
TX_AT = BUFFERS + RX_BUFFERS * RX_SIZE
CREDIT = 65536


class Guest:
    """The guest's driver, through the probe."""

    def __init__(self, vm):
        self.vm, self.driver = vm, Driver(vm, "_vsock0")
        self.driver.negotiate()
        self.rx, self.tx = self.driver.queue(0), self.driver.queue(1)
        self.event = self.driver.queue(2)
        self.driver.start()
        self.received = self.sent = 0
        for n in range(RX_BUFFERS):
            self.driver.post(self.rx, (BUFFERS + n * RX_SIZE, RX_SIZE, True))

    def receive(self):
        """The next packet: its header's fields, and data."""
        length = self.driver.wait_used(self.rx, self.received + 1)
        at = BUFFERS + self.received % RX_BUFFERS * RX_SIZE
        # The last one's length is told; of those before, the header's is as good.
        header = HEADER.unpack(self.driver.get(at, HEADER.size))
        assert length >= HEADER.size
        data = self.driver.get(at + HEADER.size, header[4])
        self.received += 1
        self.driver.post(self.rx, (at, RX_SIZE, True))
        return header, data

    def idle(self):
        return self.driver.used(self.rx) == self.received & 0xffff

    def send(self, header, data=b"", length=None):
        """Of length bytes, where what follows data is what is there."""
        self.driver.put(TX_AT, header + data)
        self.driver.post(self.tx, (TX_AT, HEADER.size + (len(data) if length is None else length), False))
        self.sent += 1
        self.driver.wait_used(self.tx, self.sent)


class Connection:
    """One end in the host, one in the guest."""

    def __init__(self, guest, path, port=52):
        self.guest, self.port = guest, port
        self.bytes = 0
        self.taken = 0
        self.host = socket.socket(socket.AF_UNIX)
        self.host.settimeout(10 * SLOW)
        self.host.connect(path)
        self.host.sendall(b"CONNECT %d\n" % port)
        header, _ = guest.receive()
        assert (header[3], header[6]) == (port, REQUEST), header
        self.host_port = header[2]
        self.send(RESPONSE)
        assert self.host.recv(100) == b"OK %d\n" % self.host_port

    def send(self, op, data=b"", length=None, flags=0):
        length = len(data) if length is None else length
        self.guest.send(HEADER.pack(3, 2, self.port, self.host_port, length, 1, op, flags, CREDIT, self.taken),
                        data, length)
        if op == RW:
            self.bytes += length

    def receive(self, op=RW):
        header, data = self.guest.receive()
        assert (header[2], header[3], header[6]) == (self.host_port, self.port, op), header
        self.credit = header[8] - (self.bytes - header[9] & 0xffffffff)
        self.taken += len(data)
        return data

    def exactly(self, length):
        """So many bytes of what the host's end receives."""
        data = b""
        while len(data) < length:
            part = self.host.recv(length - len(data))
            assert part, f"it ended after {len(data)} of {length}"
            data += part
        return data


class Vsock(LiveUpdate):
    def start(self, *args):
        self.path = os.path.join(self.dir, "vsock")
        vm = self.vm("--vsock", f"cid=3,socket={self.path}", *args)
        return vm, Guest(vm)

    def connect(self, guest, port=52):
        connection = Connection(guest, self.path, port)
        self.addCleanup(connection.host.close)
        return connection

    def exchange(self, connection, data):
        """Through the guest and back."""
        connection.host.sendall(data)
        self.assertEqual(connection.receive(), data)
        connection.send(RW, data)
        self.assertEqual(connection.exactly(len(data)), data)


class GoesOn(Vsock):
    def test_a_stream_through_the_guest_and_back(self):
        vm, guest = self.start()
        connection = self.connect(guest)
        sent, returned, waiting = hashlib.sha256(), hashlib.sha256(), 0
        generator = random.Random(6)
        for n in range(30):
            data = generator.randbytes(generator.randrange(8, 400))
            # Now behind the guest, now before it, an update is where the bytes are.
            connection.host.sendall(data)
            sent.update(data)
            if n % 3 == 0:
                update(vm)
            data = connection.receive()
            connection.send(RW, data)
            waiting += len(data)
            if n % 3 == 1:
                update(vm)
            if n % 3 == 2:
                returned.update(connection.exactly(waiting))
                waiting = 0
        self.assertEqual(returned.hexdigest(), sent.hexdigest())
        self.assertTrue(guest.idle())
        self.assertEqual(guest.driver.used(guest.event), 0, "no reset of the transport")

    def test_full_buffers(self):
        vm, guest = self.start()
        connection = self.connect(guest)
        packets, length = 0, 8192
        # The host reads nothing, until what it may be sent is used up.
        credit = CREDIT
        while credit >= length:
            connection.send(RW, struct.pack("<Q", packets), length)
            packets += 1
            while not guest.idle():
                connection.receive(CREDIT_UPDATE)
            credit = min(credit - length if guest.idle() else credit, CREDIT)
            if packets % 8 == 0:
                connection.send(CREDIT_REQUEST)
                connection.receive(CREDIT_UPDATE)
                credit = connection.credit
        for _ in range(3):
            update(vm)
        for n in range(packets):
            self.assertEqual(struct.unpack("<Q", connection.exactly(length)[:8])[0], n)
        # There is room again, and the guest is told so.
        connection.receive(CREDIT_UPDATE)
        self.assertGreater(connection.credit, CREDIT // 2)
        self.exchange(connection, b"after it all")

    def test_half_closed(self):
        vm, guest = self.start()
        by_host, by_guest = self.connect(guest), self.connect(guest, 53)
        by_host.host.shutdown(socket.SHUT_WR)
        by_host.receive(SHUTDOWN)
        by_guest.send(SHUTDOWN, flags=2)
        self.assertEqual(by_guest.host.recv(1), b"")
        update(vm)
        by_host.send(RW, b"still")
        self.assertEqual(by_host.exactly(5), b"still")
        by_guest.host.sendall(b"still")
        self.assertEqual(by_guest.receive(), b"still")
        update(vm)
        by_host.send(SHUTDOWN, flags=3)
        by_host.receive(RST)
        self.assertEqual(by_host.host.recv(1), b"")

    def test_clients_come_and_go_meanwhile(self):
        vm, guest = self.start()
        first = self.connect(guest)
        for n in range(4):
            update(vm)
            other = self.connect(guest, 60 + n)
            self.assertNotEqual(other.host_port, first.host_port)
            self.exchange(other, b"new")
            self.exchange(first, b"old")
            other.host.close()
            # It closes both ways; the guest agrees.
            wait_for(lambda: not guest.idle(), 10, "the guest to be told")
            other.receive(SHUTDOWN)
            other.send(SHUTDOWN, flags=3)
            wait_for(lambda: not guest.idle(), 10, "the guest to be told")
            while not guest.idle():
                self.assertIn(guest.receive()[0][6], (SHUTDOWN, RST))

    def test_a_paused_vm(self):
        vm, guest = self.start()
        connection = self.connect(guest)
        vm.put("vm.pause")
        update(vm)
        connection.host.sendall(b"meanwhile")
        update(vm)
        vm.put("vm.resume")
        self.assertEqual(connection.receive(), b"meanwhile")
        self.exchange(connection, b"and on")

    def test_many(self):
        vm, guest = self.start()
        connections = [self.connect(guest, port) for port in range(100, 120)]
        # Those that have not said what they want yet do not need the guest.
        silent = [socket.socket(socket.AF_UNIX) for _ in range(300)]
        for host in silent:
            self.addCleanup(host.close)
            host.connect(self.path)
        took = update(vm)
        print(f"     {len(connections) + len(silent)} connections: {took['downtime_us']['total'] / 1000:.1f} ms")
        # First: it has eight seconds for that.
        silent[-1].sendall(b"CONNECT 7\n")
        self.assertEqual(guest.receive()[0][6], REQUEST)
        for connection in connections:
            self.exchange(connection, b"each of them")

    def test_without_descriptors_for_them_it_is_refused(self):
        vm, guest = self.start()
        connection = self.connect(guest)
        silent = [socket.socket(socket.AF_UNIX) for _ in range(600)]
        for host in silent:
            self.addCleanup(host.close)
            host.connect(self.path)
        wait_for(lambda: len(vm.fds()) > 600, 10, "all to be accepted")
        resource.prlimit(vm.process.pid, resource.RLIMIT_NOFILE, (1024, 1024))
        self.refused(vm, "_vsock0: 601 connections.*ulimit -n")
        self.exchange(connection, b"it goes on here")


class Rollback(Vsock, Fails):
    # Those are run where they are.
    test_the_steps_are_these = test_the_new_process_killed_at_each_step = None
    test_the_old_process_killed_at_each_step = test_a_connection_cut_at_each_step = None
    test_counters_that_make_no_sense = test_damaged_frames = test_every_kind_of_state_is_asked_for_first = None
    test_a_new_process_that_is_older = test_no_process_waits_there = None
    test_a_vm_that_is_not_there_or_does_not_run = test_an_adopter_ends_when_nobody_hands_over = None
    test_a_guest_that_ends_meanwhile_does_so_in_the_old_process = None

    def test_the_old_process_goes_on_with_them(self):
        vm, guest = self.start()
        connection = self.connect(guest)
        for step in STEPS[STEPS.index(("S", "KEPT", 0)):COMMIT + 1]:
            with self.subTest(step=step):
                connection.host.sendall(b"on its way")

                def act(waiting):
                    waiting.process.kill()
                    waiting.process.wait()

                _, error, _ = self.through(vm, self.at_step(step, act))
                self.assertIsInstance(error, ApiError)
                self.assertEqual(connection.receive(), b"on its way")
                self.exchange(connection, b"and back")
        update(vm)
        self.exchange(connection, b"in the new one")


del Fails, LiveUpdate, Vsock

if __name__ == "__main__":
    unittest.main()
