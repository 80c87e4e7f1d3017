# SPDX-License-Identifier: Apache-2.0
"""Migration and snapshots on this machine's /dev/kvm, with the probe guest, beside
iperf3, QEMU and fio. README.md says how each is measured."""
import contextlib
import json
import mmap
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time

import measure

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB, GIB = 1 << 20, 1 << 30
MADV_POPULATE_WRITE = 23
TIMEOUT = 300


def suite(build):
    """The system suite's way to drive ferry and the probe."""
    os.environ["FERRY_BUILD"] = build
    sys.path.insert(0, os.path.join(ROOT, "tests", "system"))
    import arrival  # pylint: disable=import-outside-toplevel
    import probe    # pylint: disable=import-outside-toplevel
    return probe, arrival


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def touch(mib):
    """A machine that is itself virtual may have given free memory back to its host, and
    gets it anew page by page. That is nobody's figure: it is touched right before."""
    with contextlib.closing(mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        memory.madvise(MADV_POPULATE_WRITE)


def fill(ask, mib, start):
    """All of RAM but what is the probe's own, or lies behind the gap for devices."""
    pages = (min(mib, 3072) * MIB - start) >> 12
    assert ask(f"fill {start:#x} {pages} 7") == "fill ok"
    if mib > 3072:
        assert ask(f"fill {4 * GIB:#x} {(mib - 3072) << 8} 8") == "fill ok"


class Qemu:
    """QEMU with the probe, or waiting for it; driven by QMP."""

    def __init__(self, program, build, mib, folder, name, incoming=False):
        self.qmp_path, serial = os.path.join(folder, name + ".qmp"), os.path.join(folder, name + ".serial")
        # Without ARCH_CAPABILITIES QEMU runs on KVM over page tables, too.
        command = [program, "-accel", "kvm", "-cpu", "host,-arch-capabilities", "-M", "microvm,pcie=on,acpi=on",
                   "-m", str(mib), "-kernel", os.path.join(build, "probe.elf"), "-nodefaults", "-no-user-config",
                   "-display", "none", "-chardev", f"socket,id=c,path={serial},server=on,wait=off", "-serial",
                   "chardev:c", "-qmp", f"unix:{self.qmp_path},server=on,wait=off", "-S"]
        self.process = subprocess.Popen(command + (["-incoming", "defer"] if incoming else []),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.qmp = self.connect(self.qmp_path).makefile("rw")
        self.qmp.readline()
        self.execute("qmp_capabilities")
        self.serial = self.connect(serial).makefile("rw", newline="\n")

    def connect(self, path):
        while True:
            try:
                s = socket.socket(socket.AF_UNIX)
                s.connect(path)
                s.settimeout(TIMEOUT)
                return s
            except OSError:
                s.close()
                if self.process.poll() is not None:
                    raise OSError(self.process.stderr.read().decode()) from None
                time.sleep(0.01)

    def execute(self, command, **arguments):
        self.qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.qmp.flush()
        while True:
            line = self.qmp.readline()
            if not line:
                raise OSError(f"{command}: QEMU ended: {self.process.stderr.read().decode()}")
            answer = json.loads(line)
            if "error" in answer:
                raise OSError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def ask(self, line):
        self.serial.write(line + "\n")
        self.serial.flush()
        return self.serial.readline().strip()

    def boot(self):
        self.execute("cont")
        while "PROBE ready" not in self.serial.readline():
            pass

    def channels(self, count, zero_copy):
        capabilities = {"multifd": True, "zero-copy-send": zero_copy}
        self.execute("migrate-set-capabilities",
                     capabilities=[{"capability": c, "state": s} for c, s in capabilities.items()])
        self.execute("migrate-set-parameters", **{"multifd-channels": count, "max-bandwidth": 100 * GIB})

    def migrate_to(self, other):
        """Seconds."""
        url = f"tcp:127.0.0.1:{free_port()}"
        other.execute("migrate-incoming", uri=url)
        self.execute("migrate", uri=url)
        while True:
            progress = self.execute("query-migrate")
            if progress["status"] in ("completed", "failed", "cancelled"):
                break
            time.sleep(0.01)
        if progress["status"] != "completed":
            raise OSError(f"migration {progress['status']}: {progress.get('error-desc')}")
        return progress["total-time"] / 1000

    def close(self):
        self.process.kill()
        self.process.wait()


def migrate_qemu(program, build, mib, connections, zero_copy):
    """GB/s."""
    with measure.folder() as folder, contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(Qemu(program, build, mib, folder, "source")))
        source.boot()
        fill(source.ask, mib, 8 * MIB)
        target = stack.enter_context(contextlib.closing(Qemu(program, build, mib, folder, "target", incoming=True)))
        target.channels(connections, False)
        source.channels(connections, zero_copy)
        touch(mib)
        return mib * MIB / 1e9 / source.migrate_to(target)


def migrate_ferry(build, mib, connections=1, rate=None, local=False, filled=True, **more):
    """What vm.migration says of the migration. rate: MiB/s that the guest dirties."""
    probe, arrival = suite(build)
    with probe.Probe(memory=f"{mib}M") as vm, arrival.Arrival() as to:
        if filled:
            fill(lambda line: vm.ask(line, TIMEOUT), mib, probe.FREE)
        if rate:
            vm.ask(f"dirty {probe.FREE:#x} {(mib * MIB - probe.FREE) >> 12} {rate} 3")
        to.listen(None if local else f"tcp:127.0.0.1:{free_port()}")
        if not local:
            touch(mib)
        vm.put("vm.send-migration", {"destination_url": to.url, "connections": connections, "local": local, **more},
               timeout=TIMEOUT)
        to.arrived()
        if rate:
            assert "verify ok" in to.ask("verify", TIMEOUT)
        return vm.get("vm.migration")


def iperf(mib, connections):
    """GB/s."""
    port = free_port()
    server = subprocess.Popen(["iperf3", "-s", "-1", "-B", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL)
    try:
        command = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-n", f"{mib}M", "-P", str(connections), "-J"]
        for _ in range(50):
            result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)
            if "error" not in result:
                return result["end"]["sum_received"]["bits_per_second"] / 8e9
            time.sleep(0.1)
        raise OSError(f"iperf3: {result['error']}")
    finally:
        server.kill()
        server.wait()


def median_of(count, ways):
    """Interleaved; {name: median}. What fails is left out, ferry must not."""
    values, failed = {name: [] for name in ways}, {}
    for _ in range(count):
        for name, way in ways.items():
            try:
                values[name] += [way()] if name not in failed else []
            except OSError as e:
                if name == "ferry":
                    raise
                failed[name] = str(e)
    return {name: statistics.median(v) for name, v in values.items() if v and name not in failed}, failed


def rates(build, options, report, mib, qemu):
    one = None
    for connections in (1, 2, 4):
        ways = {"ferry": lambda: mib * MIB / 1e6 / migrate_ferry(build, mib, connections)["elapsed_ms"],
                "iperf3": lambda: iperf(mib, connections)}
        if qemu:
            ways["qemu"] = lambda: migrate_qemu(qemu, build, mib, connections, False)
            ways["qemu, zero-copy"] = lambda: migrate_qemu(qemu, build, mib, connections, True)
        values, failed = median_of(options.move_rounds, ways)
        for name, why in failed.items():
            report.note(f"{name} left out of migration by {connections}: {why}")
        best = [values.pop(name) for name in ("qemu", "qemu, zero-copy") if name in values]
        if best:
            values["qemu"] = max(best)
        what = f"migration of {mib} MiB filled RAM by TCP, connections: {connections}"
        report.add(what, "GB/s", {k: v for k, v in values.items() if k != "iperf3"}, least_ratio=1.5)
        report.add(what, "GB/s", {k: v for k, v in values.items() if k != "qemu"}, least_ratio=0.9, rival="iperf3")
        one = one or values["ferry"]
    return one


def downtimes(build, options, report, line_rate):
    def total(**more):
        values = [migrate_ferry(build, **more)["downtime_us"]["total"] / 1000
                  for _ in range(options.move_rounds)]
        return {"ferry": statistics.median(values)}
    report.add("downtime, idle guest of 1 GiB", "ms", total(mib=1024), most=10)
    half = int(line_rate * 1e9 / MIB / 2)
    report.add(f"downtime with downtime_ms=300, guest of 1 GiB dirtying {half} MiB/s", "ms",
               total(mib=1024, rate=half, downtime_ms=300), most=300)
    for mib in (128, options.local_mib):
        report.add(f"downtime, RAM of {mib} MiB handed over (local)", "ms", total(mib=mib, local=True, filled=False),
                   most=10)


def restore_command(build, folder, mode, events):
    return [os.path.join(build, "ferry"), "--restore",
            f"source_url=file://{folder},memory_restore_mode={mode},resume=on", "--serial", "null", "--console", "off",
            "--event-monitor", f"path={events}"]


def until_restored(build, folder, mode, work):
    """ms from exec until the guest runs."""
    fifo = measure.Fifo(work)
    try:
        errors = os.path.join(work, "stderr")
        with measure.running(restore_command(build, folder, mode, fifo.path), stderr=errors) as process:
            fifo.wait_for(b'"restored"', process, TIMEOUT)
            return process.wall_ms()
    finally:
        fifo.close()


def pss_mib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:")) / 1024


def clones(build, folder, count, work, report):
    """All started at once; ms until the last one runs."""
    with contextlib.ExitStack() as stack:
        started = []
        for n in range(count):
            sub = os.path.join(work, str(n))
            os.mkdir(sub)
            fifo = stack.enter_context(contextlib.closing(measure.Fifo(sub)))
            command = restore_command(build, folder, "shared", fifo.path)
            started.append((stack.enter_context(measure.running(command)), fifo))
        for process, fifo in started:
            fifo.wait_for(b'"restored"', process, TIMEOUT)
        report.add(f"{count} clones of that at once, exec to the last one running", "ms",
                   {"ferry": started[0][0].wall_ms()})
        time.sleep(0.5)
        assert not any(process.ended() for process, _ in started), "a clone ended"
        report.add(f"PSS of all {count} clones", "MiB", {"ferry": sum(pss_mib(p.pid) for p, _ in started)})


def fio(path, mib, write):
    """GB/s: as a snapshot is written and read, a new file, 1 MiB and 16 at a time."""
    if write:
        remove(path)
    result = subprocess.run(["fio", "--name=x", f"--filename={path}", f"--size={mib}M", "--bs=1M", "--iodepth=16",
                             "--direct=1", "--ioengine=io_uring", f"--rw={'write' if write else 'read'}", "--fallocate=truncate",
                             "--end_fsync=1", "--output-format=json"], stdout=subprocess.PIPE, check=True)
    job = json.loads(result.stdout)["jobs"][0]["write" if write else "read"]
    return job["io_bytes"] / 1e6 / job["runtime"]


def remove(path):
    """What is left to do about it (discards, the journal) is not to be the next one's."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)
    os.sync()


def drop_cache(path):
    """Of the file: what was written is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def snapshots(build, options, report, mib):
    probe, _ = suite(build)
    # On the disk where the build is; /tmp may be memory.
    disk = os.path.join(build, "bench", "snapshots")
    shutil.rmtree(disk, ignore_errors=True)
    os.makedirs(disk)
    try:
        with probe.Probe(memory=f"{mib}M") as vm:
            fill(lambda line: vm.ask(line, TIMEOUT), mib, probe.FREE)

            def snapshot(live):
                remove(os.path.join(disk, "snapshot"))
                url = f"file://{disk}/snapshot"
                vm.put("vm.snapshot", {"destination_url": url, "live": live}, timeout=TIMEOUT)
                return vm.get("vm.migration")
            pauses = [snapshot(True)["downtime_us"]["total"] / 1000 for _ in range(options.move_rounds)]
            report.add(f"pause of a snapshot of {mib} MiB, live", "ms", {"ferry": statistics.median(pauses)}, most=10)
            written, _ = median_of(options.move_rounds, {
                "ferry": lambda: mib * MIB / 1e6 / snapshot(False)["elapsed_ms"],
                "fio": lambda: fio(os.path.join(disk, "fio"), mib, True)})
        report.add(f"snapshot of {mib} MiB written", "GB/s", written, least_ratio=0.9, rival="fio")
        folder = os.path.join(disk, "snapshot")

        def eager():
            for name in os.listdir(folder):
                drop_cache(os.path.join(folder, name))
            touch(mib)
            with measure.folder() as work:
                return mib * MIB / 1e6 / until_restored(build, folder, "eager", work)
        read, _ = median_of(options.move_rounds, {"ferry": eager,
                                                  "fio": lambda: fio(os.path.join(disk, "fio"), mib, False)})
        report.add(f"snapshot of {mib} MiB read (eager restore)", "GB/s", read, least_ratio=0.9, rival="fio")
        with measure.folder() as work:
            lazy = [until_restored(build, folder, "lazy", work) for _ in range(options.rounds)]
            report.add(f"lazy restore of {mib} MiB, exec to running", "ms", {"ferry": statistics.median(lazy)}, most=5)
            clones(build, folder, 20, work, report)
    finally:
        shutil.rmtree(disk, ignore_errors=True)


def figures(build, options, report):
    qemu = shutil.which("qemu-system-x86_64")
    missing = [tool for tool in ("iperf3", "fio") if not shutil.which(tool)]
    if missing:
        sys.exit(f"bench: {', '.join(missing)} missing (packaging/packages.sh bench)")
    line_rate = rates(build, options, report, options.move_mib, qemu)
    downtimes(build, options, report, line_rate)
    snapshots(build, options, report, options.move_mib)
