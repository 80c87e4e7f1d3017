/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File descriptors: whole reads and writes, eventfds, and passing them over a
 * unix socket. All return 0 (or a count) or a negative errno. Any thread.
 */
#ifndef BASE_FD_H
#define BASE_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads or writes exactly `len` bytes; -ENODATA at an early end of file. */
int fd_read_full(int fd, void *buf, size_t len);
int fd_write_full(int fd, const void *buf, size_t len);
int fd_pread_full(int fd, void *buf, size_t len, off_t offset);

int fd_set_nonblocking(int fd, bool nonblocking);

/*
 * Room for `count` descriptors more, made now: where threads share the table, to let it grow
 * takes the kernel many milliseconds. fd is any that is open. -EMFILE: there is none.
 */
int fd_reserve(int fd, unsigned int count);

/* A non-blocking, close-on-exec eventfd with count 0, or -errno. */
int eventfd_new(void);
/* Adds 1; never blocks (a saturated counter is already signalled). */
void eventfd_signal(int fd);
/* Resets to 0; returns true where it was signalled. */
bool eventfd_drain(int fd);

#define FD_PASS_MAX 64

/* recvmsg with SCM_RIGHTS: bytes read (0: peer closed) or -errno. *nfds goes in
 * as the room in fds and comes out as what arrived, close-on-exec, caller owns.
 * More descriptors than room: all are closed and -EMFILE is returned. */
ssize_t fd_recv(int sock, void *buf, size_t len, int *fds, unsigned int *nfds);
/* sendmsg of the whole buffer, descriptors with its first byte. */
int fd_send(int sock, const void *buf, size_t len, const int *fds, unsigned int nfds);

#endif
