# SPDX-License-Identifier: Apache-2.0
"""Exactly one side has the VM, with all its memory and its device's state: whatever dies of
source, destination, device server and plugin, and at whatever step. migration/protocol.h has
the table; tests/unit/migration/test_handover.c plays it without devices."""
import concurrent.futures
import json
import os
import signal
import threading
import unittest

import virtio
from ferry import SLOW, ApiError, wait_for
from frames import Proxy
from test_device_migration import WAYS, DeviceMigration
from test_migration import Sending
from test_plugins import children, name
from test_snapshot import DIRTY, PATTERN, fill
from testdev import DMA_STATUS, DONE, SCRATCH, Driver

EVERY_WAY = os.environ.get("FERRY_TEST_EVERY_WAY")  # not one each, in turn
LAST, INITIAL = 4, 8  # flags of frames
# What goes over the connections, by who sends it; the order is that of one connection.
STEPS = (("S", "HELLO"), ("D", "HELLO_REPLY"), ("S", "CPU"), ("S", "MEMORY"), ("S", "CONFIG"), ("S", "ATTACH"),
         ("S", "DEVICE"), ("D", "CREATED"), ("S", "PAGES"), ("S", "DEVICE_DATA"), ("S", "DEVICE_DATA INITIAL"),
         ("D", "DEVICE_LOADED INITIAL"), ("S", "ROUND_END"), ("S", "ROUND_SENT"), ("D", "ROUND_LOADED"),
         ("S", "ROUND_END LAST"), ("S", "DEVICE_DATA LAST"), ("D", "DEVICE_LOADED LAST"), ("S", "STATE"), ("D", "READY"),
         ("S", "COMMIT"), ("D", "RUNNING"), ("S", "DONE"))
STREAM_OVER = STEPS.index(("D", "DEVICE_LOADED LAST"))
COMMIT = STEPS.index(("S", "COMMIT"))
SOURCE, TARGET, HELD, NOBODY = "source", "destination", "held", "nobody"
COPY_FROM, COPY_TO, COPY = 0x2800000, 0x2c00000, 0x100000


def label(frame):
    flags = frame.flags if frame.name.startswith(("DEVICE_", "ROUND_END")) else 0
    return frame.name + (" LAST" if flags & LAST else " INITIAL" if flags & INITIAL else "")


class Play:
    """One migration of a VM with a device whose DMA goes on; at a step of it, mischief."""

    def __init__(self, case, way, step):
        self.case, self.way, self.step = case, way, step
        self.here, self.to, self.there = self.servers("a"), case.arrival(), self.servers("b")
        self.vm = case.start(self.here, memory="64M")
        self.seen, self.lock, self.done = set(), threading.Lock(), threading.Event()
        path = os.path.join(case.dir, f"{way}{step}")
        self.to.listen(f"unix:{path}.to", user_devices=case.overrides(self.there))
        self.proxy = Proxy(path, path + ".to", self.at)
        case.addCleanup(self.proxy.close)

    def servers(self, name):
        side = self.case.plugged if self.way == "plugin" else self.case.side
        return side(f"{self.way}{self.step}{name}", *WAYS[self.way], "--dma-rate=8M", "--state-size=96K",
                    "--state-initial=48K")

    def at(self, direction, frame, number):
        what = (direction, label(frame))
        with self.lock:
            first = what not in self.seen
            self.seen.add(what)
        if not first or what != STEPS[self.step]:
            return None
        try:
            return self.mischief(self)
        finally:
            self.done.set()

    def start_copy(self):
        dev = Driver(self.vm, "dev0")
        dev.write(SCRATCH, 0x4711)
        for at in range(0, COPY, COPY // 16):
            self.vm.write(COPY_FROM + at, 8, 0xfeed0000 + at)
        dev.dma(COPY_FROM, COPY_TO, COPY, 0, wait=False)

    def perform(self, mischief):
        """error: why the migration failed, if its source lives to say so."""
        self.mischief = mischief
        self.checksum = fill(self.vm)
        self.vm.ask(f"dirty {DIRTY:#x} 256 20 3")
        self.start_copy()
        self.error = Sending(self.vm, f"unix:{self.proxy.path}").wait()
        self.case.assertTrue(self.done.wait(20 * SLOW), f"no {STEPS[self.step]}")

    def conclude(self):
        """The destination has the VM, or says why not; one that nobody has spoken to waits on."""
        if self.to.get("vm.migration")["phase"] == "connect":
            try:
                self.to.put("vm.cancel-migration")
            except ApiError as e:  # it was about to fail by itself
                self.case.assertEqual(e.status, 405)
        if self.to.wait_received() is not True:
            self.case.assertRegex(str(self.to.received), "^[45]00: .*receive migration: ")

    def has(self, side):
        """The state of the VM there, or None."""
        if side.process.poll() is not None:
            return None
        status, text = side.request("GET", "/api/v1/vm.info")
        self.case.assertIn(status, (200, 404))
        return json.loads(text)["state"] if status == 200 else None

    def owner(self):
        """Who has the VM in the end. Both is the one thing that must not be."""
        if self.to.process.poll() is None:
            self.conclude()
        here, there = self.has(self.vm), self.has(self.to)
        if there:
            self.case.assertEqual((here, there), (None, "Running"))
            return TARGET
        if here == "Running":
            self.case.assertIsInstance(self.error, ApiError)
        return {"Running": SOURCE, "Paused": HELD, None: NOBODY}[here]

    def all_is_there(self, side, device=True):
        """All memory; and, if nobody took its server away, all of the device."""
        if side is not self.vm:
            side.connect_serial()
        self.case.assertEqual(side.ask(f"sum {PATTERN:#x} 512"), self.checksum)
        self.case.assertIn("verify ok", side.ask("verify"))
        if not device:
            return side.wait_event("device-lost")
        dev = Driver(side, "dev0")
        self.case.assertEqual(dev.read(SCRATCH), 0x4711)
        wait_for(lambda: dev.read(DMA_STATUS) == DONE, 20, "the DMA to end")
        for at in range(0, COPY, COPY // 16):
            self.case.assertEqual(side.read(COPY_TO + at, 8), 0xfeed0000 + at)
        side.write(virtio.BUFFERS, 8, 0x1122334455667788)
        self.case.assertEqual(dev.dma(virtio.BUFFERS, virtio.BUFFERS + 0x1000, 8), DONE)
        return self.case.assertEqual(side.read(virtio.BUFFERS + 0x1000, 8), 0x1122334455667788)

    def moves_again(self):
        """Nothing of the migration that failed is in the way of the next."""
        there = self.servers("c")
        with self.case.arrival() as to:
            to.listen(user_devices=self.case.overrides(there))
            self.case.assertIsNone(Sending(self.vm, to.url).wait())
            to.arrived()
            self.all_is_there(to)
        there[0].end()

    def end(self):
        for side in (self.vm, self.to):
            if side.process.poll() is None:
                side.close()
        for server in (*self.here, *self.there):
            server.end()
        self.proxy.close()


def kill(process):
    process.kill()
    process.wait()


def kill_plugin(side):
    """The process that has loaded it, and where there is none now, the one that starts them."""
    host = next(p for p in children(side.process.pid) if name(p) == "ferry-plugin")
    os.kill(next(iter(children(host)), host), signal.SIGKILL)


class Handover(DeviceMigration):
    WAYS = ("v2", "region", "plugin")

    def play(self, step, way, mischief, check):
        """check(play) after it. Errors name the step and the way."""
        play = Play(self, way, step)
        try:
            play.perform(mischief)
            check(play)
        except BaseException as e:
            raise AssertionError(f"{STEPS[step]} by {way}: {e}") from e
        play.end()

    def plays(self):
        """Each step by each way; in CI by one of them, all in turn."""
        for step in range(0, len(STEPS), 1 if SLOW == 1 else 5):
            for n, way in enumerate(self.WAYS):
                if EVERY_WAY or n == step % len(self.WAYS):
                    yield step, way

    def walk(self, mischief, check):
        for step, way in self.plays():
            with self.subTest(step=STEPS[step], way=way):
                self.play(step, way, mischief, check)

    def walk_at_once(self, mischief, check):
        """They mostly wait."""
        with concurrent.futures.ThreadPoolExecutor(24 if SLOW == 1 else 3) as pool:
            plays = [pool.submit(self.play, step, way, mischief, check) for step, way in self.plays()]
        for play in plays:
            play.result()


class Steps(Handover):
    def test_they_are_these_by_each_way(self):
        for way in self.WAYS:
            with self.subTest(way=way):
                play = Play(self, way, len(STEPS) - 1)
                play.perform(lambda play: None)
                self.assertEqual(play.owner(), TARGET)
                play.all_is_there(play.to)
                self.assertEqual({what for what in play.seen if what[1] != "PING"}, set(STEPS))


class Sides(Handover):
    """Source and destination, and what is between them."""

    def test_the_source_killed_at_each_step(self):
        def check(play):
            self.assertEqual(play.owner(), NOBODY if play.step < COMMIT else TARGET)
            if play.step >= COMMIT:
                play.all_is_there(play.to)

        self.walk(lambda play: kill(play.vm.process), check)

    def test_the_destination_killed_at_each_step(self):
        def check(play):
            if play.step > COMMIT:  # it ran there: never run here again unasked
                self.assertIn(play.owner(), (NOBODY, HELD))
                return
            self.assertEqual(play.owner(), SOURCE)
            play.all_is_there(play.vm)
            play.moves_again()

        self.walk(lambda play: kill(play.to.process), check)

    def interrupted(self, play):
        owner = SOURCE if play.step <= COMMIT else TARGET
        self.assertEqual(play.owner(), owner)
        play.all_is_there(play.vm if owner == SOURCE else play.to)

    def test_a_connection_cut_at_each_step(self):
        self.walk_at_once(lambda play: False, self.interrupted)

    def test_connections_that_stall_at_each_step(self):
        self.walk_at_once(lambda play: play.proxy.stall(), self.interrupted)


class Devices(Handover):
    """The process that is the device, and the one that knows how to ask for its state."""

    def stays(self, play, words, device):
        self.assertEqual(play.owner(), SOURCE)
        self.assertRegex(str(play.error), words)
        play.all_is_there(play.vm, device)

    def test_the_sources_server_killed_at_each_step(self):
        def check(play):
            if play.step <= STREAM_OVER:
                self.stays(play, f"dev0|{play.here[0].socket}", device=False)
            else:  # by then nothing more is asked of it
                self.assertEqual(play.owner(), TARGET)
                play.all_is_there(play.to)

        self.walk(lambda play: play.here[0].end(), check)

    def test_the_destinations_server_killed_at_each_step(self):
        def check(play):
            if play.step <= COMMIT:
                self.stays(play, f"dev0|{play.there[0].socket}", device=True)
            else:
                self.assertEqual(play.owner(), TARGET)
                play.all_is_there(play.to, device=False)

        self.walk(lambda play: play.there[0].end(), check)


class Plugins(Handover):
    """The plugin's process: whatever it does, the device works on."""
    WAYS = ("plugin",)

    def check(self, play, last):
        if play.step > last:
            self.assertEqual(play.owner(), TARGET)
            play.all_is_there(play.to)
            return
        self.assertEqual(play.owner(), SOURCE)
        self.assertRegex(str(play.error), "device dev0.*plugin")
        play.all_is_there(play.vm)

    def test_the_sources_killed_at_each_step(self):
        self.walk(lambda play: kill_plugin(play.vm), lambda play: self.check(play, STREAM_OVER))

    def test_the_destinations_killed_at_each_step(self):
        self.walk(lambda play: kill_plugin(play.to), lambda play: self.check(play, COMMIT))


if __name__ == "__main__":
    unittest.main()
