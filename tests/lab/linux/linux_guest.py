# SPDX-License-Identifier: Apache-2.0
"""A Linux guest under Ferry, driven by the agent on its serial port."""
import hashlib
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, os.path.join(ROOT, "tests", "guests", "linux"))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))
from agent import Agent, AgentTimeout  # noqa: E402
from ferry import SLOW, ApiError, Ferry  # noqa: E402


def lab(tool, *args):
    """What a tool of the lab prints: the path of something in the cache."""
    return subprocess.run([os.path.join(ROOT, "tests", "lab", tool), *args], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()


KERNEL = lab("build-kernel")
INITRAMFS = lab("guest-initramfs")
DEBIAN = lab("fetch-debian-kernel")


class LinuxGuest(Ferry):
    """Ferry with a Linux guest whose agent has answered."""

    def __init__(self, *args, kernel=None, initramfs=INITRAMFS, cmdline="", cpus=1, memory="256M",
                 ready=True, **more):
        super().__init__("--kernel", kernel or KERNEL + "/bzImage", "--initramfs", initramfs,
                         "--cmdline", "console=ttyS0 quiet panic=-1 reboot=t " + cmdline,
                         "--cpus", f"boot={cpus}", "--memory", f"size={memory}", *args, **more)
        try:
            self.connect_serial()
            self.agent = Agent.of_fd(self.console.fileno())
            if ready:
                self.wait_ready()
        except BaseException:
            print("log:", self.log()[-3000:], "stderr:", self.stderr())
            self.close()
            raise

    def wait_ready(self, timeout=60):
        try:
            self.agent.wait_ready(timeout * SLOW)
        except EOFError as e:
            raise AssertionError(f"{e}\nstatus: {self.process.poll()}\n{self.stderr()}\n{self.log()[-2000:]}") from None

    def sh(self, command, timeout=30):
        try:
            return self.agent.check(command, timeout * SLOW)
        except EOFError as e:
            raise AssertionError(f"{e}\nstatus: {self.process.poll()}\n{self.stderr()}\n{self.log()[-2000:]}") from None

    def poweroff(self):
        self.agent.send_line("run poweroff -f")
        try:
            return self.wait_exit(30)
        except AssertionError as e:
            try:
                self.put("vm.nmi")  # whether its CPUs still hear anything
                self.agent.expect(rb"(?!)", 3)
            except (AgentTimeout, ApiError, EOFError, OSError) as said:
                raise AssertionError(f"{e}\n{said}") from None
            raise


def sh(command):
    subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def sha(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


class Files(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ferry-lab-")
        self.addCleanup(sh, f"rm -rf {self.dir}")

    def image(self, name, mib, random=True):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as f:
            if random:
                f.write(os.urandom(mib << 20))
            else:
                f.truncate(mib << 20)
        return path
