# SPDX-License-Identifier: Apache-2.0
"""VMs with assigned devices move, on real KVM: ferry-testdev on both sides, with its DMA engine
at work, by each way to its state and by each way to see what it writes."""
import os
import re
import shutil
import subprocess
import unittest

import virtio
from arrival import Arrival, free_port
from ferry import BUILD, SLOW, ApiError, wait_for
from probe import Probe
from test_migration import Sending
from test_snapshot import DIRTY, Moving, fill
from test_user_device import UserDevice
from testdev import (DMA_CTRL, DMA_DST, DMA_LEN, DMA_SRC, DMA_STATUS, DONE, FILL, IRQ_COUNT, SCRATCH,
                     START, SYNC, TESTDEV, Driver)
from update import update

WAYS = {
    "v2": ("--migration=v2", "--dirty=log"),
    "v2-stop-copy": ("--migration=stop-copy", "--dirty=pages"),
    "region": ("--migration=region", "--dirty=log"),
    "region-mapped": ("--migration=region-mapped", "--dirty=log"),
    "region-sparse": ("--migration=region-sparse", "--dirty=log"),
    "plugin": ("--dirty=log",),
}
SOURCE, TARGET, FAR, FAR_LOW = 0x4000000, 0x4400000, 0xd000000, 0x6000000
LENGTH = 0x100000
PLUGIN = os.path.join(BUILD, "plugins/example.so")


class DeviceMigration(UserDevice, Moving):
    def side(self, name, *options, count=1):
        return [self.server(*options, name=f"{name}{n}.sock") for n in range(count)]

    def plugged(self, name, *options, count=1):
        """Servers whose state is had by the example plugin from their agents."""
        servers = []
        for n in range(count):
            agent = f"127.0.0.1:{free_port()}"
            servers.append(self.server("--migration=agent", f"--agent={agent}", *options, name=f"{name}{n}.sock"))
            servers[-1].agent = agent
        return servers

    def overrides(self, servers):
        def override(n, server):
            out = {"id": f"dev{n}", "socket": server.socket}
            if hasattr(server, "agent"):
                out["migration"] = {"plugin_path": PLUGIN, "plugin_arg": server.agent}
            return out
        return [override(n, s) for n, s in enumerate(servers)]

    def start(self, servers, **more):
        options = []
        for n, s in enumerate(servers):
            plugin = f",migration_plugin={PLUGIN},migration_plugin_arg={s.agent}" if hasattr(s, "agent") else ""
            options += ["--user-device", f"socket={s.socket},id=dev{n}{plugin}"]
        return self.vm(*options, **{"memory": "128M", **more})

    def arrival(self):
        to = Arrival("--plugins", PLUGIN)
        self.addCleanup(to.close)
        return to

    def start_copy(self, dev):
        """Starts a long DMA: at --dma-rate it is under way when the VM stops."""
        for register, value in ((DMA_SRC, SOURCE), (DMA_DST, TARGET)):
            dev.write(register, value)
            dev.write(register + 4, 0)
        dev.write(DMA_LEN, LENGTH)
        dev.write(DMA_CTRL, START)

    def word(self, vm, address):
        return vm.read(address, 8)


class Moves(DeviceMigration):
    def moves(self, way, count=1, url=None, between=None, **more):
        options = (*WAYS[way], "--dma-rate=4M", "--state-size=400K", "--state-initial=200K")
        side = self.plugged if way == "plugin" else self.side
        here, there = side("a", *options, count=count), side("b", *options, count=count)
        vm, to = self.start(here), self.arrival()
        checksum = fill(vm)
        vm.ask(f"dirty {DIRTY:#x} 512 20 3")
        devices = [Driver(vm, f"dev{n}") for n in range(count)]
        for n, dev in enumerate(devices):
            dev.write(SCRATCH, 0x1000 + n)
        # What is copied is known: a pattern of words.
        for at in range(0, LENGTH, LENGTH // 16):
            vm.write(SOURCE + at, 8, 0xfeed0000 + at)
        self.start_copy(devices[0])
        if between:
            between(vm)
        to.listen(url, user_devices=self.overrides(there))
        vm.put("vm.send-migration", {"destination_url": to.url, **more})
        to.arrived()
        self.assertEqual(vm.request("GET", "/api/v1/vm.info")[0], 404)
        self.same_memory(to, checksum)
        self.assertIn("verify ok", to.ask("verify"))
        moved = [Driver(to, f"dev{n}") for n in range(count)]
        for n, dev in enumerate(moved):
            self.assertEqual(dev.read(SCRATCH), 0x1000 + n)
            self.assertTrue(dev.alive())
        # The copy that was under way is finished here, all of it.
        wait_for(lambda: moved[0].read(DMA_STATUS) == DONE, 20, "the DMA to end where it came to")
        for at in range(0, LENGTH, LENGTH // 16):
            self.assertEqual(self.word(to, TARGET + at), 0xfeed0000 + at, hex(at))
        # And it does DMA, from and to this side's RAM.
        to.write(virtio.BUFFERS, 8, 0x1122334455667788)
        self.assertEqual(moved[0].dma(virtio.BUFFERS, virtio.BUFFERS + 0x1000, 8), DONE)
        self.assertEqual(self.word(to, virtio.BUFFERS + 0x1000), 0x1122334455667788)
        progress = vm.get("vm.migration")
        self.assertEqual([d["id"] for d in progress["devices"]], [f"dev{n}" for n in range(count)])
        self.assertGreaterEqual(progress["devices"][0]["bytes"], 400 << 10)
        return progress

    def test_by_each_way_to_its_state(self):
        for way in WAYS:
            with self.subTest(way):
                progress = self.moves(way)
                self.assertEqual(progress["devices"][0]["backend"],
                                 "feature" if "v2" in way else way.split("-")[0])

    def test_by_each_way_after_a_live_update(self):
        """The new process asks the device how its state can be had when the VM runs there."""
        def change(vm):
            self.updated = update(vm)
            wait_for(lambda: vm.get("vm.info")["device_tree"]["dev0"].get("migration"), 10, "what the device says")
        for way in ("v2", "region", "plugin"):
            with self.subTest(way):
                self.assertEqual(self.moves(way, between=change)["devices"][0]["backend"],
                                 "feature" if way == "v2" else way)
                # Nor does the guest wait for that: for a plugin, that is started and asked.
                self.assertLess(self.updated["downtime_us"]["total"], 100000 * SLOW)

    def test_four_devices_at_once(self):
        self.moves("v2", count=4)

    def test_over_tcp_by_several_connections(self):
        self.moves("v2", count=2, url=f"tcp:127.0.0.1:{free_port()}", connections=2)

    def test_with_ram_handed_over(self):
        progress = self.moves("v2", local=True)
        self.assertLess(progress["transferred_bytes"], 2 << 20)

    def test_there_and_back_many_times(self):
        rounds = 20 if SLOW == 1 else 4
        options = (*WAYS["v2"], "--dma-rate=4M")
        sides = [self.side("a", *options), self.side("b", *options)]
        vm, to = self.start(sides[0]), self.arrival()
        spare = self.arrival()
        checksum = fill(vm)
        vm.ask(f"dirty {DIRTY:#x} 512 20 3")
        for n in range(rounds):
            dev = Driver(vm, "dev0")
            vm.write(SOURCE + LENGTH - 8, 8, n + 1)
            self.start_copy(dev)
            to.listen(user_devices=self.overrides(sides[(n + 1) % 2]))
            vm.put("vm.send-migration", {"destination_url": to.url})
            to.arrived()
            there = Driver(to, "dev0")
            wait_for(lambda: there.read(DMA_STATUS) == DONE, 20, "the DMA to end")
            self.assertEqual(self.word(to, TARGET + LENGTH - 8), n + 1)
            vm, to = to, (spare if n == 0 else vm)
        self.same_memory(vm, checksum)
        self.assertIn("verify ok", vm.ask("verify"))

    def test_what_it_writes_meanwhile_is_followed(self):
        here, there = self.side("a", *WAYS["v2"]), self.side("b", *WAYS["v2"])
        vm, to = self.start(here, memory="256M"), self.arrival()
        vm.ask(f"dirty {DIRTY:#x} 8000 0 3")
        dev = Driver(vm, "dev0")
        to.listen(user_devices=self.overrides(there))
        # The guest writes more than that, in the lab, too: rounds go on until it stops.
        sending = Sending(vm, to.url, bandwidth=20 << 20, downtime_ms=100, max_throttle=0)
        sending.wait_precopy(2)
        # While rounds go on, to pages that were sent already.
        for n in range(32):
            self.assertEqual(dev.dma(0x40 + n, FAR + n * 0x10000, 4096, SYNC | FILL), DONE)
        vm.ask("dirtystop")
        self.assertIsNone(sending.wait())
        to.arrived()
        for n in range(32):
            self.assertEqual(to.read(FAR + n * 0x10000 + 4095, 1), 0x40 + n)


class Snapshots(DeviceMigration):
    def saved(self, way, **more):
        """A VM with a device whose DMA goes on, saved, and what came up of it."""
        options = (*WAYS[way], "--dma-rate=4M", "--state-size=400K", "--state-initial=200K")
        here, there = self.side("a", *options), self.side("b", *options)
        vm, to = self.start(here), self.arrival()
        checksum = fill(vm)
        vm.ask(f"dirty {DIRTY:#x} 512 20 3")
        dev = Driver(vm, "dev0")
        dev.write(SCRATCH, 0x4711)
        for at in range(0, LENGTH, LENGTH // 16):
            vm.write(SOURCE + at, 8, 0xbeef0000 + at)
        self.start_copy(dev)
        folder = os.path.join(self.dir, f"snapshot-{way}")
        vm.put("vm.snapshot", {"destination_url": f"file://{folder}", **more})
        progress = vm.get("vm.migration")
        # The VM goes on, its device too.
        wait_for(lambda: dev.read(DMA_STATUS) == DONE, 20, "the DMA to end where it was saved")
        self.assertEqual(self.word(vm, TARGET + LENGTH // 16), 0xbeef0000 + LENGTH // 16)
        self.same_memory(vm, checksum)
        vm.close()
        to.restore(folder, user_devices=self.overrides(there))
        self.same_memory(to, checksum)
        self.assertIn("verify ok", to.ask("verify"))
        moved = Driver(to, "dev0")
        self.assertEqual(moved.read(SCRATCH), 0x4711)
        wait_for(lambda: moved.read(DMA_STATUS) == DONE, 20, "the DMA to end where it came to")
        for at in range(0, LENGTH, LENGTH // 16):
            self.assertEqual(self.word(to, TARGET + at), 0xbeef0000 + at, hex(at))
        return folder, progress

    def test_live_and_not_and_compressed(self):
        for way, more in (("v2", {}), ("v2", {"live": False}), ("region", {"compress": "zstd"})):
            with self.subTest(way, **more):
                self.saved(way, **more)
                shutil.rmtree(os.path.join(self.dir, f"snapshot-{way}"))

    def test_a_differential_one(self):
        options = (*WAYS["v2"], "--dma-rate=4M")
        here, there = self.side("a", *options), self.side("b", *options)
        vm, to = self.start(here), self.arrival()
        checksum = fill(vm)
        dev = Driver(vm, "dev0")
        base, folder = (f"{self.dir}/{name}" for name in ("base", "next"))
        vm.put("vm.snapshot", {"destination_url": f"file://{base}"})
        self.assertEqual(dev.dma(0x5a, FAR_LOW, 4096, SYNC | FILL), DONE)
        vm.put("vm.snapshot", {"destination_url": f"file://{folder}", "base_url": f"file://{base}"})
        vm.close()
        to.restore(folder, user_devices=self.overrides(there))
        self.same_memory(to, checksum)
        self.assertEqual(to.read(FAR_LOW + 4095, 1), 0x5a)

    def test_what_is_damaged_or_not_there_is_refused(self):
        folder, _ = self.saved("v2")
        there = self.side("c", *WAYS["v2"])
        with self.arrival() as to:
            with self.assertRaisesRegex(ApiError, "shared|mapped privately"):
                to.restore(folder, user_devices=self.overrides(there), memory_restore_mode="shared")
            with self.assertRaisesRegex(ApiError, "lazy"):
                to.restore(folder, user_devices=self.overrides(there), memory_restore_mode="lazy")
            path = os.path.join(folder, "device0")
            with open(path, "r+b") as file:
                file.seek(300000)
                byte = file.read(1)
                file.seek(300000)
                file.write(bytes([byte[0] ^ 1]))
            with self.assertRaisesRegex(ApiError, "dev0"):
                to.restore(folder, user_devices=self.overrides(there))
            with open(path, "r+b") as file:
                file.truncate(1000)
            with self.assertRaisesRegex(ApiError, "device0: it has 1000 bytes"):
                to.restore(folder, user_devices=self.overrides(there))
            os.unlink(path)
            with self.assertRaisesRegex(ApiError, "device0"):
                to.restore(folder, user_devices=self.overrides(there))


class Stays(DeviceMigration):
    def test_a_device_that_does_not_migrate_is_refused_by_name(self):
        vm, to = self.start(self.side("a")), self.arrival()
        info = vm.get("vm.info")["device_tree"]["dev0"]["migration"]
        self.assertEqual(info["backend"], "none")
        self.assertIn("migration", info["reason"])
        with self.assertRaisesRegex(ApiError, "dev0 cannot be moved"):
            vm.put("vm.send-migration", {"destination_url": to.listen()})
        self.assertTrue(Driver(vm, "dev0").alive())

    def test_a_device_whose_writes_cannot_be_seen_is_refused_by_name(self):
        vm, to = self.start(self.side("a", "--migration=v2")), self.arrival()
        with self.assertRaisesRegex(ApiError, "dev0"):
            vm.put("vm.send-migration", {"destination_url": to.listen()})
        self.assertTrue(Driver(vm, "dev0").alive())

    def test_another_kind_of_state_is_refused_by_both(self):
        vm, to = self.start(self.side("a", *WAYS["v2"])), self.arrival()
        there = self.side("b", *WAYS["region"])
        to.listen(user_devices=self.overrides(there))
        with self.assertRaisesRegex(ApiError, 'by ."feature.*this side by ."region'):
            vm.put("vm.send-migration", {"destination_url": to.url})
        self.assertIsInstance(to.wait_received(), ApiError)
        self.assertTrue(Driver(vm, "dev0").alive())

    def test_a_server_that_dies_meanwhile(self):
        for side in ("source", "destination"):
            with self.subTest(side):
                here, there = self.side("a", *WAYS["v2"]), self.side("b", *WAYS["v2"])
                vm, to = self.start(here, memory="256M"), self.arrival()
                checksum = fill(vm)
                vm.ask(f"dirty {DIRTY:#x} 40000 0 3")
                to.listen(user_devices=self.overrides(there))
                sending = Sending(vm, to.url, bandwidth=60 << 20, max_throttle=0)
                sending.wait_precopy(1)
                (here if side == "source" else there)[0].end()
                # One that is gone over there shows when it is given more, at the latest at the end.
                vm.ask("dirtystop")
                self.assertRegex(str(sending.wait()), "dev0")
                self.assertIn("verify ok", vm.ask("verify"))
                self.same_memory(vm, checksum)
                self.assertEqual(vm.state(), "Running")
                if side == "destination":
                    self.assertTrue(Driver(vm, "dev0").alive())

    def misdeed(self, misdeed, way, side):
        """Whatever the device does, one side has the VM, with all its memory."""
        options, bad = WAYS[way], f"--misbehave={misdeed}@3"
        here = self.side("a", *options, *([bad] if side == "source" else []))
        there = self.side("b", *options, *([bad] if side == "destination" else []))
        vm, to = self.start(here), self.arrival()
        checksum = fill(vm)
        vm.ask(f"dirty {DIRTY:#x} 512 20 3")
        to.listen(user_devices=self.overrides(there))
        error = Sending(vm, to.url).wait()
        if error:
            # By name; where a connection broke over it, the reason may have been cut off.
            self.assertRegex(str(error), "dev0|destination|peer is gone")
            if to.get("vm.migration")["phase"] == "connect":  # refused before anybody was called
                to.put("vm.cancel-migration")
            self.assertIsInstance(to.wait_received(), ApiError)
            self.assertEqual(to.request("GET", "/api/v1/vm.info")[0], 404)
        owner = vm if error else to.arrived()
        self.assertIn("verify ok", owner.ask("verify"))
        self.same_memory(owner, checksum)
        self.assertEqual(owner.state(), "Running")
        for thing in (vm, to, *here, *there):
            thing.close() if hasattr(thing, "close") else thing.end()

    def test_every_misdeed_of_a_device_that_moves(self):
        text = subprocess.run([TESTDEV, "--help"], check=True, text=True, capture_output=True).stdout
        misdeeds = re.findall(r"^  (mig-[a-z-]+) {2,}", text, re.M)
        self.assertGreater(len(misdeeds), 10)
        for n, misdeed in enumerate(misdeeds):
            # Each by one of the protocols, all in turn; a stream is its sender's.
            way = "region" if n % 2 or "offset" in misdeed else "v2"
            with self.subTest(misdeed, way=way):
                self.misdeed(misdeed, way, "source")

    def test_misdeeds_of_a_device_that_arrives(self):
        for misdeed, way in (("mig-error", "v2"), ("mig-die", "region"), ("mig-die-in-reply", "v2"), ("mig-lie", "region")):
            with self.subTest(misdeed, way=way):
                self.misdeed(misdeed, way, "destination")

    def test_cancelled(self):
        here, there = self.side("a", *WAYS["v2"]), self.side("b", *WAYS["v2"])
        vm, to = self.start(here, memory="256M"), self.arrival()
        vm.ask(f"dirty {DIRTY:#x} 40000 0 3")
        to.listen(user_devices=self.overrides(there))
        sending = Sending(vm, to.url, bandwidth=10 << 20, max_throttle=0)
        sending.wait_precopy(1)
        vm.put("vm.cancel-migration")
        self.assertRegex(str(sending.wait()), "cancel")
        vm.ask("dirtystop")  # the buffer lies within what is written
        dev = Driver(vm, "dev0")
        self.assertTrue(dev.alive())
        self.assertEqual(dev.dma(0x77, virtio.BUFFERS, 4096, SYNC | FILL), DONE)
        self.assertEqual(vm.read(virtio.BUFFERS + 4095, 1), 0x77)


if __name__ == "__main__":
    unittest.main()
