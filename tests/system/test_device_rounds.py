# SPDX-License-Identifier: Apache-2.0
"""A VM that drives its devices' DMA engines as fast as they go moves, five hundred times in all,
to and fro between two processes; nothing of memory or devices is lost on the way."""
import unittest

from ferry import SLOW
from test_device_migration import WAYS, DeviceMigration
from test_snapshot import DIRTY, PATTERN, fill
from testdev import SCRATCH, Driver

COPIES, PAGES = 0x2800000, 1024  # what the engines copy from and to
STATE_SUM, STATE_TOUCH = 0x54, 0x58
OFTEN = {"downtime_ms": 3000}  # it is to move often, not to wait until little is left


class Rounds(DeviceMigration):
    def sides(self, way, count, options):
        side = self.plugged if way == "plugin" else self.side
        return [side(name, *WAYS[way], "--state-size=64K", "--state-initial=32K", *options, count=count)
                for name in "ab"]

    def touch(self, vm, count, n):
        """What the devices have besides: registers, and state of their own that changes."""
        sums = []
        for i in range(count):
            dev = Driver(vm, f"dev{i}")
            dev.write(SCRATCH, n << 8 | i)
            dev.write(STATE_TOUCH, 3 + i)
            sums.append(dev.read(STATE_SUM))
        return sums

    def same_devices(self, vm, n, sums):
        for i, total in enumerate(sums):
            dev = Driver(vm, f"dev{i}")
            self.assertEqual((dev.read(SCRATCH), dev.read(STATE_SUM)), (n << 8 | i, total), f"dev{i}")

    def copies(self, vm, count, before):
        """All are right, and there are more than there were."""
        reply = vm.ask("dmacheck")
        self.assertRegex(reply, f"^dmacheck ok devices={count} done=")
        done = int(reply.rsplit("=")[-1])
        self.assertGreater(done, before)
        return done

    def moves(self, rounds, way, count=1, options=()):
        sides = self.sides(way, count, options)
        vm, here, there = self.start(sides[0], memory="48M"), self.arrival(), self.arrival()
        checksum, done = fill(vm), 0
        vm.ask(f"dirty {DIRTY:#x} 256 20 3")
        self.assertEqual(vm.ask(f"dma {COPIES:#x} {PAGES} 5"), f"dma ok devices={count}")
        for n in range(rounds if SLOW == 1 else max(rounds // 20, 4)):
            to = (there, here)[n % 2]
            sums = self.touch(vm, count, n)
            to.listen(user_devices=self.overrides(sides[(n + 1) % 2]))
            vm.put("vm.send-migration", {"destination_url": to.url, **OFTEN})
            vm = to.arrived()
            self.same_devices(vm, n, sums)
            done = self.copies(vm, count, done)
            self.assertIn("verify ok", vm.ask("verify"), f"move {n}")
            self.assertEqual(vm.ask(f"sum {PATTERN:#x} 512"), checksum, f"move {n}")
        self.assertEqual(vm.ask("dmastop"), "dmastop ok")

    def test_200_by_features(self):
        self.moves(200, "v2")

    def test_100_by_the_region_with_copies_that_take_a_while(self):
        self.moves(100, "region", options=["--dma-rate=32M"])

    def test_50_by_a_plugin(self):
        self.moves(50, "plugin")

    def test_100_of_four_devices(self):
        self.moves(100, "v2", 4)

    def test_50_of_four_devices_with_copies_that_take_a_while(self):
        self.moves(50, "v2", 4, ["--dma-rate=32M"])


if __name__ == "__main__":
    unittest.main()
