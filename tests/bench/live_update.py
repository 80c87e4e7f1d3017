# SPDX-License-Identifier: Apache-2.0
"""How long a VM with a device stands still in a live update: from the request to pause it to
the word that it runs in the new process, which is more than the guest sees."""
import os
import statistics
import sys
import tempfile
import threading

from moving import fill


def pauses(build, size, rounds, busy=False):
    """Milliseconds of each update, of a VM of that size with a disk and a vfio-user device; busy:
    that copies and interrupts all the time."""
    os.environ["FERRY_BUILD"] = build
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "system"))
    from probe import Probe
    from testdev import Driver, Engine, Server
    from update import update
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        disk = os.path.join(folder, "disk")
        with open(disk, "wb") as file:
            file.truncate(64 << 20)
        server = Server(folder, "--dma-rate=16M")
        try:
            with Probe("--disk", f"path={disk}", "--user-device", f"socket={server.socket},id=dev", memory=size) as vm:
                engine = Engine(vm, "msix", 0, 32 << 20) if busy else None
                assert busy or Driver(vm, "dev").alive()
                found = [update(vm)["downtime_us"]["total"] / 1000 for _ in range(rounds)]
                if busy:
                    engine.stop()  # raises where something was lost
                return found
        finally:
            server.end()


def in_use_kib():
    """Of this machine: memory of processes, and of memfds."""
    with open("/proc/meminfo", encoding="utf-8") as file:
        lines = dict(line.split(":") for line in file)
    return sum(int(lines[name].split()[0]) for name in ("AnonPages", "Shmem"))


def memory(build, mib, rounds):
    """The most that the machine had in use while a VM with all of its RAM written to was updated,
    beyond what it had without the VM, as a part of the RAM."""
    os.environ["FERRY_BUILD"] = build
    from probe import FREE, Probe
    from update import update
    before, most, ended = in_use_kib(), 0, threading.Event()

    def look():
        nonlocal most
        while not ended.is_set():
            most = max(most, in_use_kib())
    with Probe(memory=f"{mib}M") as vm:
        fill(lambda line: vm.ask(line, 60), mib, FREE)
        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            for _ in range(rounds):
                update(vm)
        finally:
            ended.set()
            watcher.join()
    return (most - before) / (mib << 10)


def figures(build, rounds, report):
    for size, name, busy in (("128M", "128 MiB", False), ("8G", "8 GiB", False), ("128M", "128 MiB, its DMA goes on", True)):
        found = pauses(build, size, rounds, busy)
        report.add(f"live update with a device, {name}: pause", "ms", {"ferry": statistics.median(found)}, most=10)
        report.note(f"live update, {name}: {rounds} updates, pauses of {min(found):.1f} to {max(found):.1f} ms")
    report.add("live update with 1 GiB of RAM filled: most memory in use", "× RAM",
               {"ferry": memory(build, 1024, rounds)}, most=1.05)
