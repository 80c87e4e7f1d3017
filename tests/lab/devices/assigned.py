# SPDX-License-Identifier: Apache-2.0
"""What the tests of assigned devices share: devices, made once, and guests that have them.
They run in the lab, with --devices igb,nvme,edu,edu2,mtty,pair."""
import functools
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import unittest
from typing import NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "linux"))
from linux_guest import ROOT, LinuxGuest  # noqa: E402
from ferry import SLOW, wait_for  # noqa: E402
from probe import Probe  # noqa: E402

# Stock Debian kernels have no iommufd: there the group is the only way, and no mtty.
IOMMUFD = os.path.exists("/dev/iommu")


def add_given(vm, path, name):
    """The device's own file, opened here and sent with the request."""
    fd = os.open("/dev/vfio/devices/" + os.listdir(path + "/vfio-dev")[0], os.O_RDWR)
    body = json.dumps({"fd": -1, "id": name}).encode()
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(vm.api_path)
        socket.send_fds(s, [b"PUT /api/v1/vm.add-device HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                            b"Content-Type: application/json\r\n"
                            b"Content-Length: %d\r\n\r\n" % len(body) + body], [fd])
        answer = s.recv(4096)
    os.close(fd)
    assert b" 200 " in answer, answer


class Way(NamedTuple):
    """How a device is reached."""
    name: str
    option: str  # to add to --device
    file: str  # what is open then


CDEV = Way("cdev", "", "/dev/vfio/devices")
GROUP = Way("group", ",iommufd=off" if IOMMUFD else "", "/dev/vfio/vfio")
WAYS = (CDEV, GROUP) if IOMMUFD else (GROUP,)


def each_way(case):
    """Makes of each test_..._by_each_way(self, way) of a class one test for each way."""
    for name, test in list(vars(case).items()):
        if name.endswith("_by_each_way"):
            delattr(case, name)
            for way in WAYS:
                setattr(case, name.removesuffix("each_way") + way.name, functools.partialmethod(test, way))
    return case


# The PF's interface in L1: the other end of what a VF sends.
PEER = "192.168.77.1"
# RAM of a guest that sends more than single small packets: see tests/lab/README.md, "igb".
HUGE = "256M,hugepages=on"
HUGE_PAGES = 132  # of 2 MiB


def sh(command):
    run = subprocess.run(command, shell=True, text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT)
    assert run.returncode == 0, f"'{command}' ended with {run.returncode}:\n{run.stdout}"
    return run.stdout


# Now, while L1's memory is in one piece.
with open("/proc/sys/vm/nr_hugepages", "w") as setting:
    setting.write(str(HUGE_PAGES))

made = {}


def vf(name, count=1):
    """Devices of a kind, made and bound once: the sysfs folders of the first `count`."""
    made[name] = [path for path in made.get(name, []) if os.path.exists(path + "/driver")]
    if len(made[name]) < count:
        if name != "mtty":  # another module may have made some
            sh(f"{ROOT}/tests/lab/vf remove {name}")
        rows = [line.split() for line in sh(f"{ROOT}/tests/lab/vf {name} {count}").splitlines()]
        made[name] = [row[0] for row in rows]
        if name == "igb":
            sh(f"ip addr replace {PEER}/24 dev {rows[0][3]}")
    return made[name][:count]


ECAM, HOTPLUG = 0xe0000000, 0xf0001000
COMMAND, MEMORY_AND_MASTER = 4, 6
MSIX, MAILBOX = 0x11, 0x800


class DeviceProbe(Probe):
    """The probe guest, which boots in no time, and assigned devices, register by register."""

    def slot(self, name):
        return int(self.get("vm.info")["device_tree"][name]["pci_bdf"].split(":")[-1].split(".")[0], 16)

    def config(self, name):
        return ECAM + (self.slot(name) << 15)

    def capability(self, config, wanted):
        at = self.read(config + 0x34, 1)
        while at and self.read(config + at, 1) != wanted:
            at = self.read(config + at + 1, 1)
        assert at, f"no capability {wanted}"
        return config + at

    def bar(self, config, n):
        low = self.read(config + 0x10 + 4 * n, 4)
        return low & ~0xf | (self.read(config + 0x14 + 4 * n, 4) << 32 if low & 4 else 0)

    def start_vf(self, name):
        """What a driver of an igb VF begins with: memory that the VF shares with its PF
        keeps what is written, and a vector is armed."""
        config = self.config(name)
        assert self.read(config, 4) == 0x10ca8086
        self.write(config + COMMAND, 2, MEMORY_AND_MASTER)
        self.write(self.bar(config, 0) + MAILBOX, 4, 0x600df00d)
        assert self.read(self.bar(config, 0) + MAILBOX, 4) == 0x600df00d
        msix = self.capability(config, MSIX)
        where = self.read(msix + 4, 4)
        table = self.bar(config, where & 7) + (where & ~7)
        self.write(msix + 2, 2, 0x8000)
        for offset, value in ((0, 0xfee00000), (4, 0), (8, 0x2c), (12, 0)):
            self.write(table + offset, 4, value)
        assert self.get("vm.counters")[name]["msi_vectors"] == 1

    def eject(self, name):
        """As the guest's ACPI does, when it is asked to."""
        self.write(HOTPLUG + 8, 4, 1 << self.slot(name))


class Sender:
    """Sends blocks of random bytes to whoever connects; `mib` of them, or None: for ever. One
    each `every` seconds, so that there is time for others."""

    def __init__(self, mib, every=0):
        self.block = os.urandom(1 << 20)
        self.mib, self.every = mib, every
        self.server = socket.create_server((PEER, 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            peer, _ = self.server.accept()
            with peer:
                left = self.mib
                while left is None or left:
                    peer.sendall(self.block)
                    left = left and left - 1
                    time.sleep(self.every)
        except OSError:  # closed, or the device was taken away
            pass

    def digest(self):
        want = hashlib.md5()
        for _ in range(self.mib):
            want.update(self.block)
        return want.hexdigest()

    def close(self):
        # A thread in accept() would not notice that it is closed.
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()

    def __enter__(self):
        return self

    def __exit__(self, *trace):
        try:
            self.close()
        except OSError:
            pass


class NetCase(unittest.TestCase):
    """Tests with VFs of the igb."""

    def wait_interface(self, vm, interface="eth0", there=True):
        wait_for(lambda: (vm.agent.run(f"test -d /sys/class/net/{interface}")[0] == 0) == there, 60,
                 f"{interface} to {'come' if there else 'go'}")

    def bring_up(self, vm, interface="eth0", address="192.168.77.2"):
        self.wait_interface(vm, interface)
        vm.sh(f"ip addr add {address}/24 dev {interface} && ip link set {interface} up")
        vm.sh(f"ping -c 1 -w 60 {PEER}", 70)

    def download(self, vm, mib):
        """A TCP transfer from L1 to the guest, compared by checksum."""
        with Sender(mib) as sender:
            out = vm.sh(f"nc {PEER} {sender.port} < /dev/null | md5sum", 600)
            self.assertEqual(out.split()[0], sender.digest())

    def upload(self, vm, mib):
        """The same the other way."""
        seen = hashlib.md5()
        server = socket.create_server((PEER, 0))

        def run():
            peer, _ = server.accept()
            with peer:
                while data := peer.recv(65536):
                    seen.update(data)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        vm.sh(f"dd if=/dev/urandom of=/tmp/up bs=1M count={mib} 2> /dev/null")
        want = vm.sh("md5sum /tmp/up").split()[0]
        vm.sh(f"nc -w 5 {PEER} {server.getsockname()[1]} < /tmp/up", 600)
        thread.join(60 * SLOW)
        server.close()
        self.assertEqual(seen.hexdigest(), want)

    def interrupts(self, vm, interface="eth0"):
        return sum(int(n) for line in vm.sh(f"grep {interface} /proc/interrupts").splitlines()
                   for n in re.findall(r"^\s*\d+:\s+(\d+)", line))
