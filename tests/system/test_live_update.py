# SPDX-License-Identifier: Apache-2.0
"""Live update on real KVM: a VM changes its process, and nobody notices."""
import json
import os
import pty
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import threading
import time
import unittest

import test_devices
import virtio
from ferry import BUILD, SLOW, ApiError, Ferry, wait_for
from frames import Frame, Proxy
from probe import PROBE, Probe
from test_devices import Folder, pattern
from test_snapshot import DIRTY, PATTERN, Moving, fill, generation_id
from testdev import (DOORBELL, DOORBELL_COUNT, DONE, FILL, RESET_COUNT, SCRATCH, SYNC, Driver, Engine, Server)
from update import Client, Waiting, follow, update

FERRY = os.path.join(BUILD, "ferry")
ENGINES = 48 << 20  # what the devices copy


class LiveUpdate(Moving):
    def vm(self, *args, **more):
        vm = Probe(*args, **more)
        self.addCleanup(vm.close)
        return vm

    def waiting(self, *args, **more):
        waiting = Waiting(self.dir, *args, **more)
        self.addCleanup(waiting.end)
        return waiting

    def refused(self, vm, words, **body):
        """It is, for that reason, and the VM goes on."""
        with self.assertRaises(ApiError) as caught:
            vm.put("vm.live-update", body)
        self.assertRegex(caught.exception.body, words)
        self.assertEqual(vm.ask("ping"), "pong")
        self.assertEqual(vm.state(), "Running")
        return caught.exception


class GoesOn(LiveUpdate):
    def test_memory_cpus_timer_and_console_go_on(self):
        for cpus in (1, 4):
            with self.subTest(cpus=cpus):
                vm = self.vm(cpus=cpus)
                checksum, generation = fill(vm), generation_id(vm)
                if cpus > 1:
                    vm.ask("smp spin")
                vm.ask(f"dirty {DIRTY:#x} 512 20 3")
                for _ in range(3):
                    took = update(vm)
                    self.assertGreater(took["downtime_us"]["total"], 0)
                    self.assertEqual(took["pid"], vm.process.pid)
                    self.same_memory(vm, checksum)
                    self.timer_goes_on(vm)
                    self.assertIn("verify ok", vm.ask("verify"))
                    if cpus > 1:
                        self.cpus_go_on(vm)
                self.assertEqual(generation_id(vm), generation)

    def test_a_thousand_in_a_row_with_dma_all_the_time(self):
        """Two devices copy and interrupt, in the pauses too. Nothing is lost: no interrupt by
        MSI-X or INTx, no byte of a copy, no memory, no descriptor, no answer to a client."""
        count = 1000 if SLOW == 1 else 30
        signal.alarm(int(400 * SLOW))  # it is many tests in one
        servers = [Server(self.dir, "--dma-rate=16M", name=name) for name in ("a", "b")]
        for server in servers:
            self.addCleanup(server.end)
        vm = self.vm("--disk", f"path={self.disk()},id=d0",
                     *(word for s in servers for word in ("--user-device", f"socket={s.socket}")))
        checksum = fill(vm)
        vm.ask(f"dirty {DIRTY:#x} 256 20 3")
        engines = [Engine(vm, kind, n, ENGINES + n * (1 << 20)) for n, kind in enumerate(("msix", "intx"))]
        for _ in range(3):
            update(vm)
        fds, threads, server_fds = len(vm.fds()), len(vm.threads()), [s.fds() for s in servers]
        client, pauses = Client(vm), []
        for n in range(1, count + 1):
            pauses.append(update(vm)["downtime_us"]["total"])
            if n % 50 == 0:
                self.assertIn("verify ok", vm.ask("verify"))
        self.assertEqual(client.end(), [])
        done = [engine.stop() for engine in engines]
        print(f"     {count} updates, pauses of {statistics.median(pauses) / 1000:.1f} ms, up to "
              f"{max(pauses) / 1000:.1f} ms; interrupts, none lost: MSI-X {done[0]['raised']}, INTx "
              f"{done[1]['raised']}; the client connected {client.connections} times, {client.answers} answers")
        for n in done:
            self.assertGreater(n["transfers"], count, "DMA under way in the pauses")
        self.assertGreater(len(client.pids), count / 4, "it is connected to one after the other")
        self.same_memory(vm, checksum)
        self.assertIn("verify ok", vm.ask("verify"))
        wait_for(lambda: len(vm.fds()) == fds and len(vm.threads()) == threads, 10, "as many descriptors as before")
        self.assertEqual([s.fds() for s in servers], server_fds)
        self.assertEqual(sum(name.startswith("vm.live-update") for name in os.listdir(vm.dir)), 0)

    def test_a_client_that_reconnects_sees_the_same_vm(self):
        vm = self.vm()
        before = vm.get("vm.info")
        failures, stop = [], threading.Event()

        def client():
            while not stop.is_set():
                try:
                    connection = socket.socket(socket.AF_UNIX)
                    connection.connect(vm.api_path)  # the path is never absent, and somebody listens
                    connection.close()
                except OSError as e:
                    failures.append(e)
                time.sleep(0.001)

        thread = threading.Thread(target=client)
        thread.start()
        try:
            for _ in range(10):
                update(vm)
        finally:
            stop.set()
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(vm.get("vm.info"), before)
        self.assertEqual(vm.get("vm.migration")["phase"], "completed")

    def test_counters_go_on(self):
        disk = self.disk()
        vm = self.vm("--disk", f"path={disk},id=d0")
        vm.ask("blk info")
        vm.ask("blk write 0 64 5")
        first = before = vm.get("vm.counters")
        self.assertGreater(before["d0"]["write_bytes"], 0)
        for n in range(1, 4):
            update(vm)
            now = vm.get("vm.counters")
            for device, counters in before.items():
                for name, value in counters.items():
                    self.assertGreaterEqual(now[device][name], value, (device, name))
            # Nothing counts twice either.
            self.assertEqual(now["d0"]["write_bytes"], before["d0"]["write_bytes"])
            vm.ask(f"blk write 0 64 {5 + n}")
            before = vm.get("vm.counters")
            self.assertEqual(before["d0"]["write_bytes"], (n + 1) * first["d0"]["write_bytes"])
        self.assertIn(f'ferry_device_write_bytes_total{{device="d0"}} {before["d0"]["write_bytes"]}',
                      vm.ctl("metrics").stdout)
        # What is new counts anew, whatever it is called: a device, and a machine.
        hotplug = test_devices.HotPlug
        bdf = vm.get("vm.info")["device_tree"]["d0"]["pci_bdf"]
        hotplug.eject(self, vm, "d0", 1 << virtio.slot_of(bdf))
        hotplug.add(self, vm, path=disk, id="d0")
        self.assertEqual(vm.get("vm.counters")["d0"]["write_bytes"], 0)
        update(vm)
        self.assertGreater(vm.get("vm.counters")["_vcpu0"]["mmio_exits"], before["_vcpu0"]["mmio_exits"])
        vm.put("vm.reboot")
        vm.wait_ready()
        self.assertLess(vm.get("vm.counters")["_vcpu0"]["mmio_exits"], before["_vcpu0"]["mmio_exits"])

    def test_a_paused_vm_stays_paused(self):
        vm = self.vm()
        checksum = fill(vm)
        vm.put("vm.pause")
        update(vm)
        self.assertEqual(vm.state(), "Paused")
        update(vm)
        vm.put("vm.resume")
        self.same_memory(vm, checksum)

    def test_all_operations_work_afterwards(self):
        disk = self.disk()
        vm = self.vm("--balloon", "size=0", "--vsock", f"cid=5,socket={self.dir}/vsock")
        update(vm)
        place = vm.put("vm.add-disk", {"path": disk, "id": "late"})
        update(vm)
        self.assertEqual(vm.get("vm.info")["device_tree"]["late"]["pci_bdf"], place["bdf"])
        vm.put("vm.pause")
        vm.put("vm.resume")
        self.snapshot(vm)
        vm.put("vm.reboot")
        vm.wait_ready()
        update(vm)
        vm.ask("ping")
        vm.put("vm.shutdown")
        vm.put("vm.boot")
        vm.wait_ready()
        vm.put("vmm.shutdown")
        self.assertEqual(vm.wait_exit(), 0)
        self.assertFalse(os.path.exists(vm.api_path), "its socket goes with the last process")
        self.assertFalse(os.path.exists(f"{self.dir}/vsock"))
        self.assertFalse(os.path.exists(vm.serial_path))

    def test_an_orchestrator_starts_the_new_process(self):
        vm = self.vm()
        checksum = fill(vm)
        old, waiting = vm.process, self.waiting("-v")
        vm.put("vm.live-update", {"socket": waiting.socket})
        self.assertEqual(old.wait(10), 0)
        vm.process = waiting.process
        self.same_memory(vm, checksum)
        self.assertEqual(vm.get("vmm.ping")["pid"], waiting.process.pid)
        update(vm)
        self.assertEqual(waiting.process.wait(10), 0)

    def test_by_ferryctl(self):
        vm = self.vm()
        for args in ((), ("--binary", FERRY)):
            old = vm.process
            said = vm.ctl("live-update", *args).stdout
            self.assertRegex(said, r"process \d+; it stood still for \d+\.\d ms")
            self.assertEqual(old.wait(10), 0)
            follow(vm)
            self.assertEqual(vm.ask("ping"), "pong")
        result = vm.ctl("live-update", "--binary", "/bin/true", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("--live-update binary=", result.stderr)


class Devices(LiveUpdate):
    def test_a_disk_keeps_its_lock_and_its_data(self):
        disk = self.disk()
        vm = self.vm("--disk", f"path={disk},id=d0")
        stop, gaps = threading.Event(), []

        def thief():
            # The lock is held through all of it: nobody gets it for a moment.
            import fcntl
            import struct
            while not stop.is_set():
                with open(disk, "r+b") as file:
                    try:
                        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                        fcntl.fcntl(file, 37, lock)  # F_OFD_SETLK
                        gaps.append(time.monotonic())
                    except OSError:
                        pass

        thread = threading.Thread(target=thief)
        thread.start()
        try:
            for _ in range(10):
                update(vm)
        finally:
            stop.set()
            thread.join()
        self.assertEqual(gaps, [])

    def test_a_disk_that_is_written_to_meanwhile(self):
        disk = self.disk()
        vm = self.vm("--disk", f"path={disk},id=d0")
        self.assertIn("blk info ok", vm.ask("blk info"))
        self.assertIn("blk write ok", vm.ask("blk write 0 64 5"))
        for n in range(1, 6):
            # Requests are under way all the time; what was written is there.
            vm.send("blk bench rand 100 16")
            update(vm)
            self.assertRegex(vm.read_until(r"blk bench [^\r\n]*\r?\n").group(0).decode(), "blk bench ok")
            self.assertIn("blk check ok", vm.ask(f"blk check 0 64 {4 + n}"))
            self.assertIn("blk write ok", vm.ask(f"blk write 0 64 {5 + n}"))

    def test_console_clients_stay_connected(self):
        vm = self.vm()
        client = vm.console
        for n in range(5):
            update(vm)
            self.assertIs(vm.console, client)
            self.assertEqual(vm.ask("ping"), "pong")
        # And one that connects later is told what was said meanwhile.
        vm.send("ping")
        self.assertEqual(vm.read_until(r"pong\r?\n").group(0).strip(), b"pong")
        client.close()
        vm.console = None
        wait_for(lambda: True, 1, "")
        update(vm)
        vm.connect_serial()
        self.assertEqual(vm.ask("ping"), "pong")

    def test_a_pty_stays(self):
        with Ferry("--kernel", PROBE, "--memory", "size=64M", "--serial", "pty", "--console", "off",
                   serial=False) as vm:
            vm.wait_event("booted")
            path = vm.get("vm.info")["config"]["serial"]["file"]
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY)

            def ask(text):
                os.write(fd, text.encode() + b"\n")
                data = b""
                end = time.monotonic() + 10
                while b"pong" not in data and time.monotonic() < end:
                    data += os.read(fd, 1000)
                return data

            said = b""
            while b"PROBE ready" not in said:
                said += os.read(fd, 1000)
            self.assertIn(b"pong", ask("ping"))
            for _ in range(3):
                update(vm)
                self.assertIn(b"pong", ask("ping"))
            self.assertEqual(vm.get("vm.info")["config"]["serial"]["file"], path)
            os.close(fd)

    def test_log_and_events_go_on(self):
        vm = self.vm()
        for _ in range(3):
            update(vm)
        self.assertEqual(vm.event_names().count("live-updated"), 3)
        self.assertEqual(vm.log().count("vm.live-update: done"), 3)
        vm.put("vm.pause")
        wait_for(lambda: "paused" in vm.event_names(), 5, "the event")
        times = [e["timestamp"]["secs"] * 10**9 + e["timestamp"]["nanos"] for e in vm.events()]
        self.assertEqual(times, sorted(times), "they count from the same start")

    def test_a_user_device_keeps_its_state_and_connection(self):
        server = Server(self.dir)
        self.addCleanup(server.end)
        vm = self.vm("--user-device", f"socket={server.socket},id=dev")
        dev = Driver(vm, "dev")
        dev.write(SCRATCH, 7)
        resets, fds = dev.read(RESET_COUNT), server.fds()
        for n in range(10):
            update(vm)
            self.assertEqual((dev.read(SCRATCH), dev.read(RESET_COUNT)), (7, resets))
            self.assertEqual(dev.dma(n, virtio.BUFFERS, 4096, SYNC | FILL), DONE)
            self.assertEqual(vm.read(virtio.BUFFERS + 4088, 8), n * 0x0101010101010101)
            dev.write(DOORBELL, 1)
            wait_for(lambda: dev.read(DOORBELL_COUNT) == n + 1, 10, "the doorbell to be heard")
        self.assertEqual(server.fds(), fds)


class Confined(LiveUpdate):
    def test_under_seccomp_only_its_own_program_is_started(self):
        vm = self.vm()
        self.refused(vm, "under seccomp", binary="/bin/true")
        self.refused(vm, "under seccomp", args=["--seccomp", "false"])
        update(vm, binary=FERRY)
        for thread in vm.threads().values():
            self.assertEqual(thread["Seccomp"], "2")

    def test_without_seccomp_any_is(self):
        vm = self.vm(seccomp="false")
        other = os.path.join(self.dir, "ferry-new")
        shutil.copy(FERRY, other)
        update(vm, binary=other, args=["-vv"])
        self.assertEqual(os.readlink(f"/proc/{vm.process.pid}/exe"), other)

    def test_the_one_named_at_the_start(self):
        other = os.path.join(self.dir, "ferry-new")
        shutil.copy(FERRY, other)
        vm = self.vm("--live-update", f"binary={other}")
        update(vm)
        self.assertEqual(os.readlink(f"/proc/{vm.process.pid}/exe"), other)
        self.refused(vm, "under seccomp", binary=FERRY)

    def test_a_binary_that_was_replaced(self):
        other = os.path.join(self.dir, "ferry")
        shutil.copy(FERRY, other)
        vm = self.vm("--live-update", f"binary={other}")
        update(vm)
        shutil.copy(FERRY, other + ".new")
        os.rename(other + ".new", other)
        inode = os.stat(other).st_ino
        update(vm)
        self.assertEqual(os.stat(f"/proc/{vm.process.pid}/exe").st_ino, inode)

    def test_turned_off(self):
        vm = self.vm("--live-update", "off")
        self.refused(vm, "--live-update off.*--adopt")
        waiting = self.waiting()
        vm.put("vm.live-update", {"socket": waiting.socket})
        vm.wait_exit()
        vm.process = waiting.process
        self.assertEqual(vm.ask("ping"), "pong")

    def test_within_landlock(self):
        try:
            vm = self.vm("--landlock", "--landlock-rules", f"path={self.dir},access=rw")
        except AssertionError as e:
            if "landlock: this kernel has none" in str(e):
                self.skipTest("no Landlock here")
            raise
        for _ in range(2):
            update(vm)
            self.assertEqual(vm.ask("ping"), "pong")
        self.assertTrue(vm.get("vm.info")["config"]["landlock_enable"])
        with self.assertRaises(ApiError):
            vm.put("vm.add-disk", {"path": "/etc/passwd", "readonly": True})

    def test_systemd_is_told(self):
        path = os.path.join(self.dir, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            notify.settimeout(10 * SLOW)
            vm = self.vm(env={**os.environ, "NOTIFY_SOCKET": path})
            self.assertEqual(notify.recv(100), b"READY=1")
            for _ in range(2):
                update(vm)
                self.assertEqual(notify.recv(100), f"MAINPID={vm.process.pid}\nREADY=1".encode())


# What goes over the connection, in order: who sends it, its name, and the how-many'th it is.
STEPS = (("S", "HELLO", 0), ("D", "HELLO_REPLY", 0), ("S", "ASK", 0), ("D", "AGREED", 0), ("S", "CPU", 0),
         ("S", "MEMORY", 0), ("S", "KEPT", 0), ("D", "AGREED", 1), ("S", "CONFIG", 0), ("D", "CREATED", 0),
         ("S", "KEPT", 1), ("D", "AGREED", 2), ("S", "STATE", 0), ("D", "READY", 0), ("S", "COMMIT", 0),
         ("D", "RUNNING", 0), ("S", "DONE", 0))
COMMIT = STEPS.index(("S", "COMMIT", 0))


class Fails(LiveUpdate):
    """One owner, whatever dies and when."""

    def through(self, vm, at):
        """Starts an update through a proxy that calls at(); the error, if it failed."""
        waiting = self.waiting(name=f"adopt{random.random()}.sock")
        path = os.path.join(self.dir, f"proxy{random.random()}.sock")
        proxy = Proxy(path, waiting.socket, lambda *step: at(waiting, *step))
        self.addCleanup(proxy.close)
        error = None
        try:
            vm.put("vm.live-update", {"socket": path}, timeout=100)
        except (ApiError, OSError) as e:
            error = e
        return waiting, error, proxy

    def at_step(self, step, act):
        def at(waiting, direction, frame, number):
            return act(waiting) if (direction, frame.name, number) == step else None
        return at

    def test_the_steps_are_these(self):
        vm = self.vm()
        waiting, error, proxy = self.through(vm, lambda *step: None)
        self.assertIsNone(error)
        vm.wait_exit()
        vm.process = waiting.process
        counted = {}
        steps = []
        wait_for(lambda: ("S", "DONE") in proxy.seen, 5, "DONE")
        for direction, name in proxy.seen:
            number = counted.get((direction, name), 0)
            counted[(direction, name)] = number + 1
            steps.append((direction, name, number))
        self.assertEqual(sorted(steps), sorted(STEPS))

    def test_the_new_process_killed_at_each_step(self):
        for index, step in enumerate(STEPS):
            with self.subTest(step=step), Probe() as vm:
                checksum = fill(vm)

                def act(waiting):
                    waiting.process.kill()
                    waiting.process.wait()

                waiting, error, _ = self.through(vm, self.at_step(step, act))
                if index <= COMMIT:
                    self.assertIsInstance(error, ApiError)
                    self.assertEqual(vm.state(), "Running")
                    self.same_memory(vm, checksum)
                    self.timer_goes_on(vm)
                    update(vm)  # and the next one finds nothing in its way
                    self.same_memory(vm, checksum)
                elif step[1] == "RUNNING":
                    # It ran there. Gone with that process, or held here: never run on unasked.
                    if vm.process.poll() is None and not vm.wait_ended(2):
                        self.assertEqual(vm.state(), "Paused")
                else:
                    self.assertEqual(vm.wait_exit(), 0)

    def test_the_old_process_killed_at_each_step(self):
        for index, step in enumerate(STEPS):
            with self.subTest(step=step), Probe() as vm:
                checksum = fill(vm)
                old = vm.process

                def act(waiting):
                    old.kill()
                    old.wait()

                waiting, error, _ = self.through(vm, self.at_step(step, act))
                old.wait()
                if index < COMMIT:  # it was the old one's VM: it ends with it
                    self.assertEqual(waiting.process.wait(30), 1, waiting.stderr())
                    continue
                if step == STEPS[COMMIT]:
                    # Sent, and the proxy hands it on after the sender's end.
                    pass
                vm.process = waiting.process
                self.same_memory(vm, checksum)
                self.assertEqual(vm.state(), "Running")

    def test_a_connection_cut_at_each_step(self):
        for index, step in enumerate(STEPS):
            with self.subTest(step=step), Probe() as vm:
                checksum = fill(vm)
                old = vm.process
                waiting, error, _ = self.through(vm, self.at_step(step, lambda waiting: False))
                if error:
                    self.assertLessEqual(index, COMMIT)
                    if index:  # whom nobody has spoken to waits on
                        self.assertNotEqual(waiting.process.wait(30), 0)
                else:
                    self.assertGreaterEqual(index, COMMIT)
                    self.assertEqual(old.wait(30), 0)
                    vm.process = waiting.process
                self.same_memory(vm, checksum)
                self.assertEqual(vm.state(), "Running")

    def test_a_guest_that_ends_meanwhile_does_so_in_the_old_process(self):
        for command, words in (("reboot", "the guest was reset meanwhile"), ("triple", "the guest was reset meanwhile"),
                               ("shutdown", "the guest shut down meanwhile")):
            with self.subTest(command=command), Probe() as vm:
                def act(waiting, vm=vm, command=command):
                    vm.send(command)
                    wait_for(lambda: (p := vm.get("vm.migration")).get("cancelling") or p["phase"] == "cancelled", 20,
                             "the update to be given up")

                waiting, error, _ = self.through(vm, self.at_step(("D", "CREATED", 0), act))
                self.assertIn(words, str(error))
                self.assertEqual(waiting.process.wait(30), 1, waiting.stderr())
                if command == "shutdown":
                    self.assertEqual(vm.wait_exit(), 0)
                    continue
                vm.wait_ready()
                self.assertEqual(vm.state(), "Running")
                update(vm)  # of the next machine
                self.assertEqual(vm.ask("ping"), "pong")

    def test_damaged_frames(self):
        for step in STEPS[:COMMIT + 1]:
            with self.subTest(step=step), Probe() as vm:
                checksum = fill(vm)

                def at(waiting, direction, frame, number, step=step):
                    if (direction, frame.name, number) == step:
                        frame.type = 999
                    return None

                waiting, error, _ = self.through(vm, at)
                self.assertIsInstance(error, ApiError)
                self.same_memory(vm, checksum)
                self.assertEqual(vm.state(), "Running")

    def test_counters_that_make_no_sense(self):
        """They are not what a VM is lost for."""
        vm = self.vm("--disk", f"path={self.disk()},id=d0")
        for text in ("", "x", "[]", "{", '{"d0":1}', '{"d0":[7]}', '{"d0":{"write_bytes":-5}}',
                     '{"d0":{"write_bytes":1.5}}', '{"d0":{"write_bytes":{}}}', '{"d0":{"none":7}}', '{"d0":{},"d0":{}}',
                     '{"d0":{"write_bytes":9223372036854775807}}', '{"d0":{"write_bytes":9223372036854775808}}'):
            with self.subTest(text=text):
                vm.ask("blk info")
                vm.ask("blk write 0 64 5")

                def at(waiting, direction, frame, number, text=text):
                    name = frame.meta.find(b"@counters/0") if frame.name == "KEPT" else -1
                    if name < 0:
                        return None
                    length, = struct.unpack_from("<I", frame.meta, name - 4)
                    start = name + len("@counters/0")
                    frame.meta = frame.meta[:start] + text.encode().ljust(length) + frame.meta[start + length:]
                    changed.append(text)
                    return frame

                changed = []
                waiting, error, _ = self.through(vm, at)
                self.assertIsNone(error)
                vm.wait_exit()
                vm.process = waiting.process
                self.assertEqual(changed, [text])
                self.assertGreaterEqual(vm.get("vm.counters")["d0"]["write_bytes"], 0)
                self.assertEqual(vm.ask("ping"), "pong")

    def test_every_kind_of_state_is_asked_for_first(self):
        server = Server(self.dir)
        self.addCleanup(server.end)
        vm = self.vm("--disk", f"path={self.disk()}", "--balloon", "size=0", "--vsock", f"cid=5,socket={self.dir}/v",
                     "--user-device", f"socket={server.socket}", "--pvpanic", hvc="null")
        seen = {}

        def at(waiting, direction, frame, number):
            if direction == "S":
                seen.setdefault(frame.name, frame.payload)

        waiting, error, _ = self.through(vm, at)
        self.assertIsNone(error)
        vm.wait_exit()
        vm.process = waiting.process
        asked = json.loads(seen["ASK"])["kinds"]
        sent = {kind.decode() for kind in re.findall(rb"ferry,([a-z0-9-]+)\0", seen["STATE"])}
        self.assertGreater(len(sent), 15)
        self.assertEqual(sent - set(asked), {"state-tree"}, "missing in vmm/state_kinds.c")

    def test_a_new_process_that_is_older(self):
        vm = self.vm()

        def at(waiting, direction, frame, number):
            if frame.name != "ASK":
                return None
            text = json.loads(frame.payload)
            text["kinds"]["vcpu"] = 7
            frame.payload = json.dumps(text).encode()
            return frame

        waiting, error, _ = self.through(vm, at)
        self.assertIn("vcpu of version 7", str(error))
        self.assertEqual(vm.ask("ping"), "pong")
        # One that has never heard of live updates.
        old = os.path.join(self.dir, "old-ferry")
        with open(old, "w") as file:
            file.write("#!/bin/sh\necho 'unknown option --adopt' >&2\nexit 2\n")
        os.chmod(old, 0o755)
        other = self.vm("--live-update", f"binary={old}")
        self.refused(other, "the new process")

    def test_no_process_waits_there(self):
        vm = self.vm()
        self.refused(vm, "No such file", socket="/nowhere")
        self.refused(vm, "absolute path", socket="relative")
        self.refused(vm, "either it, or binary", socket="/nowhere", binary="/bin/true")

    def test_a_vm_that_is_not_there_or_does_not_run(self):
        with Ferry(serial=False) as vm:
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.live-update", {})
            self.assertEqual(caught.exception.status, 404)

    def test_an_adopter_ends_when_nobody_hands_over(self):
        vm = self.vm()
        waiting = self.waiting()
        vm.put("vm.pause")
        with self.assertRaises(ApiError) as caught:  # a migration is no live update
            vm.put("vm.send-migration", {"destination_url": f"unix:{waiting.socket}", "local": True})
        self.assertIn("live update only", caught.exception.body)
        self.assertEqual(waiting.process.wait(30), 1)


if __name__ == "__main__":
    unittest.main()
