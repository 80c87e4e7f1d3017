"""Client of the agent in a Linux guest (agent.c, whose head describes the
line protocol).

    guest = Agent.of_fd(master)            # a pty, a serial or vsock socket
    guest.wait_ready(timeout=60)
    status, output = guest.run("uname -r")
    output = guest.check("ip addr")        # AssertionError if it fails

One thread at a time may use an Agent. Everything the guest ever wrote on the
channel, kernel messages included, is in `guest.log` (bytes).
"""

import os
import re
import select
import time


class AgentTimeout(Exception):
    """The guest did not answer in time; the message ends with its last words."""


class Agent:
    def __init__(self, read_fd, write_fd):
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.log = b""
        self._at = 0  # how much of the log has been consumed

    @classmethod
    def of_fd(cls, fd):
        return cls(fd, fd)

    @classmethod
    def of_process(cls, process):
        """A VMM started with stdin and stdout pipes on the guest's console."""
        return cls(process.stdout.fileno(), process.stdin.fileno())

    def expect(self, pattern, timeout=30):
        """Waits for a regular expression (bytes) in what follows what was
        already consumed; returns the match."""
        deadline = time.monotonic() + timeout
        regex = re.compile(pattern, re.DOTALL | re.MULTILINE)
        while True:
            match = regex.search(self.log, self._at)
            if match:
                self._at = match.end()
                return match
            left = deadline - time.monotonic()
            if left <= 0:
                raise AgentTimeout(f"no {pattern!r} in {timeout} s; the guest's last words:\n" + self._tail())
            if select.select([self.read_fd], [], [], left)[0]:
                data = os.read(self.read_fd, 65536)
                if not data:
                    raise EOFError(f"channel closed before {pattern!r}; the guest's last words:\n" + self._tail())
                self.log += data.replace(b"\r\n", b"\n")

    def wait_ready(self, timeout=60):
        self.expect(rb"FERRY-AGENT-READY 1\n", timeout)

    def send_line(self, line):
        data = line.encode() + b"\n"
        while data:
            data = data[os.write(self.write_fd, data):]

    def run(self, command, timeout=30):
        """Runs a shell command (one line); returns (status, output)."""
        self.send_line("run " + command)
        match = self.expect(rb"FERRY-BEGIN (\d+)\n(.*?)FERRY-END \1 (\d+)\n", timeout)
        return int(match[3]), match[2].decode(errors="replace")

    def check(self, command, timeout=30):
        status, output = self.run(command, timeout)
        assert status == 0, f"guest: '{command}' ended with {status}:\n{output}"
        return output

    def ping(self, text="hello", timeout=10):
        self.send_line("ping " + text)
        self.expect(rb"FERRY-PONG " + re.escape(text.encode()) + rb"\n", timeout)

    def _tail(self):
        return self.log[-2000:].decode(errors="replace")
