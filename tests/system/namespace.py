# SPDX-License-Identifier: Apache-2.0
"""A network namespace of the tests' own, so that their taps meet no others."""
import ctypes
import os
import subprocess

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def check(result, what):
    if result:
        raise OSError(ctypes.get_errno(), what)


class NetworkNamespace:
    """This process, and what it starts, are in a new one until leave()."""

    def __init__(self):
        self.old = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        check(libc.unshare(CLONE_NEWNET), "unshare")

    def leave(self):
        check(libc.setns(self.old, CLONE_NEWNET), "setns")
        os.close(self.old)


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True)
