#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The process that runs migration plugins, beside a ferry in its sandbox."""
import os
import shutil
import signal
import tempfile
import unittest

from ferry import BUILD, run_ferry, wait_for
from probe import PROBE, Probe

PLUGINS = os.path.join(BUILD, "plugins")


def children(pid):
    """By their parents: not every kernel lists children."""
    found = []
    for p in os.listdir("/proc"):
        try:
            with open(f"/proc/{int(p)}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(p))
        except (ValueError, OSError):
            pass
    return found


def name(pid):
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def status(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


class Plugins(unittest.TestCase):
    def start(self, *args, **more):
        vm = Probe(*args, **more)
        self.addCleanup(vm.close)
        return vm

    def host_of(self, vm):
        found = [p for p in children(vm.process.pid) if name(p) == "ferry-plugin"]
        self.assertEqual(len(found), 1)
        return found[0]

    def ends(self, pid):
        def gone():
            try:
                with open(f"/proc/{pid}/stat") as file:
                    return file.read().rsplit(")", 1)[1].split()[0] in "ZX"
            except FileNotFoundError:
                return True
        wait_for(gone, 10, "ferry-plugin's end")

    def test_without_plugins_there_is_no_such_process(self):
        vm = self.start()
        self.assertEqual([p for p in children(vm.process.pid) if name(p) == "ferry-plugin"], [])

    def test_it_is_started_where_plugins_are_allowed_and_ends_with_its_ferry(self):
        vm = self.start("--plugins", PLUGINS)
        host = self.host_of(vm)
        self.assertEqual(status(host)["NoNewPrivs"], "1")
        # Nothing of ferry's but the socket and the standard descriptors.
        self.assertEqual(sorted(os.listdir(f"/proc/{host}/fd")), ["0", "1", "2", "3"])
        vm.ping()
        vm.process.send_signal(signal.SIGTERM)
        self.assertEqual(vm.wait_exit(), 0)
        self.ends(host)

    def test_it_ends_with_a_ferry_that_is_killed(self):
        vm = self.start("--plugins", os.path.join(PLUGINS, "bad.so"))
        host = self.host_of(vm)
        vm.process.kill()
        self.ends(host)

    def test_a_ferry_whose_plugins_end_runs_on(self):
        vm = self.start("--plugins", PLUGINS)
        os.kill(self.host_of(vm), signal.SIGKILL)
        vm.ping()

    def test_a_plugin_that_is_not_there_is_named(self):
        code, text = run_ferry("--kernel", PROBE, "--console", "off", "--plugins", "/nowhere/plugin.so")
        self.assertEqual(code, 1)
        self.assertIn("/nowhere/plugin.so: No such file or directory", text)

    def test_in_a_jail_it_stays_outside_as_that_user_without_capabilities(self):
        folder = tempfile.mkdtemp(prefix="ferry-jail-")
        self.addCleanup(shutil.rmtree, folder)
        os.chmod(folder, 0o755)
        shutil.copy(PROBE, os.path.join(folder, "kernel"))
        shutil.copy(os.path.join(PLUGINS, "bad.so"), os.path.join(folder, "bad.so"))
        vm = self.start("--plugins", os.path.join(folder, "bad.so"), kernel="/kernel", jail=folder)
        host = self.host_of(vm)
        s = status(host)
        self.assertEqual(s["Uid"].split(), ["1234"] * 4)
        self.assertEqual(s["Gid"].split(), ["1235"] * 4)
        self.assertEqual(s["Groups"].strip(), "")
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(s[kind], 16), 0)
        self.assertEqual(os.readlink(f"/proc/{host}/ns/net"), os.readlink("/proc/self/ns/net"))
        vm.ping()
        vm.process.kill()
        self.ends(host)


if __name__ == "__main__":
    unittest.main()
