# SPDX-License-Identifier: Apache-2.0
"""Postcopy on real KVM: the VM runs at the destination before its memory is there."""
import unittest

from arrival import Arrival, free_port
from ferry import SLOW, ApiError, wait_for
from line import Line
from probe import Probe
from test_devices import pattern
from test_migration import Sending, Transfers
from test_snapshot import DIRTY, fill


class Following(Transfers):
    def follow(self, vm, to, **more):
        """Sends; waits until the VM runs there and its memory is on its way."""
        sending = Sending(vm, to.url, memory_mode="Postcopy", **more)
        there = wait_for(lambda: not sending.is_alive() or vm.get("vm.migration")["phase"] == "postcopy", 60, "postcopy")
        self.assertTrue(there)
        self.assertTrue(sending.is_alive(), sending.error)
        return sending

    def moves_at_once(self, url=None, receive=None, **more):
        """A guest that writes faster than the line."""
        with Probe(memory="256M") as vm, Arrival() as to:
            checksum = fill(vm)
            self.assertEqual(vm.ask(f"fill {DIRTY:#x} 40000 5", 60), "fill ok")
            vm.ask(f"dirty {DIRTY:#x} 40000 0 3")
            to.listen(url, **(receive or {}))
            sending = self.follow(vm, to, bandwidth=32 << 20, timeout_s=1, **more)
            # It answers while most of its memory is still over there, and what it wrote is right.
            self.assertEqual(to.state(), "Running")
            self.assertEqual(to.get("vm.migration")["phase"], "postcopy")
            self.assertGreater(to.get("vm.migration")["remaining_bytes"], 16 << 20)
            for side in (vm, to):
                with self.assertRaisesRegex(ApiError, "405.*too late"):
                    side.put("vm.cancel-migration")
            to.connect_serial()
            self.same_memory(to, checksum)
            self.assertIn("verify ok", to.ask("verify", 60))
            self.assertIsNone(sending.wait())
            self.assertIs(to.wait_received(), True)
            self.gone(vm)
            for side in (vm, to):
                progress = side.get("vm.migration")
                self.assertEqual(progress["phase"], "completed")
                self.assertEqual(progress["throttle"], 0)
                self.assertGreater(progress["faults_us"]["count"], 0)
                self.assertGreaterEqual(progress["faults_us"]["max"], progress["faults_us"]["mean"])
                self.assertEqual(progress["remaining_bytes"], 0)
            self.assertIn("verify ok", to.ask("verify", 60))
            self.same_memory(to, checksum)
            self.timer_goes_on(to)

    def recovers(self, vm, to, receive=None, **more):
        """Its connections are lost while memory follows, and made anew; returns the line."""
        checksum = fill(vm)
        vm.ask(f"dirty {DIRTY:#x} 40000 0 3")
        port = free_port()
        line = Line(port)
        self.addCleanup(line.close)
        to.listen(f"tcp:127.0.0.1:{port}", **(receive or {}))
        to.url = line.url
        sending = self.follow(vm, to, bandwidth=32 << 20, timeout_s=1, connections=2, **more)
        line.cut()
        wait_for(lambda: not vm.get("vm.migration")["connections"], 20, "the end of the connections")
        line.open = True
        wait_for(lambda: vm.get("vm.migration").get("faults_us", {}).get("recoveries") == 1, 20, "the new ones")
        self.assertIsNone(sending.wait())
        self.assertIs(to.wait_received(), True)
        to.connect_serial()
        self.same_memory(to, checksum)
        self.assertIn("verify ok", to.ask("verify", 60))
        return line


class Postcopy(Following):
    def test_over_a_unix_socket(self):
        self.moves(memory_mode="Postcopy")

    def test_over_tcp_by_several_connections(self):
        self.moves(f"tcp:127.0.0.1:{free_port()}", connections=4, memory_mode="postcopy", checksum=True)

    def test_with_four_cpus(self):
        self.moves(cpus=4, memory_mode="Postcopy")

    def test_a_guest_that_writes_faster_than_the_line_moves_at_once(self):
        self.moves_at_once()

    def test_the_pause_does_not_grow_with_memory(self):
        for memory, pages in (("128M", 8000), ("1G", 150000)):
            with self.subTest(memory), Probe(memory=memory) as vm, Arrival() as to:
                self.assertEqual(vm.ask(f"fill {DIRTY:#x} {pages} 5", 60), "fill ok")
                vm.ask(f"dirty {DIRTY:#x} {pages} 0 3")
                to.listen()
                self.send(vm, to, memory_mode="Postcopy")
                progress = vm.get("vm.migration")
                print(f"     {memory}: {progress['downtime_us']}, {progress.get('faults_us')}, {progress['pages']} pages")
                # What was dirty would take longer by far.
                self.assertLess(progress["downtime_us"]["total"], 500000 * SLOW)
                self.assertIn("verify ok", to.ask("verify", 60))

    def test_disk_and_vsock_go_on_while_memory_follows(self):
        path = self.disk()
        with Probe("--disk", f"path={path},id=data", memory="256M") as vm, Arrival() as to:
            self.assertIn("blk write ok", vm.ask("blk write 0 64 1"))
            vm.ask(f"dirty {DIRTY:#x} 20000 0 3")
            to.listen()
            sending = self.follow(vm, to, bandwidth=8 << 20, timeout_s=1, preserve_source=True)
            to.connect_serial()
            self.assertIn("blk check ok", to.ask("blk check 0 64 1"))
            self.assertIn("blk write ok", to.ask("blk write 64 64 2"))
            self.assertEqual(self.at(path, 64), pattern(64, 2))
            if SLOW == 1:  # else the disk took longer than the rest of memory
                self.assertGreater(to.get("vm.migration")["remaining_bytes"], 0)
            self.assertIsNone(sending.wait())
            self.assertIs(to.wait_received(), True)
            self.assertIn("verify ok", to.ask("verify", 60))
            with self.assertRaisesRegex(ApiError, "405.*moved"):
                vm.put("vm.resume")

    def test_a_paused_vm_arrives_paused(self):
        with Probe() as vm, Arrival() as to:
            checksum = fill(vm)
            vm.put("vm.pause")
            vm.put("vm.send-migration", {"destination_url": to.listen(), "memory_mode": "Postcopy"})
            self.assertIs(to.wait_received(), True)
            self.assertEqual(to.state(), "Paused")
            to.put("vm.resume")
            to.connect_serial()
            self.same_memory(to, checksum)

    def test_there_and_back_many_times(self):
        with Arrival() as one, Arrival() as two, Probe() as vm:
            checksum = fill(vm)
            vm.ask(f"dirty {DIRTY:#x} 512 20 3")
            one.listen()
            self.send(vm, one, memory_mode="Postcopy")
            for n in range(6):
                two.listen()
                self.send(one, two, memory_mode="Postcopy" if n % 3 else "Precopy")
                self.gone(one)
                one, two = two, one
            self.same_memory(one, checksum)
            self.assertIn("verify ok", one.ask("verify"))

    def test_connections_that_are_lost_are_made_anew(self):
        with Probe(memory="256M") as vm, Arrival() as to:
            self.recovers(vm, to)

    def test_without_the_source_the_vm_is_lost_and_the_destination_ends(self):
        with Probe(memory="256M") as vm, Arrival() as to:
            vm.ask(f"dirty {DIRTY:#x} 40000 0 3")
            to.listen()
            self.follow(vm, to, bandwidth=1 << 20, timeout_s=1)
            vm.process.kill()
            self.assertEqual(to.process.wait(20), 1)
            self.assertRegex(to.log(), "the VM is lost")

    def test_without_the_destination_the_vm_is_lost_and_does_not_run_again(self):
        with Probe(memory="256M") as vm, Arrival() as to:
            vm.ask(f"dirty {DIRTY:#x} 40000 0 3")
            to.listen()
            sending = self.follow(vm, to, bandwidth=1 << 20, timeout_s=1)
            to.process.kill()
            self.assertRegex(str(sending.wait()), "the VM is lost")
            self.assertEqual(vm.state(), "Paused")
            with self.assertRaisesRegex(ApiError, "405"):
                vm.put("vm.resume")
            vm.put("vm.delete")

    def test_with_memory_handed_over_it_is_refused(self):
        with Probe() as vm:
            with self.assertRaisesRegex(ApiError, "400.*exclude"):
                vm.put("vm.send-migration", {"destination_url": "unix:/none", "memory_mode": "Postcopy", "local": True})


if __name__ == "__main__":
    unittest.main()
