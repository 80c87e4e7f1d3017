# SPDX-License-Identifier: Apache-2.0
"""Devices that cannot be assigned: the error names device, cause and remedy."""
import contextlib
import os
import resource
import stat
import unittest

from assigned import IOMMUFD, ROOT, WAYS, DeviceProbe, sh, vf
from ferry import run_ferry
from linux_guest import KERNEL


PCI = "/sys/bus/pci/devices/"
# Two functions of one IOMMU group: --devices pair
OURS, STRANGER = "0000:00:1d.0", "0000:00:1d.1"


def nodes(path, way):
    """The files of a DMA space and of the device, in the order that they are opened."""
    if way.option or not IOMMUFD:
        return "/dev/vfio/vfio", "/dev/vfio/" + os.path.basename(os.readlink(path + "/iommu_group"))
    return "/dev/iommu", "/dev/vfio/devices/" + os.listdir(path + "/vfio-dev")[0]


@contextlib.contextmanager
def modes(wanted):
    before = {node: stat.S_IMODE(os.stat(node).st_mode) for node in wanted}
    try:
        for node, mode in wanted.items():
            os.chmod(node, mode)
        yield
    finally:
        for node, mode in before.items():
            os.chmod(node, mode)


@contextlib.contextmanager
def locked_memory(limit):
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


class BadInput(unittest.TestCase):
    def refused(self, option, *words, **more):
        code, text = run_ferry("--kernel", KERNEL + "/bzImage", "--memory", "size=128M", "--console", "off",
                               "--serial", "off", "--device", option, timeout=30, **more)
        self.assertEqual(code, 1, text)
        for word in words:
            self.assertIn(word, text)

    def test_a_path_that_is_no_device(self):
        self.refused("path=/sys/bus/pci/devices/0000:77:00.0", "0000:77:00.0")
        self.refused("path=/etc/passwd", "/etc/passwd")
        self.refused("path=/sys/bus/pci/devices", "/sys/bus/pci/devices")

    def test_a_device_bound_to_another_driver_names_it_and_the_remedy(self):
        host = sh("basename $(readlink -f /sys/bus/pci/drivers/virtio-pci/0000:* | head -n1)").strip()
        for way in WAYS:
            self.refused(f"path=/sys/bus/pci/devices/{host}{way.option}", host, "virtio-pci", "driver_override")

    def test_a_device_bound_to_no_driver_names_the_remedy(self):
        path = vf("igb", 1)[0]
        name = os.path.basename(path)
        sh(f"echo {name} > /sys/bus/pci/drivers/vfio-pci/unbind")
        try:
            for way in WAYS:
                self.refused(f"path={path}{way.option}", name, "driver_override")
        finally:
            sh(f"echo {name} > /sys/bus/pci/drivers/vfio-pci/bind")

    def test_a_device_in_use_is_refused_and_the_other_vm_goes_on(self):
        (path,) = vf("igb")
        for way in WAYS:
            with DeviceProbe("--device", f"path={path},id=vf0{way.option}") as vm:
                for other in WAYS:
                    self.refused(f"path={path}{other.option}", os.path.basename(path))
                vm.start_vf("vf0")

    def test_a_group_that_is_not_viable_names_the_device_and_its_driver(self):
        sh(f"{ROOT}/tests/lab/vf bind {OURS}")
        for way in WAYS:
            self.refused(f"path={PCI}{OURS}{way.option}", OURS, f"{STRANGER} (virtio-pci)", "vfio-pci")
        # what the message asks for
        sh(f"{ROOT}/tests/lab/vf bind {STRANGER}")
        try:
            for way in WAYS:
                with DeviceProbe("--device", f"path={PCI}{OURS},id=ours{way.option}") as vm:
                    self.assertEqual(vm.read(vm.config("ours"), 4), 0x00051b36)
        finally:
            sh(f"{ROOT}/tests/lab/vf unbind {STRANGER}")

    def test_a_user_without_permission_is_told_which_file(self):
        (path,) = vf("igb")
        for way in WAYS:
            space, device = nodes(path, way)
            with modes({"/dev/kvm": 0o666, space: 0o600, device: 0o600}), locked_memory(resource.RLIM_INFINITY):
                for node in (space, device):
                    self.refused(f"path={path}{way.option}", f"open {node}", "Permission denied",
                                 "give this user read and write access", user=1234, group=1234)
                    os.chmod(node, 0o666)

    def test_a_limit_of_locked_memory_is_named_with_one_that_would_do(self):
        (path,) = vf("igb")
        for way in WAYS:
            with modes(dict.fromkeys(["/dev/kvm", *nodes(path, way)], 0o666)), locked_memory(1 << 20):
                self.refused(f"path={path}{way.option}", "RLIMIT_MEMLOCK is 1024 KiB", "128 MiB would do",
                             "LimitMEMLOCK=128M", user=1234, group=1234)


if __name__ == "__main__":
    unittest.main()
