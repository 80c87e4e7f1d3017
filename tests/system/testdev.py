# SPDX-License-Identifier: Apache-2.0
"""ferry-testdev (tests/testdev/README.md): its server, and a driver for it in python that
works through the probe's mmio command."""
import os
import re
import signal
import subprocess

from ferry import BUILD, wait_for
from virtio import config_base

TESTDEV = os.path.join(BUILD, "ferry-testdev")
# Registers of BAR0: tests/testdev/testdev_regs.h
ID, SCRATCH, INVERSE, IRQ_STATUS, IRQ_ACK, IRQ_TRIGGER, IRQ_COUNT = 0, 8, 0xc, 0x10, 0x14, 0x18, 0x1c
DMA_SRC, DMA_DST, DMA_LEN, DMA_CTRL, DMA_STATUS, DMA_ERROR = 0x20, 0x28, 0x30, 0x34, 0x38, 0x3c
DOORBELL_COUNT, DOORBELL_IRQ, RESET_COUNT, SHARED_SUM, DOORBELL = 0x44, 0x48, 0x4c, 0x50, 0x800
TEST = 0x54534554
START, SYNC, FILL = 1, 4, 8
DONE, FAILED = 2, 3
AREA0 = 0x1000


class Server:
    """One ferry-testdev at a socket in `folder`."""

    def __init__(self, folder, *options, name="testdev.sock"):
        self.socket = os.path.join(folder, name)
        self.process = subprocess.Popen([TESTDEV, f"--socket={self.socket}", *options],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(self.listens, 10, "ferry-testdev's socket")

    def listens(self):
        assert self.process.poll() is None, "ferry-testdev ended"
        with open(f"/proc/{self.process.pid}/net/unix") as file:
            return any(line.split()[7:] == [self.socket] for line in file)

    def fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def mappings(self):
        with open(f"/proc/{self.process.pid}/maps") as file:
            return len(file.readlines())

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Driver:
    """The device with that id: memory decoding and bus mastering on, BARs found."""

    def __init__(self, vm, device):
        self.vm = vm
        self.bdf = vm.get("vm.info")["device_tree"][device]["pci_bdf"]
        self.base = config_base(self.bdf)
        vm.write(self.base + 4, 2, 6)
        self.bar0 = self.bar(0)

    def bar(self, index):
        low = self.vm.read(self.base + 0x10 + 4 * index, 4)
        high = self.vm.read(self.base + 0x14 + 4 * index, 4) if low & 6 == 4 else 0
        return high << 32 | low & ~0xf

    def read(self, register):
        return self.vm.read(self.bar0 + register, 4)

    def write(self, register, value):
        self.vm.write(self.bar0 + register, 4, value)

    def alive(self):
        self.write(SCRATCH, 0x12345678)
        return (self.read(ID), self.read(INVERSE)) == (TEST, 0x12345678 ^ 0xffffffff)

    def dma(self, src, dst, length, flags=SYNC, wait=True):
        """The status at its end, if waited for."""
        for register, value in ((DMA_SRC, src), (DMA_DST, dst)):
            self.write(register, value & 0xffffffff)
            self.write(register + 4, value >> 32)
        self.write(DMA_LEN, length)
        self.write(DMA_CTRL, START | flags)
        return wait and wait_for(lambda: self.read(DMA_STATUS) in (DONE, FAILED), 10, "the DMA") and self.read(DMA_STATUS)


class Engine:
    """The probe's driver, which keeps the nth device at work by itself ("msix" or "intx")."""

    PAGES = 16

    def __init__(self, vm, kind, nth, start):
        self.vm, self.kind = vm, kind
        assert vm.ask(f"testdev start {kind} {nth} {start:#x} {self.PAGES} {nth + 11}") == f"testdev {kind} ok"

    def counts(self, what="count"):
        text = self.vm.ask(f"testdev {what} {self.kind}")
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", text)}

    def stop(self):
        """What was done, when all of it has ended: the same on both sides, or it is an error."""
        n = self.counts("stop")
        assert n["moved"] == n["dma_irqs"] == n["transfers"], f"an interrupt is missing: {n}"
        assert n["heard"] == n["doorbell_irqs"] == n["rings"], f"a doorbell is missing: {n}"
        assert n["raised"] == n["dma_irqs"] + n["doorbell_irqs"], f"an interrupt is missing: {n}"
        assert n["good"] == n["transfers"] and not n["bad"], f"a copy is wrong: {n}"
        return n
