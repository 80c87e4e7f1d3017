# SPDX-License-Identifier: Apache-2.0
"""VFs of a network card carry the guest's traffic, by each way a device is reached, and
without exits."""
import time
import unittest

from assigned import HUGE, PEER, WAYS, LinuxGuest, NetCase, each_way, vf, wait_for


@each_way
class Traffic(NetCase):
    def test_a_vf_carries_100_mib_and_back_without_exits_and_over_a_pause_and_a_reboot_by_each_way(self, way):
        (path,) = vf("igb")
        with LinuxGuest("--device", f"path={path},id=vf0{way.option}", memory=HUGE) as vm:
            self.bring_up(vm)
            self.assertIn("igbvf", vm.sh("readlink /sys/class/net/eth0/device/driver"))
            names = " ".join(vm.fds())
            for other in WAYS:
                self.assertEqual(other.file in names, other == way, names)
            self.assertGreater(vm.get("vm.counters")["vf0"]["msi_vectors"], 0)
            irqs, before = self.interrupts(vm), vm.get("vm.counters")
            self.download(vm, 100)
            after = vm.get("vm.counters")
            self.assertGreater(self.interrupts(vm), irqs + 100)
            # no register, no config space, no interrupt, and nothing of another device
            self.assertEqual(after["vf0"], before["vf0"])
            self.assertEqual(after["_vcpu0"]["mmio_exits"], before["_vcpu0"]["mmio_exits"])
            self.upload(vm, 10)
            self.assertEqual(vm.get("vm.counters")["vf0"], before["vf0"])
            vm.put("vm.pause")
            time.sleep(1)
            vm.put("vm.resume")
            vm.sh(f"ping -c 1 -w 60 {PEER}", 70)
            vm.agent.send_line("run reboot -f")
            vm.wait_ready()
            self.bring_up(vm)
            self.download(vm, 2)
            self.assertEqual(vm.poweroff(), 0)

    def test_two_vfs_in_one_vm_talk_to_each_other(self):
        paths = vf("igb", 2)
        with LinuxGuest("--device", f"path={paths[0]}", f"path={paths[1]}", cpus=2, memory=HUGE) as vm:
            self.wait_interface(vm, "eth1")
            # One in a network namespace of its own, else packets would not leave the guest.
            vm.sh("(unshare -n sleep 100000 > /dev/null 2>&1 & echo $! > /tmp/pid)")
            other = "nsenter -n -t $(cat /tmp/pid) "
            wait_for(lambda: vm.agent.run(f"{other} test ! -d /sys/class/net/eth0 -o $(readlink /proc/self/ns/net) != "
                                          f"$({other} readlink /proc/self/ns/net)")[0] == 0, 10, "the namespace")
            vm.sh("ip link set eth1 netns $(cat /tmp/pid)")
            vm.sh("ip addr add 192.168.78.1/24 dev eth0 && ip link set eth0 up")
            vm.sh(f"{other} ip addr add 192.168.78.2/24 dev eth1 && {other} ip link set eth1 up")
            vm.sh("ping -c 1 -w 60 192.168.78.2", 70)
            vm.sh("dd if=/dev/urandom of=/tmp/x bs=1M count=5")
            # Each nc ends what it sends where its input ends, and itself where the other's does.
            vm.sh(f"(sleep 1000 | {other} nc -l -p 5000 > /tmp/y &) ; sleep 1; nc -w 5 192.168.78.2 5000 < /tmp/x", 120)
            # the other end may still be writing
            wait_for(lambda: vm.agent.run("cmp /tmp/x /tmp/y")[0] == 0, 30, "all of it at the other VF")


if __name__ == "__main__":
    unittest.main()
