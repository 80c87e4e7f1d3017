# SPDX-License-Identifier: Apache-2.0
"""Snapshots on real KVM: what the guest had, the guest has again."""
import json
import os
import shutil
import threading
import unittest

from arrival import Arrival
from ferry import ApiError, run_ferry, wait_for
from probe import Probe
from test_devices import Folder, pattern
from testdev import Server
from virtio import RNG, Driver, slot_of

PATTERN, DIRTY = 16 << 20, 32 << 20  # where the tests' memory is
GENERATION_ID = 0xdf028
MODES = ("eager", "lazy", "shared")


def fill(vm):
    """A memory pattern; its checksum."""
    assert vm.ask(f"fill {PATTERN:#x} 512 7") == "fill ok"
    return vm.ask(f"sum {PATTERN:#x} 512")


def generation_id(vm):
    return vm.read(GENERATION_ID, 8), vm.read(GENERATION_ID + 8, 8)


class Moving(Folder):
    def snapshot(self, vm, name="snapshot", **more):
        folder = os.path.join(self.dir, name)
        vm.put("vm.snapshot", {"destination_url": f"file://{folder}", **more})
        return folder

    def same_memory(self, vm, checksum):
        self.assertEqual(vm.ask(f"sum {PATTERN:#x} 512"), checksum)

    def timer_goes_on(self, vm):
        self.assertRegex(vm.ask("timer 5"), "timer ok ticks=[5-9] ")

    def cpus_go_on(self, vm):
        """Of those that count: each does."""
        before = vm.ask("apcount").split()[1:]
        wait_for(lambda: all(int(now) > int(was) for now, was in zip(vm.ask("apcount").split()[1:], before)),
                 20, "every CPU counts on")


class Snapshot(Moving):
    def goes_on(self, cpus, mode, live):
        with Probe(cpus=cpus) as vm:
            checksum = fill(vm)
            if cpus > 1:
                self.assertEqual(vm.ask("smp spin"), f"smp online={cpus} of={cpus}")
            self.assertEqual(vm.ask(f"dirty {DIRTY:#x} 512 20 3"), "dirty ok")
            folder = self.snapshot(vm, live=live)
            # Its original goes on, too.
            self.same_memory(vm, checksum)
            self.assertIn("verify ok", vm.ask("verify"))
            self.assertEqual(vm.state(), "Running")
        with Arrival() as vm:
            vm.restore(folder, memory_restore_mode=mode)
            self.same_memory(vm, checksum)
            self.timer_goes_on(vm)
            written = int(vm.ask("verify").rsplit("written=")[1])
            wait_for(lambda: int(vm.ask("verify").rsplit("written=")[1]) > written, 10, "dirtying goes on")
            self.assertIn("verify ok", vm.ask("verify"))
            if cpus > 1:
                self.cpus_go_on(vm)
            self.assertEqual(vm.state(), "Running")
            wait_for(lambda: vm.get("vm.migration")["phase"] == "completed", 20, "all RAM")

    def test_one_cpu_goes_on_with_its_memory_timer_and_console(self):
        self.goes_on(1, "eager", live=False)

    def test_four_cpus_go_on(self):
        self.goes_on(4, "eager", live=False)

    def test_live_and_lazy(self):
        self.goes_on(1, "lazy", live=True)

    def test_live_and_lazy_with_four_cpus(self):
        self.goes_on(4, "lazy", live=True)

    def test_shared(self):
        self.goes_on(4, "shared", live=True)

    def test_a_paused_vm_stays_paused_and_comes_up_paused(self):
        with Probe() as vm:
            checksum = fill(vm)
            vm.put("vm.pause")
            folder = self.snapshot(vm)
            self.assertEqual(vm.state(), "Paused")
            vm.put("vm.resume")
            self.same_memory(vm, checksum)
        with Arrival() as vm:
            vm.restore(folder, resume=False)
            self.assertEqual(vm.state(), "Paused")
            again = self.snapshot(vm, "again")  # without having run
            vm.put("vm.resume")
            vm.connect_serial()
            self.same_memory(vm, checksum)
            self.timer_goes_on(vm)
        with Arrival() as vm:
            self.same_memory(vm.restore(again), checksum)
            self.timer_goes_on(vm)

    def test_a_restored_vm_is_a_vm_like_any(self):
        disk = self.disk()
        with Probe("--disk", f"path={self.disk('boot')}") as vm:
            folder = self.snapshot(vm)
        with Arrival() as vm:
            vm.restore(folder)
            vm.put("vm.pause")
            vm.put("vm.resume")
            vm.put("vm.add-disk", {"path": disk, "id": "late"})
            self.assertIn("blk use ok", vm.ask("blk use 1"))
            self.assertIn("blk write ok", vm.ask("blk write 0 8 1"))
            self.snapshot(vm, "second")
            vm.put("vm.reboot")
            vm.wait_ready()
            self.assertIn("blk use ok", vm.ask("blk use 1"))
            self.assertIn("blk check ok", vm.ask("blk check 0 8 1"))
            vm.put("vm.delete")
            vm.restore(os.path.join(self.dir, "second"))
            self.assertIn("blk check ok", vm.ask("blk check 0 8 1"))

    def test_from_the_command_line(self):
        with Probe() as vm:
            checksum = fill(vm)
            folder = self.snapshot(vm)
        with Arrival("--restore", f"source_url=file://{folder},memory_restore_mode=lazy,resume=on",
                     "--serial", f"socket={self.dir}/serial", "--console", "off") as vm:
            vm.serial_path = f"{self.dir}/serial"
            vm.connect_serial()
            self.same_memory(vm, checksum)
            self.assertEqual(vm.state(), "Running")

    def test_a_snapshot_that_is_not_there_ends_the_command_line(self):
        code, text = run_ferry("--restore", f"source_url=file://{self.dir}/none", "--api-socket", f"{self.dir}/api")
        self.assertEqual(code, 1, text)
        self.assertIn(f"{self.dir}/none", text)

    def test_clones_have_generation_ids_of_their_own(self):
        with Probe() as vm:
            original = generation_id(vm)
            checksum = fill(vm)
            folder = self.snapshot(vm)
            self.assertEqual(generation_id(vm), original)
        self.assertNotEqual(original, (0, 0))
        with Arrival() as one, Arrival() as two:
            for vm in (one, two):
                self.same_memory(vm.restore(folder, memory_restore_mode="shared"), checksum)
            ids = {original, generation_id(one), generation_id(two)}
            self.assertEqual(len(ids), 3)
            # What one writes the other does not see, nor does the snapshot.
            one.ask(f"fill {PATTERN:#x} 512 8")
            self.same_memory(two, checksum)
        with Arrival() as vm:
            self.same_memory(vm.restore(folder), checksum)

    def test_differential_snapshots_follow_a_full_one(self):
        with Probe() as vm:
            vm.ask(f"fill {PATTERN:#x} 512 1")
            full = self.snapshot(vm, "full")
            vm.ask(f"fill {PATTERN + (1 << 20):#x} 16 2")
            first = self.snapshot(vm, "first", base_url=f"file://{full}")
            vm.ask(f"fill {PATTERN + (2 << 20) - 8192:#x} 2 3")
            second = self.snapshot(vm, "second", base_url=f"file://{first}")
            checksum = vm.ask(f"sum {PATTERN:#x} 512")
        size = [os.stat(os.path.join(f, "ram")).st_blocks for f in (full, first, second)]
        self.assertGreater(size[0], 2 * size[1])
        for mode in ("eager", "lazy"):
            with Arrival() as vm:
                self.same_memory(vm.restore(second, memory_restore_mode=mode), checksum)

    def test_compressed(self):
        with Probe() as vm:
            checksum = fill(vm)
            folder = self.snapshot(vm, compress="zstd")
        for mode in ("eager", "lazy"):
            with Arrival() as vm:
                self.same_memory(vm.restore(folder, memory_restore_mode=mode), checksum)
        with Arrival() as vm:
            with self.assertRaisesRegex(ApiError, "compressed"):
                vm.restore(folder, memory_restore_mode="shared")

    def test_a_snapshot_under_way_is_told_and_can_be_cancelled(self):
        with Probe(memory="512M") as vm:
            vm.ask(f"fill {PATTERN:#x} 100000 7", timeout=60)
            ended = []

            def write():
                try:
                    ended.append(self.snapshot(vm, compress="zstd"))
                except ApiError as e:
                    ended.append(e)
            thread = threading.Thread(target=write)
            thread.start()
            wait_for(lambda: ended or vm.get("vm.migration")["direction"] == "snapshot", 10, "the snapshot")
            try:
                vm.put("vm.cancel-migration")
            except ApiError:
                pass
            thread.join()
            vm.ping()
            self.assertEqual(vm.state(), "Running")
            if isinstance(ended[0], ApiError):
                self.assertEqual(vm.get("vm.migration")["phase"], "cancelled")
                self.assertEqual(os.listdir(self.dir), [])


class Devices(Moving):
    """Devices go on where they were: nothing of their drivers is set up anew."""

    def test_a_disk_goes_on(self):
        path = self.disk()
        with Probe("--disk", f"path={path}") as vm:
            self.assertIn("blk write ok", vm.ask("blk write 0 64 1"))
            folder = self.snapshot(vm)
            self.assertIn("blk check ok", vm.ask("blk check 0 64 1"))
        for mode in MODES:
            with Arrival() as vm:
                vm.restore(folder, memory_restore_mode=mode)
                self.assertIn("blk check ok", vm.ask("blk check 0 64 1"))
                self.assertIn("blk write ok", vm.ask("blk write 100 64 2"))
                self.assertEqual(self.at(path, 100), pattern(100, 2))

    def test_a_disk_under_load_loses_nothing(self):
        with Probe("--disk", f"path={self.disk(size=16 << 20)}") as vm:
            vm.ask("blk write 0 2048 1")
            vm.send("blk bench rand 3000 32")
            folder = self.snapshot(vm)
            self.assertIn("blk bench ok", vm.read_until(rb"(blk bench[^\r\n]*)\r?\n", 60)[1].decode())
        with Arrival() as vm:
            vm.put("vm.restore", {"source_url": f"file://{folder}", "resume": True, "serial": vm.serial()})
            vm.connect_serial()
            self.assertRegex(vm.read_until(rb"(blk bench[^\r\n]*)\r?\n", 60)[1], rb"ok requests=[1-9]")
            self.assertIn("blk check ok", vm.ask("blk check 0 2048 1"))

    def test_the_disk_of_a_running_vm_is_locked_for_its_copy(self):
        path, other = self.disk(), self.disk("other")
        with Probe("--disk", f"path={path},id=data") as vm:
            folder = self.snapshot(vm)
            with Arrival() as copy:
                with self.assertRaisesRegex(ApiError, path):
                    copy.restore(folder)
                self.assertEqual(copy.request("GET", "/api/v1/vm.info")[0], 404)
                shutil.copy(path, other)
                copy.restore(folder, disks=[{"id": "data", "path": other}])
                self.assertIn("blk write ok", copy.ask("blk write 0 8 5"))
                self.assertEqual(self.at(path, 0), bytes(512))
                self.assertEqual(self.at(other, 0), pattern(0, 5))

    def test_slots_are_as_hot_plug_left_them(self):
        one, two = self.disk("one"), self.disk("two")
        with Probe("--disk", f"path={one},id=one") as vm:
            place = vm.put("vm.add-disk", {"path": two, "id": "two"})
            bit = 1 << slot_of(vm.get("vm.info")["device_tree"]["one"]["pci_bdf"])
            vm.put("vm.remove-device", {"id": "one"})
            vm.write(0xf0001008, 4, bit)
            vm.wait_event("device-removed")
            self.assertIn("blk write ok", vm.ask("blk write 0 8 3"))
            tree, functions = vm.get("vm.info")["device_tree"], vm.functions()
            folder = self.snapshot(vm)
        with Arrival() as vm:
            vm.restore(folder)
            self.assertEqual(vm.get("vm.info")["device_tree"], tree)
            self.assertEqual(vm.functions(), functions)
            self.assertEqual(tree["two"]["pci_bdf"], place["bdf"])
            self.assertIn("blk check ok", vm.ask("blk check 0 8 3"))
            self.assertIn("blk write ok", vm.ask("blk write 8 8 4"))
            # The slot in between is free.
            self.assertEqual(slot_of(vm.put("vm.add-disk", {"path": one})["bdf"]), bit.bit_length() - 1)

    def test_a_driver_in_the_middle_goes_on(self):
        with Probe() as vm:
            driver = Driver(vm, "_rng")
            self.assertEqual(vm.read(driver.base, 4), 0x1af4 | RNG << 16)
            driver.negotiate()
            queue = driver.queue(0)
            driver.start()
            driver.post(queue, (40 << 20, 64, True))
            self.assertEqual(driver.wait_used(queue, 1), 64)
            folder = self.snapshot(vm)
        with Arrival() as vm:
            driver.vm = vm.restore(folder)
            driver.post(queue, (40 << 20, 32, True))
            self.assertEqual(driver.wait_used(queue, 2), 32)



class BadInput(Moving):
    def refused(self, message, folder, **more):
        with Arrival() as vm:
            with self.assertRaisesRegex(ApiError, message):
                vm.restore(folder, **more)
            self.assertEqual(vm.request("GET", "/api/v1/vm.info")[0], 404)
            self.assertEqual(vm.get("vm.migration")["phase"], "failed")

    def edited(self, folder, edit):
        """A copy with another configuration."""
        copy = os.path.join(self.dir, "edited")
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        path = os.path.join(copy, "config.json")
        with open(path) as file:
            config = json.load(file)
        edit(config)
        with open(path, "w") as file:
            json.dump(config, file)
        return copy

    def test_a_configuration_that_is_not_the_machine_s_is_refused(self):
        with Probe("--disk", f"path={self.disk()},id=data") as vm:
            folder = self.snapshot(vm)
        edits = {
            "there is no object .*machine": lambda c: c.pop("machine"),
            "device data has none": lambda c: c["machine"]["slots"].pop("data"),
            "slots: device data": lambda c: c["machine"]["slots"].update(data=32),
            "mem64_base": lambda c: c["machine"].update(mem64_base=-1),
            "window": lambda c: c["machine"].update(mem64_base=0x1000),
            "does not fit": lambda c: c["machine"].update(mem64_size=1 << 62),
            "count is 1, here 2": lambda c: c["cpus"].update(boot_vcpus=2, max_vcpus=2),
            "data": lambda c: c["disks"].clear(),
            "of 64 MiB": lambda c: c["memory"].update(size=128 << 20),
            "no_such_key": lambda c: c.update(no_such_key=1),
        }
        for message, edit in edits.items():
            with self.subTest(message):
                self.refused(message, self.edited(folder, edit))

    def test_what_the_machine_is_expected_to_be_is_but_a_guess(self):
        with Probe("--disk", f"path={self.disk()},id=data") as vm:
            self.assertIn("blk write ok", vm.ask("blk write 0 8 3"))
            functions, folder = vm.functions(), self.snapshot(vm)
        with open(os.path.join(folder, "config.json")) as file:
            expected = json.load(file)["machine"]["expected"]
        self.assertEqual(expected["doorbells"]["data"], [0])
        self.assertTrue(any(expected["bars"]["data"]))

        def bars(value):
            return lambda e: e["bars"].update(dict.fromkeys(e["bars"], value))

        def swap(e):
            e["bars"]["data"], e["bars"]["_rng"] = e["bars"]["_rng"], e["bars"]["data"]

        edits = {
            "nothing": lambda e: e.clear(),
            "no lists": lambda e: e.update(messages={}, bars=[], doorbells="x"),
            "nothing of devices": bars(None),
            "all at one place": bars(expected["bars"]["data"]),
            "in another's place": swap,
            "on RAM": bars([0x100000] * 6),
            "at the end": bars([(1 << 63) - 0x8000] * 6),
            "no addresses": bars(["x", -1, 1, 1.5, None, []] + [7] * 100),
            "no queues": lambda e: e["doorbells"].update(data=[-1, 0, 0, 5, 63, 64, 1 << 60, "x"]),
            "no messages": lambda e: e.update(messages=[[], None, [1], [(1 << 63) - 1, 1 << 40], ["x", "y"]]),
            "many messages": lambda e: e.update(messages=[[0xfee00000, i] for i in range(5000)]),
        }
        for name, edit in edits.items():
            with self.subTest(name), Arrival() as vm:
                vm.restore(self.edited(folder, lambda c: edit(c["machine"]["expected"])))  # pylint: disable=cell-var-from-loop
                self.assertEqual(vm.functions(), functions)
                self.assertIn("blk check ok", vm.ask("blk check 0 8 3"))
                self.assertIn("blk write ok", vm.ask("blk write 8 8 4"))

    def test_a_folder_that_is_there_is_not_written_into(self):
        with Probe() as vm:
            folder = self.snapshot(vm)
            with self.assertRaisesRegex(ApiError, folder):
                self.snapshot(vm)
            vm.ping()
            with self.assertRaisesRegex(ApiError, "nowhere"):
                self.snapshot(vm, "nowhere/at/all")
            vm.ping()

    def test_an_assigned_device_is_named(self):
        server = Server(self.dir)
        self.addCleanup(server.end)
        with Probe("--user-device", f"socket={server.socket},id=dev") as vm:
            with self.assertRaisesRegex(ApiError, "dev"):
                self.snapshot(vm)
            vm.ping()
            self.assertEqual((vm.state(), os.path.exists(os.path.join(self.dir, "snapshot"))), ("Running", False))

    def test_states_that_will_not_do(self):
        with Probe() as vm:
            folder = self.snapshot(vm)
            with self.assertRaisesRegex(ApiError, "409|created already"):
                vm.put("vm.restore", {"source_url": f"file://{folder}"})
            vm.put("vm.shutdown")
            with self.assertRaisesRegex(ApiError, "405"):
                self.snapshot(vm, "other")
            vm.put("vm.delete")
            with self.assertRaisesRegex(ApiError, "404"):
                self.snapshot(vm, "other")

    def test_a_reset_at_the_same_time_is_done_afterwards(self):
        with Probe() as vm:
            vm.send("reboot")
            try:
                self.snapshot(vm)
            except ApiError:
                pass
            vm.wait_ready()
            vm.ping()


if __name__ == "__main__":
    unittest.main()
