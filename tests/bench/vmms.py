# SPDX-License-Identifier: Apache-2.0
"""Command lines of Ferry and of what it is measured against.

Every VMM gets the same guest: memory, one vCPU, kernel, initramfs, kernel command
line, a serial port that writes to a file (a FIFO, here) and a virtio-rng, which Ferry
and Cloud Hypervisor always have. QEMU gets the machine that starts fastest, and its
fastest settings.
"""
import json
import os
import shutil
import subprocess


class Vmm:
    name = "?"

    def __init__(self, program):
        self.program = program

    def version(self):
        lines = subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout.splitlines()
        return lines[0].split("(")[0].strip() if lines else self.name


class Ferry(Vmm):
    name = "ferry"

    def guest(self, kernel, serial, mib, initramfs=None, cmdline=None, memory=None, more=()):
        return ([self.program, "--kernel", kernel, "--memory", memory or f"size={mib}M", "--serial", serial, "--console", "off"]
                + (["--initramfs", initramfs] if initramfs else [])
                + (["--cmdline", cmdline] if cmdline else []) + list(more))

    def serial_file(self, path, where):
        return f"file={path}"

    def api(self, path):
        return [self.program, "--api-socket", path]

    ping = b"GET /api/v1/vmm.ping HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 200"


class CloudHypervisor(Ferry):
    name = "cloud-hypervisor"


class Firecracker(Vmm):
    name = "firecracker"

    def guest(self, kernel, serial, mib, initramfs=None, cmdline=None, more=()):
        config = {"boot-source": {"kernel_image_path": kernel, "boot_args": cmdline or ""},
                  "drives": [], "machine-config": {"vcpu_count": 1, "mem_size_mib": mib}}
        if initramfs:
            config["boot-source"]["initrd_path"] = initramfs
        with open(serial + ".json", "w") as f:
            json.dump(config, f)
        return [self.program, "--no-api", "--level", "Error", "--config-file", serial + ".json"]

    def serial_file(self, path, where):
        where["stdout"] = path  # its serial port is its standard output
        return path

    def api(self, path):
        return [self.program, "--api-sock", path]

    ping = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 200"


class Qemu(Vmm):
    name = "qemu"
    # Without an RTC Linux waits 3.4 s for one. ACPI off and qboot is the fastest of its
    # firmwares; PIT and PIC are not missed by a PVH guest and by Linux on KVM.
    machine = "microvm,rtc=on,acpi=off"

    def base(self, machine=None):
        return [self.program, "-accel", "kvm", "-cpu", "host,arch-capabilities=off", "-M", machine or self.machine, "-nodefaults",
                "-no-user-config", "-display", "none"]

    def guest(self, kernel, serial, mib, initramfs=None, cmdline=None, machine=None, more=()):
        return (self.base(machine) + ["-m", str(mib), "-kernel", kernel, "-chardev", f"{serial},id=c", "-serial",
                                      "chardev:c", "-device", "virtio-rng-device"]
                + (["-initrd", initramfs] if initramfs else [])
                + (["-append", cmdline] if cmdline else []) + list(more))

    def serial_file(self, path, where):
        return f"file,path={path}"

    def api(self, path):
        return self.base() + ["-S", "-qmp", f"unix:{path},server=on,wait=off"]

    ping = b'{"execute":"qmp_capabilities"}\n{"execute":"query-status"}\n', b'"status"'


def found(build, qemu=None):
    """Ferry first, then the others that are installed."""
    vmms = [Ferry(os.path.join(build, "ferry"))]
    for kind, program in ((Qemu, qemu or shutil.which("qemu-system-x86_64")),
                          (CloudHypervisor, shutil.which("cloud-hypervisor")),
                          (Firecracker, shutil.which("firecracker"))):
        if program:
            vmms.append(kind(program))
    return vmms
