# SPDX-License-Identifier: Apache-2.0
"""Each virtio device does real I/O with Linux's drivers: the bytes are compared."""
import hashlib
import os
import socket
import threading
import unittest

from ferry import SLOW, wait_for
from linux_guest import Files, LinuxGuest, sha, sh


class Disk(Files):
    def test_reads_and_writes_are_the_files_bytes(self):
        a, b = self.image("a.img", 16), self.image("b.img", 16)
        want = sha(a)
        with LinuxGuest("--disk", f"path={a},readonly=on,serial=SER-1", f"path={b},num_queues=2", cpus=2) as vm:
            self.assertEqual(vm.sh("sha256sum /dev/vda").split()[0], want)
            self.assertEqual(vm.sh("cat /sys/block/vda/serial").strip(), "SER-1")
            self.assertEqual(vm.sh("cat /sys/block/vda/ro").strip(), "1")
            vm.sh("dd if=/dev/vda of=/dev/vdb bs=64k && sync", 60)
            self.assertEqual(sha(b), want)
            self.assertNotEqual(vm.agent.run("dd if=/dev/zero of=/dev/vda bs=4k count=1")[0], 0)
            counters = vm.get("vm.counters")
            self.assertGreaterEqual(counters["_disk0"]["read_bytes"], 16 << 20)
            self.assertGreaterEqual(counters["_disk1"]["write_bytes"], 16 << 20)

    def test_a_filesystem_works_and_direct_and_plain_io_too(self):
        for options in ("", ",direct=on", ",_disable_io_uring=on"):
            with self.subTest(options=options):
                path = self.image("fs.img", 64, random=False)
                sh(f"mke2fs -q -F -t ext4 {path}")
                with LinuxGuest("--disk", f"path={path}{options}") as vm:
                    vm.sh("mkdir -p /mnt && mount -t ext4 /dev/vda /mnt")
                    vm.sh("dd if=/dev/urandom of=/mnt/x bs=1M count=8 && cp /mnt/x /mnt/y && sync", 60)
                    vm.sh("umount /mnt && mount -t ext4 /dev/vda /mnt && cmp /mnt/x /mnt/y && umount /mnt", 60)
                    self.assertEqual(vm.poweroff(), 0)
                sh(f"e2fsck -fn {path}")

    def test_discard_gives_space_back(self):
        path = self.image("d.img", 16)
        self.assertGreater(os.stat(path).st_blocks, 30000)
        with LinuxGuest("--disk", f"path={path}") as vm:
            vm.sh("blkdiscard /dev/vda || busybox blkdiscard /dev/vda")
            self.assertLess(os.stat(path).st_blocks, 1000)
            self.assertEqual(set(open(path, "rb").read()), {0})

    def test_hot_added_disk_works_and_hot_removed_is_released(self):
        first, second = self.image("a.img", 4), self.image("b.img", 4)
        with LinuxGuest("--disk", f"path={first}") as vm:
            before = vm.fds()
            for _ in range(3):
                place = vm.put("vm.add-disk", {"path": second, "id": "hot"})
                self.assertEqual(place["id"], "hot")
                wait_for(lambda: vm.agent.run("test -b /dev/vdb")[0] == 0, 10, "/dev/vdb")
                self.assertEqual(vm.sh("sha256sum /dev/vdb").split()[0], sha(second))
                vm.put("vm.remove-device", {"id": "hot"})
                wait_for(lambda: vm.agent.run("test -b /dev/vdb")[0] != 0, 10, "/dev/vdb to go")
                wait_for(lambda: "hot" not in vm.get("vm.info")["device_tree"], 10, "hot to be released")
            wait_for(lambda: len(vm.fds()) == len(before), 10, "descriptors to be closed")

    def test_resize_is_seen_by_the_guest(self):
        path = self.image("r.img", 4)
        with LinuxGuest("--disk", f"path={path},id=grow") as vm:
            vm.put("vm.resize-disk", {"id": "grow", "desired_size": 8 << 20})
            wait_for(lambda: vm.sh("blockdev --getsize64 /dev/vda").strip() == str(8 << 20), 10, "the new size")


class Net(Files):
    def tap(self, name, queues=1):
        sh(f"ip tuntap add {name} mode tap vnet_hdr {'multi_queue' if queues > 1 else ''}")
        sh(f"ip addr add 192.168.90.1/24 dev {name} && ip link set {name} up")
        self.addCleanup(sh, f"ip link del {name}")

    def serve(self, data):
        """A TCP server that sends data once, then collects what comes."""
        server = socket.create_server(("192.168.90.1", 0))
        result = {}

        def run():
            peer, _ = server.accept()
            if data:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := peer.recv(65536):
                received += chunk
            result["received"] = received
            peer.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(server.close)
        return server.getsockname()[1], thread, result

    def traffic(self, vm):
        wait_for(lambda: vm.agent.run("test -d /sys/class/net/eth0")[0] == 0, 10, "eth0")
        vm.sh("ip addr add 192.168.90.2/24 dev eth0 && ip link set eth0 up")
        vm.sh("ping -c 3 -W 5 192.168.90.1", 60)
        data = os.urandom(8 << 20)
        port, thread, result = self.serve(data)
        vm.sh(f"nc 192.168.90.1 {port} < /dev/null > /tmp/in; true", 60)
        self.assertEqual(vm.sh("sha256sum /tmp/in").split()[0], hashlib.sha256(data).hexdigest())
        thread.join(20 * SLOW)
        port, thread, result = self.serve(b"")
        vm.sh(f"nc 192.168.90.1 {port} < /tmp/in", 60)
        thread.join(60 * SLOW)
        self.assertEqual(result["received"], data)

    def test_ping_and_tcp_over_a_tap(self):
        self.tap("ftap0")
        with LinuxGuest("--net", "tap=ftap0,mac=52:54:00:aa:bb:01") as vm:
            self.traffic(vm)
            self.assertIn("52:54:00:aa:bb:01", vm.sh("cat /sys/class/net/eth0/address"))
            counters = vm.get("vm.counters")["_net0"]
            self.assertGreater(counters["rx_bytes"], 8 << 20)
            self.assertGreater(counters["tx_bytes"], 8 << 20)

    def test_several_queues(self):
        self.tap("ftap1", queues=2)
        with LinuxGuest("--net", "tap=ftap1,num_queues=4", cpus=2) as vm:
            self.traffic(vm)
            self.assertEqual(vm.sh("ls /sys/class/net/eth0/queues | grep -c rx").strip(), "2")

    def test_vhost_net(self):
        self.tap("ftap2")
        with LinuxGuest("--net", "tap=ftap2,vhost=on") as vm:
            self.assertTrue([fd for fd in vm.fds() if "vhost-net" in fd], vm.fds())
            self.traffic(vm)

    def test_vhost_net_carries_traffic_on_after_pause_and_reboot(self):
        self.tap("ftap3")
        with LinuxGuest("--net", "tap=ftap3,vhost=on") as vm:
            vm.sh("ip addr add 192.168.90.2/24 dev eth0 && ip link set eth0 up")
            vm.sh("ping -c 1 -W 5 192.168.90.1", 60)
            vm.put("vm.pause")
            vm.put("vm.resume")
            vm.sh("ping -c 1 -W 5 192.168.90.1", 60)
            vm.agent.send_line("run reboot -f")
            vm.wait_ready()
            self.traffic(vm)

    def test_hot_added_net_works_and_is_released(self):
        self.tap("ftap4")
        with LinuxGuest() as vm:
            vm.put("vm.add-net", {"tap": "ftap4", "id": "hotnet"})
            self.traffic(vm)
            vm.put("vm.remove-device", {"id": "hotnet"})
            wait_for(lambda: vm.agent.run("test -d /sys/class/net/eth0")[0] != 0, 10, "eth0 to go")
            wait_for(lambda: not [fd for fd in vm.fds() if "net/tun" in fd], 10, "the tap to be closed")


class Vsock(Files):
    def echo_over_unix(self, vm, path):
        vm.agent.send_line("run (agent vsock-echo 5000 &) ; sleep 1")
        vm.agent.expect(rb"FERRY-END \d+ 0", 20 * SLOW)

        def connect():
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(10 * SLOW)
            s.connect(path)
            s.sendall(b"CONNECT 5000\n")
            line = b""
            while not line.endswith(b"\n"):
                byte = s.recv(1)
                if not byte:
                    return None
                line += byte
            return s if line.startswith(b"OK ") else None

        s = wait_for(connect, 20, "the guest's echo server")
        data = os.urandom(1 << 20)
        sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)), daemon=True)
        sender.start()
        received = b""
        while chunk := s.recv(65536):
            received += chunk
        self.assertEqual(hashlib.sha256(received).hexdigest(), hashlib.sha256(data).hexdigest())

    def test_echo_over_the_unix_socket_form(self):
        path = os.path.join(self.dir, "vsock")
        with LinuxGuest("--vsock", f"cid=3,socket={path}") as vm:
            self.echo_over_unix(vm, path)

    def test_guest_reaches_a_listener_of_the_host(self):
        path = os.path.join(self.dir, "vsock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path + "_700")
        listener.listen(1)
        self.addCleanup(listener.close)

        def serve():
            peer, _ = listener.accept()
            text = peer.recv(100)
            peer.sendall(b"got " + text)
            peer.close()

        threading.Thread(target=serve, daemon=True).start()
        with LinuxGuest("--vsock", f"cid=3,socket={path}") as vm:
            self.assertIn("got hello", vm.sh("agent vsock-send 2 700 hello"))

    def test_vhost_vsock(self):
        with LinuxGuest("--vsock", "cid=42") as vm:
            vm.agent.send_line("run (agent vsock-echo 5001 &) ; sleep 1")
            vm.agent.expect(rb"FERRY-END \d+ 0", 20 * SLOW)
            s = socket.socket(socket.AF_VSOCK)
            s.settimeout(20 * SLOW)
            s.connect((42, 5001))
            s.sendall(b"over the kernel")
            self.assertEqual(s.recv(100), b"over the kernel")
            s.close()

    def test_hot_added_vsock(self):
        path = os.path.join(self.dir, "vsock")
        with LinuxGuest() as vm:
            vm.put("vm.add-vsock", {"cid": 3, "socket": path, "id": "vs"})
            wait_for(lambda: vm.agent.run("grep -q . /sys/bus/virtio/drivers/vmw_vsock_virtio_transport/*/status")[0] == 0
                     or vm.agent.run("ls /sys/bus/virtio/drivers/*vsock*/ | grep -q virtio")[0] == 0, 10, "the vsock device")
            self.echo_over_unix(vm, path)
            vm.put("vm.remove-device", {"id": "vs"})
            wait_for(lambda: "vs" not in vm.get("vm.info")["device_tree"], 20, "the vsock device to be released")


class Small(Files):
    def test_rng_gives_bytes_that_differ(self):
        with LinuxGuest() as vm:
            self.assertIn("virtio_rng", vm.sh("cat /sys/class/misc/hw_random/rng_current"))
            a = vm.sh("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | sha256sum")
            b = vm.sh("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | sha256sum")
            self.assertNotEqual(a, b)

    def test_virtio_console_carries_text_both_ways(self):
        from agent import Agent
        path = os.path.join(self.dir, "hvc")
        with LinuxGuest(hvc=f"socket={path}") as vm:
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
            second = Agent.of_fd(s.fileno())
            vm.sh("echo FERRY-AGENT-READY 1 > /dev/hvc0; (cat /dev/hvc0 > /tmp/hvc &) ; sleep 0.2")
            second.wait_ready(20 * SLOW)
            s.sendall(b"over the wire\n")
            wait_for(lambda: "over the wire" in vm.agent.run("cat /tmp/hvc")[1], 10, "text from hvc0")

    def test_balloon_takes_memory_and_gives_it_back(self):
        with LinuxGuest("--balloon", "size=0,deflate_on_oom=on,free_page_reporting=on") as vm:
            free = int(vm.sh("awk '/MemFree/ {print $2}' /proc/meminfo"))
            vm.put("vm.resize", {"desired_balloon": 96 << 20})
            wait_for(lambda: vm.get("vm.info")["memory_actual_size"] == (256 - 96) << 20, 20, "the balloon")
            self.assertLess(int(vm.sh("awk '/MemFree/ {print $2}' /proc/meminfo")), free - 80 * 1024)
            vm.put("vm.resize", {"desired_balloon": 0})
            wait_for(lambda: vm.get("vm.info")["memory_actual_size"] == 256 << 20, 20, "the balloon to deflate")

    def test_free_pages_are_reported_and_return_to_the_host(self):
        with LinuxGuest("--balloon", "size=0,free_page_reporting=on") as vm:
            def shmem():
                return int(vm.status("RssShmem").split()[0])
            vm.sh("dd if=/dev/zero of=/tmp/fill bs=1M count=100")
            used = shmem()
            vm.sh("rm /tmp/fill")
            wait_for(lambda: shmem() < used - 64 * 1024, 30, f"memory to be given back (was {used} KiB)")

    def test_every_device_at_once_with_four_cpus(self):
        disk = self.image("all.img", 8)
        sh("ip tuntap add ftap9 mode tap vnet_hdr && ip link set ftap9 up")
        self.addCleanup(sh, "ip link del ftap9")
        with LinuxGuest("--disk", f"path={disk}", "--net", "tap=ftap9", "--vsock",
                        f"cid=9,socket={self.dir}/vs", "--balloon", "size=0", "--pvpanic", cpus=4) as vm:
            self.assertEqual(vm.sh("sha256sum /dev/vda").split()[0], sha(disk))
            drivers = vm.sh("for d in /sys/bus/virtio/devices/*; do basename $(readlink $d/driver); done")
            for name in ("virtio_blk", "virtio_net", "virtio_rng", "virtio_balloon", "transport"):
                self.assertIn(name, drivers)
            self.assertEqual(vm.poweroff(), 0)


if __name__ == "__main__":
    unittest.main()
