# SPDX-License-Identifier: Apache-2.0
"""Drives a ferry process: start, API over its unix socket, serial console, end.

Used by the system suite (probe guest, /dev/kvm) and by the lab suite (Linux guests).
The build folder is $FERRY_BUILD (default: build/ of the project).
"""
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("FERRY_BUILD", os.path.join(ROOT, "build"))
# Emulated hosts are slow: every deadline is multiplied by this.
SLOW = float(os.environ.get("FERRY_TEST_SLOW", "1"))


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class ApiError(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


def wait_for(condition, timeout, what):
    """Polls until condition() is true and returns its value."""
    end = time.monotonic() + timeout * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"timed out after {timeout * SLOW:.0f} s: {what}")
        time.sleep(0.01)


def fault_of(status):
    """The signal of its own making that ended a ferry, a jailed one too (its stand-in
    exits as a shell does), or None."""
    number = -status if status < 0 else status - 128
    faults = (signal.SIGSYS, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
    return signal.Signals(number) if number in faults else None


def run_ferry(*args, timeout=20, binary=os.path.join(BUILD, "ferry"), **more):
    """For a ferry that ends at once: its exit code and all that it said."""
    command = [binary, *(str(a) for a in args)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=timeout * SLOW, **more)
    text = result.stdout.decode(errors="replace")
    assert not fault_of(result.returncode), f"{fault_of(result.returncode).name}: {text}"
    return result.returncode, text


class Ferry:
    """One ferry process with its API socket and, if asked for, a serial socket."""

    def __init__(self, *args, serial=True, hvc="off", api=True, wait=True, env=None, seccomp=None,
                 jail=None, jail_options="uid=1234,gid=1235", binary=os.path.join(BUILD, "ferry")):
        # In a jail ferry sees the same paths, from the jail's root on.
        self.dir = tempfile.mkdtemp(prefix="ferry-test-", dir=jail)
        if jail:
            os.chmod(self.dir, 0o777)
        self.api_path = os.path.join(self.dir, "api.sock")
        self.serial_path = os.path.join(self.dir, "serial.sock")
        self.log_path = os.path.join(self.dir, "log")
        self.events_path = os.path.join(self.dir, "events")
        self.console = None
        self.buffer = b""

        def inside(path):
            return path[len(jail):] if jail else path

        command = [binary, "--log-file", inside(self.log_path), "-vv",
                   "--event-monitor", f"path={inside(self.events_path)}"]
        if api:
            command += ["--api-socket", inside(self.api_path)]
        if serial:
            command += ["--serial", f"socket={inside(self.serial_path)}", "--console", hvc]
        if jail:
            command += ["--jail", f"{jail},{jail_options}"]
        if seccomp is None and os.environ.get("FERRY_TEST_SECCOMP"):
            seccomp = os.environ["FERRY_TEST_SECCOMP"]
        if seccomp:
            command += ["--seccomp", seccomp]
        command += [str(a) for a in args]
        if os.environ.get("FERRY_TEST_STRACE"):  # which call did a filter stop?
            command = ["strace", "-f", "-o", os.environ["FERRY_TEST_STRACE"]] + command
        self.stderr_path = os.path.join(self.dir, "stderr")
        with open(self.stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                            stdout=stderr, stderr=stderr, env=env)
        if api and wait:
            wait_for(lambda: os.path.exists(self.api_path) or self.process.poll() is not None,
                     10, "the API socket")

    # API
    def request(self, method, path, body=None, timeout=60):
        connection = UnixConnection(self.api_path, timeout * SLOW)
        try:
            data = None if body is None else body if isinstance(body, (bytes, str)) else json.dumps(body)
            headers = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read()
            return response.status, text
        finally:
            connection.close()

    def api(self, method, name, body=None, timeout=60):
        status, text = self.request(method, "/api/v1/" + name, body, timeout)
        if status >= 300:
            raise ApiError(status, text.decode(errors="replace"))
        return json.loads(text) if text else None

    def get(self, name):
        return self.api("GET", name)

    def put(self, name, body=None, timeout=60):
        return self.api("PUT", name, body, timeout)

    def state(self):
        return self.get("vm.info")["state"]

    def ctl(self, *args, check=True):
        result = subprocess.run([os.path.join(BUILD, "ferryctl"), "--api-socket", self.api_path, *args],
                                capture_output=True, text=True, timeout=60 * SLOW)
        if check and result.returncode:
            raise AssertionError(f"ferryctl {' '.join(args)}: {result.stderr}")
        return result

    # Serial console
    def connect_serial(self):
        if self.console:
            self.console.close()
        def attempt():
            try:
                s = socket.socket(socket.AF_UNIX)
                s.connect(self.serial_path)
                return s
            except OSError:
                s.close()
                if self.process.poll() is not None:
                    raise AssertionError(f"ferry ended: {self.stderr()}")
                return None
        self.console = wait_for(attempt, 10, "the serial socket")
        self.buffer = b""

    def read_until(self, pattern, timeout=20):
        """Reads the console until the regular expression matches; returns the match."""
        pattern = re.compile(pattern.encode() if isinstance(pattern, str) else pattern)
        if not self.console:
            self.connect_serial()
        end = time.monotonic() + timeout * SLOW
        while True:
            match = pattern.search(self.buffer)
            if match:
                self.buffer = self.buffer[match.end():]
                return match
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f"no {pattern.pattern!r} within {timeout * SLOW:.0f} s; "
                                     f"console: {self.buffer[-2000:]!r}; log: {self.log()[-1500:]}")
            ready, _, _ = select.select([self.console], [], [], min(left, 0.5))
            if ready:
                data = self.console.recv(65536)
                if not data:
                    try:
                        self.process.wait(2)  # its last words
                    except subprocess.TimeoutExpired:
                        pass
                    raise AssertionError(f"console closed; it had {self.buffer[-2000:]!r}; "
                                         f"stderr: {self.stderr()}; log: {self.log()[-1500:]}")
                self.buffer += data
            elif self.process.poll() is not None:
                raise AssertionError(f"ferry ended with {self.process.returncode}; "
                                     f"console: {self.buffer[-500:]!r}; {self.stderr()}")

    def send(self, line):
        self.console.sendall(line.encode() + b"\n")

    def command(self, line, reply=r"(?:ok|error)[^\r\n]*", timeout=20):
        """Sends a line to the probe and returns the text of its reply."""
        self.send(line)
        return self.read_until(rb"(?:^|[\r\n])(" + reply.encode() + rb")\r?\n", timeout).group(1).decode()

    # Its traces
    def log(self):
        return open(self.log_path, errors="replace").read() if os.path.exists(self.log_path) else ""

    def stderr(self):
        return open(self.stderr_path, errors="replace").read() if os.path.exists(self.stderr_path) else ""

    def events(self):
        if not os.path.exists(self.events_path):
            return []
        text = open(self.events_path).read()
        text = text[:text.rfind("\n\n") + 1]  # the last may be being written
        decoder, events, at = json.JSONDecoder(), [], 0
        while True:
            while at < len(text) and text[at].isspace():
                at += 1
            if at >= len(text):
                return events
            event, at = decoder.raw_decode(text, at)
            events.append(event)

    def event_names(self):
        return [e["event"] for e in self.events()]

    def wait_event(self, name, timeout=20, count=1):
        wait_for(lambda: self.event_names().count(name) >= count, timeout, f"event {name}")

    def status(self, field):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith(field + ":"):
                return line.split(":", 1)[1].strip()
        raise KeyError(field)

    def open_files(self):
        """{path in /proc: what it is} of its descriptors."""
        found, folder = {}, f"/proc/{self.process.pid}/fd"
        for n in os.listdir(folder):
            try:
                found[f"{folder}/{n}"] = os.readlink(f"{folder}/{n}")
            except FileNotFoundError:  # just closed
                continue
        return found

    def ram_kib(self):
        """What the host holds of guest RAM, mapped or not."""
        return sum(os.stat(path).st_blocks // 2 for path, name in self.open_files().items()
                   if name.startswith("/memfd:guest-ram"))

    def api_connections(self):
        """Inodes of the sockets that clients of the API are connected to: ferry closes each
        some time after its client has."""
        with open(f"/proc/{self.process.pid}/net/unix") as file:
            rows = [line.split() for line in file]
        listening = "00010000"
        return {f"socket:[{row[6]}]" for row in rows[1:]
                if row[7:] == [self.api_path] and row[3] != listening}

    def fds(self):
        """What its descriptors are, connections to its API aside."""
        aside = self.api_connections()
        found = self.open_files().values()
        aside |= self.api_connections()
        return sorted(name for name in found if name not in aside)

    def threads(self, pid=None):
        """{tid: {field: value}} of /proc's status, without KVM's own threads."""
        found = {}
        pid = pid or self.process.pid
        for tid in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{tid}/status") as file:
                    status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            except OSError:  # it has just ended
                continue
            if not status["Name"].startswith("kvm-"):
                found[int(tid)] = status
        return found

    def anonymous_kib(self):
        """Private memory: what is not guest RAM (a memfd) or mapped from files."""
        return int(self.status("RssAnon").split()[0])

    # End
    def wait_ended(self, timeout):
        """Whether it ends within that time."""
        end = time.monotonic() + timeout * SLOW
        while self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        return self.process.poll() is not None

    def wait_exit(self, timeout=20):
        try:
            return self.process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"ferry did not end; log: {self.log()[-1500:]}") from None

    def close(self):
        """Ends it. A process that ended, or ends now, by a fault of its own is an error in
        every test: first of all one whose seccomp filter stopped it."""
        if self.console:
            self.console.close()
        hung = False
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10 * SLOW)
            except subprocess.TimeoutExpired:
                hung = True
                self.process.kill()
                self.process.wait()
        report = f"{self.stderr()}{self.log()[-1500:]}"
        shutil.rmtree(self.dir, ignore_errors=True)
        if hung:
            raise AssertionError(f"ferry did not end at SIGTERM; {report}")
        died_of = fault_of(self.process.returncode)
        if died_of == signal.SIGSYS:
            raise AssertionError("a seccomp filter ended ferry (FERRY_TEST_STRACE=FILE shows "
                                 f"the call); {report}")
        if died_of:
            raise AssertionError(f"ferry ended by {died_of.name}; {report}")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind and os.environ.get("FERRY_TEST_KEEP"):
            print(f"kept: {self.dir}")
            return
        self.close()
