# SPDX-License-Identifier: Apache-2.0
"""Makes a sleeping thread of another process do a system call, as whoever has taken it over
could: its next instruction is the call it sleeps in, made again with other registers."""
import ctypes
import os
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = ctypes.c_long
PEEKTEXT, GETREGS, SETREGS, DETACH, SEIZE, INTERRUPT = 1, 12, 13, 17, 0x4206, 0x4207
WALL = 0x40000000
NAMES = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
         "fs_base gs_base ds es fs gs").split()
SYSCALL = 0x050f

IOCTL, EPOLL_WAIT, EPOLL_PWAIT = 16, 232, 281
EXECVE, SCHED_YIELD, IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER = 59, 24, 425, 426, 427


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in NAMES]


def ptrace(request, tid, address=None, data=None):
    ctypes.set_errno(0)
    result = libc.ptrace(request, tid, address, data)
    if result == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {tid}")
    return result


def stop_asleep(tid):
    """Stops the thread in one of the calls it waits in, and returns its registers."""
    registers = Registers()
    for _ in range(1000):
        ptrace(SEIZE, tid)
        ptrace(INTERRUPT, tid)
        os.waitpid(tid, WALL)
        ptrace(GETREGS, tid, None, ctypes.byref(registers))
        if registers.orig_rax in (IOCTL, EPOLL_WAIT, EPOLL_PWAIT):
            assert ptrace(PEEKTEXT, tid, registers.rip - 2) & 0xffff == SYSCALL
            return registers
        ptrace(DETACH, tid)
        time.sleep(0.01)
    raise AssertionError("the thread does not sleep")


def inject(tid, number, *args):
    """Returns when the thread is on its way to the call."""
    registers = stop_asleep(tid)
    registers.rip -= 2
    registers.rax, registers.orig_rax = number, 2**64 - 1
    for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), args):
        setattr(registers, name, value % 2**64)
    ptrace(SETREGS, tid, None, ctypes.byref(registers))
    ptrace(DETACH, tid)
