# SPDX-License-Identifier: Apache-2.0
"""A VM goes from the ferry of the commit before to this one, and back: by live update, by a
snapshot, by a migration. It has disks, a network and devices whose DMA goes on all the time."""
import os
import re
import shutil
import socket
import subprocess
import unittest

import virtio
from arrival import Arrival
from ferry import BUILD, ROOT, SLOW, ApiError
from namespace import NetworkNamespace, ip
from probe import Probe
from test_snapshot import Moving, fill
from testdev import Engine, Server
from update import Waiting, update

THIS = os.path.join(BUILD, "ferry")
SYSTEM = os.path.join(ROOT, "tests/system")
DIRTY, ENGINES = 24 << 20, 48 << 20  # beside the rings and buffers of virtio.py
ETHERTYPE, GUEST_MAC = 0x88b5, bytes.fromhex("2e89a8e4bf01")


def raised(path):
    """(kind, version) of each line of a raised_versions."""
    with open(path) as file:
        rows = [line.split(None, 2) for line in file if line.strip() and not line.startswith("#")]
    for row in rows:
        assert len(row) == 3, f"{path}: KIND VERSION WHY, not {row}"
    return {(kind, int(version)) for kind, version, _ in rows}


def previous():
    """Its binary, and what it cannot read of this version's; (None, set()): there is none."""
    folder = os.environ.get("FERRY_PREVIOUS") or subprocess.run(
        [os.path.join(SYSTEM, "build-previous")], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    if not folder:
        return None, set()
    new = raised(os.path.join(SYSTEM, "raised_versions")) - raised(os.path.join(folder, "raised_versions"))
    return os.path.join(folder, "ferry"), new


class Wire:
    """The guest's network card and its tap: a frame each way."""

    def __init__(self, vm):
        self.net = virtio.Driver(vm, "net0")
        self.net.negotiate(1 << 5)  # MAC
        self.rx, self.tx = self.net.queue(0), self.net.queue(1)
        self.net.start()
        self.received = self.sent = 0
        self.post()

    def post(self):
        self.net.post(self.rx, (virtio.BUFFERS, 2048, True))

    def passes(self, vm, tap, text):
        self.net.vm = vm
        ip("link", "set", tap, "up")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE)) as host:
            host.bind((tap, ETHERTYPE))
            host.settimeout(10 * SLOW)
            head = b"\xff" * 6 + GUEST_MAC + ETHERTYPE.to_bytes(2, "big")
            frame = head + text.encode().ljust(46)
            self.net.put(virtio.BUFFERS + 4096, bytes(12) + frame)
            self.net.post(self.tx, (virtio.BUFFERS + 4096, 12 + len(frame), False))
            assert host.recv(2048) == frame
            self.sent += 1
            self.net.wait_used(self.tx, self.sent)
            answer = GUEST_MAC + b"\x02" + bytes(5) + head[12:] + text.encode().ljust(46)
            host.send(answer)
            for _ in range(10):  # the kernel may send frames of its own
                self.received += 1
                self.net.wait_used(self.rx, self.received)
                got = self.net.get(virtio.BUFFERS + 12, len(answer))
                self.post()
                if got == answer:
                    return
            raise AssertionError("the host's frame did not arrive")


class Journey(Moving):
    """One VM, and where it is."""

    @classmethod
    def setUpClass(cls):
        binary, cls.raised = previous()
        cls.binary = {"this": THIS, "previous": binary or THIS}
        if not binary:
            print("     no commit before this one here: from this version to itself. Older states: tests/golden")

    def setUp(self):
        super().setUp()
        self.addCleanup(NetworkNamespace().leave)
        self.hops = 0

    def servers(self, name):
        found = [Server(self.dir, "--dma-rate=16M", "--migration=v2", "--dirty=log", name=f"{name}{n}") for n in (0, 1)]
        for server in found:
            self.addCleanup(server.end)
        return found

    def sets_out(self, version, **more):
        servers = self.servers("first")
        disks = [self.disk(f"disk{n}") for n in (0, 1)]
        devices = [word for n, s in enumerate(servers) for word in ("--user-device", f"socket={s.socket},id=dev{n}")]
        self.vm = Probe(*(word for n, path in enumerate(disks) for word in ("--disk", f"path={path},id=disk{n}")),
                        "--net", "tap=tap0,id=net0,mac=" + GUEST_MAC.hex(":"), "--balloon", "size=0", "--pvpanic",
                        "--vsock", f"cid=5,socket={self.dir}/vsock", *devices,
                        hvc="null", binary=self.binary[version], **more)
        self.addCleanup(lambda: self.vm.close())
        self.checksum = fill(self.vm)
        self.vm.ask(f"dirty {DIRTY:#x} 256 20 3")
        self.wire = Wire(self.vm)
        self.engines = [Engine(self.vm, kind, n, ENGINES + n * (1 << 20)) for n, kind in enumerate(("msix", "intx"))]
        self.is_well("tap0")

    def is_well(self, tap):
        """All of it works, and nothing was lost."""
        vm = self.vm
        for n in (0, 1):
            self.assertIn("blk use ok", vm.ask(f"blk use {n}"))
            if self.hops:
                self.assertIn("blk check ok", vm.ask(f"blk check 8 64 {self.hops + n}"))
            self.assertIn("blk write ok", vm.ask(f"blk write 8 64 {self.hops + 1 + n}"))
        self.hops += 1
        self.wire.passes(vm, tap, f"hop {self.hops}")
        self.same_memory(vm, self.checksum)
        self.timer_goes_on(vm)
        self.assertIn("verify ok", vm.ask("verify"))
        for engine in self.engines:
            engine.vm = vm
            counts = engine.counts()
            self.assertEqual(counts["bad"], 0, counts)

    def arrives(self):
        for engine in self.engines:
            self.assertGreater(engine.stop()["transfers"], self.hops)

    def runs(self, version):
        self.assertEqual(os.path.realpath(f"/proc/{self.vm.process.pid}/exe"), os.path.realpath(self.binary[version]))

    def back(self, move):
        """To the version before: it takes the VM, or it says by name of what it cannot read
        the state, as raised_versions has it; and then the VM has stayed."""
        if not self.raised:
            move()
            self.runs("previous")
            return
        words = "|".join(f"{kind} of version {version}|not know: {kind}" for kind, version in self.raised)
        with self.assertRaisesRegex((ApiError, AssertionError), words):
            move()
        print("     not back: " + ", ".join(f"{kind} {version}" for kind, version in sorted(self.raised)))


class LiveUpdates(Journey):
    def adopt(self, version):
        waiting = Waiting(self.dir, binary=self.binary[version], name=f"adopt{self.hops}")
        self.addCleanup(waiting.end)
        old = self.vm.process
        self.vm.put("vm.live-update", {"socket": waiting.socket})
        self.assertEqual(old.wait(60 * SLOW), 0)
        self.vm.process = waiting.process

    def start(self, version):
        update(self.vm, binary=self.binary[version])

    def there_and_back(self, go, **more):
        self.sets_out("previous", **more)
        for _ in range(3):
            go("this")
            self.runs("this")
            self.is_well("tap0")
            self.back(lambda: go("previous"))
            self.is_well("tap0")
            if self.raised:
                break
        self.arrives()

    def test_that_wait_for_it(self):
        self.there_and_back(self.adopt)

    def test_that_it_starts(self):
        self.there_and_back(self.start, seccomp="false")


class Moves(Journey):
    def arrival(self, version):
        to = Arrival(binary=self.binary[version])
        self.addCleanup(to.close)
        return to

    def elsewhere(self, tap):
        """What another host has instead."""
        return {"user_devices": [{"id": f"dev{n}", "socket": s.socket} for n, s in enumerate(self.servers(tap))],
                "net": [{"id": "net0", "tap": tap}], "vsock": {"socket": f"{self.dir}/vsock-{tap}"}}

    def migrate(self, version, tap):
        to = self.arrival(version)
        to.listen(**self.elsewhere(tap))
        source = self.vm
        source.put("vm.send-migration", {"destination_url": to.url})
        self.vm = to.arrived()
        source.close()

    def restore(self, version, tap):
        to = self.arrival(version)
        to.restore(self.folder, **self.elsewhere(tap))
        self.vm = to

    def snapshot_and_restore(self, version, tap):
        """It has stood still from the snapshot on."""
        self.folder = os.path.join(self.dir, f"snapshot-{tap}")
        self.vm.put("vm.pause")
        self.vm.put("vm.snapshot", {"destination_url": f"file://{self.folder}"})
        self.vm.close()
        self.restore(version, tap)

    def there_and_back(self, go, stays):
        self.sets_out("previous")
        go("this", "tap1")
        self.runs("this")
        self.is_well("tap1")
        self.back(lambda: go("previous", "tap2"))
        tap = "tap2"
        if self.raised:
            tap = stays()
            self.runs("this")
        self.is_well(tap)
        self.arrives()

    def test_migrations(self):
        self.there_and_back(self.migrate, lambda: "tap1")

    def test_snapshots(self):
        def stays():
            self.restore("this", "tap3")
            return "tap3"
        self.there_and_back(self.snapshot_and_restore, stays)


class Raised(unittest.TestCase):
    def test_each_line_names_a_kind_and_the_version_that_it_has_or_had(self):
        with open(os.path.join(ROOT, "vmm/state_kinds.c")) as file:
            kinds = {name: int(version) for name, version in re.findall(r'\{ "([a-z0-9-]+)", (\d+),', file.read())}
        self.assertGreater(len(kinds), 15)
        lines = raised(os.path.join(SYSTEM, "raised_versions"))
        for kind, version in lines:
            self.assertIn(kind, kinds)
            self.assertLessEqual(version, kinds[kind])
        # No version goes up unsaid.
        self.assertEqual({(kind, n) for kind, top in kinds.items() for n in range(2, top + 1)} - lines, set())


if __name__ == "__main__":
    unittest.main()
