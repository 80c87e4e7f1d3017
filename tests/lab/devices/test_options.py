# SPDX-License-Identifier: Apache-2.0
"""Options of an assigned device, on the command line and by the API."""
import unittest

from assigned import DeviceProbe, LinuxGuest, NetCase, vf, wait_for
from ferry import ApiError


class Options(NetCase):
    def works(self, vm):
        self.wait_interface(vm)
        vm.sh("ip link set eth0 up")
        return vm.get("vm.counters")["dev"]

    def again(self, vm, **options):
        vm.put("vm.remove-device", {"id": "dev"})
        wait_for(lambda: "dev" not in vm.get("vm.info")["device_tree"], 60, "dev to be released")
        self.wait_interface(vm, there=False)
        vm.put("vm.add-device", {"path": vf("igb")[0], "id": "dev", **options})
        return self.works(vm)

    def test_a_bar_that_is_excluded_is_trapped_and_the_device_works(self):
        with LinuxGuest("--device", f"path={vf('igb')[0]},id=dev,x_exclude_mmap_bars=[0]") as vm:
            trapped = self.works(vm)
            self.assertEqual(vm.get("vm.info")["config"]["devices"][0]["x_exclude_mmap_bars"], [0])
            mapped = self.again(vm)
            self.assertGreaterEqual(mapped["mapped_bytes"], 0x4000)
            self.assertLessEqual(trapped["mapped_bytes"], mapped["mapped_bytes"] - 0x4000)
            self.assertGreater(trapped["bar_reads"], mapped["bar_reads"] + 10)
            self.assertEqual(self.again(vm, x_exclude_mmap_bars=[0, 3])["mapped_bytes"], 0)

    def test_a_gpudirect_clique_is_for_gpus(self):
        with DeviceProbe() as vm:
            before = vm.fds()
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.add-device", {"path": vf("igb")[0], "x_nv_gpudirect_clique": 1})
            self.assertEqual(caught.exception.status, 400)
            self.assertIn("is not a display device of NVIDIA's", caught.exception.body)
            # The DMA space stays: it is the machine's.
            self.assertFalse([fd for fd in vm.fds() if fd not in before and fd not in ("/dev/iommu", "/dev/vfio/vfio")])
            vm.ping()


if __name__ == "__main__":
    unittest.main()
