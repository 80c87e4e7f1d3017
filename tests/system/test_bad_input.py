# SPDX-License-Identifier: Apache-2.0
"""Wrong files, options, requests and guests: an error that names object and cause, at the
cost of that device or connection at most."""
import contextlib
import os
import random
import socket
import struct
import tempfile
import time
import unittest

import virtio
from ferry import ROOT, SLOW, ApiError, Ferry, run_ferry, wait_for
from namespace import NetworkNamespace, ip
from probe import FREE, PROBE, Probe
from virtio import BUFFERS, NEEDS_RESET, RINGS, Driver, config_base

SEED = 20261120
FAILED, USAGE = 1, 2
MAX64 = (1 << 64) - 1


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ferry-test-")
        self.addCleanup(folder.cleanup)
        self.dir = folder.name

    def file(self, name, content=b"", size=None, mode=0o644):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as file:
            file.write(content)
            if size is not None:
                file.truncate(size)
        os.chmod(path, mode)
        return path

    def refused(self, code, words, *args, kernel=PROBE):
        """ferry ends with that code and one message, which holds the words."""
        kernel = ["--kernel", kernel, "--console", "off"] if kernel else []
        got, text = run_ferry(*kernel, *args)
        self.assertEqual(got, code, text)
        message = [line for line in text.splitlines() if line.startswith("ferry: ")]
        self.assertEqual(len(message), 1, text)
        for word in words:
            self.assertIn(str(word), message[0])

    def status(self, call, *args):
        """The status and body of a call that fails."""
        with self.assertRaises(ApiError) as caught:
            call(*args)
        return caught.exception.status, caught.exception.body


class Files(Case):
    def bad_files(self):
        """(path, cause) of what is no file one can read."""
        yield os.path.join(self.dir, "none"), "No such file or directory"
        yield self.dir, "not a regular file"
        fifo = os.path.join(self.dir, "fifo")
        os.mkfifo(fifo)
        yield fifo, "not a regular file"
        yield "/dev/null", "not a regular file"
        yield self.file("empty"), "the file is empty"

    def test_kernel_that_is_no_readable_file(self):
        for path, cause in self.bad_files():
            self.refused(FAILED, (f"load kernel {path}: ", cause), kernel=path)

    def test_initramfs_that_is_no_readable_file(self):
        for path, cause in self.bad_files():
            self.refused(FAILED, (f"load initramfs {path}: ", cause), "--initramfs", path)

    def test_kernel_cut_short(self):
        with open(PROBE, "rb") as file:
            whole = file.read()
        for length in (1, 4, 16, 63, 64, 100, 4096, len(whole) // 2):
            path = self.file(f"cut{length}", whole[:length])
            self.refused(FAILED, (f"load kernel {path}: ",), kernel=path)

    def test_kernel_with_every_header_byte_wrong_in_turn_ends_or_boots_and_never_crashes(self):
        with open(PROBE, "rb") as file:
            whole = file.read()
        chance = random.Random(SEED)
        for _ in range(48 if SLOW == 1 else 8):
            data = bytearray(whole)
            at = chance.randrange(64 + 56 * 4)
            data[at] ^= chance.randrange(1, 256)
            path = self.file("kernel", bytes(data))
            vm = Ferry("--kernel", path, "--memory", "size=64M", "--console", "off", serial=False)
            with vm:
                wait_for(lambda: vm.process.poll() is not None or vm.event_names()[-1:] == ["booted"], 10,
                         f"an end or a boot with byte {at} changed to {data[at]:#x}")
                if vm.process.poll() is not None:
                    self.assertIn(path, vm.stderr(), f"byte {at}")

    def test_kernel_that_is_something_else(self):
        for content in (random.Random(SEED).randbytes(100000), b"#!/bin/sh\n" * 1000, bytes(65536)):
            path = self.file("kernel", content)
            self.refused(FAILED, (f"load kernel {path}: ", "neither a bzImage nor an ELF"), kernel=path)

    def test_initramfs_larger_than_memory(self):
        path = self.file("initramfs", size=100 << 20)
        self.refused(FAILED, (f"load initramfs {path}: ", "memory"), "--initramfs", path,
                     "--memory", "size=64M")

    def test_disk_that_cannot_be_one(self):
        for path, cause in ((os.path.join(self.dir, "none"), "No such file or directory"),
                            (self.dir, "Is a directory"), ("/dev/null", "neither a file nor a block device"),
                            (self.file("empty"), "is empty"), (self.file("short", b"x" * 511), "is empty")):
            self.refused(FAILED, (f"disk {path}", cause), "--disk", f"path={path}")

    def test_unreadable_and_unwritable_files_say_whose_fault_it_is(self):
        # Root may read everything: a jail's user may not.
        os.chmod(self.dir, 0o755)
        jail = ["--jail", f"{self.dir},uid=1234,gid=1234"]
        self.file("kernel", open(PROBE, "rb").read())
        self.file("secret", b"x" * 4096, mode=0o600)
        self.file("fixed", b"x" * 4096)
        self.refused(FAILED, ("load kernel /secret: Permission denied",), *jail, kernel="/secret")
        self.refused(FAILED, ("load initramfs /secret: Permission denied",), *jail, "--initramfs", "/secret",
                     kernel="/kernel")
        self.refused(FAILED, ("open disk /secret: Permission denied",), *jail, "--disk", "path=/secret",
                     kernel="/kernel")
        self.refused(FAILED, ("open disk /fixed: ", "readonly=on"), *jail, "--disk", "path=/fixed",
                     kernel="/kernel")

    def test_other_files_and_sockets(self):
        nowhere = os.path.join(self.dir, "nowhere/x")
        taken = self.file("taken", b"x")
        for args, words in ((("--api-socket", nowhere), ("API socket", nowhere, "No such file")),
                            (("--event-monitor", f"path={nowhere}"), ("event monitor", nowhere)),
                            (("--log-file", nowhere), ("log file", nowhere)),
                            (("--rng", f"src={nowhere}"), ("entropy", nowhere)),
                            (("--serial", f"file={nowhere}"), ("serial", nowhere)),
                            (("--serial", f"socket={nowhere}"), ("serial", nowhere)),
                            (("--vsock", f"cid=3,socket={nowhere}"), ("vsock", nowhere)),
                            (("--vsock", f"cid=3,socket={taken}"), ("vsock", taken, "no socket"))):
            self.refused(FAILED, words, *args)
        self.assertEqual(open(taken).read(), "x")


class Options(Case):
    def test_memory_sizes(self):
        for size in ("0", "1", "4095", "1000000", "-1", "64X", "", "100T", "16E", "0x"):
            self.refused(USAGE, ("memory",), "--memory", f"size={size}" if size else "size=M")
        self.refused(USAGE, ("--memory: hugepage_size=3145728",), "--memory",
                     "size=64M,hugepages=on,hugepage_size=3M")
        for size in ("4K", "1M"):
            self.refused(FAILED, ("memory",), "--memory", f"size={size}")

    def test_memory_larger_than_the_host_has(self):
        host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.refused(FAILED, ("guest RAM", "MiB"), "--memory", f"size={(host >> 20) * 4}M")

    def test_cpus(self):
        for text, word in (("boot=0", "from 1 to 64"), ("boot=65", "from 1 to 64"), ("boot=-1", "from 1 to 64"),
                           ("boot=4,topology=2:1:1:1", "topology"), ("boot=2,topology=2:1", "topology"),
                           ("boot=2,topology=0:0:0:0", "topology"), ("boot=2,max=4", "max")):
            self.refused(USAGE, ("--cpus", word), "--cpus", text)

    def test_duplicate_ids(self):
        one, two = self.file("one", size=4096), self.file("two", size=4096)
        self.refused(USAGE, ('disks[1].id: "a"', "disks[0]"), "--disk", f"path={one},id=a", f"path={two},id=a")
        self.refused(USAGE, ("vsock", '"a"'), "--disk", f"path={one},id=a", "--vsock", "cid=3,id=a")

    def test_vsock_cid(self):
        for cid in ("0", "1", "2", "4294967295", "x", "-1"):
            self.refused(USAGE, ("--vsock: cid=",), "--vsock", f"cid={cid}")

    def test_disk_and_net_values_out_of_range(self):
        disk = self.file("disk", size=4096)
        for text in ("num_queues=0", "num_queues=17", "queue_size=100", "queue_size=65536", "ops_size=5",
                     "serial=" + "x" * 21, "readonly=perhaps"):
            self.refused(USAGE, ("--disk", text.split("=")[0]), "--disk", f"path={disk},{text}")
        self.refused(USAGE, ("--disk", "path"), "--disk", "readonly=on")
        for text in ("tap=much-too-long-a-name", "mac=zz", "mac=01:00:00:00:00:00", "num_queues=3", "fd=[99]",
                     "mtu=1", "ip=1.2.3.4"):
            self.refused(USAGE, ("--net", text.split("=")[0]), "--net", text)

    def test_unknown_options_keys_and_words_get_a_suggestion(self):
        for args, word in ((("--kernal", "x"), "--kernel?"), (("--memroy", "size=1"), "--memory?"),
                           (("--cpus", "bot=1"), "boot?"), (("--disk", "path=x,readnoly=on"), "readonly?")):
            self.refused(USAGE, (word,), *args)
        self.refused(USAGE, ('unknown key "colour"', "readonly"), "--disk", "path=x,colour=red")
        self.refused(USAGE, ('unexpected argument "extra"',), "extra")
        self.refused(USAGE, ("needs a value",), "--kernel", kernel=None)


class Conflicts(Case):
    def test_duplicate_ids_by_the_api_are_409(self):
        one, two = self.file("one", size=4096), self.file("two", size=4096)
        with Probe("--disk", f"path={one},id=a") as vm:
            before = vm.fds()
            for call, body in (("vm.add-disk", {"path": two, "id": "a"}), ("vm.add-net", {"id": "a"}),
                               ("vm.add-vsock", {"cid": 3, "socket": self.dir + "/v", "id": "a"}),
                               ("vm.add-disk", {"path": two, "id": "_rng"})):
                status, text = self.status(vm.put, call, body)
                self.assertEqual(status, 409, text)
                self.assertIn(body["id"], text)
            self.assertEqual(vm.fds(), before)
            self.assertEqual(self.status(vm.put, "vm.create", {"payload": {"kernel": PROBE}})[0], 409)

    def test_a_disk_in_use_names_file_and_holder(self):
        path = self.file("disk", size=4096)
        alias = path + "-alias"
        os.link(path, alias)
        with Probe("--disk", f"path={path}") as one:
            words = f"disk {path}", f"in use by process {one.process.pid}"
            self.refused(FAILED, words, "--disk", f"path={path}")
            self.refused(FAILED, words, "--disk", f"path={path},readonly=on")
            with Probe() as two:
                status, text = self.status(two.put, "vm.add-disk", {"path": path})
                self.assertEqual(status, 409)
                for word in words:
                    self.assertIn(word, text)
                status, text = self.status(one.put, "vm.add-disk", {"path": alias})
                self.assertEqual(status, 409)
                self.assertIn("another disk of this VM", text)
                two.ping()
            one.ping()
        self.refused(FAILED, ("another disk of this VM",), "--disk", f"path={path}", f"path={alias}")

    def test_a_busy_or_wrong_tap(self):
        namespace = NetworkNamespace()
        self.addCleanup(namespace.leave)
        self.refused(FAILED, ("tap lo:", "no tap"), "--net", "tap=lo")
        ip("tuntap", "add", "dev", "busy", "mode", "tap")
        with Probe("--net", "tap=busy") as vm:
            self.refused(FAILED, ("tap busy: it is in use by another program",), "--net", "tap=busy")
            vm.ping()

    def test_a_live_api_socket_is_not_taken_away(self):
        with Ferry(serial=False) as one:
            self.refused(FAILED, (one.api_path, "a live server has it"), "--api-socket", one.api_path)
            one.get("vmm.ping")


class Guest(Case):
    """A guest that writes garbage. Afterwards the API answers, and a reboot makes it whole."""

    def start(self):
        namespace = NetworkNamespace()
        self.addCleanup(namespace.leave)
        disk = self.file("disk", size=1 << 20)
        vm = Probe("--disk", f"path={disk}", "--net", "tap=ferry0", "--vsock", f"cid=3,socket={self.dir}/vsock",
                   "--balloon", "size=0", "--pvpanic", hvc=f"file={self.dir}/console")
        self.addCleanup(vm.close)
        self.chance = random.Random(SEED)
        self.rounds = 1 if SLOW == 1 else 0.25
        return vm

    def whole(self, vm):
        self.assertEqual(vm.state(), "Running")
        vm.get("vm.counters")
        vm.put("vm.pause")
        vm.put("vm.resume")
        vm.put("vm.reboot")
        vm.wait_ready()
        vm.send("ping")  # behind what the old machine may have left unread
        vm.read_until("pong\r?\n")
        self.assertIn("blk write ok", vm.ask("blk write 0 8 1"))

    def until_wedged(self, vm, commands):
        """Sends commands until one is not answered: the guest may hurt itself."""
        for command in commands:
            try:
                vm.ask(command, 2)
            except AssertionError:
                self.assertIsNone(vm.process.poll(), vm.stderr())
                self.drain(vm)
                return

    def drain(self, vm):
        """A command that a wedged guest has not read is read by the next, and may wedge it, too."""
        vm.put("vm.reboot")
        vm.wait_ready()
        vm.send("ping")
        with contextlib.suppress(AssertionError):
            vm.read_until("pong\r?\n", 2)

    def value(self, size):
        ones = (1 << 8 * size) - 1
        return self.chance.choice((0, ones, ones >> 1, 1 << self.chance.randrange(8 * size),
                                   self.chance.getrandbits(8 * size)))

    def scribble(self, vm, start, length, count, avoid=()):
        for _ in range(max(8, int(count * self.rounds))):
            size = self.chance.choice((1, 2, 4, 8))
            at = start + self.chance.randrange(length) // size * size
            if not any(low < at + size and at < high for low, high in avoid):
                vm.write(at, size, self.value(size))
                vm.read(at, size)

    def test_configuration_space(self):
        vm = self.start()
        for node in vm.get("vm.info")["device_tree"].values():
            self.scribble(vm, config_base(node["pci_bdf"]), 256, 24)
        self.scribble(vm, virtio.ECAM, 4096, 24)        # host bridge
        self.scribble(vm, virtio.ECAM, 1 << 20, 24)     # anywhere
        vm.ping()
        self.whole(vm)

    def test_virtio_registers(self):
        vm = self.start()
        for device in vm.get("vm.info")["device_tree"]:
            driver = Driver(vm, device)
            for area in driver.areas.values():
                self.scribble(vm, area, 64, 6)
            # With live queues in garbage's place too.
            driver.negotiate(0xffffffff)
            vm.write(driver.common + virtio.QUEUE_SELECT, 2, 0)
            self.scribble(vm, driver.common + virtio.QUEUE_DESC, 24, 4)
            vm.write(driver.common + virtio.QUEUE_ENABLE, 2, 1)
            driver.start()
            vm.write(driver.notify, 2, 0)
            driver.status()
            vm.ping()
        self.whole(vm)

    def test_msix_tables(self):
        vm = self.start()
        for device in vm.get("vm.info")["device_tree"]:
            driver = Driver(vm, device)
            at = vm.read(driver.base + 0x34, 1)
            while at and vm.read(driver.base + at, 1) != 0x11:
                at = vm.read(driver.base + at + 1, 1)
            if at:
                table = vm.read(driver.base + at + 4, 4)
                self.scribble(vm, driver.bar(table & 7) + (table & ~7), 64, 12)
                self.scribble(vm, driver.base + at, 12, 6)
        vm.ping()
        self.whole(vm)

    def test_hotplug_and_event_registers(self):
        vm = self.start()
        self.scribble(vm, 0xf0000000, 8, 24, avoid=((0xf0000004, 0xf0000005), (0xf0000006, 0xf0000007)))
        self.scribble(vm, 0xf0001000, 16, 24)
        vm.write(0xf0001008, 4, 0xffffffff)  # every slot let go
        wait_for(lambda: not vm.get("vm.info")["device_tree"], 10, "the devices to go")
        vm.write(0xf0001008, 4, 0xffffffff)
        vm.ping()
        self.assertEqual(list(vm.functions()), ["0:0.0"])
        place = vm.put("vm.add-disk", {"path": f"{self.dir}/disk"})
        self.assertEqual(place["bdf"], "0000:00:01.0")
        self.whole(vm)

    def test_legacy_ports(self):
        vm = self.start()
        # Not those that reset, and the console's own port last.
        ports = [*range(0x60, 0x64), *range(0x70, 0x78), *range(0x80, 0x90), 0x505, 0xe9, 0xcf8, 0xcfc, 0xcfe,
                 *range(0x3f0, 0x3f8), 0x92, 0x400, 0x600, 0x1000, 0xfffc]
        for port in ports:
            for op, size in (("b", 1), ("w", 2), ("l", 4)):
                if port in (0xcf8,) and op == "w" or self.chance.random() > self.rounds:
                    continue
                self.assertEqual(vm.ask(f"out{op} {port} {self.value(size)}"), "out ok")
                self.assertIn("in ", vm.ask(f"in{op} {port}"))
        vm.ping()
        self.until_wedged(vm, (f"outb {0x3f8 + self.chance.randrange(8)} {self.value(1)}" for _ in range(16)))
        self.whole(vm)

    def test_platform_interrupt_registers(self):
        vm = self.start()
        pic_and_pit = [f"outb {port} {self.value(1)}" for _ in range(int(4 * self.rounds) + 1)
                       for port in (0x20, 0x21, 0xa0, 0xa1, 0x40, 0x42, 0x43, 0x61)]
        apics = [f"mmio {base + 16 * self.chance.randrange(n):#x} 4 {self.value(4):#x}"
                 for _ in range(8) for base, n in ((0xfec00000, 2), (0xfee00000, 64))]
        self.until_wedged(vm, pic_and_pit + apics)
        self.whole(vm)

    def broken_rings(self, vm, device, queue):
        """Yields the device's driver with each kind of ring no honest driver makes."""
        ram = 64 << 20

        driver = Driver(vm, device)

        def fresh(**where):
            driver.negotiate()
            q = driver.queue(queue, **where)
            driver.start()
            return driver, q

        driver, q = fresh()
        driver.describe(q, 0, BUFFERS, 16, virtio.NEXT, 0)  # a loop
        driver.offer(q, 0)
        yield driver, "loop"
        driver, q = fresh()
        driver.offer(q, 0xffff)  # a head beyond the table
        yield driver, "head"
        driver, q = fresh()
        driver.describe(q, 0, BUFFERS, 16, virtio.NEXT, 0xffff)
        driver.offer(q, 0)
        yield driver, "next"
        for address, length, flags in ((1 << 63, 4096, 0), (ram - 8, 4096, virtio.WRITE), (MAX64, 1, 0),
                                       (BUFFERS, 0xffffffff, virtio.WRITE), (0xe0000000, 4096, 0),
                                       (0xf0001000, 4, virtio.WRITE), (BUFFERS, 64, virtio.INDIRECT)):
            driver, q = fresh()
            driver.describe(q, 0, address, length, flags)
            driver.offer(q, 0)
            yield driver, f"address {address:#x} length {length:#x}"
        driver, q = fresh()
        vm.write(q.avail + 2, 2, 0x8000)  # more at once than the ring holds
        driver.kick(q)
        yield driver, "index"
        for where in ({"desc": ram - 16}, {"desc": RINGS, "device": ram - 4}, {"desc": 1 << 62},
                      {"desc": 0xc0000000 - 64}, {"desc": RINGS, "driver": MAX64 & ~15}):
            driver, q = fresh(**where)
            driver.kick(q)
            yield driver, f"rings at {where}"
        vm.ask(f"fill {RINGS} 16 {self.chance.randrange(1 << 30)}")
        driver, q = fresh(desc=RINGS)
        driver.kick(q)
        yield driver, "random"

    def rings(self, device, queue):
        vm = self.start()
        for driver, what in self.broken_rings(vm, device, queue):
            driver.status()
            self.assertEqual(vm.state(), "Running", what)
        vm.ping()
        self.whole(vm)

    def test_rings_of_the_disk(self):
        self.rings("_disk0", 0)

    def test_rings_of_the_net_device(self):
        self.rings("_net0", 1)

    def test_rings_of_the_receiving_net_device(self):
        self.rings("_net0", 0)

    def test_rings_of_vsock(self):
        self.rings("_vsock0", 1)

    def test_rings_of_rng(self):
        self.rings("_rng", 0)

    def test_rings_of_the_console(self):
        self.rings("_console", 1)

    def test_rings_of_the_balloon(self):
        self.rings("_balloon0", 0)

    def test_a_broken_ring_is_logged_and_costs_that_device_until_its_reset(self):
        vm = self.start()
        driver = Driver(vm, "_rng")
        driver.negotiate()
        q = driver.queue(0)
        driver.start()
        driver.offer(q, 0xffff)
        wait_for(lambda: driver.status() & NEEDS_RESET, 10, "the device to say that it needs a reset")
        self.assertIn("_rng", vm.log())
        self.assertIn("blk write ok", vm.ask("blk write 0 8 1"))
        driver.negotiate()
        q = driver.queue(0)
        driver.start()
        driver.post(q, (BUFFERS, 16, True))
        self.assertEqual(driver.wait_used(q, 1), 16)

    def test_balloon_pages_that_are_not_ram(self):
        vm = self.start()
        balloon = Driver(vm, "_balloon0")
        balloon.negotiate()
        inflate = balloon.queue(0)
        balloon.start()
        vm.ask(f"fill {FREE} 1 1")
        numbers = (0xffffffff, 0x100000, 0xe0000, 0xf0001, (64 << 20) >> 12, 0)
        balloon.put(BUFFERS, struct.pack("<6I", *numbers[:5], 0xfffffffe))
        balloon.post(inflate, (BUFFERS, 24, False))
        balloon.wait_used(inflate, 1)
        vm.write(balloon.config + 4, 4, 0xffffffff)
        self.assertGreaterEqual(vm.get("vm.info")["memory_actual_size"], 0)
        vm.ping()


class Http(Case):
    def setUp(self):
        super().setUp()
        self.vm = Probe()
        self.addCleanup(self.vm.close)

    def raw(self, data, timeout=15):
        """What comes back for these bytes until the other side closes or answers."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(timeout * SLOW)
        s.connect(self.vm.api_path)
        with s:
            try:
                s.sendall(data)
            except OSError:  # it may hang up before it has heard all
                pass
            try:
                return s.recv(65536)
            except ConnectionResetError:
                return b""

    def answers(self, status, data):
        self.assertRegex(self.raw(data), rb"^HTTP/1\.1 %d " % status, data[:100])
        self.vm.get("vmm.ping")

    def body(self, path, body, extra=b""):
        return (b"PUT /api/v1/%s HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" %
                (path, extra, len(body)) + body)

    def test_malformed_requests(self):
        self.answers(400, b"\x00\x01\x02\x03\r\n\r\n")
        self.answers(400, b"GET\r\n\r\n")
        self.answers(400, b"GET /api/v1/vmm.ping HTTP/1.1\r\nbroken header\r\n\r\n")
        self.answers(400, self.body(b"vm.resize", b"{}").replace(b"Length: 2", b"Length: x"))
        self.answers(400, b"PUT /api/v1/vm.resize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")
        self.answers(505, b"GET /api/v1/vmm.ping HTTP/3.7\r\n\r\n")
        self.answers(404, b"GET /etc/passwd HTTP/1.1\r\n\r\n")
        self.answers(404, b"GET /api/v1/../../x HTTP/1.1\r\n\r\n")
        self.answers(405, b"DELETE /api/v1/vmm.ping HTTP/1.1\r\n\r\n")

    def test_what_is_too_large(self):
        self.answers(431, b"GET /" + b"a" * 10000 + b" HTTP/1.1\r\n\r\n")
        self.answers(431, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3000 + b"\r\n")
        self.answers(413, self.body(b"vm.create", b" " * (513 << 10)))
        self.answers(413, b"PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")

    def test_bodies(self):
        for body in (b"", b"{", b"[]", b"null", b'"x"', b'{"id": "\xff\xfe"}', b'{"id": "a", "id": "b"}',
                     b'{"colour": "red"}', b'{"id": 5}', b'{"id": null}', b'{"id": "\\ud800"}', b"[" * 5000,
                     b'{"id":' * 1000 + b"1" + b"}" * 1000, b'{"id": "a"} trailing', b"\x00" * 10):
            self.answers(400, self.body(b"vm.remove-device", body))
        for body in (b'{"desired_balloon": -1}', b'{"desired_balloon": 1e30}', b'{"desired_balloon": "1"}',
                     b'{"desired_balloon": 99999999999999999999999}', b'{"desired_vcpus": 5}'):
            self.answers(400, self.body(b"vm.resize", body))

    def test_unknown_fields_are_named(self):
        status, text = self.status(self.vm.put, "vm.add-disk", {"path": "/x", "colour": "red"})
        self.assertEqual(status, 400)
        self.assertIn("colour", text)
        # Another monitor's field, off: accepted; on: refused by name.
        status, text = self.status(self.vm.put, "vm.add-disk", {"path": "/nowhere", "iommu": False})
        self.assertIn("/nowhere", text)
        status, text = self.status(self.vm.put, "vm.add-disk", {"path": "/nowhere", "iommu": True})
        self.assertEqual(status, 400)
        self.assertIn("iommu", text)

    def test_a_hanging_client_holds_nobody_up_and_is_told(self):
        begun = time.monotonic()
        hanging = []
        for data in (b"G", b"PUT /api/v1/vm.pause HTTP/1.1\r\nContent-Le",
                     b"PUT /api/v1/vm.resize HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"):
            s = socket.socket(socket.AF_UNIX)
            self.addCleanup(s.close)
            s.settimeout(30 * SLOW)
            s.connect(self.vm.api_path)
            s.sendall(data)
            hanging.append(s)
        for _ in range(10):
            self.vm.put("vm.pause")
            self.vm.put("vm.resume")
        self.assertLess(time.monotonic() - begun, 8 * SLOW)
        for s in hanging:
            self.assertIn(b" 408 ", s.recv(1000))
        self.assertGreater(time.monotonic() - begun, 9)
        self.vm.ping()

    def test_clients_that_leave_half_way(self):
        before = self.vm.fds()
        for n in range(50):
            s = socket.socket(socket.AF_UNIX)
            s.connect(self.vm.api_path)
            s.sendall(b"PUT /api/v1/vm.resize HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"[:n + 1])
            s.close()
        self.vm.get("vmm.ping")
        wait_for(lambda: not self.vm.api_connections(), 10, "the connections to be closed")
        self.assertEqual(self.vm.fds(), before)

    def test_more_clients_than_there_is_room_for(self):
        idle = []
        for _ in range(100):
            s = socket.socket(socket.AF_UNIX)
            self.addCleanup(s.close)
            s.connect(self.vm.api_path)
            idle.append(s)
        self.vm.get("vmm.ping")
        self.vm.put("vm.pause")
        self.vm.put("vm.resume")

    def test_descriptors_nobody_asked_for_are_closed(self):
        before = self.vm.fds()
        s = socket.socket(socket.AF_UNIX)
        s.connect(self.vm.api_path)
        with s:
            null = os.open("/dev/zero", os.O_RDONLY)
            request = b"GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n"
            socket.send_fds(s, [request], [null] * 20)
            self.assertIn(b" 200 ", s.recv(1000))
            os.close(null)
        wait_for(lambda: self.vm.fds() == before, 10, "the descriptors to be closed")


class States(Case):
    """Exact status codes in every state."""

    ACTIONS = ("vm.boot", "vm.shutdown", "vm.reboot", "vm.pause", "vm.resume", "vm.power-button", "vm.nmi")

    def codes(self, vm, calls=ACTIONS):
        """{call: status} for calls that must not succeed here."""
        return {call: vm.request("PUT", f"/api/v1/{call}")[0] for call in calls}

    def test_without_a_vm_all_is_404(self):
        with Ferry(serial=False) as vm:
            self.assertEqual(set(self.codes(vm, self.ACTIONS + ("vm.delete",)).values()), {404})
            for call in ("vm.info", "vm.counters"):
                self.assertEqual(vm.request("GET", f"/api/v1/{call}")[0], 404)
            for call, body in (("vm.add-disk", {"path": "/x"}), ("vm.add-net", {}),
                               ("vm.add-vsock", {"cid": 3}), ("vm.remove-device", {"id": "a"}),
                               ("vm.resize", {"desired_balloon": 0}),
                               ("vm.resize-disk", {"id": "a", "desired_size": 512})):
                status, text = self.status(vm.put, call, body)
                self.assertEqual(status, 404, call)
                self.assertIn("no VM is created", text)

    def test_created_and_shut_down(self):
        with Ferry(serial=False) as vm:
            vm.put("vm.create", {"payload": {"kernel": PROBE}, "memory": {"size": 64 << 20},
                                 "console": {"mode": "Off"}})
            off = tuple(c for c in self.ACTIONS if c != "vm.boot")
            self.assertEqual(set(self.codes(vm, off).values()), {405})
            self.assertEqual(vm.request("GET", "/api/v1/vm.counters")[0], 405)
            vm.put("vm.boot")
            vm.put("vm.shutdown")
            self.assertEqual(set(self.codes(vm, off).values()), {405})

    def test_running_and_paused(self):
        with Probe() as vm:
            self.assertEqual(set(self.codes(vm, ("vm.boot", "vm.resume")).values()), {405})
            vm.put("vm.pause")
            self.assertEqual(set(self.codes(vm, ("vm.boot", "vm.pause", "vm.nmi", "vm.power-button")).values()),
                             {405})
            status, body = vm.request("PUT", "/api/v1/vm.pause")
            self.assertIn("Paused", body.decode())
            vm.put("vm.reboot")
            vm.wait_ready()
            self.assertEqual(vm.state(), "Running")

    def test_objects_that_do_not_exist_are_404(self):
        with Probe() as vm:
            for call, body in (("vm.remove-device", {"id": "none"}),
                               ("vm.resize-disk", {"id": "none", "desired_size": 4096})):
                status, text = self.status(vm.put, call, body)
                self.assertEqual(status, 404)
                self.assertIn("none", text)
            # No balloon to resize, and one that is part of the machine.
            self.assertEqual(self.status(vm.put, "vm.resize", {"desired_balloon": 4096})[0], 400)

    def test_a_vm_that_cannot_boot_can_be_deleted_and_made_anew(self):
        with Ferry(serial=False) as vm:
            body = {"payload": {"kernel": "/nowhere/kernel"}, "memory": {"size": 64 << 20},
                    "console": {"mode": "Off"}}
            vm.put("vm.create", body)
            before = vm.fds()
            for _ in range(3):
                status, text = self.status(vm.put, "vm.boot")
                self.assertEqual(status, 500)
                self.assertIn("load kernel /nowhere/kernel: No such file", text)
            self.assertEqual(vm.fds(), before)
            self.assertEqual(vm.state(), "Created")
            vm.put("vm.delete")
            body["payload"]["kernel"] = PROBE
            vm.put("vm.create", body)
            vm.put("vm.boot")
            self.assertEqual(vm.state(), "Running")

    def test_every_path_of_openapi_answers_and_only_by_its_method(self):
        import yaml
        with open(os.path.join(ROOT, "api/openapi.yaml")) as file:
            paths = yaml.safe_load(file)["paths"]
        with Ferry(serial=False) as vm:
            for path, methods in paths.items():
                full = path if path == "/metrics" else "/api/v1" + path
                for method in ("GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"):
                    if path == "/vmm.shutdown" and method == "PUT":
                        continue
                    status, text = vm.request(method, full)
                    if method.lower() in methods:
                        self.assertIn(str(status), methods[method.lower()]["responses"], (method, path, text))
                    else:
                        self.assertEqual(status, 405, (method, path))
            self.assertEqual(vm.request("PUT", "/api/v1/vmm.shutdown")[0], 204)
            self.assertEqual(vm.wait_exit(), 0)


if __name__ == "__main__":
    unittest.main()
