# SPDX-License-Identifier: Apache-2.0
"""A virtio driver (1.2, modern PCI, split queues) that works through the probe's mmio
command: slow, and in full control of every bit, for devices the probe has no driver for
and for rings that no honest driver would make.
"""
import struct

from ferry import wait_for

ECAM = 0xe0000000
# struct virtio_pci_common_cfg
DEVICE_FEATURE_SELECT, DEVICE_FEATURE, DRIVER_FEATURE_SELECT, DRIVER_FEATURE = 0, 4, 8, 12
STATUS, QUEUE_SELECT, QUEUE_SIZE, QUEUE_ENABLE, QUEUE_NOTIFY_OFF, QUEUE_DESC = 20, 22, 24, 28, 30, 32
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 64
NEXT, WRITE, INDIRECT = 1, 2, 4
# RAM for rings and buffers: above what the probe and the tests' patterns use.
RINGS = 32 << 20
BUFFERS = 40 << 20

RNG, BLK, NET, CONSOLE, BALLOON, VSOCK = (0x1040 + n for n in (4, 2, 1, 3, 5, 19))


def config_base(bdf):
    """The ECAM address of "0000:00:05.0"."""
    slot, function = bdf.rsplit(":", 1)[1].split(".")
    return ECAM + (int(slot, 16) << 15) + (int(function) << 12)


def slot_of(bdf):
    return int(bdf.rsplit(":", 1)[1].split(".")[0], 16)


class Queue:
    def __init__(self, index, desc, size):
        self.index, self.desc, self.size = index, desc, size
        self.avail, self.used = desc + 0x1000, desc + 0x2000
        self.posted = self.next = 0
        self.notify = None


class Driver:
    """The device with that id, found and reset; queues are added, then it is started."""

    def __init__(self, vm, device):
        self.vm = vm
        self.base = config_base(vm.get("vm.info")["device_tree"][device]["pci_bdf"])
        self.queues = {}
        self.areas = {}
        vm.write(self.base + 4, 2, 6)
        at = vm.read(self.base + 0x34, 1)
        while at:
            header = vm.read(self.base + at, 4)
            if header & 0xff == 9 and header >> 24 in (1, 2, 3, 4):
                bar, offset = vm.read(self.base + at + 4, 1), vm.read(self.base + at + 8, 4)
                if header >> 24 == 2:
                    self.multiplier = vm.read(self.base + at + 16, 4)
                self.areas[header >> 24] = self.bar(bar) + offset
            at = header >> 8 & 0xff
        self.common, self.notify, self.config = (self.areas.get(n) for n in (1, 2, 4))

    def bar(self, index):
        low = self.vm.read(self.base + 0x10 + 4 * index, 4)
        high = self.vm.read(self.base + 0x14 + 4 * index, 4) if low & 6 == 4 else 0
        return high << 32 | low & ~0xf

    def negotiate(self, features=0):
        """VERSION_1 and those of `features` that the device offers; they are returned."""
        write, common = self.vm.write, self.common
        write(common + STATUS, 1, 0)
        write(common + STATUS, 1, ACKNOWLEDGE | DRIVER)
        write(common + DEVICE_FEATURE_SELECT, 4, 0)
        features &= self.vm.read(common + DEVICE_FEATURE, 4)
        write(common + DRIVER_FEATURE_SELECT, 4, 0)
        write(common + DRIVER_FEATURE, 4, features)
        write(common + DRIVER_FEATURE_SELECT, 4, 1)
        write(common + DRIVER_FEATURE, 4, 1)
        write(common + STATUS, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        assert self.vm.read(common + STATUS, 1) & FEATURES_OK
        return features

    def queue(self, index, size=8, desc=None, driver=None, device=None):
        """Enables a queue of that size; its rings lie in a place of its own, cleared, or
        where the caller wants them."""
        write, common = self.vm.write, self.common
        q = Queue(index, desc or RINGS + index * 0x4000, size)
        q.avail, q.used = driver or q.avail, device or q.used
        if desc is None:
            for at in (q.avail, q.used):
                self.vm.write(at, 4, 0)
        write(common + QUEUE_SELECT, 2, index)
        write(common + QUEUE_SIZE, 2, size)
        for n, address in enumerate((q.desc, q.avail, q.used)):
            write(common + QUEUE_DESC + 8 * n, 4, address & 0xffffffff)
            write(common + QUEUE_DESC + 8 * n + 4, 4, address >> 32)
        q.notify = self.notify + self.vm.read(common + QUEUE_NOTIFY_OFF, 2) * self.multiplier
        write(common + QUEUE_ENABLE, 2, 1)
        self.queues[index] = q
        return q

    def start(self):
        self.vm.write(self.common + STATUS, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)

    def status(self):
        return self.vm.read(self.common + STATUS, 1)

    def describe(self, q, index, address, length, flags=0, following=0):
        self.vm.write(q.desc + 16 * index, 8, address)
        self.vm.write(q.desc + 16 * index + 8, 8, length | flags << 32 | following << 48)

    def offer(self, q, head):
        """Puts a chain into the ring and kicks."""
        self.vm.write(q.avail + 4 + 2 * (q.posted % q.size), 2, head)
        q.posted += 1
        self.vm.write(q.avail + 2, 2, q.posted & 0xffff)
        self.kick(q)

    def kick(self, q):
        self.vm.write(q.notify, 2, q.index)

    def post(self, q, *buffers):
        """Each buffer is (address, length, device writes it?). From descriptor q.next on."""
        head = q.next
        for n, (address, length, writable) in enumerate(buffers):
            last = n == len(buffers) - 1
            self.describe(q, q.next, address, length, (WRITE if writable else 0) | (0 if last else NEXT),
                          0 if last else (q.next + 1) % q.size)
            q.next = (q.next + 1) % q.size
        self.offer(q, head)

    def used(self, q):
        return self.vm.read(q.used + 2, 2)

    def wait_used(self, q, count):
        """Waits until the device has used `count` chains; returns the last one's length."""
        wait_for(lambda: self.used(q) >= count, 10, f"use of chain {count} of queue {q.index}")
        return self.vm.read(q.used + 4 + 8 * ((count - 1) % q.size) + 4, 4)

    def put(self, address, data):
        data += bytes(-len(data) % 8)
        for n, (word,) in enumerate(struct.iter_unpack("<Q", data)):
            self.vm.write(address + 8 * n, 8, word)

    def get(self, address, length):
        words = b"".join(struct.pack("<Q", self.vm.read(address + at, 8)) for at in range(0, length, 8))
        return words[:length]
