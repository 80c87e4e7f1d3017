# SPDX-License-Identifier: Apache-2.0
"""How long a guest with a VF cannot be reached while its VMM changes, in the lab's host (L1):
Ferry's live update beside QEMU's cpr-transfer. Both are seen from outside, by pings over the
VF: the longest time without an answer around each change."""
import http.client
import json
import os
import socket
import statistics
import sys
import time

import assigned
import measure

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "lab", "devices"))
from pings import Pings  # noqa: E402

MIB = 640
UPDATES = 4
TIMEOUT = 120


def connect(path, process):
    end = time.monotonic() + TIMEOUT
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(path)
            client.settimeout(TIMEOUT)
            return client
        except OSError as e:
            client.close()
            if process.ended() or time.monotonic() > end:
                raise AssertionError(f"{path}: {e}") from None
            time.sleep(0.01)


class Ferry:
    def __init__(self, vmm, images, path, folder, guest):
        self.api, serial = os.path.join(folder, "api"), os.path.join(folder, "serial")
        self.guest = guest(vmm.guest(serial=f"socket={serial}", more=[
            *assigned.ferry_device(path), "--api-socket", self.api], **images), serial)
        self.guest.connect(serial)

    def put(self, name, body=None):
        connection = http.client.HTTPConnection("localhost")
        connection.sock = connect(self.api, self.guest.process)
        try:
            if body is None:
                connection.request("PUT", "/api/v1/" + name)
            else:
                connection.request("PUT", "/api/v1/" + name, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise AssertionError(f"{name}: {text.decode()}")
        return json.loads(text) if text else None

    def update(self):
        """What it says of it, in ms."""
        return self.put("vm.live-update", {})["downtime_us"]["total"] / 1000

    def close(self):
        try:
            self.put("vmm.shutdown")  # also where another process than the first has it
        finally:
            self.guest.close()


class Monitor:
    """QEMU's QMP."""

    def __init__(self, path, process):
        self.file = connect(path, process).makefile("rw")
        self.file.readline()
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        for line in self.file:
            answer = json.loads(line)
            if "error" in answer:
                raise AssertionError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise AssertionError(f"{command}: QEMU ended")


def qemu_device(path):
    """By the VFIO container: with iommufd microvm refuses cpr-transfer ("some memory regions do
    not support IOMMU_IOAS_CHANGE_PROCESS"; its firmware is no memfd)."""
    return ["-device", f"vfio-pci,host={os.path.basename(path)}"]


def channel(kind, path):
    return {"channel-type": kind, "addr": {"transport": "socket", "type": "unix", "path": path}}


class Qemu:
    def __init__(self, vmm, images, path, folder, guest):
        self.vmm, self.images, self.path, self.folder, self.make = vmm, images, path, folder, guest
        self.number = 0
        self.guest = self.start()
        self.guest.connect(self.file("serial"))
        self.monitor = Monitor(self.file("qmp"), self.guest.process)

    def file(self, name):
        return os.path.join(self.folder, f"{name}{self.number}")

    def start(self, *more):
        # RAM that another process can have, as cpr-transfer needs it.
        machine = assigned.MACHINE + ",aux-ram-share=on,memory-backend=ram"
        command = self.vmm.guest(serial=f"socket,server=on,wait=off,path={self.file('serial')}", machine=machine, more=[
            "-object", f"memory-backend-memfd,id=ram,size={MIB}M,share=on", *qemu_device(self.path),
            "-qmp", f"unix:{self.file('qmp')},server=on,wait=off", *more], **self.images)
        return self.make(command, self.file("serial"))

    def update(self):
        """What it says of it, in ms."""
        old, monitor = self.guest, self.monitor
        self.number += 1
        main, cpr = self.file("main"), self.file("cpr")
        self.guest = self.start("-incoming", f"unix:{main}", "-incoming", json.dumps(channel("cpr", cpr)))
        try:
            while not os.path.exists(cpr):
                if self.guest.process.ended():
                    raise AssertionError(f"the new QEMU ended: {self.guest.said()}")
                time.sleep(0.01)
            time.sleep(0.2)  # its socket's file is there before it listens
            monitor.execute("migrate-set-parameters", mode="cpr-transfer")
            monitor.execute("migrate", channels=[channel("main", main), channel("cpr", cpr)])
            end = time.monotonic() + TIMEOUT
            while (told := monitor.execute("query-migrate")).get("status") not in ("completed", "failed"):
                if time.monotonic() > end:
                    raise AssertionError(f"cpr-transfer does not end: {told}")
                time.sleep(0.01)
            if told["status"] == "failed":
                raise AssertionError(f"cpr-transfer: {told.get('error-desc')}; the old one: {old.said()}; the "
                                     f"new one: {self.guest.said()}")
            self.monitor = Monitor(self.file("qmp"), self.guest.process)
            while self.monitor.execute("query-status")["status"] != "running":
                time.sleep(0.01)
        finally:
            old.close()
        return told["downtime"]

    def close(self):
        self.guest.close()


KINDS = {"ferry": Ferry, "qemu": Qemu}


def once(vmm, images, path, guest):
    """Of each update: the longest time without an answer, and what the VMM says, in ms."""
    with measure.folder() as folder:
        vm = KINDS[vmm.name](vmm, images, path, folder, guest)
        try:
            assigned.bring_up_link(vm.guest.agent)
            pings, windows = Pings(assigned.GUEST), []
            for _ in range(UPDATES):
                time.sleep(1.5)
                start = time.time()
                told = vm.update()
                windows.append((start, time.time(), told))
            time.sleep(3)
            pings.end()
            if max(at for _, at in pings.answers.values()) < windows[-1][1]:
                raise AssertionError("the guest does not answer any more")
            usual = max(pings.longest_gap(a[1] + 0.5, b[0]) for a, b in zip(windows, windows[1:]))
            return [(1000 * pings.longest_gap(start, end), told) for start, end, told in windows], pings, 1000 * usual
        finally:
            vm.close()


def figure(found, rounds, images, path, guest, attempt, out):
    """attempt(vmm, once): once more where an emulated host let a guest down."""
    images = {**images, "mib": MIB}
    values = {v.name: [] for v in found}
    for _ in range(rounds):
        for vmm in found:
            rows, pings, usual = attempt(vmm, lambda: once(vmm, images, path, guest))  # pylint: disable=cell-var-from-loop
            values[vmm.name] += rows
            out["notes"].append(f"{vmm.name}, {UPDATES} updates: unreachable for {[round(g) for g, _ in rows]} ms, itself "
                                f"says {[round(t) for _, t in rows]} ms; {len(pings.lost())} of {pings.sent} pings lost; "
                                f"up to {usual:.0f} ms without an answer between them")
    out["figures"].append({"what": "new VMM under a guest with a VF: unreachable (lab)", "unit": "ms", "most_ratio": 0.2,
                           "values": {name: statistics.median(gap for gap, _ in rows) for name, rows in values.items()}})
    out["figures"].append({"what": "of that, by the VMM's own count (lab)", "unit": "ms",
                           "values": {name: statistics.median(told for _, told in rows) for name, rows in values.items()}})
