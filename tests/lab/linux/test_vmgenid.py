# SPDX-License-Identifier: Apache-2.0
"""The VM generation id, as Linux's driver and the host see it."""
import os
import unittest

from linux_guest import LinuxGuest

GPA = 0xdf028  # X86_VMGENID


def generation_id(vm):
    """What is in the guest's RAM: the memfd's start is guest-physical 0."""
    fds = f"/proc/{vm.process.pid}/fd"
    for fd in os.listdir(fds):
        if not os.readlink(f"{fds}/{fd}").startswith("/memfd:"):
            continue
        with open(f"{fds}/{fd}", "rb") as ram:
            ram.seek(GPA)
            found = ram.read(16)
        if len(found) == 16:
            return found
    raise AssertionError("no RAM of the guest found")


class VmGenId(unittest.TestCase):
    def test_linux_binds_its_driver(self):
        with LinuxGuest() as vm:
            self.assertIn("QEMUVGID:00", vm.sh("ls /sys/bus/*/drivers/vmgenid"))
            self.assertNotEqual(generation_id(vm), bytes(16))
            self.assertEqual(vm.poweroff(), 0)

    def test_a_reboot_keeps_the_id_and_another_vm_has_another(self):
        with LinuxGuest() as vm, LinuxGuest() as other:
            before = generation_id(vm)
            vm.agent.send_line("run reboot -f")
            vm.wait_ready()
            self.assertIn("rebooted", vm.event_names())
            self.assertEqual(generation_id(vm), before)
            self.assertNotEqual(generation_id(other), before)
