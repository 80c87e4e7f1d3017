#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The part of the bench that runs in the lab's host (L1): Linux guests.

Writes {"figures": [arguments of Report.add], "notes": [...]} to --out.
"""
import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

import assigned
import measure
import update_vf
import vmms

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "guests", "linux"))
from agent import Agent, AgentTimeout  # noqa: E402

CMDLINE = "console=ttyS0 quiet panic=-1 reboot=t"
BOOT_MIB = 256
BOOT_ROUNDS = 5  # of each other figure's: a boot takes a second, and one differs from the next by 10 %
IO_MIB = 640
DISK_MIB = 512
HOST, GUEST, TAP = "192.168.90.1", "192.168.90.2", "bench0"
# KVM from 6.14 on and QEMU's emulated SVM together stop a guest now and then when it
# notifies a device (vmm/vcpu.c, retry_delivery): Ferry goes on, QEMU does not.
ATTEMPTS = 10


def lab(tool, *args):
    return subprocess.run([os.path.join(ROOT, "tests/lab", tool), *args], check=True, stdout=subprocess.PIPE,
                          text=True).stdout.strip()


def sh(command):
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)


# A bzImage unpacks itself in the guest, the same work under any VMM; a vmlinux starts at once.
KERNELS = {"Linux to init, vmlinux (lab)": "vmlinux", "Linux to init, bzImage (lab)": "bzImage"}


def boot(options, found, out):
    initramfs = lab("guest-initramfs")
    for what, image in KERNELS.items():
        kernel = os.path.join(lab("build-kernel"), image)
        with measure.folder() as folder:
            def once(vmm):
                return measure.until_serial(vmm, b"FERRY-INIT-REACHED", folder, timeout=60, kernel=kernel,
                                            mib=BOOT_MIB, initramfs=initramfs, cmdline=CMDLINE)[:2]
            values, failed = measure.rounds(BOOT_ROUNDS * options.rounds, found, once)
        out["notes"] += [f"{what}: {name} left out: {why}" for name, why in failed.items()]
        out["figures"].append({"what": what, "unit": "ms", "most_ratio": 0.7,
                               "values": {name: row[0] for name, row in values.items()}})


class Guest:
    """A Linux guest and its agent."""

    def __init__(self, command, serial):
        self.errors = serial + ".errors"
        for path in (serial, self.errors):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self.process = measure.Process(command, stderr=self.errors)
        self.socket = socket.socket(socket.AF_UNIX)
        self.over = threading.Event()
        self.watch = threading.Thread(target=self.end_when_lost, daemon=True)
        self.watch.start()

    def end_when_lost(self):
        """QEMU says that KVM failed, and stands still: what waits for its guest learns at once."""
        while not self.over.wait(1):
            with open(self.errors, encoding="utf-8", errors="replace") as f:
                if "KVM internal error" in f.read():
                    os.kill(self.process.pid, signal.SIGKILL)
                    return

    def connect(self, serial):
        while True:
            try:
                self.socket.connect(serial)
                break
            except OSError:
                if self.process.ended() or self.process.wall_ms() > 20000:
                    raise
                time.sleep(0.01)
        self.agent = Agent.of_fd(self.socket.fileno())
        self.agent.wait_ready(90)

    def said(self):
        """The first that the VMM said on its standard error."""
        time.sleep(0.1)  # it may just be ending
        with open(self.errors, encoding="utf-8", errors="replace") as f:
            return f.read(300).strip()

    def close(self):
        self.over.set()
        self.watch.join()
        self.process.end()
        self.socket.close()


def ferry_command(vmm, images, vhost):
    return vmm.guest(serial=f"socket={images['serial']}", kernel=images["kernel"], initramfs=images["initramfs"],
                     cmdline=CMDLINE, mib=IO_MIB,
                     more=["--disk", f"path={images['disk']},readonly=on", f"path={images['tools']},readonly=on",
                           "--net", f"tap={TAP},vhost={vhost}"])


def qemu_command(vmm, images, vhost):
    # PCI with MSI-X as Ferry's, the disk in a thread of its own.
    more = ["-object", "iothread,id=io"]
    for disk in ("disk", "tools"):
        more += ["-blockdev", f"driver=file,node-name={disk},filename={images[disk]},aio=io_uring,read-only=on",
                 "-device", f"virtio-blk-pci,drive={disk},iothread=io"]
    more += ["-netdev", f"tap,id=net,ifname={TAP},script=no,downscript=no,vhost={vhost}",
             "-device", "virtio-net-pci,netdev=net"]
    return vmm.guest(serial=f"socket,server=on,wait=off,path={images['serial']}", kernel=images["kernel"],
                     initramfs=images["initramfs"], cmdline=CMDLINE, mib=IO_MIB,
                     machine="microvm,rtc=on,acpi=on,pcie=on", more=more)


COMMANDS = {"ferry": ferry_command, "qemu": qemu_command}


def fio(agent, seconds, *job):
    """(IOPS, MiB/s) of reading; fields of fio's terse output, version 3."""
    text = agent.check(f"chroot /mnt fio --name=j --filename=/dev/vda --readonly --direct=1 --ioengine=libaio"
                       f" --time_based --ramp_time=1 --runtime={seconds} --minimal {' '.join(job)}", seconds + 60)
    fields = next(line for line in text.splitlines() if line.startswith("3;")).split(";")
    return float(fields[7]), float(fields[6]) / 1024


def iperf(agent, seconds, *more, host=HOST):
    """Mbit/s that were received. A connection's rate changes threefold from second to second, by how much TCP finds
    to send at once: so it takes longer than a disk."""
    seconds *= 4
    with subprocess.Popen(["iperf3", "-s", "-1", "-B", host, "--forceflush"], stdout=subprocess.PIPE) as server:
        try:
            while b"listening" not in (server.stdout.readline() or b"listening"):
                pass
            text = agent.check(f"chroot /mnt iperf3 -c {host} -t {seconds} -O 1 -f m {' '.join(more)}", seconds + 60)
        finally:
            server.kill()
    return float(re.search(r"([\d.]+) Mbits/sec.*receiver", text)[1])


# What is measured of a guest whose interface is by vhost=on, and of one by vhost=off.
IO = {
    "on": (
        ("virtio-blk, 4 KiB random read, depth 32 (lab)", "IOPS",
         lambda agent, seconds: fio(agent, seconds, "--rw=randread", "--bs=4k", "--iodepth=32")[0]),
        ("virtio-blk, sequential read (lab)", "MiB/s",
         lambda agent, seconds: fio(agent, seconds, "--rw=read", "--bs=256k", "--iodepth=8")[1]),
        ("TCP guest to host, vhost=on (lab)", "Mbit/s", iperf),
        ("TCP host to guest, vhost=on (lab)", "Mbit/s", lambda agent, seconds: iperf(agent, seconds, "-R")),
    ),
    "off": (
        ("TCP guest to host, vhost=off (lab)", "Mbit/s", iperf),
        ("TCP host to guest, vhost=off (lab)", "Mbit/s", lambda agent, seconds: iperf(agent, seconds, "-R")),
    ),
}


def tools_image(folder):
    """A file system with fio, iperf3 and their libraries."""
    root, image = os.path.join(folder, "tools"), os.path.join(folder, "tools.img")
    for tool in ("fio", "iperf3"):
        path = shutil.which(tool)
        if not path:
            raise FileNotFoundError(f"{tool} is not installed")
        libraries = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
        for file in [path, *re.findall(r"(/\S+) \(0x", libraries)]:
            os.makedirs(root + os.path.dirname(file), exist_ok=True)
            shutil.copy(file, root + file)
    for name in ("dev", "proc", "tmp"):
        os.mkdir(os.path.join(root, name))
    sh(f"mke2fs -q -t ext4 -d {root} {image} 192M")
    shutil.rmtree(root)
    return image


@contextlib.contextmanager
def ext4(folder):
    """A folder on ext4: a tmpfs starts no I/O without waiting, so that io_uring's workers do it all."""
    image, path = os.path.join(folder, "ext4"), os.path.join(folder, "disks")
    os.mkdir(path)
    sh(f"truncate -s {DISK_MIB + 128}M {image} && mke2fs -q -t ext4 {image} && mount $(losetup -f --show {image}) {path}")
    try:
        yield path
    finally:
        sh(f"loop=$(findmnt -no SOURCE {path}) && umount {path} && losetup -d $loop")


def prepare_io(folder, disks):
    images = {"kernel": lab("build-kernel") + "/bzImage", "initramfs": lab("guest-initramfs"),
              "serial": os.path.join(folder, "serial"), "disk": os.path.join(disks, "disk.img"),
              "tools": tools_image(folder)}
    with open(images["disk"], "wb") as f:  # stays in the page cache
        for _ in range(DISK_MIB):
            f.write(os.urandom(1 << 20))
    sh(f"sync {images['disk']}")
    sh(f"ip tuntap add {TAP} mode tap vnet_hdr && ip addr add {HOST}/24 dev {TAP} && ip link set {TAP} up")
    return images


def io_once(vmm, images, vhost, options, wanted):
    guest = Guest(COMMANDS[vmm.name](vmm, images, vhost), images["serial"])
    try:
        guest.connect(images["serial"])
        guest.agent.check(f"ip addr add {GUEST}/24 dev eth0 && ip link set eth0 up && mount -t ext4 -o ro /dev/vdb /mnt"
                          " && mount -t devtmpfs dev /mnt/dev && mount -t tmpfs tmp /mnt/tmp")
        return [take(guest.agent, options.seconds) for _, _, take in wanted]
    except (AgentTimeout, EOFError, OSError, AssertionError) as e:
        raise AssertionError(f"{vmm.name}: {e}; it said: {guest.said()}") from None
    finally:
        guest.close()


def io(options, found, out):
    found = [v for v in found if v.name in COMMANDS]
    again = {v.name: 0 for v in found}
    with measure.folder() as folder, ext4(folder) as disks:
        images = prepare_io(folder, disks)
        for vhost, figures in IO.items():
            wanted = [f for f in figures if options.match in f[0]]
            values = {v.name: [] for v in found}
            for _ in range(options.rounds if wanted else 0):
                for vmm in found:
                    values[vmm.name].append(attempts(vmm, again, options,
                                                     lambda: io_once(vmm, images, vhost, options, wanted)))
            for i, (what, unit, _) in enumerate(wanted):
                columns = {name: [row[i] for row in rows] for name, rows in values.items()}
                out["figures"].append({"what": what, "unit": unit, "least_ratio": 1, "values": {
                    name: statistics.median(column) for name, column in columns.items()}})
                out["notes"] += [f"{what}: {columns}"] if options.verbose else []
    out["notes"] += [f"{name} was started again {n} times, since its guest ended" for name, n in again.items() if n]


def vf_once(vmm, images, path, options):
    more = assigned.DEVICE[vmm.name](path)
    common = {"kernel": images["kernel"], "initramfs": images["initramfs"], "cmdline": CMDLINE, "mib": IO_MIB}
    if vmm.name == "ferry":
        api = images["serial"] + ".api"
        command = vmm.guest(serial=f"socket={images['serial']}", more=[
            *more, "--api-socket", api, "--disk", f"path={images['tools']},readonly=on"], **common)
    else:
        api = None
        command = vmm.guest(serial=f"socket,server=on,wait=off,path={images['serial']}", machine=assigned.MACHINE, more=[
            *more, "-blockdev", f"driver=file,node-name=tools,filename={images['tools']},aio=io_uring,read-only=on",
            "-device", "virtio-blk-pci,drive=tools"], **common)
    guest = Guest(command, images["serial"])
    try:
        guest.connect(images["serial"])
        return assigned.traffic(guest.agent, options.seconds, iperf, api)
    except (AgentTimeout, EOFError, OSError, AssertionError, subprocess.CalledProcessError) as e:
        raise AssertionError(f"{vmm.name}: {e}; it said: {guest.said()}") from None
    finally:
        guest.close()


def attempts(vmm, again, options, once):
    """once(), again where the guest ended (see ATTEMPTS)."""
    for attempt in range(ATTEMPTS):
        try:
            return once()
        except AssertionError as e:
            again[vmm.name] += 1
            if attempt == ATTEMPTS - 1 or options.verbose:
                print(f"bench: {e}", file=sys.stderr)
            if attempt == ATTEMPTS - 1:
                raise


def vf(options, found, out):
    found = [v for v in found if v.name in assigned.DEVICE]
    path = assigned.make_vf(lab)
    if options.match in "exec to running, a VF and 1 GiB":
        assigned.start_up(options, found, path, os.path.join(options.build, "bench", "first.elf"), out)
    again = {v.name: 0 for v in found}
    with measure.folder() as folder:
        images = {"kernel": lab("build-kernel") + "/bzImage", "initramfs": lab("guest-initramfs"),
                  "serial": os.path.join(folder, "serial"), "tools": tools_image(folder)}
        rows = {v.name: [] for v in found}
        for _ in range(options.rounds):
            for vmm in found:
                rows[vmm.name].append(attempts(vmm, again, options, lambda: vf_once(vmm, images, path, options)))
    for i, (what, unit, target) in enumerate(assigned.TRAFFIC):
        columns = {name: [row[i] for row in values] for name, values in rows.items() if i < len(values[0])}
        out["figures"].append({"what": what, "unit": unit, **target, "values": {
            name: statistics.median(column) for name, column in columns.items()}})
        out["notes"] += [f"{what}: {columns}"] if options.verbose else []
    out["notes"] += [f"{name} was started again {n} times, since its guest ended" for name, n in again.items() if n]


def update(options, found, out):
    found = [v for v in found if v.name in update_vf.KINDS]
    path = assigned.make_vf(lab)
    again = {v.name: 0 for v in found}
    images = {"kernel": lab("build-kernel") + "/bzImage", "initramfs": lab("guest-initramfs"), "cmdline": CMDLINE}

    def attempt(vmm, once):
        def named():
            try:
                return once()
            except (AgentTimeout, EOFError, OSError) as e:
                raise AssertionError(f"{vmm.name}: {e}") from None
        return attempts(vmm, again, options, named)

    update_vf.figure(found, options.rounds, images, path, Guest, attempt, out)
    out["notes"] += [f"{name} was started again {n} times, since its guest ended" for name, n in again.items() if n]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("what", choices=["boot", "io", "vf", "update"])
    p.add_argument("--build", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=int, default=4)
    p.add_argument("--match", default="", help="of disk and network only what has this in its name")
    p.add_argument("--verbose", action="store_true")
    options = p.parse_args()
    found = vmms.found(options.build, lab("fetch-qemu"))
    out = {"figures": [], "notes": [f"{options.what} in the lab, on Linux {os.uname().release}: "
                                    + ", ".join(v.version() for v in found)]}
    try:
        with measure.huge_memfds():
            {"boot": boot, "io": io, "vf": vf, "update": update}[options.what](options, found, out)
    except (AgentTimeout, EOFError, OSError, AssertionError) as e:
        sys.exit(f"bench: {e}")
    with open(options.out, "w", encoding="utf-8") as f:
        json.dump(out, f)


if __name__ == "__main__":
    main()
