# SPDX-License-Identifier: Apache-2.0
"""Pings of a guest, one each millisecond, and when each was sent and answered."""
import re
import signal
import subprocess
import tempfile

INTERVAL = 0.001
ANSWER = re.compile(r"^\[(\d+\.\d+)\] .*icmp_seq=(\d+) .*time=([\d.]+) ms", re.M)
WRAP = 1 << 16


class Pings:
    def __init__(self, address):
        self.output = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(["ping", "-D", "-i", str(INTERVAL), address],
                                        stdout=self.output, stderr=subprocess.STDOUT)

    def end(self):
        """Reads what it has said: `sent`, `answers` {number: (sent at, answered at)}. What was
        sent after the last that is answered is still under way, and does not count."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.output.seek(0)
        text = self.output.read()
        self.output.close()
        self.answers, turns, last = {}, 0, 0
        for at, number, took in ANSWER.findall(text):
            number = int(number)
            if number < last - WRAP // 2:
                turns += 1
            last = number
            self.answers[turns * WRAP + number] = (float(at) - float(took) / 1000, float(at))
        assert self.answers, f"no answer at all: {text[-500:]}"
        self.sent = max(self.answers)
        return self

    def lost(self):
        """When those were sent that were not answered: after the one before, or earlier."""
        times, at = [], min(sent for sent, _ in self.answers.values())
        for number in range(1, self.sent + 1):
            if number in self.answers:
                at = self.answers[number][0]
            else:
                times.append(at)
        return times

    def longest_gap(self, start, end):
        """The longest time without an answer of which some is in [start, end]."""
        arrivals = sorted(at for _, at in self.answers.values())
        return max((b - a for a, b in zip(arrivals, arrivals[1:]) if b >= start and a <= end), default=0)
