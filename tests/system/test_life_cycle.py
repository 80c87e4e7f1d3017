# SPDX-License-Identifier: Apache-2.0
"""The VM's life cycle on real KVM with the probe guest."""
import os
import signal
import subprocess
import time
import unittest

from ferry import BUILD, SLOW, ApiError, Ferry, wait_for
from probe import FREE, PROBE, Probe


class Boot(unittest.TestCase):
    def test_probe_boots_and_answers(self):
        with Probe() as vm:
            vm.ping()
            self.assertEqual(vm.state(), "Running")
            self.assertIn("booted", vm.event_names())

    def test_ram_and_cpus_are_as_asked_for(self):
        with Probe(memory="96M", cpus=2, ready=False) as vm:
            match = vm.wait_ready()
            self.assertIn(int(match[1]), (95, 96))
            self.assertEqual(int(match[2]), 2)
            self.assertEqual(vm.ask("smp spin"), "smp online=2 of=2")
            first = vm.ask("apcount")
            wait_for(lambda: vm.ask("apcount") != first, 10, "the second CPU to run")

    def test_ram_above_4_gib_holds_what_is_written(self):
        with Probe(memory="3200M") as vm:
            vm.ask(f"fill {0x100000000} 256 7")
            before = vm.ask(f"sum {0x100000000} 256")
            vm.ask(f"fill {FREE} 256 8")
            self.assertEqual(vm.ask(f"sum {0x100000000} 256"), before)
            self.assertNotEqual(vm.ask(f"sum {FREE} 256"), before)

    def test_command_line_reaches_the_guest(self):
        with Probe(cmdline="one two=3") as vm:
            self.assertIn("cmdline=one two=3", vm.ask("info"))

    def test_timer_interrupts_arrive(self):
        with Probe() as vm:
            self.assertRegex(vm.ask("timer 20", 30), r"timer ok ticks=20 us=\d+")

    def test_topology_is_in_cpuid(self):
        with Probe(cpus="4,topology=2:2:1:1") as vm:
            # leaf 0xb, level 0: threads per core
            ebx = int(vm.ask("cpuid 11 0").split()[2], 16)
            self.assertEqual(ebx & 0xffff, 2)

    def test_created_by_the_api_and_booted(self):
        with Ferry(serial=False) as vm:
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.boot")
            self.assertEqual(caught.exception.status, 404)
            vm.put("vm.create", {"payload": {"kernel": PROBE}, "memory": {"size": 64 << 20},
                                 "serial": {"mode": "Socket", "socket": vm.serial_path},
                                 "console": {"mode": "Off"}})
            self.assertEqual(vm.state(), "Created")
            vm.put("vm.boot")
            vm.connect_serial()
            vm.read_until("PROBE ready")
            vm.put("vm.delete")
            with self.assertRaises(ApiError) as caught:
                vm.get("vm.info")
            self.assertEqual(caught.exception.status, 404)
            vm.put("vmm.shutdown")
            self.assertEqual(vm.wait_exit(), 0)


class End(unittest.TestCase):
    def test_shutdown_by_the_guest_ends_with_0(self):
        with Probe() as vm:
            vm.send("shutdown")
            self.assertEqual(vm.wait_exit(), 0)
            self.assertIn("shutdown", vm.event_names())
            self.assertFalse(os.path.exists(vm.api_path))

    def test_sigterm_ends_with_0_and_removes_its_sockets(self):
        with Probe() as vm:
            vm.process.send_signal(signal.SIGTERM)
            self.assertEqual(vm.wait_exit(), 0)
            self.assertFalse(os.path.exists(vm.api_path))
            self.assertFalse(os.path.exists(vm.serial_path))

    def test_reboot_gives_a_new_machine(self):
        with Probe() as vm:
            vm.ask(f"fill {FREE} 16 1")
            filled = vm.ask(f"sum {FREE} 16")
            vm.send("reboot")
            vm.wait_ready()
            self.assertNotEqual(vm.ask(f"sum {FREE} 16"), filled)
            self.assertIn("rebooted", vm.event_names())

    def test_reset_port_reboots(self):
        with Probe() as vm:
            vm.send("outb 0xcf9 6")
            vm.wait_ready()

    def test_triple_fault_reboots_and_is_reported(self):
        with Probe() as vm:
            vm.send("triple")
            vm.wait_ready()
            reasons = [e["properties"]["reason"] for e in vm.events() if e["event"] == "reset"]
            self.assertIn("triple fault", reasons[0])

    def test_panic_is_reported_and_the_guest_goes_on(self):
        with Probe("--pvpanic") as vm:
            self.assertEqual(vm.ask("panic"), "panic")
            vm.wait_event("panic")
            vm.ping()

    def test_a_hundred_reboots_leave_nothing_behind(self):
        with Probe() as vm:
            fds = len(vm.fds())
            for _ in range(100 if SLOW == 1 else 10):
                vm.put("vm.reboot")
                vm.wait_ready()
            vm.ping()
            self.assertEqual(len(vm.fds()), fds)
            self.assertLess(int(vm.status("RssAnon").split()[0]), 4096)


class Memory(unittest.TestCase):
    def test_what_only_the_start_needed_is_given_back(self):
        with Probe() as vm:
            vm.ping()
            pages = wait_for(lambda: 0 < int(vm.status("RssFile").split()[0]) < 1280 and vm.status("RssFile"), 10,
                             "the pages of the program to be given back")
            vm.ping()
            vm.put("vm.reboot")  # all of it is there when it is wanted again
            vm.wait_ready()
            self.assertGreater(int(vm.status("RssFile").split()[0]), int(pages.split()[0]))


class PauseResume(unittest.TestCase):
    def test_a_paused_guest_does_nothing_and_loses_nothing(self):
        with Probe() as vm:
            vm.ask(f"dirty {FREE} 1024 0 5")
            vm.put("vm.pause")
            self.assertEqual(vm.state(), "Paused")
            exits = vm.get("vm.counters")["_vcpu0"]
            time.sleep(0.3)
            self.assertEqual(vm.get("vm.counters")["_vcpu0"], exits)
            vm.put("vm.resume")
            self.assertRegex(vm.ask("dirtystop"), r"dirtystop pages=\d+")
            self.assertIn("verify ok", vm.ask("verify", 60))

    def test_pause_and_resume_under_load_many_times(self):
        with Probe(cpus=2) as vm:
            vm.ask("smp spin")
            vm.ask(f"dirty {FREE} 4096 50 9")
            for _ in range(50 if SLOW == 1 else 10):
                vm.put("vm.pause")
                vm.put("vm.resume")
            vm.ping()
            self.assertIn("verify ok", vm.ask("verify", 60))

    def test_wrong_states_are_405(self):
        with Probe() as vm:
            for call in ("vm.resume", "vm.boot"):
                with self.assertRaises(ApiError) as caught:
                    vm.put(call)
                self.assertEqual(caught.exception.status, 405, call)
            vm.put("vm.pause")
            for call in ("vm.pause", "vm.nmi", "vm.power-button"):
                with self.assertRaises(ApiError) as caught:
                    vm.put(call)
                self.assertEqual(caught.exception.status, 405, call)
            vm.put("vm.shutdown")
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.shutdown")
            self.assertEqual(caught.exception.status, 405)
            vm.put("vm.boot")
            vm.wait_ready()
            vm.ping()

    def test_nmi_reaches_the_guest(self):
        with Probe() as vm:
            self.assertEqual(vm.ask("nmi"), "nmi 0")
            vm.put("vm.nmi")
            wait_for(lambda: vm.ask("nmi") == "nmi 1", 10, "the NMI")


class Consoles(unittest.TestCase):
    def test_serial_to_a_file(self):
        with Ferry("--kernel", PROBE, "--memory", "size=64M", "--console", "off", "--cmdline", "bench",
                   "--serial", "file=/dev/null", serial=False) as vm:
            self.assertEqual(vm.wait_exit(), 0)

    def test_serial_on_a_pty_works_both_ways(self):
        with Ferry("--kernel", PROBE, "--memory", "size=64M", "--console", "off", "--serial", "pty",
                   serial=False) as vm:
            def pty():
                try:
                    return vm.get("vm.info")["config"]["serial"].get("file")  # none before boot
                except ApiError:
                    return None  # not created yet

            path = wait_for(pty, 10, "the pty's path")
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
            self.addCleanup(os.close, fd)
            text = b""
            while b"ready" not in text:
                text += os.read(fd, 100)
            os.write(fd, b"ping\n")
            while b"pong" not in text:
                text += os.read(fd, 100)

    def test_serial_on_stdin_and_stdout(self):
        process = subprocess.Popen([BUILD + "/ferry", "--kernel", PROBE, "--memory", "size=64M",
                                    "--console", "off", "--serial", "tty"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while b"ready" not in process.stdout.readline():
            self.assertIsNone(process.poll())
        output, _ = process.communicate(b"ping\nshutdown\n", timeout=20 * SLOW)
        self.assertIn(b"pong", output)
        self.assertEqual(process.returncode, 0)


if __name__ == "__main__":
    unittest.main()
