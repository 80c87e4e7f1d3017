# SPDX-License-Identifier: Apache-2.0
"""vfio-user devices on real KVM: ferry-testdev as the server, well-behaved and not."""
import re
import subprocess
import unittest

import virtio
from ferry import SLOW, ApiError, wait_for
from probe import Probe
from test_devices import HOTPLUG, Folder
from testdev import (AREA0, DMA_ERROR, DONE, DOORBELL, DOORBELL_COUNT, FAILED, FILL, INVERSE,
                     RESET_COUNT, SCRATCH, SHARED_SUM, SYNC, TESTDEV, Driver, Server)


class UserDevice(Folder):
    def server(self, *options, **more):
        server = Server(self.dir, *options, **more)
        self.addCleanup(server.end)
        return server

    def vm(self, *args, **more):
        vm = Probe(*args, **more)
        self.addCleanup(vm.close)
        return vm

    def eject(self, vm, device="dev"):
        removed = vm.event_names().count("device-removed")
        bit = 1 << virtio.slot_of(vm.get("vm.info")["device_tree"][device]["pci_bdf"])
        vm.write(HOTPLUG + 8, 4, bit)
        vm.wait_event("device-removed", count=removed + 1)

    def remove(self, vm, device="dev"):
        vm.put("vm.remove-device", {"id": device})
        self.eject(vm, device)


class Works(UserDevice):
    def test_the_guest_reaches_its_registers_and_it_the_guests_memory(self):
        for way in ("direct", "messages"):
            with self.subTest(dma=way):
                server = self.server(f"--dma={way}")
                with Probe("--user-device", f"socket={server.socket},id=dev") as vm:
                    dev = Driver(vm, "dev")
                    self.assertTrue(dev.alive())
                    vm.write(virtio.BUFFERS, 8, 0x1122334455667788)
                    self.assertEqual(dev.dma(virtio.BUFFERS, virtio.BUFFERS + 0x1000, 8), DONE)
                    self.assertEqual(vm.read(virtio.BUFFERS + 0x1000, 8), 0x1122334455667788)
                    self.assertEqual(dev.dma(0xab, virtio.BUFFERS, 4096, SYNC | FILL), DONE)
                    self.assertEqual(vm.read(virtio.BUFFERS + 4088, 8), 0xabababababababab)
                    # outside of RAM
                    self.assertEqual(dev.dma(1 << 40, virtio.BUFFERS, 4096), FAILED)
                    self.assertNotEqual(dev.read(DMA_ERROR), 0)
                    self.assertTrue(dev.alive())

    def test_mapped_memory_is_shared_without_exits(self):
        server = self.server()
        vm = self.vm("--user-device", f"socket={server.socket},id=dev")
        dev = Driver(vm, "dev")
        shared = dev.bar(2) + AREA0
        before = vm.get("vm.counters")["dev"]
        self.assertEqual(before["mapped_bytes"], 0xfe000)
        for n in range(16):
            vm.write(shared + 4 * n, 4, n)
        after = vm.get("vm.counters")["dev"]
        self.assertEqual(after["bar_writes"], before["bar_writes"])
        self.assertEqual(dev.read(SHARED_SUM), sum(range(16)))

    def test_a_doorbell_rings_without_an_exit(self):
        server = self.server()
        vm = self.vm("--user-device", f"socket={server.socket},id=dev")
        dev = Driver(vm, "dev")
        before = vm.get("vm.counters")["dev"]["bar_writes"]
        dev.write(DOORBELL, 1)
        self.assertEqual(vm.get("vm.counters")["dev"]["bar_writes"], before)
        wait_for(lambda: dev.read(DOORBELL_COUNT) == 1, 10, "the doorbell to be heard")
        # Any other register, or another width of this one, is an exit.
        vm.write(dev.bar0 + DOORBELL, 2, 1)
        dev.write(SCRATCH, 1)
        self.assertEqual(vm.get("vm.counters")["dev"]["bar_writes"], before + 2)
        self.assertEqual(dev.read(DOORBELL_COUNT), 1)
        # It moves with its BAR, and stays over a reboot.
        vm.put("vm.reboot")
        vm.wait_ready()
        dev = Driver(vm, "dev")
        dev.write(DOORBELL, 1)
        wait_for(lambda: dev.read(DOORBELL_COUNT) == 1, 10, "the doorbell to be heard")

    def test_a_reboot_resets_it(self):
        server = self.server()
        vm = self.vm("--user-device", f"socket={server.socket},id=dev")
        dev = Driver(vm, "dev")
        dev.write(SCRATCH, 5)
        resets = dev.read(RESET_COUNT)
        vm.put("vm.reboot")
        vm.wait_ready()
        dev = Driver(vm, "dev")
        self.assertEqual(dev.read(SCRATCH), 0)
        self.assertGreater(dev.read(RESET_COUNT), resets)

    def test_pause_and_resume_leave_it_as_it_was(self):
        server = self.server()
        vm = self.vm("--user-device", f"socket={server.socket},id=dev")
        dev = Driver(vm, "dev")
        dev.write(SCRATCH, 7)
        vm.put("vm.pause")
        vm.put("vm.resume")
        self.assertEqual(dev.read(SCRATCH), 7)

    def test_a_hundred_rounds_leave_nothing_behind(self):
        server = self.server()
        rounds = 100 if SLOW == 1 else 10
        vm = self.vm()

        def mappings():
            with open(f"/proc/{vm.process.pid}/maps") as file:
                return len(file.readlines())

        def round_trip():
            vm.put("vm.add-user-device", {"socket": server.socket, "id": "dev"})
            dev = Driver(vm, "dev")
            self.assertTrue(dev.alive())
            self.assertEqual(dev.dma(virtio.BUFFERS, virtio.BUFFERS + 0x1000, 4096), DONE)
            self.remove(vm)

        def settled():
            return vm.fds(), len(vm.threads()), mappings(), server.fds(), server.mappings()

        for _ in range(5):
            round_trip()
        before, memory = settled(), vm.anonymous_kib()
        for _ in range(rounds):
            round_trip()
        wait_for(lambda: settled() == before, 10, "the same descriptors and mappings as before")
        self.assertLessEqual(vm.anonymous_kib(), memory + 64)


def misdeeds():
    text = subprocess.run([TESTDEV, "--help"], check=True, text=True, capture_output=True).stdout
    # Those of migration are done in one: test_device_migration.py.
    return [m for m in re.findall(r"^  ([a-z][a-z-]+) {2,}\S", text, re.M) if not m.startswith("mig-")]


class Misbehaves(UserDevice):
    """A server that dies or lies costs its device, never the VM."""

    # What is not about how the device is described, or does no harm.
    NEVER_LOST = {"trickle": "works", "dma-outside": "works", "dma-huge": "works", "error-replies": "fails"}
    DESCRIBED_ONCE = {"bad-version", "bad-json", "bad-caps", "not-pci", "many-regions", "many-irqs", "huge-region",
                      "wrong-region", "cap-loop", "cap-outside", "area-outside", "areas-overlap", "areas-many",
                      "io-fd-index", "io-fd-outside"}
    LATER = 120  # commands: by then the device is in use

    def setUp(self):
        super().setUp()
        self.guest = self.vm()
        self.before = self.left()

    def left(self):
        return self.guest.fds(), len(self.guest.threads())

    def lost(self):
        return self.guest.event_names().count("device-lost")

    def work(self, vm):
        """Uses it for a while. Whether it still answers."""
        dev = Driver(vm, "dev")
        for n in range(30):
            dev.write(SCRATCH, n)
            dev.read(INVERSE)
        dev.dma(0, virtio.BUFFERS, 4096, SYNC | FILL, wait=False)
        return dev.alive(), dev

    def use(self, server):
        """Adds the device, works with it, and removes it again. "refused", "lost", "fails"
        (there, but of no use), or "works"."""
        vm, lost = self.guest, self.lost()
        try:
            vm.put("vm.add-user-device", {"socket": server.socket, "id": "dev"})
        except ApiError as e:
            self.assertEqual(e.status, 500, e)
            self.assertIn(server.socket, e.body)
            outcome, self.refusal = "refused", e.body
        else:
            try:
                alive, dev = self.work(vm)
                outcome = "works" if alive else "fails"
                if not alive and self.misdeed not in self.NEVER_LOST:
                    vm.wait_event("device-lost", count=lost + 1)
                    self.assertEqual(dev.read(SCRATCH), 0xffffffff)  # nothing is there
                    outcome = "lost"
            finally:
                self.remove(vm)
        server.end()
        wait_for(lambda: self.left() == self.before, 10, "the same descriptors and threads as before")
        self.assertEqual(self.lost() - lost, 1 if outcome == "lost" else 0)
        self.assertEqual(vm.ask("ping"), "pong")
        return outcome

    def check(self, misdeed, at, *expected):
        with self.subTest(misdeed=misdeed, at=at):
            self.misdeed = misdeed
            self.refusal = None
            self.assertIn(self.use(self.server(f"--misbehave={misdeed}@{at}")), expected, self.refusal)

    def test_death_at_each_message(self):
        slower = 1 if SLOW == 1 else 10
        for misdeed, step in ("die", slower), ("die-in-reply", 4 * slower):
            outcomes = []
            for at in range(1, 106, step):
                with self.subTest(misdeed=misdeed, at=at):
                    self.misdeed = misdeed
                    outcomes.append(self.use(self.server(f"--misbehave={misdeed}@{at}")))
            # While it is described, and once it is in use: how many messages that takes
            # differs from host to host, 75 to 90.
            self.assertEqual((outcomes[0], outcomes[-1]), ("refused", "lost"))
            self.assertEqual(set(outcomes), {"refused", "lost"})
        self.misdeed = None
        self.assertEqual(self.use(self.server()), "works")

    def test_every_misdeed_from_the_first_message_on(self):
        for misdeed in misdeeds():
            self.check(misdeed, 1, self.NEVER_LOST.get(misdeed, "refused") if misdeed != "error-replies" else "refused")

    def test_every_misdeed_while_it_is_in_use(self):
        for misdeed in misdeeds():
            if misdeed not in self.DESCRIBED_ONCE and misdeed != "short-file":
                self.check(misdeed, self.LATER, self.NEVER_LOST.get(misdeed, "lost"))

    def test_death_while_nobody_looks(self):
        server = self.server()
        vm = self.guest
        vm.put("vm.add-user-device", {"socket": server.socket, "id": "dev"})
        server.end()
        vm.wait_event("device-lost")
        event = [e for e in vm.events() if e["event"] == "device-lost"][0]
        self.assertEqual(event["properties"]["id"], "dev")
        self.assertIn("closed the connection", event["properties"]["reason"])
        self.eject(vm)
        self.misdeed = None
        self.assertEqual(self.use(self.server()), "works")

    def test_death_with_the_vm_paused_or_shut_down(self):
        server, vm = self.server(), self.guest
        vm.put("vm.add-user-device", {"socket": server.socket, "id": "dev"})
        vm.put("vm.pause")
        server.end()
        vm.wait_event("device-lost")
        vm.put("vm.resume")
        vm.ping()
        vm.put("vm.shutdown")
        with self.assertRaises(ApiError) as caught:
            vm.put("vm.boot")
        self.assertIn(server.socket, caught.exception.body)
        vm.put("vm.remove-device", {"id": "dev"})
        vm.put("vm.boot")
        vm.wait_ready()

    def test_a_server_that_is_not_there(self):
        vm = self.guest
        for path, word in ((self.dir + "/none", "is the server running"), (self.disk(), "is the server running")):
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.add-user-device", {"socket": path})
            self.assertEqual(caught.exception.status, 500)
            self.assertIn(path, caught.exception.body)
            self.assertIn(word, caught.exception.body)
        self.assertEqual(self.left(), self.before)


if __name__ == "__main__":
    unittest.main()
