# SPDX-License-Identifier: Apache-2.0
"""Devices on real KVM: the probe's own disk driver, and a driver in python for the rest."""
import os
import re
import socket
import struct
import tempfile
import time
import unittest

import virtio
from ferry import SLOW, ApiError, wait_for
from namespace import NetworkNamespace, ip
from probe import FREE, Probe
from testdev import Server
from virtio import BUFFERS, Driver

HOTPLUG, GED = 0xf0001000, 0xf0000000
GED_HOTPLUG, GED_POWER_BUTTON = 2, 1
MASK = (1 << 64) - 1


def mix(x):
    """The probe's pattern (tests/guests/probe/README.md)."""
    x = ((x ^ x >> 30) * 0xbf58476d1ce4e5b9) & MASK
    x = ((x ^ x >> 27) * 0x94d049bb133111eb) & MASK
    return x ^ x >> 31


def pattern(sector, seed):
    first = mix(seed ^ mix(sector << 24))
    return struct.pack("<64Q", *((first + k * 0x9e3779b97f4a7c15) & MASK for k in range(64)))


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ferry-test-")
        self.addCleanup(folder.cleanup)
        self.dir = folder.name

    def disk(self, name="disk", size=1 << 20, content=b""):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as file:
            file.write(content)
            file.truncate(size)
        return path

    def at(self, path, sector, count=1):
        with open(path, "rb") as file:
            file.seek(sector * 512)
            return file.read(count * 512)


class Disk(Folder):
    def writes_and_reads(self, options, cpus=1):
        path = self.disk()
        with Probe("--disk", f"path={path}{options}", cpus=cpus) as vm:
            self.assertIn("sectors=2048 ", vm.ask("blk info"))
            written = vm.ask("blk write 100 300 7")
            self.assertIn("blk write ok", written)
            self.assertIn("blk check ok", vm.ask("blk check 100 300 7"))
            self.assertIn("blk check bad sector=100", vm.ask("blk check 100 1 8"))
            self.assertEqual(vm.ask("blk sum 100 300").split("=")[1], written.split("=")[1])
            self.assertEqual(vm.ask("blk flush"), "blk flush ok")
            self.assertEqual(self.at(path, 99), bytes(512))
            self.assertEqual(self.at(path, 100), pattern(100, 7))
            self.assertEqual(self.at(path, 399), pattern(399, 7))
            self.assertEqual(self.at(path, 400), bytes(512))
            counters = vm.get("vm.counters")["_disk0"]
            self.assertEqual(counters["write_bytes"], 300 * 512)
            self.assertEqual(counters["read_bytes"], 601 * 512)
            self.assertEqual(counters["flush_ops"], 1)
            self.assertEqual(counters["errors"], 0)

    def test_what_the_guest_writes_is_in_the_file_and_read_back(self):
        self.writes_and_reads("")

    def test_without_io_uring_it_is_the_same(self):
        self.writes_and_reads(",_disable_io_uring=on")

    def test_several_queues(self):
        self.writes_and_reads(",num_queues=2", cpus=2)

    def test_direct_io_where_the_file_system_has_it_and_an_error_where_not(self):
        path = self.disk()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
        except OSError:
            vm = Probe("--disk", f"path={path},direct=on", ready=False)
            self.assertEqual(vm.wait_exit(), 1)
            self.assertIn("takes no direct I/O", vm.stderr())
            vm.close()
            return
        self.writes_and_reads(",direct=on")

    def test_a_read_only_disk_is_read_and_not_written(self):
        path = self.disk(content=pattern(0, 3) + pattern(1, 3))
        with Probe("--disk", f"path={path},readonly=on") as vm:
            self.assertIn("blk check ok", vm.ask("blk check 0 2 3"))
            self.assertIn("error", vm.ask("blk write 0 1 4"))
            self.assertIn("blk check ok", vm.ask("blk check 0 2 3"))
        self.assertEqual(self.at(path, 0), pattern(0, 3))

    def test_two_read_only_vms_share_a_disk(self):
        path = self.disk(content=pattern(0, 3))
        with Probe("--disk", f"path={path},readonly=on") as one, \
             Probe("--disk", f"path={path},readonly=on") as two:
            for vm in (one, two):
                self.assertIn("blk check ok", vm.ask("blk check 0 1 3"))

    def test_two_disks_keep_apart(self):
        paths = self.disk("one"), self.disk("two", 2 << 20)
        with Probe("--disk", *(f"path={p}" for p in paths)) as vm:
            for n, path in enumerate(paths):
                self.assertIn(f"sectors={2048 << n} ", vm.ask(f"blk use {n}"))
                self.assertIn("blk write ok", vm.ask(f"blk write 5 1 {n + 1}"))
                self.assertEqual(self.at(path, 5), pattern(5, n + 1))
            self.assertEqual(self.at(paths[0], 5), pattern(5, 1))

    def test_beyond_the_end_is_an_error_and_the_disk_goes_on(self):
        path = self.disk(size=64 << 10)
        with Probe("--disk", f"path={path}") as vm:
            self.assertIn("error", vm.ask("blk write 127 2 1"))
            self.assertIn("error", vm.ask("blk read 0xffffffffffffffff 1"))
            self.assertIn("blk write ok", vm.ask("blk write 127 1 1"))
            self.assertGreaterEqual(vm.get("vm.counters")["_disk0"]["errors"], 2)
        self.assertEqual(os.path.getsize(path), 64 << 10)

    def test_a_size_that_is_no_multiple_of_512_is_rounded_down_with_a_warning(self):
        path = self.disk(size=1000)
        with Probe("--disk", f"path={path}") as vm:
            self.assertIn("sectors=1 ", vm.ask("blk info"))
            self.assertIn(path, vm.log())

    def test_requests_are_limited_to_the_rate_asked_for(self):
        with Probe("--disk", f"path={self.disk()},ops_size=40,ops_refill_time=100") as vm:
            reply = vm.ask("blk bench rand 1000 8", 30)
            done, ms = (int(re.search(rf"{word}=(\d+)", reply)[1]) for word in ("requests", "ms"))
            self.assertLessEqual(done, 40 + 40 * ms / 100 * 1.1 + 8, reply)
            if SLOW == 1:
                self.assertGreaterEqual(done, 200, reply)

    def test_bytes_are_limited_to_the_rate_asked_for(self):
        with Probe("--disk", f"path={self.disk()},bw_size=256K,bw_refill_time=100") as vm:
            reply = vm.ask("blk bench seq 600 4", 30)
            done, ms = (int(re.search(rf"{word}=(\d+)", reply)[1]) for word in ("bytes", "ms"))
            self.assertLessEqual(done, (256 << 10) * (1 + ms / 100 * 1.1) + 4 * 65536, reply)
            self.assertGreater(done, 0)

    def test_resize_reaches_file_and_guest(self):
        path = self.disk()
        with Probe("--disk", f"path={path}") as vm:
            vm.put("vm.resize-disk", {"id": "_disk0", "desired_size": 2 << 20})
            self.assertEqual(os.path.getsize(path), 2 << 20)
            self.assertIn("sectors=4096 ", vm.ask("blk use 0"))
            self.assertIn("blk write ok", vm.ask("blk write 4095 1 1"))

    def test_requests_in_flight_survive_pauses(self):
        path = self.disk(content=b"".join(pattern(n, 1) for n in range(256)))
        with Probe("--disk", f"path={path}") as vm:
            vm.ask("blk info")
            vm.send("blk bench rand 400 16")
            for _ in range(8):
                vm.put("vm.pause")
                vm.put("vm.resume")
            self.assertRegex(vm.read_until(rb"(blk bench[^\r\n]*)\r?\n", 60)[1], rb"ok requests=[1-9]")
            self.assertIn("blk check ok", vm.ask("blk check 0 256 1"))

    def test_a_reboot_gives_the_lock_and_the_data_to_the_next_machine(self):
        path = self.disk()
        with Probe("--disk", f"path={path}") as vm:
            vm.ask("blk write 0 1 1")
            vm.put("vm.reboot")
            vm.wait_ready()
            self.assertIn("blk check ok", vm.ask("blk check 0 1 1"))


class HotPlug(Folder):
    def add(self, vm, **disk):
        place = vm.put("vm.add-disk", disk)
        self.assertEqual(place["id"], disk.get("id", place["id"]))
        return 1 << virtio.slot_of(place["bdf"])

    def eject(self, vm, device, bit):
        removed = vm.event_names().count("device-removed")
        vm.put("vm.remove-device", {"id": device})
        self.assertEqual(vm.read(HOTPLUG + 4, 4), bit)
        vm.write(HOTPLUG + 8, 4, bit)
        vm.wait_event("device-removed", count=removed + 1)

    def test_a_disk_comes_works_and_goes(self):
        path = self.disk()
        with Probe() as vm:
            before = vm.fds()
            count = len(vm.functions())
            vm.read(GED, 4)
            bit = self.add(vm, path=path, id="data")
            self.assertEqual(vm.read(GED, 4), GED_HOTPLUG)
            self.assertEqual(vm.read(GED, 4), 0)
            self.assertEqual(vm.read(HOTPLUG, 4), bit)
            self.assertEqual(vm.read(HOTPLUG, 4), 0)
            self.assertEqual(len(vm.functions()), count + 1)
            self.assertIn("blk write ok", vm.ask("blk write 1 8 2"))
            self.assertEqual(self.at(path, 8), pattern(8, 2))
            self.assertIn("data", vm.get("vm.info")["device_tree"])
            self.assertIn(path, vm.fds())
            self.eject(vm, "data", bit)
            self.assertEqual(vm.read(GED, 4), GED_HOTPLUG)
            self.assertEqual(vm.fds(), before)
            self.assertEqual(len(vm.functions()), count)
            info = vm.get("vm.info")
            self.assertNotIn("data", info["device_tree"])
            self.assertFalse(info["config"].get("disks"))
            self.add(vm, path=path, id="data")

    def test_a_device_stays_until_the_guest_lets_it_go(self):
        with Probe("--disk", f"path={self.disk()},id=data") as vm:
            bit = 1 << virtio.slot_of(vm.get("vm.info")["device_tree"]["data"]["pci_bdf"])
            vm.put("vm.remove-device", {"id": "data"})
            self.assertIn("blk write ok", vm.ask("blk write 1 8 2"))
            self.assertIn("data", vm.get("vm.info")["device_tree"])
            vm.write(HOTPLUG + 8, 4, bit)
            vm.wait_event("device-removed")
            self.assertNotIn("data", vm.get("vm.info")["device_tree"])

    def test_added_before_boot_or_while_shut_down_it_is_there_at_boot(self):
        path = self.disk()
        with Probe() as vm:
            vm.put("vm.shutdown")
            self.assertIsNone(vm.put("vm.add-disk", {"path": path, "id": "late"}))
            vm.put("vm.boot")
            vm.wait_ready()
            self.assertIn("sectors=2048", vm.ask("blk info"))
            vm.put("vm.shutdown")
            vm.put("vm.remove-device", {"id": "late"})
            vm.put("vm.boot")
            vm.wait_ready()
            self.assertIn("error no virtio-blk", vm.ask("blk info"))

    def test_a_hot_added_disk_stays_over_a_reboot(self):
        with Probe() as vm:
            self.add(vm, path=self.disk(), id="data")
            vm.put("vm.reboot")
            vm.wait_ready()
            self.assertIn("sectors=2048", vm.ask("blk info"))

    def test_net_and_vsock_come_and_go(self):
        namespace = NetworkNamespace()
        self.addCleanup(namespace.leave)
        path = os.path.join(self.dir, "vsock")
        with Probe() as vm:
            before = vm.fds()
            for call, body in (("vm.add-net", {"tap": "ferry0", "id": "up"}),
                               ("vm.add-vsock", {"cid": 3, "socket": path, "id": "sock"})):
                bit = 1 << virtio.slot_of(vm.put(call, body)["bdf"])
                self.assertEqual(vm.read(HOTPLUG, 4), bit)
                self.eject(vm, body["id"], bit)
                self.assertEqual(vm.fds(), before)
            self.assertFalse(os.path.exists("/sys/class/net/ferry0"))
            self.assertFalse(os.path.exists(path))

    def test_what_another_device_has_is_refused_and_its_owner_named(self):
        namespace = NetworkNamespace()
        self.addCleanup(namespace.leave)
        path, server = self.disk(), Server(self.dir)
        self.addCleanup(server.end)
        with Probe("--disk", f"path={path},id=boot", "--net", "tap=ferry0,id=up", "--user-device",
                   f"socket={server.socket},id=dev") as vm:
            before, config = vm.fds(), vm.get("vm.info")["config"]
            for call, body, owner in (("vm.add-disk", {"path": path}, "boot"),
                                      ("vm.add-disk", {"path": path, "readonly": True}, "boot"),
                                      ("vm.add-net", {"tap": "ferry0"}, "up"),
                                      ("vm.add-user-device", {"socket": server.socket}, "dev"),
                                      ("vm.add-vsock", {"cid": 3, "socket": server.socket}, "dev")):
                with self.subTest(call=call), self.assertRaises(ApiError) as caught:
                    vm.put(call, body)
                self.assertEqual(caught.exception.status, 400)
                self.assertIn(f"is {owner}'s already", caught.exception.body)
            self.assertEqual(vm.fds(), before)
            self.assertEqual(vm.get("vm.info")["config"], config)
            # Before boot as well, and not any more when it is gone.
            vm.put("vm.shutdown")
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.add-disk", {"path": path})
            self.assertEqual(caught.exception.status, 400)
            vm.put("vm.remove-device", {"id": "boot"})
            vm.put("vm.add-disk", {"path": path, "id": "again"})

    def test_all_slots_taken_is_an_error_and_nothing_is_left_open(self):
        with Probe() as vm:
            free = 32 - len(vm.functions())
            paths = [self.disk(f"disk{n}") for n in range(free + 1)]
            for path in paths[:-1]:
                self.add(vm, path=path)
            before = vm.fds()
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.add-disk", {"path": paths[-1]})
            self.assertEqual(caught.exception.status, 500)
            self.assertIn("slots are taken", caught.exception.body)
            self.assertEqual(vm.fds(), before)
            vm.ping()

    def test_a_hundred_rounds_leave_nothing_behind(self):
        path = self.disk()
        rounds = 100 if SLOW == 1 else 10
        with Probe() as vm:
            def round_trip(use):
                bit = self.add(vm, path=path, id="data")
                if use:  # with a driver at work its threads and rings must go too
                    self.assertIn("blk use ok", vm.ask("blk use 0"))
                    self.assertIn("blk write ok", vm.ask("blk write 0 8 1"))
                vm.put("vm.remove-device", {"id": "data"})
                vm.write(HOTPLUG + 8, 4, bit)
                wait_for(lambda: "data" not in vm.get("vm.info")["device_tree"], 10, "the device to go")

            for n in range(5):
                round_trip(True)
            wait_for(lambda: path not in vm.fds(), 10, "the disk to be closed")
            fds, memory, threads = vm.fds(), vm.anonymous_kib(), len(vm.threads())
            for n in range(rounds):
                round_trip(n % 10 == 0)
            wait_for(lambda: vm.fds() == fds, 10, "the same descriptors as before")
            self.assertEqual(len(vm.threads()), threads)
            self.assertLessEqual(vm.anonymous_kib(), memory + 64)

    def test_power_button_raises_its_event(self):
        with Probe() as vm:
            vm.read(GED, 4)
            vm.put("vm.power-button")
            self.assertEqual(vm.read(GED, 4), GED_POWER_BUTTON)
            vm.ping()


class Net(Folder):
    def setUp(self):
        super().setUp()
        namespace = NetworkNamespace()
        self.addCleanup(namespace.leave)

    def test_frames_pass_between_guest_and_tap(self):
        with Probe("--net", "tap=ferry0,mac=2e:89:a8:e4:bf:01") as vm:
            ip("link", "set", "ferry0", "up")
            host = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88b5))
            self.addCleanup(host.close)
            host.bind(("ferry0", 0x88b5))
            host.settimeout(10 * SLOW)
            net = Driver(vm, "_net0")
            self.assertEqual(net.get(net.config, 8)[:6].hex(":"), "2e:89:a8:e4:bf:01")
            net.negotiate(1 << 5)
            rx, tx = net.queue(0), net.queue(1)
            net.start()
            net.post(rx, (BUFFERS, 2048, True))
            frame = b"\xff" * 6 + bytes.fromhex("2e89a8e4bf01" "88b5") + b"hello from the guest".ljust(46)
            net.put(BUFFERS + 4096, bytes(12) + frame)
            net.post(tx, (BUFFERS + 4096, 12 + len(frame), False))
            self.assertEqual(host.recv(2048), frame)
            net.wait_used(tx, 1)
            # The kernel may send frames of its own on the tap: look for ours.
            answer = bytes.fromhex("2e89a8e4bf01" "020000000001" "88b5") + b"hello guest".ljust(46)
            for n in range(1, 8):
                host.send(answer)
                length = net.wait_used(rx, n)
                got = net.get(BUFFERS + 12, 24)
                if got == answer[:24]:
                    break
                net.post(rx, (BUFFERS, 2048, True))
            self.assertEqual(got, answer[:24])
            self.assertEqual(length, 12 + len(answer))
            counters = vm.get("vm.counters")["_net0"]
            self.assertGreaterEqual(counters["tx_frames"], 1)
            self.assertGreaterEqual(counters["rx_frames"], 1)
        self.assertFalse(os.path.exists("/sys/class/net/ferry0"))

    def test_ip_and_mtu_are_given_to_the_tap(self):
        with Probe("--net", "tap=ferry0,ip=192.168.249.1,mask=255.255.255.0,mtu=1400") as vm:
            text = os.popen("ip addr show ferry0").read()
            self.assertIn("192.168.249.1/24", text)
            self.assertIn("mtu 1400", text)
            vm.ping()

    def test_several_queue_pairs(self):
        with Probe("--net", "tap=ferry0,num_queues=4", cpus=2) as vm:
            self.assertIn("_net0", vm.get("vm.counters"))
            vm.ping()

    def test_a_tap_that_was_there_before_stays(self):
        ip("tuntap", "add", "dev", "mine", "mode", "tap")
        with Probe("--net", "tap=mine") as vm:
            vm.ping()
        self.assertTrue(os.path.exists("/proc/sys/net/ipv4/conf/mine"))

    def test_a_busy_tap_is_named_and_costs_nothing_else(self):
        with Probe("--net", "tap=ferry0") as one:
            with Probe() as two:
                before = two.fds()
                with self.assertRaises(ApiError) as caught:
                    two.put("vm.add-net", {"tap": "ferry0"})
                self.assertEqual(caught.exception.status, 409)
                self.assertIn("tap ferry0: it is in use by another program", caught.exception.body)
                self.assertEqual(two.fds(), before)
                two.ping()
            one.ping()


class Vsock(Folder):
    HEADER = struct.Struct("<QQIIIHHIII")
    REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST = range(1, 8)

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.dir, "vsock")

    def packet(self, op, ports, data=b""):
        return self.HEADER.pack(3, 2, *ports, len(data), 1, op, 0, 65536, 0) + data

    def test_the_socket_is_there_while_the_vm_is(self):
        with Probe("--vsock", f"cid=3,socket={self.path}") as vm:
            self.assertTrue(os.path.exists(self.path))
            vm.put("vm.reboot")
            vm.wait_ready()
            self.assertTrue(os.path.exists(self.path))
            vm.put("vm.shutdown")
            self.assertFalse(os.path.exists(self.path))
            vm.put("vm.boot")
            vm.wait_ready()
            self.assertTrue(os.path.exists(self.path))
        self.assertFalse(os.path.exists(self.path))

    def test_a_dead_processes_socket_is_replaced_and_a_live_ones_is_not(self):
        first = Probe("--vsock", f"cid=3,socket={self.path}")
        try:
            with Probe() as second:
                with self.assertRaises(ApiError) as caught:
                    second.put("vm.add-vsock", {"cid": 4, "socket": self.path})
                self.assertEqual(caught.exception.status, 409)
                self.assertIn(self.path, caught.exception.body)
                first.process.kill()
                first.process.wait()
                self.assertTrue(os.path.exists(self.path))
                second.put("vm.add-vsock", {"cid": 4, "socket": self.path})
        finally:
            first.close()

    def test_host_and_guest_talk(self):
        with Probe("--vsock", f"cid=3,socket={self.path}") as vm:
            vsock = Driver(vm, "_vsock0")
            self.assertEqual(vm.read(vsock.config, 4), 3)
            vsock.negotiate()
            rx, tx = vsock.queue(0), vsock.queue(1)
            vsock.queue(2)
            vsock.start()
            for n in range(4):
                vsock.post(rx, (BUFFERS + n * 4096, 4096, True))

            def received(count):
                length = vsock.wait_used(rx, count)
                data = vsock.get(BUFFERS + (count - 1) * 4096, length)
                return self.HEADER.unpack(data[:44]), data[44:]

            def send(count, *packet):
                data = self.packet(*packet)
                vsock.put(BUFFERS + 65536, data)
                vsock.post(tx, (BUFFERS + 65536, len(data), False))
                vsock.wait_used(tx, count)

            host = socket.socket(socket.AF_UNIX)
            self.addCleanup(host.close)
            host.settimeout(10 * SLOW)
            host.connect(self.path)
            host.sendall(b"CONNECT 52\n")
            header, _ = received(1)
            self.assertEqual((header[0], header[1], header[3], header[6]), (2, 3, 52, self.REQUEST))
            ports = 52, header[2]
            send(1, self.RESPONSE, ports)
            self.assertEqual(host.recv(100), b"OK %d\n" % header[2])
            host.sendall(b"to the guest")
            header, data = received(2)
            self.assertEqual((header[6], data), (self.RW, b"to the guest"))
            send(2, self.RW, ports, b"to the host")
            self.assertEqual(host.recv(100), b"to the host")
            send(3, self.RST, ports)
            self.assertEqual(host.recv(100), b"")
            # And a port where nobody listens is refused.
            send(4, self.REQUEST, (1000, 1001))
            wait_for(lambda: vsock.used(rx) >= 3, 10, "an answer")
            header, _ = received(vsock.used(rx))
            self.assertEqual(header[6], self.RST)


class Others(Folder):
    def test_rng_gives_random_bytes(self):
        with Probe() as vm:
            rng = Driver(vm, "_rng")
            rng.negotiate()
            queue = rng.queue(0)
            rng.start()
            rng.post(queue, (BUFFERS, 64, True))
            self.assertEqual(rng.wait_used(queue, 1), 64)
            first = rng.get(BUFFERS, 64)
            rng.post(queue, (BUFFERS, 64, True))
            rng.wait_used(queue, 2)
            self.assertNotEqual(rng.get(BUFFERS, 64), first)
            self.assertGreater(len(set(first)), 16)
            self.assertEqual(vm.get("vm.counters")["_rng"], {"bytes": 128, "requests": 2})

    def test_rng_from_a_file_of_ones_own(self):
        source = self.disk("random", 4096, b"not so random")
        with Probe("--rng", f"src={source}") as vm:
            rng = Driver(vm, "_rng")
            rng.negotiate()
            queue = rng.queue(0)
            rng.start()
            rng.post(queue, (BUFFERS, 16, True))
            rng.wait_used(queue, 1)
            self.assertEqual(rng.get(BUFFERS, 13), b"not so random")

    def test_console_writes_to_its_file(self):
        path = os.path.join(self.dir, "console")
        with Probe(hvc=f"file={path}") as vm:
            console = Driver(vm, "_console")
            console.negotiate()
            console.queue(0)
            tx = console.queue(1)
            console.start()
            console.put(BUFFERS, b"hello, host\n")
            console.post(tx, (BUFFERS, 12, False))
            console.wait_used(tx, 1)
            self.assertEqual(open(path).read(), "hello, host\n")
            self.assertEqual(vm.get("vm.counters")["_console"]["tx_bytes"], 12)

    def test_console_on_a_socket_works_both_ways(self):
        path = os.path.join(self.dir, "console")
        with Probe(hvc=f"socket={path}") as vm:
            console = Driver(vm, "_console")
            console.negotiate()
            rx, tx = console.queue(0), console.queue(1)
            console.start()
            host = socket.socket(socket.AF_UNIX)
            self.addCleanup(host.close)
            host.settimeout(10 * SLOW)
            host.connect(path)
            console.post(rx, (BUFFERS, 64, True))
            host.sendall(b"hello, guest")
            self.assertEqual(console.wait_used(rx, 1), 12)
            self.assertEqual(console.get(BUFFERS, 12), b"hello, guest")
            console.put(BUFFERS, b"and back")
            console.post(tx, (BUFFERS, 8, False))
            self.assertEqual(host.recv(64), b"and back")

    def test_balloon_takes_pages_and_gives_the_host_their_memory(self):
        with Probe("--balloon", "size=0,deflate_on_oom=on,free_page_reporting=on") as vm:
            balloon = Driver(vm, "_balloon0")
            self.assertEqual(vm.read(balloon.config, 4), 0)
            vm.put("vm.resize", {"desired_balloon": 16 << 20})
            self.assertEqual(vm.read(balloon.config, 4), 4096)
            self.assertEqual(balloon.negotiate(1 << 2 | 1 << 5), 1 << 2 | 1 << 5)
            inflate, deflate = balloon.queue(0), balloon.queue(1)
            balloon.start()
            vm.ask(f"fill {FREE} 1024 1")
            self.assertNotEqual(vm.read(FREE, 8), 0)
            # The frame numbers of 16 pages: u32s.
            first = FREE >> 12
            numbers = struct.pack("<16I", *range(first, first + 16))
            balloon.put(BUFFERS, numbers)
            # Counted now: a host may give huge pages, so that this touched 2 MiB more.
            held = vm.ram_kib()
            balloon.post(inflate, (BUFFERS, len(numbers), False))
            balloon.wait_used(inflate, 1)
            self.assertLessEqual(vm.ram_kib(), held - 64 + 16)  # 16: rings, touched first
            vm.write(balloon.config + 4, 4, 16)
            self.assertEqual(vm.get("vm.info")["memory_actual_size"], (64 << 20) - (16 << 12))
            self.assertEqual(vm.read(FREE, 8), 0)
            self.assertEqual(vm.read(FREE + 15 * 4096, 8), 0)
            self.assertNotEqual(vm.read(FREE + 16 * 4096, 8), 0)
            balloon.post(deflate, (BUFFERS, len(numbers), False))
            balloon.wait_used(deflate, 1)
            vm.write(balloon.config + 4, 4, 0)
            self.assertEqual(vm.get("vm.info")["memory_actual_size"], 64 << 20)
            counters = vm.get("vm.counters")["_balloon0"]
            self.assertEqual((counters["inflated_bytes"], counters["deflated_bytes"]), (16 << 12, 16 << 12))

    def test_balloon_at_boot_and_its_bounds(self):
        with Probe("--balloon", "size=16M") as vm:
            balloon = Driver(vm, "_balloon0")
            self.assertEqual(vm.read(balloon.config, 4), 4096)
            for size in (65 << 20, 4095):
                with self.assertRaises(ApiError) as caught:
                    vm.put("vm.resize", {"desired_balloon": size})
                self.assertEqual(caught.exception.status, 400, size)
            self.assertEqual(vm.read(balloon.config, 4), 4096)

    def test_dirtied_memory_survives_pauses(self):
        with Probe(memory="128M") as vm:
            vm.ask(f"dirty {FREE} 4096 200 5")
            for _ in range(20 if SLOW == 1 else 5):
                vm.put("vm.pause")
                vm.put("vm.resume")
                time.sleep(0.01)
            self.assertIn("verify ok", vm.ask("verify", 60))
            self.assertRegex(vm.ask("dirtystop"), r"dirtystop pages=[1-9]")
            vm.put("vm.pause")
            vm.put("vm.resume")
            self.assertIn("verify ok", vm.ask("verify", 60))


if __name__ == "__main__":
    unittest.main()
