# SPDX-License-Identifier: Apache-2.0
"""A VM that comes to a confined ferry: from a snapshot or another ferry, under Landlock, in a
jail, and with the seccomp filters that all of them have."""
import os
import shutil
import tempfile
import unittest

from arrival import Arrival, free_port
from certificates import tls_dir
from ferry import ApiError, Ferry, run_ferry
from probe import PROBE, Probe

from test_sandbox import FILTERED, GID, UID, children, landlock_abi
from test_snapshot import DIRTY, MODES, Moving, fill


class Restored(Probe):
    """ferry --restore: no kernel, no memory, only what the options of a restore are."""

    def __init__(self, folder, *args, mode="eager", **more):
        Ferry.__init__(self, "--restore", f"source_url=file://{folder},memory_restore_mode={mode},resume=on",
                       *args, **more)
        try:
            self.connect_serial()
            self.ping()
        except BaseException:
            self.close()
            raise


class Confined(Moving):
    def setUp(self):
        super().setUp()
        if landlock_abi() < 1:
            self.skipTest("this kernel has no Landlock")
        for name in ("in", "out"):
            os.mkdir(f"{self.dir}/{name}")

    def disk_at(self, name):
        path = f"{self.dir}/{name}"
        with open(path, "wb") as file:
            file.truncate(1 << 20)
        return path

    def rules(self, *paths):
        """--landlock, and what is within reach besides; a path with its rights."""
        args = ["--landlock"]
        for path in paths:
            args += ["--landlock-rules", f"path={path[0]},access={path[1]}" if isinstance(path, tuple) else
                     f"path={path},access=rw"]
        return args

    def refuses(self, vm, path):
        with self.assertRaisesRegex(ApiError, "Permission denied"):
            vm.put("vm.add-disk", {"path": path, "readonly": True})


class Landlock(Confined):
    def saved(self, *args, **more):
        with Probe(*args) as vm:
            checksum = fill(vm)
            vm.ask(f"dirty {DIRTY:#x} 512 20 3")
            return self.snapshot(vm, "out/snapshot", **more), checksum

    def test_restore_of_the_options_needs_no_rule_for_the_snapshot(self):
        folder, checksum = self.saved()
        out = self.disk_at("out/disk")
        for mode in MODES:
            with self.subTest(mode), Restored(folder, *self.rules(), mode=mode) as vm:
                self.same_memory(vm, checksum)
                self.timer_goes_on(vm)
                self.assertIn("verify ok", vm.ask("verify"))
                self.refuses(vm, out)

    def test_restore_by_the_api_needs_a_rule_and_says_so(self):
        folder, checksum = self.saved()
        for mode in MODES:
            with self.subTest(mode):
                with Arrival(*self.rules()) as vm:
                    with self.assertRaisesRegex(ApiError, "Permission denied"):
                        vm.restore(folder, memory_restore_mode=mode)
                with tempfile.TemporaryDirectory(prefix="ferry-serial-") as consoles:
                    with Arrival(*self.rules((folder, "r"), consoles)) as vm:
                        vm.serial_path = f"{consoles}/serial"
                        self.same_memory(vm.restore(folder, memory_restore_mode=mode), checksum)

    def test_restored_disk_needs_a_rule(self):
        path = self.disk_at("in/disk")
        folder, checksum = self.saved("--disk", f"path={path},id=data")
        code, text = run_ferry("--restore", f"source_url=file://{folder},resume=on", "--serial", "null",
                               *self.rules())
        self.assertEqual(code, 1)
        self.assertIn(path, text)
        self.assertIn("Permission denied", text)
        with Restored(folder, *self.rules(f"{self.dir}/in")) as vm:
            self.same_memory(vm, checksum)
            self.assertIn("blk write ok", vm.ask("blk write 0 1 1"))
        # But none where the options name it.
        with Restored(folder, *self.rules(), mode=f"lazy,disk=[data@{path}]") as vm:
            self.same_memory(vm, checksum)
            self.assertIn("blk write ok", vm.ask("blk write 0 1 1"))

    def test_differential_snapshot_needs_a_rule_for_its_base(self):
        with Probe() as vm:
            fill(vm)
            base = self.snapshot(vm, "in/base")
            vm.ask(f"fill {DIRTY:#x} 64 3")
            checksum = vm.ask(f"sum {DIRTY:#x} 64")
            folder = self.snapshot(vm, "out/differential", base_url=f"file://{base}")
        code, text = run_ferry("--restore", f"source_url=file://{folder},resume=on", "--serial", "null",
                               *self.rules())
        self.assertEqual(code, 1)
        self.assertIn("Permission denied", text)
        self.assertIn(base, text)
        with Restored(folder, *self.rules((base, "r"))) as vm:
            self.assertEqual(vm.ask(f"sum {DIRTY:#x} 64"), checksum)

    def test_snapshots_are_taken_where_a_rule_lets_them(self):
        kernel = shutil.copy(PROBE, self.dir)
        with Probe(*self.rules(f"{self.dir}/in"), kernel=kernel) as vm:
            checksum = fill(vm)
            with self.assertRaisesRegex(ApiError, "Permission denied"):
                self.snapshot(vm, "out/snapshot")
            for more in ({}, {"live": False}, {"compress": "zstd"}):
                folder = self.snapshot(vm, f"in/{len(os.listdir(self.dir + '/in'))}", **more)
                self.same_memory(vm, checksum)
                with Restored(folder, *self.rules()) as to:
                    self.same_memory(to, checksum)
            self.assertEqual(vm.state(), "Running")

    def test_migration_of_a_confined_vm_to_a_confined_ferry(self):
        kernel = shutil.copy(PROBE, self.dir)
        tls = tls_dir(f"{self.dir}/tls") if shutil.which("openssl") else None
        with tempfile.TemporaryDirectory(prefix="ferry-serial-") as consoles:
            for url, more in ((f"unix:{self.dir}/in/socket", {}), (f"unix:{self.dir}/in/socket", {"local": True}),
                              (f"tcp:127.0.0.1:{free_port()}", {"connections": 3}),
                              (f"tcp:127.0.0.1:{free_port()}", {"connections": 2, "tls_dir": tls})):
                if "tls_dir" in more and not tls:
                    continue
                rules = self.rules(f"{self.dir}/in", consoles, *([(tls, "r")] if tls else []))
                with self.subTest(url=url, **more), Probe(*rules, kernel=kernel) as vm, Arrival(*rules) as to:
                    to.serial_path = f"{consoles}/{len(os.listdir(consoles))}"
                    checksum = fill(vm)
                    vm.ask(f"dirty {DIRTY:#x} 512 20 3")
                    to.listen(url, **({"tls_dir": tls} if "tls_dir" in more else {}))
                    vm.put("vm.send-migration", {"destination_url": url, **more})
                    self.same_memory(to.arrived(), checksum)
                    self.assertIn("verify ok", to.ask("verify"))
                    self.refuses(to, self.disk_at("out/disk"))

    def test_what_no_rule_lets_a_migration_reach_is_named(self):
        if not shutil.which("openssl"):
            self.skipTest("there is no openssl to make certificates")
        tls = tls_dir(f"{self.dir}/tls")
        kernel = shutil.copy(PROBE, self.dir)
        with Probe(*self.rules(), kernel=kernel) as vm, Arrival(*self.rules()) as to:
            checksum = fill(vm)
            for side, name, body in ((vm, "send", {"destination_url": "tcp:127.0.0.1:9"}),
                                     (to, "receive", {"receiver_url": "tcp:127.0.0.1:9"})):
                with self.assertRaisesRegex(ApiError, f"{tls}/ca-cert.pem: Permission denied.*--landlock-rules"):
                    side.put(f"vm.{name}-migration", {**body, "tls_dir": tls})
            with self.assertRaisesRegex(ApiError, "out/socket: Permission denied.*--landlock-rules"):
                to.put("vm.receive-migration", {"receiver_url": f"unix:{self.dir}/out/socket"})
            self.same_memory(vm, checksum)


class Jail(Moving):
    def setUp(self):
        super().setUp()
        if os.getuid():
            self.skipTest("a jail needs root")
        self.jail = tempfile.mkdtemp(prefix="ferry-jail-")
        self.addCleanup(shutil.rmtree, self.jail)
        os.chmod(self.jail, 0o755)
        shutil.copy(PROBE, f"{self.jail}/kernel")
        os.mkdir(f"{self.jail}/own")
        os.chown(f"{self.jail}/own", UID, GID)
        self.landlock = ["--landlock", "--landlock-rules", "path=/own,access=rw"] if landlock_abi() >= 1 else []
        self.jailed = {"jail": self.jail, "jail_options": f"uid={UID},gid={GID},net=off"}

    def belongs_to_the_jail(self, folder):
        for at, folders, files in os.walk(folder):
            for name in (".", *folders, *files):
                os.chown(os.path.join(at, name), UID, GID)

    def test_a_snapshot_is_taken_and_restored_in_a_jail(self):
        with Probe(*self.landlock, kernel="/kernel", **self.jailed) as vm:
            checksum = fill(vm)
            vm.put("vm.snapshot", {"destination_url": "file:///own/snapshot"})
            # Live, as it was to be.
            self.assertNotIn("note", vm.get("vm.migration"))
            self.same_memory(vm, checksum)
        for mode in MODES:
            with self.subTest(mode):
                with Restored("/own/snapshot", *self.landlock, mode=mode, **self.jailed) as vm:
                    self.same_memory(vm, checksum)
                    self.timer_goes_on(vm)
                    self.confined(vm)

    def confined(self, vm):
        (pid,) = children(vm.process.pid)
        for status in vm.threads(pid).values():
            self.assertEqual(status["Seccomp"], FILTERED)
            self.assertEqual(status["Uid"].split(), [str(UID)] * 4)
        with self.assertRaisesRegex(ApiError, "No such file|Permission denied"):
            vm.put("vm.add-disk", {"path": "/etc/passwd", "readonly": True})

    def test_a_vm_migrates_from_jail_to_jail(self):
        tls = None
        if shutil.which("openssl"):
            tls_dir(f"{self.jail}/own/tls")
            self.belongs_to_the_jail(f"{self.jail}/own/tls")
            tls = "/own/tls"
        for url, more in (("unix:/own/socket", {}), ("unix:/own/socket", {"local": True}),
                          (f"tcp:127.0.0.1:{free_port()}", {"connections": 3}),
                          (f"tcp:127.0.0.1:{free_port()}", {"tls_dir": tls})):
            if "tls_dir" in more and not tls:
                continue
            with self.subTest(url=url, **more):
                with Probe(*self.landlock, kernel="/kernel", **self.jailed) as vm, \
                        Arrival(*self.landlock, **self.jailed) as to:
                    checksum = fill(vm)
                    vm.ask(f"dirty {DIRTY:#x} 512 20 3")
                    to.serial_path = f"{self.jail}/own/serial"
                    to.listen(url, **({"tls_dir": tls} if "tls_dir" in more else {}))
                    vm.put("vm.send-migration", {"destination_url": url, **more})
                    self.same_memory(to.arrived(), checksum)
                    self.assertIn("verify ok", to.ask("verify"))
                    self.confined(to)


if __name__ == "__main__":
    unittest.main()
