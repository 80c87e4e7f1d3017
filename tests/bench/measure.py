# SPDX-License-Identifier: Apache-2.0
"""The stopwatch: processes from exec on, their CPU time and memory."""
import contextlib
import os
import re
import select
import signal
import socket
import statistics
import tempfile
import time

# A mapping of this share of the guest's memory is the guest's memory.
RAM_SHARE = 0.75


class Process:
    """Started by vfork and exec, so that what the bench itself is does not count."""

    def __init__(self, command, stdout=os.devnull, stderr=os.devnull):
        actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                   (os.POSIX_SPAWN_OPEN, 1, stdout, os.O_WRONLY, 0),
                   (os.POSIX_SPAWN_OPEN, 2, stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)]
        self.started = time.monotonic()
        self.pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)

    def wall_ms(self):
        return (time.monotonic() - self.started) * 1000

    def cpu_ms(self):
        # The clock of another process (CPUCLOCK_SCHED): all its threads, in ns.
        return time.clock_gettime(~self.pid << 3 | 2) * 1000

    def ended(self):
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def private_kib(self, guest_mib):
        """Private memory outside the guest's RAM."""
        total, counts = 0, False
        with open(f"/proc/{self.pid}/smaps") as f:
            for line in f:
                words = line.split()
                if "-" in words[0] and not words[0].endswith(":"):
                    start, end = (int(x, 16) for x in words[0].split("-"))
                    counts = not guest_mib * RAM_SHARE <= (end - start) >> 20 <= guest_mib
                elif counts and words[0] in ("Private_Clean:", "Private_Dirty:"):
                    total += int(words[1])
        return total

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@contextlib.contextmanager
def running(command, **more):
    process = Process(command, **more)
    try:
        yield process
    finally:
        process.end()


class Fifo:
    """Where a serial port writes to."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "serial")
        if not os.path.exists(self.path):
            os.mkfifo(self.path)
        self.fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def wait_for(self, text, process, timeout):
        """Raises where the text does not come."""
        seen = b""
        while text not in seen:
            if process.wall_ms() > timeout * 1000 or process.ended():
                raise TimeoutError(f"no {text!r} on the serial port; it had {seen[-500:]!r}")
            if select.select([self.fd], [], [], 0.5)[0]:
                seen += os.read(self.fd, 65536)

    def close(self):
        os.close(self.fd)
        os.unlink(self.path)


def until_serial(vmm, text, folder, timeout=30, then=None, **guest):
    """Starts a guest; (wall ms, CPU ms) until the text is on its serial port, and what
    then(process) says of the running process."""
    fifo, where = Fifo(folder), {}
    try:
        command = vmm.guest(serial=vmm.serial_file(fifo.path, where), **guest)
        with running(command, **where) as process:
            fifo.wait_for(text, process, timeout)
            wall, cpu = process.wall_ms(), process.cpu_ms()
            return wall, cpu, then(process) if then else None
    finally:
        fifo.close()


def until_api(vmm, folder, timeout=10):
    """(wall ms, CPU ms) until the API answers a ping."""
    path = os.path.join(folder, "api")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    request, answer = vmm.ping
    with running(vmm.api(path)) as process:
        with socket.socket(socket.AF_UNIX) as client:
            while True:
                try:
                    client.connect(path)
                    break
                except OSError:
                    if process.wall_ms() > timeout * 1000 or process.ended():
                        raise
                    time.sleep(0.0002)
            client.settimeout(timeout)
            client.sendall(request)
            seen = b""
            while answer not in seen:
                data = client.recv(65536)
                if not data:
                    raise ConnectionError(f"the API closed after {seen!r}")
                seen += data
            return process.wall_ms(), process.cpu_ms()


def rounds(count, vmms, measure, quiet=True):
    """Interleaves: each VMM once per round. {name: [tuple of medians]}; one round more
    first, to warm the page cache. A VMM that fails is left out, with the reason."""
    values, failed = {v.name: [] for v in vmms}, {}
    for n in range(count + 1):
        for vmm in vmms:
            if vmm.name in failed:
                continue
            try:
                value = measure(vmm)
            except (OSError, TimeoutError) as e:
                if vmm.name == "ferry":
                    raise
                failed[vmm.name] = str(e)
                continue
            if n:
                values[vmm.name].append(value)
    return {name: tuple(statistics.median(column) for column in zip(*rows))
            for name, rows in values.items() if name not in failed}, failed


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as path:
        yield path


@contextlib.contextmanager
def huge_memfds():
    """The host as the README recommends it: QEMU's RAM is anonymous and has huge pages by the
    kernel's default, Ferry's is a memfd."""
    setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

    def write(value):
        with open(setting, "w", encoding="ascii") as f:
            f.write(value)
    with open(setting, encoding="ascii") as f:
        before = re.search(r"\[(\w+)\]", f.read())[1]
    write("advise")
    try:
        yield
    finally:
        write(before)
