# SPDX-License-Identifier: Apache-2.0
"""A VM with the probe guest (tests/guests/probe/README.md)."""
import os
import re

from ferry import BUILD, Ferry

PROBE = os.environ.get("FERRY_PROBE", os.path.join(BUILD, "probe.elf"))
# RAM below this is the probe's own.
FREE = 8 << 20


class Probe(Ferry):
    def __init__(self, *args, memory="64M", cpus=1, cmdline="", ready=True, kernel=PROBE, **more):
        super().__init__("--kernel", kernel, "--memory", f"size={memory}", "--cpus", f"boot={cpus}",
                         *(["--cmdline", cmdline] if cmdline else []), *args, **more)
        try:
            self.connect_serial()
            if ready:
                self.wait_ready()
        except BaseException:
            self.close()
            raise

    def wait_ready(self, timeout=20):
        return self.read_until(r"PROBE ready mem=(\d+) cpus=(\d+)\r?\n", timeout)

    def ask(self, command, timeout=20):
        """The one line that answers a command."""
        self.send(command)
        return self.read_until(rb"([^\r\n]*)\r?\n", timeout).group(1).decode()

    def ping(self):
        assert self.ask("ping") == "pong"

    def read(self, address, size):
        return int(self.ask(f"mmio {address:#x} {size}").split()[1], 16)

    def write(self, address, size, value):
        reply = self.ask(f"mmio {address:#x} {size} {value:#x}")
        assert reply == "mmio ok", reply

    def functions(self):
        """{"00:03.0": ("1af4:1042", "class")} of the guest's PCI bus."""
        self.send("pciscan")
        text = self.read_until(rb"((?:pci [^\r\n]*\r?\n)*)pciscan ok functions=(\d+)\r?\n").group(1).decode()
        return {m[0]: m[1] for m in re.findall(r"pci (\S+) (\S+) class=", text)}
