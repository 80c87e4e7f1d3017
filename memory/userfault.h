/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page faults of guest RAM that this process resolves: userfaultfd (Linux
 * Documentation/admin-guide/mm/userfaultfd.rst, include/uapi/linux/userfaultfd.h).
 *
 * One object is one userfaultfd. Ranges of the process's own mappings are registered for
 * pages that are missing, or for writes to pages that were protected; whoever touches
 * one waits until it is resolved, vCPUs and system calls included, so one thread
 * reads events and must itself never touch what it serves. Faults of other processes that
 * map the same memfd, and DMA, are not seen.
 *
 * The kernel's own faults (KVM's, vhost's, those of read(2) into RAM) are served only for
 * a userfaultfd made with privilege; one without is of no use here and is refused.
 *
 * Any thread may call the functions on ranges; userfault_read is for one at a time.
 * Ranges and addresses are multiples of the region's page size.
 */
#ifndef MEMORY_USERFAULT_H
#define MEMORY_USERFAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/thread.h"

enum userfault_mode {
	USERFAULT_MISSING = 1,	     /* a touch of a page that is not there */
	USERFAULT_WRITE_PROTECT = 2, /* a write to a page that is protected */
};

struct userfault {
	int fd;
	bool poison; /* userfault_poison is there (Linux 6.6) */
};

struct userfault_event {
	uint8_t *address; /* of the page, cut to 4096 */
	bool protected;	  /* a write to a protected page; else a missing one */
};

/*
 * mode: of enum userfault_mode, what the kernel must be able to do on shmem and hugetlb.
 * device: an open /dev/userfaultfd, or -1 to try it and then userfaultfd(2). Made by
 * thread_run_in_starter. -EOPNOTSUPP: the kernel has no such thing, or refuses the
 * privilege; the message says what would help.
 */
int userfault_open(struct userfault *uf, unsigned int mode, int device,
		   const struct thread_policy *policy, struct error *err);
void userfault_close(struct userfault *uf); /* wakes whoever waits */

int userfault_register(const struct userfault *uf, uint8_t *start, uint64_t len, unsigned int mode,
		       struct error *err);
/* Forgets protection, wakes who waits. In steps, so that faults of other threads are not
 * kept waiting for a large range. */
void userfault_unregister(const struct userfault *uf, uint8_t *start, uint64_t len);

/* -errno each. Unprotecting wakes. */
int userfault_protect(const struct userfault *uf, uint8_t *start, uint64_t len);
int userfault_unprotect(const struct userfault *uf, uint8_t *start, uint64_t len);

/*
 * Puts pages in place where they are missing, those that are there stay, and wakes.
 * page_size: of the backing.
 */
int userfault_copy(const struct userfault *uf, uint8_t *start, const void *from, uint64_t len,
		   uint32_t page_size);
int userfault_zero(const struct userfault *uf, uint8_t *start, uint64_t len, uint32_t page_size);
/* Touching these fails from now on (SIGBUS, EFAULT). -EOPNOTSUPP before Linux 6.6. */
int userfault_poison(const struct userfault *uf, uint8_t *start, uint64_t len);
int userfault_wake(const struct userfault *uf, uint8_t *start, uint64_t len);

/* Up to max events that are there; 0: none (fd is non-blocking, for poll). -errno. */
int userfault_read(const struct userfault *uf, struct userfault_event *events, unsigned int max);

#endif
