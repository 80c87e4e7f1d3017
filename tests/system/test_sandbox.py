# SPDX-License-Identifier: Apache-2.0
"""How a running ferry is confined. Which calls each filter kills: tests/unit/vmm/test_sandbox.c."""
import ctypes
import os
import shutil
import signal
import stat
import tempfile
import unittest

from ferry import BUILD, ApiError, Ferry, run_ferry, wait_for
from inject import EXECVE, IO_URING_ENTER, IO_URING_REGISTER, IO_URING_SETUP, SCHED_YIELD, inject
from probe import PROBE, Probe
from testdev import Driver, Server

UID, GID = 1234, 1235
FILTERED = "2"


def landlock_abi():
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(444, None, 0, 1)


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(entry))
            except OSError:
                continue
    return found


class Seccomp(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ferry-test-")
        self.addCleanup(folder.cleanup)
        self.disk = os.path.join(folder.name, "disk")
        with open(self.disk, "wb") as file:
            file.truncate(1 << 20)

    def start(self, mode):
        vm = Probe("--disk", f"path={self.disk}", cpus=2, seccomp=mode)
        self.addCleanup(vm.close)
        self.assertIn("blk info ok", vm.ask("blk info"))  # from here on a thread serves the disk
        return vm, vm.threads()

    def test_every_thread_has_the_filter_of_its_kind(self):
        for mode in ("true", "log"):
            vm, threads = self.start(mode)
            self.check(vm, threads)
            vm.close()

    def check(self, vm, threads):
        names = [t["Name"] for t in threads.values()]
        for name in ("ferry", "api", "vcpu0", "vcpu1"):
            self.assertEqual(names.count(name), 1, names)
        self.assertEqual(len([n for n in names if "disk" in n]), 1, names)
        for tid, thread in threads.items():
            self.assertEqual(thread["Seccomp"], FILTERED, thread["Name"])
            self.assertEqual(thread["NoNewPrivs"], "1", thread["Name"])
            # The main thread starts all others, so its filter is below theirs.
            expected = "1" if tid == vm.process.pid else "2"
            self.assertEqual(thread["Seccomp_filters"], expected, thread["Name"])

    def call(self, mode, thread, number, *args):
        """Has a thread of a running VM do a call, and returns the VM."""
        vm, threads = self.start(mode)
        (tid,) = (tid for tid, status in threads.items() if status["Name"].startswith(thread))
        inject(tid, number, *args)
        return vm

    def test_a_blocked_call_in_a_thread_of_a_running_vm_ends_it(self):
        for thread, number, *args in (("vcpu0", IO_URING_SETUP, 1, -1), ("vcpu1", IO_URING_REGISTER, -1, 2, -1, 1),
                                      ("vcpu0", IO_URING_ENTER, -1, 0, 0), ("blk0", IO_URING_SETUP, 1, -1),
                                      ("blk0", IO_URING_REGISTER, -1, 2, -1, 1), ("ferry", EXECVE, -1, -1, -1)):
            with self.subTest(thread=thread, call=number):
                vm = self.call("true", thread, number, *args)
                self.assertEqual(vm.wait_exit(), -signal.SIGSYS)
                # As any test would see it.
                with self.assertRaisesRegex(AssertionError, "a seccomp filter ended ferry"):
                    vm.close()
                vm.process.returncode = 0

    def test_another_call_does_not(self):
        for mode, thread, number, *args in (("true", "blk0", SCHED_YIELD), ("true", "ferry", SCHED_YIELD),
                                            ("log", "blk0", IO_URING_SETUP, 1, -1)):
            with self.subTest(mode=mode, thread=thread):
                vm = self.call(mode, thread, number, *args)
                self.assertEqual(vm.ask("ping"), "pong")
                vm.close()

    def test_off_is_off(self):
        _, threads = self.start("false")
        for thread in threads.values():
            self.assertEqual(thread["Seccomp"], "0", thread["Name"])

    def test_no_thread_without_a_filter_while_the_vm_comes_goes_and_comes_again(self):
        vm, _ = self.start("true")
        for _ in range(5):
            vm.put("vm.reboot")
            for thread in vm.threads().values():
                self.assertEqual(thread["Seccomp"], FILTERED, thread["Name"])
            vm.wait_ready()


class Landlock(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ferry-test-")
        self.addCleanup(folder.cleanup)
        self.dir = folder.name
        for path in ("in/disk", "in/boot", "out/disk"):
            os.makedirs(os.path.join(self.dir, os.path.dirname(path)), exist_ok=True)
            with open(os.path.join(self.dir, path), "wb") as file:
                file.truncate(1 << 20)
        # Rules hold on to inodes: the build may lie on a file system that changes them.
        self.kernel = shutil.copy(PROBE, self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def test_only_what_the_options_name_is_within_reach(self):
        rules = ["--landlock", "--landlock-rules", f"path={self.path('in')},access=rw"]
        if landlock_abi() < 1:
            code, text = run_ferry("--kernel", PROBE, "--console", "off", *rules)
            self.assertEqual(code, 1)
            self.assertIn("landlock: this kernel has none", text)
            return
        with Probe(*rules, "--disk", f"path={self.path('in/boot')}", kernel=self.kernel) as vm:
            before = vm.fds()
            for read_only in (False, True):
                with self.assertRaises(ApiError) as caught:
                    vm.put("vm.add-disk", {"path": self.path("out/disk"), "readonly": read_only})
                self.assertEqual(caught.exception.status, 500)
                self.assertIn(self.path("out/disk"), caught.exception.body)
                self.assertIn("Permission denied", caught.exception.body)
            self.assertEqual(vm.fds(), before)
            self.assertIn("blk write ok", vm.ask("blk write 0 1 1"))
            vm.put("vm.add-disk", {"path": self.path("in/disk"), "id": "data"})
            self.assertIn("blk write ok", vm.ask("blk use 1") and vm.ask("blk write 0 1 1"))
            # A whole life besides: what was opened once is opened again.
            vm.put("vm.reboot")
            vm.wait_ready()
            vm.put("vm.shutdown")
            vm.put("vm.boot")
            vm.wait_ready()
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.add-vsock", {"cid": 3, "socket": self.path("out/vsock")})
            self.assertIn(self.path("out/vsock"), caught.exception.body)
            vm.put("vm.add-vsock", {"cid": 3, "socket": self.path("in/vsock")})

    def server(self, folder):
        server = Server(self.path(folder))
        self.addCleanup(server.end)
        return server

    def test_a_user_device_of_the_options_is_within_reach_also_after_a_reboot(self):
        if landlock_abi() < 1:
            return
        server = self.server("in")
        with Probe("--landlock", "--user-device", f"socket={server.socket},id=dev", kernel=self.kernel) as vm:
            self.assertTrue(Driver(vm, "dev").alive())
            vm.put("vm.reboot")
            vm.wait_ready()
            self.assertTrue(Driver(vm, "dev").alive())

    def test_a_user_device_that_comes_later_needs_a_rule_where_the_kernel_confines_sockets(self):
        if landlock_abi() < 1:
            return
        covered, other = self.server("in"), self.server("out")
        with Probe("--landlock", "--landlock-rules", f"path={self.path('in')},access=rw", kernel=self.kernel) as vm:
            vm.put("vm.add-user-device", {"socket": covered.socket, "id": "covered"})
            self.assertTrue(Driver(vm, "covered").alive())
            if landlock_abi() < 9:  # connections are confined from Linux 7.1 on
                vm.put("vm.add-user-device", {"socket": other.socket})
                return
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.add-user-device", {"socket": other.socket})
            self.assertIn(f"--landlock-rules path={other.socket}", caught.exception.body)

    def test_a_refusal_names_the_rule_that_would_do(self):
        if landlock_abi() < 1:
            return
        with Probe("--landlock", kernel=self.kernel) as vm:
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.add-disk", {"path": self.path("in/disk")})
            self.assertIn(f"--landlock-rules path={self.path('in/disk')},access=rw", caught.exception.body)

    def test_a_rule_for_reading_is_none_for_writing(self):
        if landlock_abi() < 1:
            return
        with Probe("--landlock", "--landlock-rules", f"path={self.path('in')},access=r", kernel=self.kernel) as vm:
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.add-disk", {"path": self.path("in/disk")})
            self.assertIn("readonly=on", caught.exception.body)
            vm.put("vm.add-disk", {"path": self.path("in/disk"), "readonly": True})

    def test_a_rule_for_what_is_not_there_is_an_error(self):
        if landlock_abi() < 1:
            return
        code, text = run_ferry("--kernel", PROBE, "--console", "off", "--landlock",
                               "--landlock-rules", f"path={self.path('none')},access=r")
        self.assertEqual(code, 1)
        self.assertIn(f"{self.path('none')}: No such file", text)


class LandlockByTheApi(unittest.TestCase):
    def test_a_vm_that_asks_for_it_too_late_is_refused_with_the_remedy(self):
        with Ferry(serial=False) as vm:
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.create", {"payload": {"kernel": PROBE}, "landlock_enable": True})
            self.assertEqual(caught.exception.status, 400)
            self.assertIn("--landlock", caught.exception.body)


class Jail(unittest.TestCase):
    def setUp(self):
        self.jail = tempfile.mkdtemp(prefix="ferry-jail-")
        self.addCleanup(shutil.rmtree, self.jail)
        os.chmod(self.jail, 0o755)
        shutil.copy(PROBE, os.path.join(self.jail, "kernel"))

    def start(self, *args, **more):
        vm = Probe(*args, kernel="/kernel", jail=self.jail, **more)
        self.addCleanup(vm.close)
        return vm

    def inmate(self, vm):
        (pid,) = children(vm.process.pid)
        return pid

    def gone(self, pid):
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rsplit(")", 1)[1].split()[0] in "ZX"
        except FileNotFoundError:
            return True

    def test_a_jailed_vm_runs_as_that_user_without_capabilities_in_namespaces_of_its_own(self):
        vm = self.start()
        vm.ping()
        pid = self.inmate(vm)
        for status in vm.threads(pid).values():
            self.assertEqual(status["Uid"].split(), [str(UID)] * 4)
            self.assertEqual(status["Gid"].split(), [str(GID)] * 4)
            self.assertEqual(status["Groups"].split(), [])
            self.assertEqual(status["NoNewPrivs"], "1")
            self.assertEqual(status["Seccomp"], FILTERED)
            self.assertEqual(status["NSpid"].split()[1:2], ["1"] if status["Name"] == "ferry" else
                             status["NSpid"].split()[1:2])
            for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
                self.assertEqual(int(status[f"Cap{kind}"], 16), 0, kind)
        for kind in ("mnt", "pid", "net", "ipc", "uts"):
            self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/{kind}"), os.readlink(f"/proc/self/ns/{kind}"))
        self.assertEqual(vm.get("vmm.ping")["pid"], 1)

    def test_the_jail_is_its_root_and_nothing_else_is_mounted(self):
        vm = self.start()
        pid = self.inmate(vm)
        self.assertEqual(set(os.listdir(f"/proc/{pid}/root")), set(os.listdir(self.jail)))
        with open(f"/proc/{pid}/mountinfo") as file:
            self.assertEqual([line.split()[4] for line in file], ["/", "/proc"])
        for name in ("kvm", "null", "urandom"):
            node = os.stat(os.path.join(self.jail, "dev", name))
            self.assertTrue(stat.S_ISCHR(node.st_mode))
            self.assertEqual((node.st_uid, node.st_mode & 0o777), (UID, 0o600))
        # Nothing was mounted outside.
        with open("/proc/self/mountinfo") as file:
            self.assertNotIn(self.jail, file.read())

    def test_net_off_leaves_it_the_hosts_network(self):
        vm = self.start(jail_options=f"uid={UID},gid={GID},net=off")
        self.assertEqual(os.readlink(f"/proc/{self.inmate(vm)}/ns/net"), os.readlink("/proc/self/ns/net"))
        vm.ping()

    def test_paths_are_those_of_the_jail(self):
        disk = os.path.join(self.jail, "disk")
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        os.chown(disk, UID, GID)
        vm = self.start()
        for path in (disk, "/etc/passwd", "/../../etc/passwd"):
            with self.assertRaises(ApiError) as caught:
                vm.put("vm.add-disk", {"path": path, "readonly": True})
            self.assertIn("No such file", caught.exception.body)
        vm.put("vm.add-disk", {"path": "/disk"})
        self.assertIn("blk write ok", vm.ask("blk write 0 1 1"))

    def test_a_user_device_is_served_at_a_socket_in_the_jail(self):
        server = Server(self.jail)
        self.addCleanup(server.end)
        os.chown(server.socket, UID, GID)
        vm = self.start("--user-device", "socket=/testdev.sock,id=dev",
                        *(["--landlock"] if landlock_abi() >= 1 else []))
        self.assertTrue(Driver(vm, "dev").alive())

    def test_a_device_the_host_does_not_have_is_named_and_nothing_is_left_in_the_jail(self):
        code, text = run_ferry("--kernel", "/kernel", "--console", "off", "--device",
                               "path=/sys/bus/pci/devices/0000:77:00.0", "--jail", f"{self.jail},uid={UID},gid={GID}")
        self.assertEqual(code, 1)
        self.assertIn("0000:77:00.0: no such device", text)
        self.assertEqual(os.listdir(os.path.join(self.jail, "sys")), [])
        self.assertEqual(os.listdir(os.path.join(self.jail, "dev", "vfio")), [])

    def test_a_device_path_that_leads_out_of_the_jail_is_refused(self):
        code, text = run_ferry("--kernel", "/kernel", "--console", "off", "--device",
                               "path=/sys/../../../etc", "--jail", f"{self.jail},uid={UID},gid={GID}")
        self.assertEqual(code, 1)
        self.assertIn('without ".."', text)

    def test_a_device_that_comes_later_is_refused_with_the_remedy(self):
        vm = self.start()
        with self.assertRaises(ApiError) as caught:
            vm.put("vm.add-device", {"path": "/sys/bus/pci/devices/0000:00:00.0"})
        self.assertIn("come as opened descriptors", caught.exception.body)

    def test_with_landlock_besides(self):
        if landlock_abi() < 1:
            return
        self.start("--landlock").ping()

    def test_sigterm_passes_on(self):
        vm = self.start()
        pid = self.inmate(vm)
        vm.process.send_signal(signal.SIGTERM)
        self.assertEqual(vm.wait_exit(), 0)
        self.assertTrue(self.gone(pid))
        self.assertFalse(os.path.exists(vm.api_path))

    def test_the_exit_code_passes_on(self):
        vm = self.start()
        vm.send("shutdown")
        self.assertEqual(vm.wait_exit(), 0)
        os.unlink(os.path.join(self.jail, "kernel"))
        code, text = run_ferry("--kernel", "/kernel", "--console", "off", "--jail",
                               f"{self.jail},uid={UID},gid={GID}")
        self.assertEqual(code, 1)
        self.assertIn("load kernel /kernel: No such file", text)

    def test_a_killed_inmate_is_reported_as_a_shell_does(self):
        vm = self.start()
        os.kill(self.inmate(vm), signal.SIGKILL)
        self.assertEqual(vm.wait_exit(), 128 + signal.SIGKILL)

    def test_the_vm_does_not_outlive_the_process_that_stands_in_for_it(self):
        vm = self.start()
        pid = self.inmate(vm)
        vm.process.kill()
        vm.process.wait()
        wait_for(lambda: self.gone(pid), 10, "the jailed process to die")

    def test_a_jail_can_be_used_again(self):
        for _ in range(2):
            vm = self.start()
            vm.ping()
            vm.process.send_signal(signal.SIGTERM)
            self.assertEqual(vm.wait_exit(), 0)

    def test_wrong_arguments_are_named(self):
        def refused(argument, code, *words, **more):
            got, text = run_ferry("--kernel", "/kernel", "--console", "off", "--jail", argument, **more)
            self.assertEqual(got, code, text)
            for word in words:
                self.assertIn(word, text)

        ids = f"uid={UID},gid={GID}"
        refused(f"/nowhere/at/all,{ids}", 1, "jail /nowhere/at/all", "no such directory")
        refused(f"relative,{ids}", 1, "jail relative", "absolute")
        refused(f"{PROBE},{ids}", 1, PROBE, "no such directory")
        refused(self.jail, 2, "--jail", "uid=")
        refused(f"{self.jail},uid=0,gid=1", 2, "--jail", "uid")
        refused(f"{self.jail},uid=1,gid=x", 2, "--jail", "gid")
        refused(f"{self.jail},{ids},colour=red", 2, "--jail", "colour")
        # Where others than root may run it from:
        binary = shutil.copy(os.path.join(BUILD, "ferry"), self.jail)
        refused(f"{self.jail},{ids}", 1, "jail", "needs root", user=UID, binary=binary)
        self.assertEqual(set(os.listdir(self.jail)), {"kernel", "ferry"})


if __name__ == "__main__":
    unittest.main()
