# SPDX-License-Identifier: Apache-2.0
"""ferryctl, metrics and events against a live VM, and many requests at once."""
import json
import os
import re
import subprocess
import tempfile
import threading
import time
import unittest

from ferry import BUILD, SLOW, Ferry, wait_for
from probe import PROBE, Probe
from virtio import slot_of


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ferry-test-")
        self.addCleanup(folder.cleanup)
        self.dir = folder.name
        self.disk = os.path.join(self.dir, "disk")
        with open(self.disk, "wb") as file:
            file.truncate(1 << 20)


class Ferryctl(Folder):
    """Every subcommand once, in the order of a life."""

    def test_looking_at_a_running_vm(self):
        with Probe("--disk", f"path={self.disk},id=data") as vm:
            self.assertIn("ferry", vm.ctl("ping").stdout)
            info = vm.ctl("info").stdout
            for word in ("Running", "data", "64"):
                self.assertIn(word, info)
            self.assertIn("data", vm.ctl("counters").stdout)
            self.assertEqual(json.loads(vm.ctl("--json", "ping").stdout)["pid"], vm.process.pid)
            self.assertEqual(json.loads(vm.ctl("--json", "info").stdout), vm.get("vm.info"))
            self.assertIn("read_ops", json.loads(vm.ctl("--json", "counters").stdout)["data"])
            self.assertIn("ferry_up 1\n", vm.ctl("metrics").stdout)

    def test_pause_resume_reboot_nmi_power_button(self):
        with Probe() as vm:
            vm.ctl("pause")
            self.assertEqual(vm.state(), "Paused")
            vm.ctl("resume")
            self.assertEqual(vm.state(), "Running")
            vm.ctl("nmi")
            wait_for(lambda: vm.ask("nmi") == "nmi 1", 10, "the NMI")
            vm.read(0xf0000000, 4)
            vm.ctl("power-button")
            self.assertEqual(vm.read(0xf0000000, 4), 1)
            vm.ctl("reboot")
            vm.wait_ready()
            vm.ping()

    def test_devices(self):
        with Probe("--balloon", "size=0") as vm:
            place = json.loads(vm.ctl("--json", "add-disk", f"path={self.disk},id=data").stdout)
            self.assertEqual(place["id"], "data")
            self.assertIn("blk write ok", vm.ask("blk write 0 8 1"))
            vm.ctl("resize-disk", "--disk", "data", "--size", "2M")
            self.assertEqual(os.path.getsize(self.disk), 2 << 20)
            text = vm.ctl("add-vsock", f"cid=3,socket={self.dir}/vsock").stdout
            self.assertRegex(text, r"_vsock0.*0000:00:\w\w\.0")
            vm.ctl("remove-device", "data")
            vm.write(0xf0001008, 4, 1 << slot_of(place["bdf"]))
            vm.wait_event("device-removed")
            self.assertNotIn("data", vm.get("vm.info")["device_tree"])
            vm.ctl("resize", "--balloon", "16M")
            self.assertEqual(vm.get("vm.info")["config"]["balloon"]["size"], 16 << 20)

    def test_a_life_from_create_to_the_end(self):
        with Ferry(serial=False) as vm:
            vm.ctl("create", "--kernel", PROBE, "--memory", "size=64M", "--console", "off",
                   "--serial", f"socket={vm.serial_path}", "--disk", f"path={self.disk}")
            self.assertEqual(vm.state(), "Created")
            vm.ctl("boot")
            vm.connect_serial()
            vm.read_until("PROBE ready")
            vm.ctl("shutdown")
            self.assertEqual(vm.state(), "Shutdown")
            vm.ctl("boot")
            vm.read_until("PROBE ready")
            # What info shows makes the same VM again.
            config = json.dumps(json.loads(vm.ctl("--json", "info").stdout)["config"])
            path = os.path.join(self.dir, "vm.json")
            with open(path, "w") as file:
                file.write(config)
            vm.ctl("delete")
            self.assertIn("no VM is created", vm.ctl("info", check=False).stderr)
            vm.ctl("create", path)
            self.assertEqual(json.dumps(vm.get("vm.info")["config"]), config)
            vm.ctl("boot")
            vm.connect_serial()
            vm.read_until("PROBE ready")
            vm.ctl("shutdown-vmm")
            self.assertEqual(vm.wait_exit(), 0)

    def test_failures_are_told_on_stderr_with_the_status_1(self):
        with Probe() as vm:
            for args, words in ((("resume",), ("Running",)), (("remove-device", "none"), ("none", "does not exist")),
                                (("add-disk", "path=/nowhere/x"), ("/nowhere/x", "No such file"))):
                result = vm.ctl(*args, check=False)
                self.assertEqual((result.returncode, result.stdout), (1, ""), args)
                for word in words:
                    self.assertIn(word, result.stderr)
            result = vm.ctl("add-disk", "path=x,readnoly=on", check=False)
            self.assertEqual(result.returncode, 2)
            self.assertIn("readonly", result.stderr)

    def test_without_a_ferry(self):
        result = subprocess.run([os.path.join(BUILD, "ferryctl"), "--api-socket", "/nowhere/api", "ping"],
                                capture_output=True, text=True, timeout=20 * SLOW)
        self.assertEqual(result.returncode, 1)
        self.assertIn("/nowhere/api", result.stderr)

    def test_help_names_every_command_and_each_has_its_own(self):
        def help_of(*args):
            result = subprocess.run([os.path.join(BUILD, "ferryctl"), *args, "--help"], capture_output=True,
                                    text=True, timeout=20 * SLOW)
            self.assertEqual(result.returncode, 0, result.stderr)
            return result.stdout

        text = help_of()
        for command in ("ping", "info", "counters", "metrics", "create", "boot", "pause", "resume", "reboot",
                        "shutdown", "delete", "shutdown-vmm", "power-button", "nmi", "resize", "resize-disk",
                        "add-disk", "add-net", "add-vsock", "remove-device"):
            self.assertRegex(text, rf"(?m)^\s+{command}\b")
            self.assertIn(command, help_of(command))


class Metrics(Folder):
    SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*"'
                        r'(?:,[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*")*\})? '
                        r'([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|Inf|NaN))')

    def check(self, text):
        """The rules of the text format 0.0.4: {(name, labels): value}."""
        self.assertTrue(text.endswith("\n"))
        types, helps, samples, current, closed = {}, set(), {}, None, set()
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name = line.split()[2]
                self.assertNotIn(name, helps)
                self.assertNotIn(name, closed)
                helps.add(name)
                closed.add(current)
                current = name
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                self.assertNotIn(name, types)
                self.assertEqual(name, current)
                self.assertIn(kind, ("counter", "gauge"))
                types[name] = kind
            else:
                match = self.SAMPLE.fullmatch(line)
                self.assertTrue(match, line)
                name, labels, value = match.groups()
                self.assertEqual(name, current, "samples of one name belong together")
                self.assertIn(name, types)
                self.assertEqual(types[name] == "counter", name.endswith("_total"), name)
                self.assertNotIn((name, labels), samples)
                samples[name, labels] = float(value)
        self.assertEqual(set(types), {name for name, _ in samples} & set(types))
        return samples

    def metrics(self, vm):
        status, text = vm.request("GET", "/metrics")
        self.assertEqual(status, 200)
        return self.check(text.decode())

    def test_text_is_valid_in_every_state(self):
        with Ferry(serial=False) as vm:
            self.assertEqual(self.metrics(vm)["ferry_vm_created", None], 0)
            vm.put("vm.create", {"payload": {"kernel": PROBE}, "memory": {"size": 64 << 20},
                                 "console": {"mode": "Off"}, "disks": [{"path": self.disk, "id": "a:b-c.d"}]})
            self.assertEqual(self.metrics(vm)["ferry_vm_state", '{state="Created"}'], 1)
            vm.put("vm.boot")
            samples = self.metrics(vm)
            self.assertEqual(samples["ferry_vm_state", '{state="Running"}'], 1)
            self.assertEqual(samples["ferry_vm_state", '{state="Created"}'], 0)
            self.assertIn(("ferry_device_read_ops_total", '{device="a:b-c.d"}'), samples)
            vm.put("vm.pause")
            self.assertEqual(self.metrics(vm)["ferry_vm_state", '{state="Paused"}'], 1)

    def test_counters_count(self):
        with Probe("--disk", f"path={self.disk}") as vm:
            key = "ferry_device_write_bytes_total", '{device="_disk0"}'
            self.assertEqual(self.metrics(vm)[key], 0)
            vm.ask("blk write 0 8 1")
            samples = self.metrics(vm)
            self.assertEqual(samples[key], 4096)
            self.assertGreater(samples["process_cpu_seconds_total", None], 0)
            self.assertGreater(samples["ferry_api_responses_total", '{code="2xx"}'], 0)


class Events(Folder):
    def test_a_life_in_events(self):
        with Probe("--pvpanic") as vm:
            vm.put("vm.pause")
            vm.put("vm.resume")
            place = vm.put("vm.add-disk", {"path": self.disk, "id": "data"})
            vm.put("vm.remove-device", {"id": "data"})
            vm.write(0xf0001008, 4, 1 << slot_of(place["bdf"]))
            vm.wait_event("device-removed")
            vm.ask("panic")
            vm.wait_event("panic")
            vm.send("reboot")
            vm.wait_ready()
            vm.put("vm.shutdown")
            vm.put("vm.boot")
            vm.wait_ready()
            vm.put("vm.delete")
            vm.put("vmm.shutdown")
            self.assertEqual(vm.wait_exit(), 0)
            events = vm.events()
        self.assertEqual([e["event"] for e in events],
                         ["starting", "created", "booting", "booted", "paused", "resumed", "device-added",
                          "device-removed", "panic", "reset", "rebooting", "rebooted", "shutdown", "booting",
                          "booted", "deleted", "shutdown"])
        times = [e["timestamp"]["secs"] + e["timestamp"]["nanos"] / 1e9 for e in events]
        self.assertEqual(times, sorted(times))
        for event in events:
            self.assertEqual(set(event), {"timestamp", "source", "event", "properties"})
            self.assertIn(event["source"], ("vmm", "vm", "guest"))
        self.assertEqual({e["properties"]["id"] for e in events if e["event"].startswith("device-")}, {"data"})

    def test_into_a_descriptor_without_a_reader_nothing_stops(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        command = [os.path.join(BUILD, "ferry"), "--api-socket", self.dir + "/api", "--event-monitor", f"fd={writer}",
                   "--kernel", PROBE, "--memory", "size=64M", "--console", "off"]
        process = subprocess.Popen(command, pass_fds=(writer,), stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        os.close(writer)
        wait_for(lambda: os.path.exists(self.dir + "/api"), 10, "the API socket")
        ctl = [os.path.join(BUILD, "ferryctl"), "--api-socket", self.dir + "/api"]
        wait_for(lambda: b'"booted"' in os.read(reader, 65536), 10, "the event")
        for _ in range(3):
            subprocess.run(ctl + ["pause"], check=True, timeout=20 * SLOW)
            subprocess.run(ctl + ["resume"], check=True, timeout=20 * SLOW)
        subprocess.run(ctl + ["shutdown-vmm"], check=True, timeout=20 * SLOW)
        self.assertEqual(process.wait(20 * SLOW), 0)


class Together(Folder):
    def test_others_are_answered_while_a_long_call_runs(self):
        # Prefaulting much memory takes long; questions are answered meanwhile.
        with Ferry(serial=False) as vm:
            vm.put("vm.create", {"payload": {"kernel": PROBE}, "console": {"mode": "Off"},
                                 "memory": {"size": (1024 if SLOW == 1 else 256) << 20, "prefault": True}})
            done = []
            boot = threading.Thread(target=lambda: done.append(vm.request("PUT", "/api/v1/vm.boot")))
            boot.start()
            answered = slowest = 0
            while not done:
                begun = time.monotonic()
                vm.get("vmm.ping")
                self.assertIn(vm.state(), ("Created", "Running"))
                self.assertEqual(vm.request("GET", "/metrics")[0], 200)
                slowest = max(slowest, time.monotonic() - begun)
                answered += not done
            boot.join()
            self.assertEqual(done[0][0], 204, done[0][1])
            self.assertGreater(answered, 2)
            self.assertLess(slowest, 1 * SLOW)
            self.assertEqual(vm.state(), "Running")

    def test_changes_by_many_clients_happen_one_after_another(self):
        with Probe(cpus=2) as vm:
            failed = []

            def client(n):
                try:
                    for _ in range(10):
                        code = vm.request("PUT", "/api/v1/vm." + ("pause" if n % 2 else "resume"))[0]
                        if code not in (204, 405):
                            failed.append(code)
                        vm.get("vm.info")
                        vm.get("vm.counters")
                except Exception as error:  # whatever it is, the test is to see it
                    failed.append(error)

            clients = [threading.Thread(target=client, args=(n,)) for n in range(8)]
            for c in clients:
                c.start()
            for c in clients:
                c.join()
            self.assertEqual(failed, [])
            if vm.state() == "Paused":
                vm.put("vm.resume")
            vm.ping()

    def test_adding_and_removing_from_many_clients(self):
        with Probe() as vm:
            before = vm.fds()
            paths = [os.path.join(self.dir, f"disk{n}") for n in range(8)]
            for path in paths:
                with open(path, "wb") as file:
                    file.truncate(4096)
            places = []
            clients = [threading.Thread(target=lambda p=path: places.append(vm.put("vm.add-disk", {"path": p})))
                       for path in paths]
            for c in clients:
                c.start()
            for c in clients:
                c.join()
            self.assertEqual(len({p["id"] for p in places}), 8)
            self.assertEqual(len({p["bdf"] for p in places}), 8)
            for place in places:
                vm.put("vm.remove-device", {"id": place["id"]})
            vm.write(0xf0001008, 4, sum(1 << slot_of(p["bdf"]) for p in places))
            vm.wait_event("device-removed", count=8)
            wait_for(lambda: vm.fds() == before, 10, "the disks to be closed")

    def test_the_vmm_ends_while_clients_wait(self):
        with Probe() as vm:
            def client():
                try:
                    while True:
                        vm.request("PUT", "/api/v1/vm.reboot")
                except OSError:
                    pass
                except Exception:  # a connection closed between status line and body
                    pass

            clients = [threading.Thread(target=client) for _ in range(4)]
            for c in clients:
                c.start()
            time.sleep(0.2)
            vm.process.terminate()
            self.assertEqual(vm.wait_exit(), 0)
            for c in clients:
                c.join()


if __name__ == "__main__":
    unittest.main()
