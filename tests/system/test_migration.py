# SPDX-License-Identifier: Apache-2.0
"""Live migration on real KVM, from one ferry to another on this host."""
import os
import socket
import threading
import unittest

from arrival import Arrival, free_port
from ferry import SLOW, ApiError, wait_for
from probe import Probe
from test_devices import pattern
from test_snapshot import DIRTY, PATTERN, Moving, fill, generation_id


class Sending(threading.Thread):
    """send-migration in the background: wait() gives None or the error."""
    PATIENCE = 80  # a source waits for a minute until the machine is made

    def __init__(self, vm, url, **more):
        super().__init__(daemon=True)
        self.vm, self.body, self.error = vm, {"destination_url": url, **more}, None
        self.start()

    def run(self):
        try:
            self.vm.put("vm.send-migration", self.body, timeout=self.PATIENCE)
        except (ApiError, OSError) as e:
            self.error = e

    def wait(self):
        self.join(self.PATIENCE * SLOW)
        assert not self.is_alive(), "send-migration does not end"
        return self.error

    def wait_precopy(self, rounds=1):
        def there():
            progress = self.vm.get("vm.migration")
            return not self.is_alive() or (progress["phase"] == "precopy" and progress["round"] >= rounds)
        wait_for(there, 20, "precopy")
        assert self.is_alive(), f"it is over: {self.error}"


class Transfers(Moving):
    def send(self, vm, to, **more):
        vm.put("vm.send-migration", {"destination_url": to.url, **more})
        return to.arrived()

    def gone(self, vm):
        self.assertEqual(vm.request("GET", "/api/v1/vm.info")[0], 404)

    def moves(self, url=None, cpus=1, receive=None, **more):
        with Probe(cpus=cpus) as vm, Arrival() as to:
            checksum, generation = fill(vm), generation_id(vm)
            if cpus > 1:
                vm.ask("smp spin")
            vm.ask(f"dirty {DIRTY:#x} 512 20 3")
            to.listen(url, **(receive or {}))
            self.send(vm, to, **more)
            self.gone(vm)
            self.same_memory(to, checksum)
            self.timer_goes_on(to)
            self.assertIn("verify ok", to.ask("verify"))
            if cpus > 1:
                self.cpus_go_on(to)
            self.assertEqual(generation_id(to), generation)
            for side in (vm, to):
                self.assertEqual(side.get("vm.migration")["phase"], "completed")
            self.assertEqual(to.state(), "Running")
            progress = vm.get("vm.migration")
            self.assertGreater(progress["downtime_us"]["total"], 0)
            return progress


class Migration(Transfers):
    def test_over_a_unix_socket(self):
        self.assertGreaterEqual(self.moves()["round"], 2)

    def test_over_tcp_by_several_connections(self):
        progress = self.moves(f"tcp:127.0.0.1:{free_port()}", connections=4)
        self.assertEqual(len(progress["connections"]), 4)

    def test_over_tcp_of_ipv6(self):
        if os.path.exists("/proc/net/if_inet6"):
            self.moves(f"tcp:[::1]:{free_port(socket.AF_INET6, '::1')}")
            return
        # A kernel without IPv6, as the lab's: it is said, and the VM runs on.
        with Probe() as vm:
            with self.assertRaises(ApiError):
                vm.put("vm.send-migration", {"destination_url": "tcp:[::1]:4000"})
            self.assertEqual(vm.ask("ping"), "pong")

    def test_200_moves_in_a_row_lose_nothing(self):
        """Back and forth between two processes, the guest writing all the time."""
        ways = [lambda: (None, {}), lambda: (None, {"local": True}),
                lambda: (f"tcp:127.0.0.1:{free_port()}", {"connections": 2})]
        with Probe(memory="40M") as vm, Arrival() as here, Arrival() as there:
            checksum, generation = fill(vm), generation_id(vm)
            vm.ask(f"dirty {DIRTY:#x} 512 50 3")
            for n in range(200 if SLOW == 1 else 20):
                to = (here, there)[n % 2]
                url, more = ways[n % len(ways)]()
                to.listen(url)
                self.send(vm, to, **more)
                self.assertIn("verify ok", to.ask("verify"), f"move {n}")
                vm = to
            self.same_memory(vm, checksum)
            self.timer_goes_on(vm)
            self.assertEqual(generation_id(vm), generation)
            self.gone(here)

    def test_with_four_cpus(self):
        self.moves(cpus=4)

    def test_with_checksums(self):
        self.moves(checksum=True)

    def test_memory_that_is_handed_over_is_not_copied(self):
        for cpus in (1, 4):
            progress = self.moves(cpus=cpus, local=True)
            self.assertLess(progress["transferred_bytes"], 1 << 20)

    def test_a_paused_vm_arrives_paused(self):
        with Probe() as vm, Arrival() as to:
            checksum = fill(vm)
            vm.put("vm.pause")
            vm.put("vm.send-migration", {"destination_url": to.listen()})
            self.assertIs(to.wait_received(), True)
            self.assertEqual(to.state(), "Paused")
            to.put("vm.resume")
            to.connect_serial()
            self.same_memory(to, checksum)

    def test_a_vm_can_be_left_paused_where_it_arrives(self):
        with Probe() as vm, Arrival() as to:
            vm.put("vm.send-migration", {"destination_url": to.listen(resume=False)})
            self.assertIs(to.wait_received(), True)
            self.assertEqual(to.state(), "Paused")
            to.put("vm.resume")
            to.connect_serial()
            to.ping()

    def test_what_is_left_of_a_vm_that_moved_does_not_run_again(self):
        with Probe() as vm, Arrival() as to:
            to.listen()
            self.send(vm, to, preserve_source=True)
            self.assertEqual(vm.state(), "Paused")
            for call in ("vm.resume", "vm.reboot"):
                with self.assertRaisesRegex(ApiError, "405.*moved"):
                    vm.put(call)
            with self.assertRaisesRegex(ApiError, "405.*moved"):
                vm.put("vm.send-migration", {"destination_url": "unix:/tmp/none"})
            vm.put("vm.delete")
            to.ping()

    def test_a_disk_and_its_lock_move_along(self):
        for local in (False, True):
            with self.subTest(local=local):
                path = self.disk()
                with Probe("--disk", f"path={path},id=data") as vm, Arrival() as to, Probe() as other:
                    self.assertIn("blk write ok", vm.ask("blk write 0 64 1"))
                    to.listen()
                    self.send(vm, to, preserve_source=True, local=local)
                    self.assertIn("blk check ok", to.ask("blk check 0 64 1"))
                    self.assertIn("blk write ok", to.ask("blk write 64 64 2"))
                    self.assertEqual(self.at(path, 64), pattern(64, 2))
                    with self.assertRaisesRegex(ApiError, path):
                        other.put("vm.add-disk", {"path": path})
                    vm.put("vm.delete")
                    to.put("vm.shutdown")
                    other.put("vm.add-disk", {"path": path})

    def test_there_and_back_many_times(self):
        with Arrival() as one, Arrival() as two, Probe() as vm:
            checksum = fill(vm)
            vm.ask(f"dirty {DIRTY:#x} 512 20 3")
            one.listen()
            self.send(vm, one)
            for n in range(10):
                two.listen()
                self.send(one, two, local=n % 3 == 0)
                self.gone(one)
                one, two = two, one
            self.same_memory(one, checksum)
            self.assertIn("verify ok", one.ask("verify"))

    def test_a_guest_that_writes_faster_than_the_line_is_slowed_down(self):
        with Probe(memory="128M") as vm, Arrival() as to:
            vm.ask(f"dirty {DIRTY:#x} 12000 0 3")
            sending = Sending(vm, to.listen(), bandwidth=50 << 20, downtime_ms=300, connections=1)
            throttled = wait_for(lambda: not sending.is_alive() or vm.get("vm.migration").get("throttle"), 40, "throttling")
            self.assertGreater(throttled, 0)
            self.assertIsNone(sending.wait())
            to.arrived()
            self.assertIn("verify ok", to.ask("verify", 60))


class Staying(Moving):
    """Where it fails the VM goes on where it was, as it was."""

    def stays(self, vm, checksum):
        vm.ping()
        self.same_memory(vm, checksum)
        self.timer_goes_on(vm)
        self.assertEqual(vm.state(), "Running")

    def test_without_anybody_there(self):
        with Probe() as vm:
            checksum = fill(vm)
            for url in (f"unix:{self.dir}/none", f"tcp:127.0.0.1:{free_port()}"):
                with self.assertRaises(ApiError):
                    vm.put("vm.send-migration", {"destination_url": url})
                self.stays(vm, checksum)
                self.assertEqual(vm.get("vm.migration")["phase"], "failed")

    def test_cancelled_by_the_source(self):
        with Probe(memory="256M") as vm, Arrival() as to:
            checksum = fill(vm)
            vm.ask(f"dirty {DIRTY:#x} 40000 0 3")
            sending = Sending(vm, to.listen(), bandwidth=20 << 20, max_throttle=0)
            sending.wait_precopy()
            with self.assertRaisesRegex(ApiError, "405"):
                vm.put("vm.add-disk", {"path": self.disk()})
            vm.put("vm.cancel-migration")
            self.assertRegex(str(sending.wait()), "send migration: cancelled\\b")
            self.assertIsInstance(to.wait_received(), ApiError)
            self.assertEqual(to.request("GET", "/api/v1/vm.info")[0], 404)
            self.assertEqual(vm.get("vm.migration")["phase"], "cancelled")
            vm.ask("dirtystop")
            self.assertIn("verify ok", vm.ask("verify"))
            self.stays(vm, checksum)
            # Nothing is left of it: the next one works.
            vm.put("vm.send-migration", {"destination_url": to.listen()})
            self.same_memory(to.arrived(), checksum)

    def test_cancelled_by_the_destination(self):
        with Arrival() as to:
            to.listen()
            to.put("vm.cancel-migration")
            self.assertIsInstance(to.wait_received(), ApiError)
            self.assertEqual(to.get("vm.migration")["phase"], "cancelled")
            self.assertFalse(os.path.exists(to.url[5:]))

    def sending(self, vm, to):
        """A migration that takes its time."""
        sending = Sending(vm, to.listen(), bandwidth=1 << 20)
        fill(vm)
        sending.wait_precopy()
        return sending

    def test_a_guest_that_resets_is_reset_and_stays(self):
        for command in ("reboot", "triple"):
            with self.subTest(command), Probe(memory="256M") as vm, Arrival() as to:
                sending = self.sending(vm, to)
                vm.send(command)
                vm.wait_ready()
                self.assertIn("the guest was reset meanwhile", str(sending.wait()))
                progress = vm.get("vm.migration")
                self.assertEqual(progress["phase"], "cancelled")
                self.assertIn("the guest was reset meanwhile", progress["error"])
                vm.ping()
                self.assertIsInstance(to.wait_received(), ApiError)
                # Of the machine before: the next one is not given up for it.
                vm.put("vm.send-migration", {"destination_url": to.listen()})
                to.arrived()

    def test_a_guest_that_shuts_down_does_so_here(self):
        with Probe(memory="256M") as vm, Arrival() as to:
            sending = self.sending(vm, to)
            vm.send("shutdown")
            self.assertIn("the guest shut down meanwhile", str(sending.wait()))
            self.assertEqual(vm.wait_exit(), 0)
            self.assertIsInstance(to.wait_received(), ApiError)

    def test_a_destination_with_another_machine(self):
        path = self.disk()
        with Probe("--disk", f"path={path},id=data") as vm, Arrival() as to:
            checksum = fill(vm)
            # Its file is not there.
            to.listen(disks=[{"id": "data", "path": f"{self.dir}/missing"}])
            with self.assertRaisesRegex(ApiError, f"{self.dir}/missing"):
                vm.put("vm.send-migration", {"destination_url": to.url})
            self.assertIsInstance(to.wait_received(), ApiError)
            self.stays(vm, checksum)
            # It has another size.
            to.listen(disks=[{"id": "data", "path": self.disk("small", 4096)}])
            try:
                vm.put("vm.send-migration", {"destination_url": to.url})
            except ApiError:
                self.stays(vm, checksum)
            # It is another's.
            with Probe("--disk", f"path={self.disk('other')}"):
                to.thread.join()
                if to.received is True:
                    return
                to.listen(disks=[{"id": "data", "path": f"{self.dir}/other"}])
                with self.assertRaisesRegex(ApiError, "other"):
                    vm.put("vm.send-migration", {"destination_url": to.url})
                self.stays(vm, checksum)

    def test_a_clone_with_shared_pages_does_not_hand_them_over(self):
        with Probe() as vm:
            checksum = fill(vm)
            folder = self.snapshot(vm)
        with Arrival() as vm, Arrival() as to:
            vm.restore(folder, memory_restore_mode="shared")
            to.listen()
            with self.assertRaisesRegex(ApiError, "without local"):
                vm.put("vm.send-migration", {"destination_url": to.url, "local": True})
            self.stays(vm, checksum)
            vm.put("vm.send-migration", {"destination_url": to.url})
            self.same_memory(to.arrived(), checksum)


if __name__ == "__main__":
    unittest.main()
