# SPDX-License-Identifier: Apache-2.0
"""VMs that move with what they were assigned: edu, with DMA, by its lab driver, and the
mediated serial port mtty, both with migration by their kernel drivers."""
import os
import random
import shutil
import tempfile
import unittest

from assigned import COMMAND, IOMMUFD, MEMORY_AND_MASTER, DeviceProbe, each_way, sh, vf, wait_for
from linux_guest import ROOT
from test_dma import BUFFER, DMA_COMMAND, DMA_COUNT, DMA_DST, DMA_SRC, FACTORIAL, PAGE, START, TO_MEMORY, WITH_IRQ
from arrival import Arrival
from ferry import ApiError
from test_migration import Sending

VF = os.path.join(ROOT, "tests", "lab", "vf")
LIVENESS = 4
LINE_STATUS, SCRATCH, DATA_READY = 5, 7, 1  # of a 16550
FILLED, FILLED_PAGES = 0x1000000, 2048  # what takes a while to send
DIRTY, COPIES = 0x2800000, 0x2000000


class DeviceArrival(Arrival, DeviceProbe):
    """Where a probe guest with devices comes to."""


class Edu:
    """edu, register by register, in whatever process the guest is."""

    def __init__(self, vm):
        self.vm, self.config = vm, vm.config("edu")
        self.regs = vm.bar(self.config, 0)

    def get(self, register):
        return self.vm.read(self.regs + register, 4)

    def put(self, register, value):
        self.vm.write(self.regs + register, 4, value)

    def start(self, source, destination, command):
        for register, value in ((DMA_SRC, source), (DMA_DST, destination), (DMA_COUNT, PAGE)):
            self.put(register, value)
        self.put(DMA_COMMAND, START | command)

    def wait(self):
        wait_for(lambda: not self.get(DMA_COMMAND) & START, 20, "the end of the DMA")

    def msi(self, vector):
        at = self.vm.capability(self.config, 5)
        wide = self.vm.read(at + 2, 2) & 0x80
        self.vm.write(at + 4, 4, 0xfee00000)
        if wide:
            self.vm.write(at + 8, 4, 0)
        self.vm.write(at + (12 if wide else 8), 2, vector)
        self.vm.write(at + 2, 2, 1)

    def irqs(self, vector):
        return int(self.vm.ask("irqs").split()[1 + vector - 32])


if IOMMUFD:  # Debian's kernels have neither
    class Moving(unittest.TestCase):
        def setUp(self):
            self.dir = tempfile.mkdtemp(prefix="ferry-lab-")
            self.addCleanup(shutil.rmtree, self.dir)

        def closed(self, vm):
            self.addCleanup(vm.close)
            return vm

    @each_way
    class MovesEdu(Moving):
        @classmethod
        def setUpClass(cls):
            cls.paths = [line.split()[0] for line in sh(f"{VF} edu-vfio 2").splitlines()]

        @classmethod
        def tearDownClass(cls):
            sh(f"{VF} edu")  # as the others want it

        def start(self, way):
            vm = self.closed(DeviceProbe("--device", f"path={self.paths[0]},id=edu{way.option}"))
            self.assertIn(way.file, " ".join(vm.fds()))
            edu = Edu(vm)
            vm.write(edu.config + COMMAND, 2, MEMORY_AND_MASTER)
            edu.msi(0x2a)
            edu.put(LIVENESS, 0x12345678)
            edu.put(FACTORIAL, 5)
            for at in (FILLED, COPIES):
                vm.ask(f"fill {at:#x} {FILLED_PAGES} {random.getrandbits(32)}")
            edu.start(FILLED, BUFFER, 0)
            edu.wait()
            return vm, edu

        def same(self, vm, copies, memory):
            """Registers, what the device wrote, and all that it did not."""
            edu = Edu(vm)
            self.assertEqual((edu.get(LIVENESS), edu.get(FACTORIAL)), (0x12345678 ^ 0xffffffff, 120))
            edu.wait()
            want = vm.ask(f"sum {FILLED:#x} 1")
            for page in copies:
                self.assertEqual(vm.ask(f"sum {COPIES + page * PAGE:#x} 1"), want, f"copy to page {page}")
            self.assertEqual(vm.ask(f"sum {FILLED:#x} {FILLED_PAGES}"), memory)
            return edu

        def works(self, edu, irqs=0):
            """Its DMA reaches this side's RAM, its MSI this side's vCPU."""
            vm = edu.vm
            vm.ask(f"fill {COPIES:#x} 2 {random.getrandbits(32)}")
            edu.start(COPIES, BUFFER, WITH_IRQ)
            edu.wait()
            edu.start(BUFFER, COPIES + PAGE, TO_MEMORY | WITH_IRQ)
            edu.wait()
            self.assertEqual(vm.ask(f"sum {COPIES:#x} 1"), vm.ask(f"sum {COPIES + PAGE:#x} 1"))
            wait_for(lambda: edu.irqs(0x2a) >= irqs + 1, 10, "an MSI")

        def test_edu_moves_while_it_does_dma_by_each_way(self, way):
            vm, edu = self.start(way)
            memory = vm.ask(f"sum {FILLED:#x} {FILLED_PAGES}")
            vm.ask(f"dirty {DIRTY:#x} 2048 0 3")  # it does not converge until this stops
            to = self.closed(DeviceArrival())
            to.listen(devices=[{"id": "edu", "path": self.paths[1]}])
            sending = Sending(vm, to.url, bandwidth=4 << 20, max_throttle=0)
            sending.wait_precopy(2)
            # To pages that were sent already, and one whose copy is under way at the end.
            for page in range(6):
                edu.start(BUFFER, COPIES + page * PAGE, TO_MEMORY)
                edu.wait()
            vm.ask("dirtystop")
            edu.start(BUFFER, COPIES + 6 * PAGE, TO_MEMORY)
            self.assertIsNone(sending.wait())
            to.arrived()
            irqs = Edu(to).irqs(0x2a)
            self.works(self.same(to, range(7), memory), irqs)
            self.assertIn("verify ok", to.ask("verify"))
            progress = vm.get("vm.migration")
            self.assertEqual(progress["devices"][0]["backend"], "feature")
            self.assertGreater(progress["devices"][0]["bytes"], 64 << 10)
            self.assertEqual(vm.request("GET", "/api/v1/vm.info")[0], 404)

        def test_edu_is_saved_and_restored_by_each_way(self, way):
            vm, edu = self.start(way)
            memory = vm.ask(f"sum {FILLED:#x} {FILLED_PAGES}")
            edu.start(BUFFER, COPIES, TO_MEMORY)
            vm.put("vm.snapshot", {"destination_url": f"file://{self.dir}/snapshot"}, 200)
            self.works(self.same(vm, [0], memory))  # it goes on
            vm.close()
            # On the other device, and on the one that it was saved from.
            for path in reversed(self.paths):
                with DeviceArrival() as to:
                    to.restore(f"{self.dir}/snapshot", devices=[{"id": "edu", "path": path}])
                    self.works(self.same(to, [0], memory))

        def test_a_device_whose_state_cannot_be_entered_stays_by_each_way(self, way):
            vm, edu = self.start(way)
            memory = vm.ask(f"sum {FILLED:#x} {FILLED_PAGES}")
            to = self.closed(DeviceArrival())
            to.listen(devices=[{"id": "edu", "path": self.paths[1]}])
            parameter = "/sys/module/edu_vfio/parameters/fail_state"
            with open(parameter, "w") as file:
                file.write("3")  # STOP_COPY
            try:
                with self.assertRaisesRegex(ApiError, "device edu: .*STOP_COPY"):
                    vm.put("vm.send-migration", {"destination_url": to.url}, 200)
            finally:
                with open(parameter, "w") as file:
                    file.write("-1")
            self.assertIsInstance(to.wait_received(), ApiError)
            self.assertEqual(vm.state(), "Running")
            self.works(self.same(vm, [], memory))

    class MovesMtty(Moving):
        """Two ports, each of which hears what it says."""

        def ports(self, vm):
            config = vm.config("mtty")
            vm.write(config + COMMAND, 2, 1)
            return [vm.read(config + 0x10 + 4 * n, 4) & ~3 for n in range(2)]

        def say(self, vm, port, text):
            for byte in text:
                self.assertEqual(vm.ask(f"outb {port:#x} {byte}"), "out ok")

        def hear(self, vm, port):
            heard = b""
            while int(vm.ask(f"inb {port + LINE_STATUS:#x}").split()[1], 16) & DATA_READY:
                heard += bytes([int(vm.ask(f"inb {port:#x}").split()[1], 16)])
            return heard

        def test_serial_data_goes_on_in_another_process(self):
            here, there = vf("mtty", 2)
            vm = self.closed(DeviceProbe("--device", f"path={here},id=mtty"))
            to = self.closed(DeviceArrival())
            ports = self.ports(vm)
            for n, port in enumerate(ports):
                self.hear(vm, port)  # what is left of others
                self.say(vm, port, b"first %d" % n)
                self.assertEqual(self.hear(vm, port), b"first %d" % n)
                vm.ask(f"outb {port + SCRATCH:#x} {0x50 + n}")
                self.say(vm, port, b"then %d," % n)  # heard over there
            to.listen(devices=[{"id": "mtty", "path": there}])
            vm.put("vm.send-migration", {"destination_url": to.url}, 200)
            to.arrived()
            self.assertEqual(self.ports(to), ports)
            for n, port in enumerate(ports):
                self.say(to, port, b" on")
                self.assertEqual(self.hear(to, port), b"then %d, on" % n)
                self.assertEqual(to.ask(f"inb {port + SCRATCH:#x}"), f"in {0x50 + n:x}")
            self.assertGreater(vm.get("vm.migration")["devices"][0]["bytes"], 0)

    @each_way
    class Stays(Moving):
        def test_a_vf_without_migration_is_refused_by_name_by_each_way(self, way):
            (path,) = vf("igb")
            vm = self.closed(DeviceProbe("--device", f"path={path},id=vf0{way.option}"))
            to = self.closed(DeviceArrival())
            vm.start_vf("vf0")
            self.assertEqual(vm.get("vm.info")["device_tree"]["vf0"]["migration"]["backend"], "none")
            with self.assertRaisesRegex(ApiError, "device vf0 cannot be moved.*migration"):
                vm.put("vm.send-migration", {"destination_url": to.listen()})
            with self.assertRaisesRegex(ApiError, "device vf0 cannot be"):
                vm.put("vm.snapshot", {"destination_url": f"file://{self.dir}/snapshot"})
            self.assertEqual(vm.state(), "Running")
            vm.start_vf("vf0")


if __name__ == "__main__":
    unittest.main()
