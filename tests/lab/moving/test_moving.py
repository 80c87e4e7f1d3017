# SPDX-License-Identifier: Apache-2.0
"""A Linux guest that is busy on four CPUs and a disk while it moves."""
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "linux"))
from linux_guest import Agent, Files, LinuxGuest, sha, sh  # noqa: E402

from arrival import Arrival, free_port
from certificates import tls_dir
from ferry import SLOW

# Each writes bytes of its own, copies and compares them, and counts: in RAM, and one on
# the disk. What it finds wrong stays in /tmp/bad.
LOAD = """for i in 1 2 3 4; do (n=0; while [ ! -e /tmp/stop ]; do
 dd if=/dev/urandom of=/tmp/a$i bs=64k count=8; cp /tmp/a$i /tmp/b$i; cmp /tmp/a$i /tmp/b$i || echo ram $i >> /tmp/bad;
 n=$((n+1)); echo $n > /tmp/n$i; done) > /dev/null 2>&1 & done;
(n=0; while [ ! -e /tmp/stop ]; do
 dd if=/dev/urandom of=/tmp/d bs=64k count=4; dd if=/tmp/d of=/dev/vda bs=64k seek=$((n%60*4)) oflag=direct;
 dd if=/dev/vda of=/tmp/e bs=64k skip=$((n%60*4)) count=4 iflag=direct; cmp /tmp/d /tmp/e || echo disk >> /tmp/bad;
 n=$((n+1)); echo $n > /tmp/n5; done) > /dev/null 2>&1 &""".replace("\n", " ")
LOADS = 5


class LinuxArrival(Arrival):
    """Where such a guest comes to."""

    def connect_serial(self):
        super().connect_serial()
        self.agent = Agent.of_fd(self.console.fileno())

    def ping(self):
        self.agent.ping("there?", 60 * SLOW)

    sh = LinuxGuest.sh


class Moving(Files):
    def setUp(self):
        super().setUp()
        self.disk = self.image("disk.img", 16)

    def start(self):
        vm = LinuxGuest("--disk", f"path={self.disk}", cpus=4, memory="192M")
        self.addCleanup(vm.close)
        vm.sh(LOAD)
        self.goes_on(vm)
        return vm

    def arrival(self):
        to = LinuxArrival()
        self.addCleanup(to.close)
        return to

    def counts(self, vm):
        return [int(n) for n in vm.sh("cat /tmp/n1 /tmp/n2 /tmp/n3 /tmp/n4 /tmp/n5 2> /dev/null; true", 60).split()]

    def goes_on(self, vm):
        """Every load gets further, nothing was found wrong, the kernel complains of nothing."""
        before = self.counts(vm)
        for _ in range(60):
            now = self.counts(vm)
            if len(now) == LOADS and (len(before) < LOADS or all(a > b for a, b in zip(now, before))):
                break
            vm.sh("sleep 0.2")
        else:
            self.fail(f"stuck: {before}, {now}; {vm.sh('dmesg | tail -20')}")
        self.assertEqual(vm.sh("cat /tmp/bad 2> /dev/null; true"), "")
        said = vm.sh("dmesg")
        bad = re.search(r"BUG|Oops|soft lockup|rcu.*stall|I/O error", said)
        self.assertIsNone(bad, bad and said[max(bad.start() - 1000, 0):bad.start() + 6000])
        self.assertEqual(vm.sh("cat /proc/cpuinfo").count("processor"), 4)

    def ends_well(self, vm):
        """And then: the file has what the guest sees on its disk."""
        vm.sh("touch /tmp/stop; while pidof dd; do sleep 0.1; done; sync; echo 3 > /proc/sys/vm/drop_caches", 60)
        self.assertEqual(vm.sh("sha256sum /dev/vda", 60).split()[0], sha(self.disk))
        self.assertEqual(vm.sh("cat /tmp/bad 2> /dev/null; true"), "")

    def move(self, vm, url=None, receive=None, **more):
        to = self.arrival()
        to.listen(url, **(receive or {}))
        vm.put("vm.send-migration", {"destination_url": to.url, **more}, 200)
        to.arrived()
        self.goes_on(to)
        progress = vm.get("vm.migration")
        print(f"     {to.url.split(':')[0]} {more.get('memory_mode', '')} {'local ' if more.get('local') else ''}"
              f"{'TLS ' if 'tls_dir' in more else ''}: stopped for {progress['downtime_us']['total'] / 1000:.1f} ms")
        self.assertEqual(progress["phase"], "completed")
        self.assertEqual(vm.request("GET", "/api/v1/vm.info")[0], 404)
        vm.close()
        return to

    def tcp(self):
        return f"tcp:127.0.0.1:{free_port()}"

    def test_by_unix_socket_and_locally(self):
        vm = self.move(self.start())
        self.ends_well(self.move(vm, local=True))

    def test_by_tcp_and_tls(self):
        tls = tls_dir(f"{self.dir}/tls")
        vm = self.move(self.start(), self.tcp(), connections=2)
        self.ends_well(self.move(vm, self.tcp(), receive={"tls_dir": tls}, tls_dir=tls))

    def test_by_postcopy(self):
        self.ends_well(self.move(self.start(), self.tcp(), connections=2, memory_mode="Postcopy"))

    def test_restored_eagerly_and_lazily(self):
        vm, folder = self.start(), os.path.join(self.dir, "snapshot")
        vm.put("vm.pause")
        vm.put("vm.snapshot", {"destination_url": f"file://{folder}"}, 200)
        sh(f"cp {self.disk} {self.disk}.then")
        vm.put("vm.resume")
        self.goes_on(vm)
        vm.close()
        for mode in "eager", "lazy":
            with self.subTest(mode=mode):
                sh(f"cp {self.disk}.then {self.disk}")
                to = self.arrival()
                to.restore(folder, memory_restore_mode=mode)
                self.goes_on(to)
                self.ends_well(to)
                to.close()


if __name__ == "__main__":
    unittest.main()
