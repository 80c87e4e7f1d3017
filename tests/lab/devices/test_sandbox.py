# SPDX-License-Identifier: Apache-2.0
"""VFs of the igb under Landlock and in a jail, by each way."""
import os
import shutil
import tempfile
import unittest

from assigned import DeviceProbe, each_way, vf
from ferry import ApiError
from probe import PROBE

UID = 1234


class Sandboxed(unittest.TestCase):
    def setUp(self):
        # Rules hold on to inodes: the host's files are on a file system that changes them.
        self.dir = tempfile.mkdtemp(prefix="ferry-jail-")
        self.addCleanup(shutil.rmtree, self.dir)
        os.chmod(self.dir, 0o755)
        self.kernel = shutil.copy(PROBE, os.path.join(self.dir, "kernel"))

    def reboot(self, vm):
        self.assertEqual(vm.ask("reboot"), "reboot")
        vm.wait_ready()


@each_way
class Landlock(Sandboxed):
    def start(self, *args):
        return DeviceProbe("--landlock", *args, kernel=self.kernel)

    def test_a_vf_of_the_options_is_within_reach_also_after_a_reboot_by_each_way(self, way):
        with self.start("--device", f"path={vf('igb')[0]},id=vf0{way.option}") as vm:
            vm.start_vf("vf0")
            self.assertIn(way.file, " ".join(vm.fds()))
            self.reboot(vm)
            vm.start_vf("vf0")

    def test_a_vf_that_comes_later_is_refused_with_the_rule_that_would_do_by_each_way(self, way):
        first, second = vf("igb", 2)
        with self.start("--device", f"path={first}{way.option}") as vm:
            before = vm.fds()
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.add-device", {"path": second, "iommufd": not way.option})
            self.assertIn("Permission denied", caught.exception.body)
            self.assertIn(f"--landlock-rules path={second},access=r path=/dev/vfio,access=rw", caught.exception.body)
            self.assertEqual(vm.fds(), before)
            vm.ping()

    def test_a_vf_that_comes_later_is_covered_by_these_rules_by_each_way(self, way):
        _, second = vf("igb", 2)
        with self.start("--landlock-rules", f"path={second},access=r", "path=/dev/vfio,access=rw") as vm:
            vm.put("vm.add-device", {"path": second, "id": "vf1", "iommufd": not way.option})
            vm.start_vf("vf1")
            self.assertIn(way.file, " ".join(vm.fds()))


@each_way
class Jail(Sandboxed):
    def start(self, *args):
        return DeviceProbe(*args, kernel="/kernel", jail=self.dir)

    def inmate(self, vm):
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with open(f"/proc/{entry}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == vm.process.pid:
                    return entry
        raise AssertionError("the stand-in has no child")

    def test_a_vf_of_the_options_works_in_a_jail_that_has_no_other_device_by_each_way(self, way):
        first, second = vf("igb", 2)
        with self.start("--device", f"path={first},id=vf0{way.option}", "--landlock") as vm:
            vm.start_vf("vf0")
            root = f"/proc/{self.inmate(vm)}/root"
            self.assertTrue(os.path.isdir(f"{root}{first}/"))
            self.assertFalse(os.path.exists(f"{root}{second}"))
            nodes = [os.path.join(folder, name) for folder, _, names in os.walk(f"{root}/dev/vfio") for name in names]
            self.assertEqual(len(nodes), 1 if way.file == "/dev/vfio/devices" else 2, nodes)
            for node in nodes:
                self.assertEqual(os.stat(node).st_uid, UID)
            # What it may lock is its own memory.
            with open(f"/proc/{self.inmate(vm)}/limits") as file:
                (limit,) = (line.split()[3] for line in file if line.startswith("Max locked memory"))
            self.assertEqual(int(limit), (64 + 64) << 20)
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.add-device", {"path": second})
            self.assertIn("come as opened descriptors", caught.exception.body)
            self.reboot(vm)
            vm.start_vf("vf0")
        # It ends with the jail.
        self.assertEqual(os.listdir(f"{self.dir}/sys"), [])
        self.assertEqual(os.listdir(f"{self.dir}/dev/vfio"), [])


if __name__ == "__main__":
    unittest.main()
