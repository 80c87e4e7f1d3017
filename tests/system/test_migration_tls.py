# SPDX-License-Identifier: Apache-2.0
"""Live migration over TLS, and who is kept out by it."""
import os
import re
import shutil
import subprocess
import unittest

from arrival import Arrival, free_port
from certificates import NeedsOpenssl, authority, certificate, tls_dir
from ferry import BUILD, ApiError
from probe import Probe
from test_migration import Sending
from test_snapshot import DIRTY, Moving, fill


class Tls(NeedsOpenssl, Moving):
    def listen(self, to, tls="", **more):
        return to.listen(f"tcp:127.0.0.1:{free_port()}", **({"tls_dir": tls or self.tls_dir} if tls is not None else {}), **more)

    def moves(self, vm, to, **more):
        checksum = fill(vm)
        vm.ask(f"dirty {DIRTY:#x} 512 20 3")
        vm.put("vm.send-migration", {"destination_url": self.listen(to), "tls_dir": self.tls_dir, **more})
        self.same_memory(to.arrived(), checksum)
        self.timer_goes_on(to)
        self.assertIn("verify ok", to.ask("verify"))
        self.assertEqual(to.state(), "Running")

    def test_a_vm_moves(self):
        with Probe() as vm, Arrival() as to:
            self.moves(vm, to)

    def test_by_several_connections(self):
        with Probe(cpus=2) as vm, Arrival() as to:
            self.moves(vm, to, connections=4)
            self.assertEqual(len(to.get("vm.migration")["connections"]), 4)

    def test_there_and_back(self):
        with Probe() as vm, Arrival() as to:
            checksum = fill(vm)
            vm.put("vm.send-migration", {"destination_url": self.listen(to), "tls_dir": self.tls_dir})
            to.arrived()
            with Arrival() as back:
                to.put("vm.send-migration", {"destination_url": self.listen(back), "tls_dir": self.tls_dir})
                self.same_memory(back.arrived(), checksum)

    def test_cancelled(self):
        with Probe(memory="256M") as vm, Arrival() as to:
            checksum = fill(vm)
            vm.ask(f"dirty {DIRTY:#x} 40000 0 3")
            sending = Sending(vm, self.listen(to), tls_dir=self.tls_dir, bandwidth=20 << 20, max_throttle=0)
            sending.wait_precopy()
            vm.put("vm.cancel-migration")
            self.assertRegex(str(sending.wait()), "cancel")
            self.assertIsInstance(to.wait_received(), ApiError)
            vm.ask("dirtystop")
            self.assertIn("verify ok", vm.ask("verify"))
            self.same_memory(vm, checksum)

    def refused(self, source_says, destination_says, source=None, destination=None):
        """None: no TLS on that side."""
        with Probe() as vm, Arrival() as to:
            checksum = fill(vm)
            url = self.listen(to, destination)
            body = {"destination_url": url, **({"tls_dir": source} if source else {})}
            with self.assertRaisesRegex(ApiError, source_says):
                vm.put("vm.send-migration", body)
            self.assertRegex(str(to.wait_received()), destination_says)
            self.assertEqual(to.request("GET", "/api/v1/vm.info")[0], 404)
            vm.ping()
            self.same_memory(vm, checksum)
            self.timer_goes_on(vm)
            self.assertEqual(vm.state(), "Running")
            # Nothing is left of it: the next one works.
            self.moves(vm, to)

    def test_one_side_without_tls(self):
        self.refused("asks for TLS", "the source does not speak it", None, self.tls_dir)
        self.refused("the destination does not speak it", "speaks TLS", self.tls_dir, None)

    def test_another_authority(self):
        other = tls_dir(f"{self.dir}/other")
        self.refused("other/ca-cert.pem", "refuses this side's certificate", other, self.tls_dir)

    def test_a_certificate_for_another_host(self):
        other = shutil.copytree(self.tls_dir, f"{self.dir}/elsewhere")
        certificate(other, "server", self.tls_dir, names="IP:10.1.2.3,DNS:localhost")
        self.refused("not for 127.0.0.1", "refuses this side's certificate", self.tls_dir, other)

    def test_a_source_of_another_authority(self):
        other = shutil.copytree(self.tls_dir, f"{self.dir}/stranger")
        certificate(other, "client", authority(f"{self.dir}/another"))
        self.refused("refuses this side's certificate", "refused by .*ca-cert.pem", other, self.tls_dir)

    def test_missing_files_are_named(self):
        with Probe() as vm, Arrival() as to:
            checksum = fill(vm)
            for name in ("ca-cert.pem", "client-cert.pem", "client-key.pem"):
                broken = shutil.copytree(self.tls_dir, f"{self.dir}/{name}-less")
                os.unlink(f"{broken}/{name}")
                with self.assertRaisesRegex(ApiError, f"{broken}/{name}: No such file"):
                    vm.put("vm.send-migration", {"destination_url": "tcp:127.0.0.1:9", "tls_dir": broken})
            for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
                broken = shutil.copytree(self.tls_dir, f"{self.dir}/{name}-less", dirs_exist_ok=True)
                os.unlink(f"{broken}/{name}")
                with self.assertRaisesRegex(ApiError, f"{broken}/{name}: No such file"):
                    to.put("vm.receive-migration", {"receiver_url": "tcp:127.0.0.1:9", "tls_dir": broken})
            self.same_memory(vm, checksum)
            self.assertEqual(vm.state(), "Running")

    def test_only_by_tcp(self):
        with Probe() as vm, Arrival() as to:
            with self.assertRaisesRegex(ApiError, "400.*tls_dir: needs tcp"):
                vm.put("vm.send-migration", {"destination_url": f"unix:{self.dir}/s", "tls_dir": self.tls_dir})
            with self.assertRaisesRegex(ApiError, "400.*tls_dir: needs tcp"):
                to.put("vm.receive-migration", {"receiver_url": f"unix:{self.dir}/s", "tls_dir": self.tls_dir})


class Start(unittest.TestCase):
    def test_openssl_is_not_relocated_when_ferry_starts(self):
        if not shutil.which("readelf"):
            self.skipTest("there is no readelf")
        text = subprocess.run(["readelf", "-SdW", f"{BUILD}/ferry"], check=True, capture_output=True, text=True).stdout
        if "Shared library" in text:
            self.skipTest("this ferry is not linked statically")
        in_file = int(re.search(r"\.rela\.dyn +RELA +\w+ \w+ (\w+)", text)[1], 16)
        at_start = int(re.search(r"\(RELASZ\) +(\d+)", text)[1])
        self.assertLess(at_start, in_file / 4)


if __name__ == "__main__":
    unittest.main()
