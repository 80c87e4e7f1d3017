# SPDX-License-Identifier: Apache-2.0
"""How long a VM with a device stands still in a live update: from the request to pause it to
the word that it runs in the new process, which is more than the guest sees."""
import os
import statistics
import sys
import tempfile


def pauses(build, size, rounds):
    """Milliseconds of each update, of a VM of that size with a disk and a vfio-user device."""
    os.environ["FERRY_BUILD"] = build
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "system"))
    from probe import Probe
    from testdev import Driver, Server
    from update import update
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        disk = os.path.join(folder, "disk")
        with open(disk, "wb") as file:
            file.truncate(64 << 20)
        server = Server(folder)
        try:
            with Probe("--disk", f"path={disk}", "--user-device", f"socket={server.socket},id=dev", memory=size) as vm:
                assert Driver(vm, "dev").alive()
                return [update(vm)["downtime_us"]["total"] / 1000 for _ in range(rounds)]
        finally:
            server.end()


def figures(build, rounds, report):
    for size, name in (("128M", "128 MiB"), ("8G", "8 GiB")):
        found = pauses(build, size, rounds)
        report.add(f"live update with a device, {name}: pause", "ms", {"ferry": statistics.median(found)}, most=10)
        report.note(f"live update, {name}: {rounds} updates, pauses of {min(found):.1f} to {max(found):.1f} ms")
