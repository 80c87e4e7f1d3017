/* SPDX-License-Identifier: Apache-2.0 */
/* Output to a file descriptor of the caller's that may be in blocking mode, by a
 * thread that must not block. */
#ifndef DEVICES_LEGACY_OUTPUT_H
#define DEVICES_LEGACY_OUTPUT_H

#include <stddef.h>
#include <sys/types.h>

/* Writes what goes now: bytes written, 0 where none does, -errno where the fd is
 * of no use any more. */
ssize_t output_write(int fd, const void *data, size_t len);

#endif
