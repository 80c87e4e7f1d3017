# SPDX-License-Identifier: Apache-2.0
"""A VM that is handed from process to process: the Ferry follows it."""
import ctypes
import http.client
import json
import os
import signal
import subprocess
import threading
import time

from ferry import BUILD, SLOW, UnixConnection, wait_for

PR_SET_CHILD_SUBREAPER = 36


class Successor:
    """As subprocess.Popen, of a process that another one started. This one inherits it when
    its makers have ended, and so hears how it ends."""

    def __init__(self, pid):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.pid, self.returncode = pid, None

    def poll(self):
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # not ours yet; or somebody else has heard how it ended
                self.returncode = None if os.path.exists(f"/proc/{self.pid}") else 0
                return self.returncode
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=None):
        end = time.monotonic() + (timeout if timeout is not None else 3600)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("ferry", timeout)
            time.sleep(0.002)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def follow(vm, pid=None):
    """vm's process is the one that answers on its API socket now."""
    vm.process = Successor(pid or vm.get("vmm.ping")["pid"])


def update(vm, **body):
    """One live update; what it took."""
    old = vm.process
    result = vm.put("vm.live-update", body)
    # On a busy host the kernel takes its time over what a VM was.
    assert old.wait(60 * SLOW) == 0, f"the old process ended with {old.returncode}"
    follow(vm)
    assert vm.process.pid != old.pid
    return result


class Waiting:
    """A ferry --adopt that was started by somebody else than the one that has the VM."""

    def __init__(self, folder, *args, binary=os.path.join(BUILD, "ferry"), name="adopt.sock"):
        self.socket = os.path.join(folder, name)
        self.stderr_path = self.socket + ".stderr"
        with open(self.stderr_path, "wb") as stderr:
            self.process = subprocess.Popen([binary, "--adopt", f"path={self.socket}", *args],
                                            stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        wait_for(lambda: self.listens() or self.process.poll() is not None, 10, "--adopt's socket")

    def listens(self):
        """A socket's file is there before it listens."""
        with open(f"/proc/{self.process.pid}/net/unix") as file:
            rows = [line.split() for line in file]
        return any(row[3] == "00010000" and row[7:] == [self.socket] for row in rows[1:])

    def stderr(self):
        return open(self.stderr_path, errors="replace").read()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Client(threading.Thread):
    """Keeps a connection to the API of vm, asks over it all the time who is there, and
    connects anew when it is closed: that alone may happen to it."""

    def __init__(self, vm):
        super().__init__(daemon=True)
        self.path, self.stopped = vm.api_path, threading.Event()
        self.connections, self.answers, self.failures = 0, 0, []
        self.pids = set()
        self.start()

    def ask(self, connection):
        connection.request("GET", "/api/v1/vmm.ping")
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            self.failures.append(f"{response.status} {answer}")
        self.answers += 1
        self.pids.add(answer["pid"])

    def run(self):
        while not self.stopped.is_set():
            connection = UnixConnection(self.path, 60 * SLOW)
            try:
                connection.connect()  # somebody listens at all times
            except OSError as e:
                self.failures.append(f"connect: {e}")
                return
            self.connections += 1
            try:
                while not self.stopped.wait(0.005):
                    self.ask(connection)
            except (http.client.HTTPException, ConnectionError):
                pass
            except Exception as e:  # a reply cut in its middle, or none at all
                self.failures.append(f"{type(e).__name__}: {e}")
            connection.close()

    def end(self):
        self.stopped.set()
        self.join(60 * SLOW)
        assert not self.is_alive(), "a request was never answered"
        return self.failures
