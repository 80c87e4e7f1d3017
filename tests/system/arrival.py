# SPDX-License-Identifier: Apache-2.0
"""A ferry without a VM, to which one comes: from a snapshot, or from another ferry."""
import os
import socket
import threading

from ferry import SLOW, ApiError, Ferry, wait_for
from probe import Probe


def free_port(family=socket.AF_INET, host="127.0.0.1"):
    with socket.socket(family) as s:
        s.bind((host, 0))
        return s.getsockname()[1]


class Arrival(Probe):
    """Starts without a VM; its serial console is where the VM's will be."""

    def __init__(self, *args, **more):
        self.jail = more.get("jail") or ""  # paths of the API are those in it
        Ferry.__init__(self, *args, serial=False, **more)
        try:
            wait_for(self.answers, 10, "the API")
        except BaseException:
            self.close()
            raise

    def answers(self):
        try:
            return self.request("GET", "/api/v1/vmm.ping")[0] == 200
        except OSError:
            return False

    def serial(self):
        return {"mode": "Socket", "socket": self.serial_path[len(self.jail):]}

    def restore(self, folder, **more):
        self.put("vm.restore", {"source_url": f"file://{folder}", "resume": True, "serial": self.serial(), **more})
        if more.get("resume", True):
            self.connect_serial()
            self.ping()
        return self

    def listen(self, url=None, **more):
        """Receives in a thread; returns the URL to send to."""
        self.url = url or f"unix:{self.dir}/migration"
        self.received = None

        def receive():
            try:
                self.put("vm.receive-migration", {"receiver_url": self.url, "serial": self.serial(), **more})
                self.received = True
            except (ApiError, OSError) as e:
                self.received = e
        self.thread = threading.Thread(target=receive, daemon=True)
        self.thread.start()
        wait_for(lambda: self.received or self.get("vm.migration")["phase"] == "connect", 10, "the receiver")
        assert self.received is None, self.received
        if self.url.startswith("unix:"):
            wait_for(lambda: os.path.exists(self.jail + self.url[5:]), 10, "the migration's socket")
        return self.url

    def wait_received(self):
        """What receive-migration returned: True, or an error."""
        self.thread.join(60 * SLOW)
        assert not self.thread.is_alive(), "receive-migration does not end"
        return self.received

    def arrived(self):
        assert self.wait_received() is True, self.received
        self.connect_serial()
        self.ping()
        return self
