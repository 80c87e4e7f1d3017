/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM.
 *
 * All of it is memfd-backed and shared (MFD_CLOEXEC, sealed against shrinking),
 * so that IOMMUs, vhost-user and vfio-user servers, snapshots and a live update
 * can map it by file. A region is a run of guest-physical addresses (gpa) backed
 * by one memfd at one offset and mapped at one host address (hva).
 *
 * Regions are added by the control plane while no vCPU and no device runs that
 * could use them; afterwards any thread may read and write. Region pointers stay
 * valid until guest_memory_free().
 *
 * Guest addresses are hostile: every access is bounds-checked, an access may
 * cross from one region into an adjacent one, and a fault is -EFAULT, never a
 * crash. Everything the VMM writes into guest RAM goes through
 * guest_memory_write() or is followed by guest_memory_mark_dirty(): KVM's dirty
 * log sees only what vCPUs write.
 */
#ifndef MEMORY_GUEST_MEMORY_H
#define MEMORY_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

#define GUEST_PAGE_SIZE 4096UL

struct guest_memory;

struct guest_memory_region {
	uint64_t gpa;	    /* page-aligned guest-physical start */
	uint64_t size;	    /* bytes, a multiple of the backing page size */
	int memfd;	    /* owned by the guest_memory; -1: private (guest_memory_add_private) */
	uint64_t offset;    /* of gpa in memfd, bytes */
	uint8_t *hva;	    /* of gpa, read-write mapping */
	uint32_t page_size; /* backing page size: 4096, 2 MiB, 1 GiB */
};

struct guest_memory_options {
	uint64_t size;		    /* bytes of RAM, a multiple of 4096 (of the hugepage size) */
	uint64_t hugepage_size;	    /* 0: ordinary pages; 2 MiB or 1 GiB: hugetlb */
	bool transparent_hugepages; /* madvise(MADV_HUGEPAGE) on ordinary pages */
	bool prefault;		    /* allocate every page now, in parallel */
	bool mergeable;		    /* madvise(MADV_MERGEABLE) */
	uint64_t low_end;	    /* RAM below 4 GiB ends here at the latest (the hole's start) */
	uint64_t high_start;	    /* and the rest starts here: 4 GiB */
};

/*
 * Creates RAM: one memfd, mapped as [0, low_end) and, if it is larger,
 * [high_start, ...). Errors: -EINVAL size 0, odd, or larger than the host's
 * physical memory (named with the figure that would do); -ENOMEM, also where
 * too few hugepages are reserved (the message says how many are missing and the
 * sysctl that would help).
 */
struct guest_memory *guest_memory_new(const struct guest_memory_options *options,
				      struct error *err);
void guest_memory_free(struct guest_memory *memory);

/* Adds a region of a memfd of the caller's, which the guest_memory takes over
 * on success. -EEXIST where it overlaps another. */
int guest_memory_add(struct guest_memory *memory, uint64_t gpa, uint64_t size, int memfd,
		     uint64_t offset, struct error *err);

/* RAM without a region yet, for the two above and below: it is as another machine had it. */
struct guest_memory *guest_memory_new_empty(struct error *err);

/*
 * Adds a region that starts as [offset, offset + size) of a file of the caller's, opened
 * for reading, which stays as it is: what is written belongs to this process, and what is
 * not is shared with all that map the file. So nobody else can map such RAM, and none of
 * it can be given back to the host; `memfd` is -1. The file must not shrink. Ordinary
 * pages only; fd stays the caller's and may be closed.
 */
int guest_memory_add_private(struct guest_memory *memory, uint64_t gpa, uint64_t size, int fd,
			     uint64_t offset, struct error *err);

/* Sorted by gpa. */
unsigned int guest_memory_region_count(const struct guest_memory *memory);
const struct guest_memory_region *guest_memory_region(const struct guest_memory *memory,
						      unsigned int index);
/* NULL where no region holds gpa. */
const struct guest_memory_region *guest_memory_find(const struct guest_memory *memory,
						    uint64_t gpa);
uint64_t guest_memory_size(const struct guest_memory *memory); /* bytes in all regions */

/* Copies; 0, or -EFAULT (with nothing copied) where any byte is not RAM. */
int guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *buf, size_t len);
int guest_memory_write(struct guest_memory *memory, uint64_t gpa, const void *buf, size_t len);
/* Fills with zero. */
int guest_memory_zero(struct guest_memory *memory, uint64_t gpa, uint64_t len);

/* The host address of [gpa, gpa + len) where that lies in one region, else NULL.
 * The guest may change what is there at any time: read each field once. */
void *guest_memory_ptr(const struct guest_memory *memory, uint64_t gpa, uint64_t len);

/*
 * The host ranges of [gpa, gpa + len), appended to iov[*count...max): more than
 * one where it crosses regions. -EFAULT not RAM, -E2BIG no room.
 */
int guest_memory_iov(const struct guest_memory *memory, uint64_t gpa, uint64_t len,
		     struct iovec *iov, unsigned int *count, unsigned int max);

/* Marks what the VMM wrote through a pointer or by I/O. Cheap, and nothing but a
 * load, while no one tracks VMM writes. Addresses outside RAM are ignored. */
void guest_memory_mark_dirty(struct guest_memory *memory, uint64_t gpa, uint64_t len);

/*
 * Allocates the 2 MiB extents that [gpa, gpa + len) touches as huge pages, where transparent
 * huge pages are asked for. Without it a memfd gets small ones on hosts with
 * shmem_enabled=never (the kernel's default), and each costs a fault. Advice: nothing fails,
 * addresses outside RAM are ignored. Keeps what is there. Any thread.
 */
void guest_memory_make_huge(struct guest_memory *memory, uint64_t gpa, uint64_t len);

/*
 * That, by a thread beside what goes on: the guest is about to use all of the range, and need
 * not wait to begin. Downwards where somebody fills it upwards meanwhile: both would allocate
 * the same extent at the same time, all the way. Ranges are taken in the order of the calls.
 * Control plane, one caller at a time.
 */
enum expect_order { EXPECT_UPWARDS, EXPECT_DOWNWARDS };
void guest_memory_expect(struct guest_memory *memory, uint64_t gpa, uint64_t len,
			 enum expect_order order);

/* Waits until everything that was expected is there. As guest_memory_expect(). */
void guest_memory_expect_wait(struct guest_memory *memory);

/*
 * Allocates every page now, in parallel; huge pages as guest_memory_make_huge() has them,
 * unless a guest or a device uses RAM already. What pins RAM allocates it all, too, but
 * in one thread, and by file in small pages. Control plane. -ENOMEM.
 */
int guest_memory_prefault(struct guest_memory *memory, bool in_use, struct error *err);

/* Returns RAM to the host (fallocate PUNCH_HOLE): balloon, free-page reporting.
 * Whole backing pages inside the range only. Reads as zero afterwards. */
int guest_memory_discard(struct guest_memory *memory, uint64_t gpa, uint64_t len);

/*
 * Whether huge pages may be made of ordinary ones. While RAM is filled by userfaultfd they
 * must not: kernels before 6.4 count a page that is still to come as zero then, and a huge
 * page that is discarded in part may stay. Allowed again, it is as guest_memory_new() had
 * it. Control plane.
 */
void guest_memory_allow_huge(struct guest_memory *memory, bool allow);

/*
 * While RAM is saved or filled by userfaultfd, each page is touched before it is discarded:
 * what was in it is saved first, and what is still to be filled in is not filled in
 * afterwards. Calls nest; hold before the guest runs.
 */
void guest_memory_hold_discards(struct guest_memory *memory);
void guest_memory_release_discards(struct guest_memory *memory);

#endif
