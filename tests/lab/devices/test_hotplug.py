# SPDX-License-Identifier: Apache-2.0
"""Assigned devices come and go while the guest runs, and leave nothing behind."""
import os
import unittest

from assigned import IOMMUFD, PEER, DeviceProbe, LinuxGuest, NetCase, Sender, add_given, each_way, sh, vf, wait_for
from ferry import ApiError


def add_device(path, way, **more):
    return {"path": path, **({"iommufd": False} if way.option else {}), **more}


@each_way
class Hotplug(NetCase):
    def remove(self, vm, name):
        vm.put("vm.remove-device", {"id": name})
        if isinstance(vm, DeviceProbe):
            vm.eject(name)
        wait_for(lambda: name not in vm.get("vm.info")["device_tree"], 60, f"{name} to be released")
        # the last of it is done on the way out of the tree
        vm.wait_event("device-removed", count=self.removed + 1, timeout=60)
        self.removed += 1

    def setUp(self):
        self.removed = 0

    def test_a_vf_is_added_and_removed_under_traffic_by_each_way(self, way):
        (path,) = vf("igb")
        with LinuxGuest() as vm:
            for _ in range(2):
                self.assertEqual(vm.put("vm.add-device", add_device(path, way, id="hot"))["id"], "hot")
                self.bring_up(vm)
                with Sender(None) as sender:
                    vm.sh(f"(nc {PEER} {sender.port} < /dev/null > /dev/null 2>&1 &)")
                    wait_for(lambda: int(vm.sh("cat /sys/class/net/eth0/statistics/rx_bytes")) > 1 << 20, 60,
                             "traffic")
                    self.remove(vm, "hot")
                self.wait_interface(vm, there=False)
                vm.sh("killall nc; true")
            self.assertFalse([fd for fd in vm.fds() if "/dev/vfio/devices" in fd])
            self.assertEqual(vm.poweroff(), 0)

    def held(self, vm):
        """What a device could leave behind, but for heap: that need not shrink."""
        with open(f"/proc/{vm.process.pid}/maps") as maps:
            mappings = sorted(line.split(None, 5)[5].strip() for line in maps if len(line.split(None, 5)) > 5)
        return {"descriptors": vm.fds(), "mappings": [m for m in mappings if m != "[heap]"],
                "VmPin": vm.status("VmPin"), "VmLck": vm.status("VmLck"),
                "threads": len(vm.threads())}

    def test_a_hundred_rounds_leave_what_was_there_before_by_each_way(self, way):
        (path,) = vf("igb")
        with DeviceProbe() as vm:
            for round_ in range(101):
                vm.put("vm.add-device", add_device(path, way, id="hot"))
                vm.start_vf("hot")
                self.remove(vm, "hot")
                if not round_:  # the DMA space came with it, and stays: it is the machine's
                    before, memory = self.held(vm), vm.anonymous_kib()
            after = self.held(vm)
            self.assertEqual(after, before)
            self.assertLess(vm.anonymous_kib(), memory + 512)
            # and one that works still
            vm.put("vm.add-device", add_device(path, way, id="hot"))
            vm.start_vf("hot")

    def test_a_hot_add_that_fails_leaves_the_vm_as_it_was_by_each_way(self, way):
        (path,) = vf("igb")
        with DeviceProbe() as vm:
            vm.put("vm.add-device", add_device(path, way, id="one"))
            vm.start_vf("one")
            before = self.held(vm)
            for bad in (add_device("/sys/bus/pci/devices/0000:77:00.0", way),
                        add_device("/etc/passwd", way),
                        add_device("/sys/bus/pci/devices", way),
                        add_device(path, way),  # the VM has it
                        add_device(path, way, id="one")):
                with self.assertRaises(ApiError):
                    vm.put("vm.add-device", bad)
            vm.ping()
            self.assertEqual(self.held(vm), before)

    def test_the_host_takes_a_device_back_and_the_vm_goes_on_by_each_way(self, way):
        (path,) = vf("igb")
        name = os.path.basename(path)
        with LinuxGuest("--device", f"path={path},id=vf0{way.option}") as vm:
            self.bring_up(vm)
            # waits until nobody has the device
            sh(f"echo {name} > /sys/bus/pci/drivers/vfio-pci/unbind")
            sh(f"echo {name} > /sys/bus/pci/drivers/vfio-pci/bind")
            self.assertIn("device-lost", vm.event_names())
            wait_for(lambda: "vf0" not in vm.get("vm.info")["device_tree"], 60, "the VF to be released")
            self.wait_interface(vm, there=False)
            vm.put("vm.add-device", add_device(path, way, id="vf0"))
            self.bring_up(vm)

    def test_an_opened_device_is_handed_in_with_the_request(self):
        if not IOMMUFD:  # this is the only way there is then
            return
        (path,) = vf("igb")
        with LinuxGuest() as vm:
            add_given(vm, path, "given")
            self.bring_up(vm)
            # a reboot is a new machine on the same descriptor
            vm.agent.send_line("run reboot -f")
            vm.wait_ready()
            self.bring_up(vm)
            self.download(vm, 2)
            self.remove(vm, "given")
            self.assertFalse([fd for fd in vm.fds() if "/dev/vfio/devices" in fd])


if __name__ == "__main__":
    unittest.main()
