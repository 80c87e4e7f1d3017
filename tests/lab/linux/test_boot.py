# SPDX-License-Identifier: Apache-2.0
"""Linux boots, sees its CPUs and clock, and goes through the life cycle."""
import os
import tempfile
import time
import unittest

from ferry import SLOW, wait_for
from linux_guest import DEBIAN, INITRAMFS, KERNEL, LinuxGuest, lab


class Boot(unittest.TestCase):
    def test_our_kernel_boots_as_bzimage_and_powers_off_with_exit_code_0(self):
        with LinuxGuest() as vm:
            self.assertEqual(vm.sh("nproc").strip(), "1")
            self.assertIn("FERRY-INIT-REACHED", vm.agent.log.decode(errors="replace"))
            self.assertEqual(vm.poweroff(), 0)
            self.assertIn("shutdown", vm.event_names())

    def test_our_kernel_boots_as_vmlinux_through_pvh(self):
        with LinuxGuest(kernel=KERNEL + "/vmlinux") as vm:
            self.assertEqual(vm.sh("nproc").strip(), "1")
            self.assertEqual(vm.poweroff(), 0)

    def test_four_cpus_with_topology(self):
        with LinuxGuest(cpus="4,topology=2:2:1:1") as vm:
            self.assertEqual(vm.sh("nproc").strip(), "4")
            self.assertEqual(vm.sh("cat /sys/devices/system/cpu/cpu0/topology/core_cpus_list").strip(), "0-1")
            clocks = vm.sh("cat /sys/devices/system/clocksource/clocksource0/available_clocksource")
            self.assertIn("kvm-clock", clocks)
            # every CPU runs something
            vm.sh("for i in 0 1 2 3; do taskset $((1 << i)) true || exit 1; done")

    def test_kernel_without_acpi_finds_its_cpus_in_the_mp_table(self):
        with LinuxGuest(cpus=4, cmdline="acpi=off") as vm:
            self.assertEqual(vm.sh("nproc").strip(), "4")
            # Its pointer is found before the 64 KiB of the BIOS are looked through.
            self.assertIn("found SMP MP-table at [mem 0x0009fc00-0x0009fc0f]", vm.sh("dmesg"))

    def test_memory_above_4_gib_is_usable(self):
        with LinuxGuest(memory="3328M") as vm:
            total = int(vm.sh("awk '/MemTotal/ {print $2}' /proc/meminfo"))
            self.assertGreater(total, 3000 * 1024)

    def test_debian_kernel_boots_with_our_initramfs(self):
        initramfs = lab("guest-initramfs", "--modules", DEBIAN + "/guest-modules")
        with LinuxGuest("--platform", "serial_number=SN-7,uuid=0f5b1a7e-9d0c-4e8b-8a59-6a7f4d2c1b00",
                        kernel=DEBIAN + "/vmlinuz", initramfs=initramfs, memory="512M") as vm:
            self.assertIn("cloud-amd64", vm.sh("uname -r"))
            self.assertEqual(vm.sh("cat /sys/class/dmi/id/product_serial").strip(), "SN-7")
            self.assertEqual(vm.sh("cat /sys/class/dmi/id/product_uuid").strip(),
                             "0f5b1a7e-9d0c-4e8b-8a59-6a7f4d2c1b00")
            self.assertEqual(vm.poweroff(), 0)

    def test_debian_kernel_boots_with_its_own_initramfs_from_a_disk(self):
        with LinuxGuest("--disk", f"path={DEBIAN}/disk.img,readonly=on", kernel=DEBIAN + "/vmlinuz",
                        initramfs=DEBIAN + "/initrd.img", cmdline="root=/dev/vda ro", cpus=4,
                        memory="512M") as vm:
            self.assertIn("cloud-amd64", vm.sh("uname -r"))
            self.assertEqual(vm.sh("nproc").strip(), "4")
            self.assertIn("/dev/vda", vm.sh("cat /proc/mounts /proc/cmdline"))

    def test_clock_of_the_guest_is_the_hosts(self):
        with LinuxGuest() as vm:
            guest = int(vm.sh("date +%s"))
            self.assertLess(abs(guest - time.time()), 5)


class LifeCycle(unittest.TestCase):
    def test_reboot_by_the_guest_gives_a_fresh_machine(self):
        with LinuxGuest() as vm:
            vm.sh("touch /seen")
            vm.agent.send_line("run reboot -f")
            vm.wait_ready()
            self.assertNotEqual(vm.agent.run("test -e /seen")[0], 0)
            self.assertIn("rebooted", vm.event_names())
            self.assertEqual(vm.poweroff(), 0)

    def test_power_button_powers_the_guest_off(self):
        with LinuxGuest() as vm:
            vm.put("vm.power-button")
            self.assertEqual(vm.wait_exit(30), 0)

    def test_pause_stops_the_guest_and_its_clock(self):
        with LinuxGuest() as vm:
            before = float(vm.sh("cut -d' ' -f1 /proc/uptime"))
            vm.put("vm.pause")
            self.assertEqual(vm.state(), "Paused")
            time.sleep(3)
            vm.put("vm.resume")
            self.assertEqual(vm.state(), "Running")
            after = float(vm.sh("cut -d' ' -f1 /proc/uptime"))
            self.assertLess(after - before, 2.5)
            self.assertNotIn("soft lockup", vm.sh("dmesg"))

    def test_nmi_reaches_the_guest(self):
        with LinuxGuest(cmdline="unknown_nmi_panic=0") as vm:
            vm.put("vm.nmi")
            wait_for(lambda: "NMI" in vm.sh("dmesg | grep -i nmi || true"), 10, "the NMI in dmesg")

    def test_panic_is_reported_through_pvpanic(self):
        with LinuxGuest("--pvpanic") as vm:
            vm.sh("test -d /sys/bus/acpi/devices/QEMU0001:00")
            vm.agent.send_line("run echo c > /proc/sysrq-trigger")
            vm.wait_event("panic")

    def test_api_shutdown_and_boot_again(self):
        with LinuxGuest() as vm:
            vm.put("vm.shutdown")
            self.assertEqual(vm.state(), "Shutdown")
            vm.put("vm.boot")
            vm.wait_ready()
            self.assertEqual(vm.sh("nproc").strip(), "1")


class Sandbox(unittest.TestCase):
    def test_linux_boots_in_a_jail_with_landlock(self):
        with tempfile.TemporaryDirectory() as jail:
            for source, name in ((KERNEL + "/bzImage", "kernel"), (INITRAMFS, "initramfs")):
                with open(source, "rb") as f, open(os.path.join(jail, name), "wb") as to:
                    to.write(f.read())
            os.chmod(jail, 0o755)
            os.mkdir(jail + "/run")
            os.chown(jail + "/run", 3000, 3000)
            import subprocess
            from ferry import BUILD
            process = subprocess.Popen(
                [BUILD + "/ferry", "--jail", f"{jail},uid=3000,gid=3000", "--kernel", "/kernel",
                 "--initramfs", "/initramfs", "--cmdline", "console=ttyS0 quiet ferry.test=poweroff",
                 "--memory", "size=256M", "--serial", "file=/run/serial", "--console", "off", "--landlock"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            try:
                output, _ = process.communicate(timeout=60 * SLOW)
            finally:
                process.kill()
            self.assertEqual(process.returncode, 0, output.decode())
            serial = open(jail + "/run/serial", errors="replace").read()
            self.assertIn("FERRY-INIT-REACHED", serial)


if __name__ == "__main__":
    unittest.main()
