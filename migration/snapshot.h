/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: a VM in a directory.
 *
 *   config.json   the configuration, as of vm.create
 *   state         the state tree: "cpu", "machine", "snapshot" (version, id, what is in
 *                 `ram`, and where the rest of it is)
 *   ram           guest RAM, one region after the other. Plain: sparse, at its offset;
 *                 zero pages and pages never touched are holes. Compressed: units of
 *                 256 KiB, each a zstd frame at a multiple of 4 KiB, found by an index
 *                 in the state tree.
 *
 * A snapshot is full, or differential: then it holds the pages written since its base,
 * another snapshot directory, which it names (relative where both have the same parent)
 * and whose id it knows.
 *
 * A directory is written beside its final place as ".<name>.XXXXXX.tmp", synced with all
 * its files and renamed: under the final name it is complete, or not there.
 *
 * live: the VM is paused only to save its state tree. Before that, while it runs, its RAM
 * is write-protected by userfaultfd; in the pause only what it wrote meanwhile is
 * protected again, so the pause does not grow with RAM. Afterwards RAM is written
 * out as it was in the pause while the VM runs; a write to what is not saved yet waits
 * until a thread has copied the 256 KiB around it to a bounded buffer. Needs userfaultfd
 * for the kernel's faults, too (root, CAP_SYS_PTRACE, or /dev/userfaultfd), Linux 5.19,
 * and that all writes to RAM go through this process's page tables: no device in another
 * process. Where it cannot be had the VM is paused until RAM is written, and the result says
 * why.
 *
 * Assigned devices (migration_vm_ops.devices): their streams are files beside `ram`,
 * "device0"... What they write by DMA userfaultfd does not see, so with live RAM is written
 * before the pause, in rounds, by the dirty sources; in the pause devices are stopped, and
 * what was written to since the last round, and the rest of their streams, is saved.
 *
 * Threads: snapshot_write and snapshot_fill block; they are called in a thread of kind
 * THREAD_MIGRATION (or one that may do as much). What such a thread's filter forbids runs
 * by thread_run_in_starter: openat, mkdirat, unlinkat, renameat2, ftruncate, io_uring_setup
 * and _register, userfaultfd. Of its own a thread of the kind needs, besides what the data
 * path may: ioctl UFFDIO_REGISTER, _UNREGISTER, _WRITEPROTECT, _COPY, _ZEROPAGE, _WAKE,
 * _POISON, and io_uring_enter, fsync, lseek, fstat, pread64, pwrite64, poll.
 *
 * While any of this runs the VM's regions must stay: no hotplug of memory; and nobody else
 * pauses, resumes or migrates it.
 */
#ifndef MIGRATION_SNAPSHOT_H
#define MIGRATION_SNAPSHOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/state_tree.h"
#include "base/thread.h"
#include "memory/guest_memory.h"
#include "migration/migration_vm.h"

#define SNAPSHOT_VERSION 1
#define SNAPSHOT_ID_SIZE 33   /* 32 hex digits and the end */
#define SNAPSHOT_CHAIN_MAX 64 /* a full one and the differential ones on it */
#define SNAPSHOT_REASON_MAX 256

/*
 * What was written since the VM's last snapshot, so that the next can be differential.
 * One per VM, made when tracking is first wanted; snapshot_write keeps it right, also
 * when it fails. It has the VM's dirty sources started from the first snapshot_write
 * that is given it until it is freed: free it before a migration.
 */
struct snapshot_tracking;
struct snapshot_tracking *snapshot_tracking_new(struct error *err);
void snapshot_tracking_free(struct snapshot_tracking *tracking); /* NULL is allowed */
/* The snapshot it counts from, "" before the first. */
const char *snapshot_tracking_id(const struct snapshot_tracking *tracking);

/* Read by any thread while the work goes on. Starts zeroed. */
enum snapshot_phase {
	SNAPSHOT_PREPARING, /* files, write protection; the VM runs */
	SNAPSHOT_PAUSED,    /* state tree; without live also RAM */
	SNAPSHOT_RAM,	    /* RAM; the VM runs */
	SNAPSHOT_SYNCING,   /* everything to the disk, rename */
	SNAPSHOT_DONE,
};
const char *snapshot_phase_name(enum snapshot_phase phase);

struct snapshot_progress {
	atomic_int phase;	      /* enum snapshot_phase */
	_Atomic uint64_t total;	      /* bytes of RAM to look at */
	_Atomic uint64_t done;	      /* of them, done with */
	_Atomic uint64_t transferred; /* bytes written to or read from disk */
	_Atomic uint64_t faults;      /* writes of the VM that waited; reads, in a lazy restore */
	atomic_bool cancel;	      /* set by anyone: -ECANCELED, nothing left behind */
};

struct snapshot_options {
	const char *dir; /* must not exist; its parent must */
	bool live;
	bool compress;
	int level;	  /* of zstd; 0: its default */
	const char *base; /* differential against this directory; NULL: full */
	/* Needed by base; goes on from this snapshot when it is complete. May be NULL. */
	struct snapshot_tracking *tracking;
	/* Not used: O_DIRECT by io_uring. For hosts and tests without. */
	bool plain_io;
	/* An open /dev/userfaultfd, for a process in a jail; -1: opened when needed. */
	int userfaultfd_device;
	const struct thread_policy *policy; /* of helper threads; may be NULL */
};

struct snapshot_result {
	char id[SNAPSHOT_ID_SIZE];
	const char *io;			    /* "io_uring", "pwrite": what wrote RAM */
	bool direct;			    /* O_DIRECT; false where the file system has none */
	bool live;			    /* the VM ran while RAM was written */
	unsigned int early_rounds;	    /* that were written before the pause */
	char not_live[SNAPSHOT_REASON_MAX]; /* why not, where it was asked for */
	uint64_t ram_bytes;		    /* of the VM */
	uint64_t written_bytes;		    /* to `ram` */
	uint64_t pause_ns;		    /* 0: it was not running */
	uint64_t pause_protect_ns, pause_save_ns; /* parts of it */
	uint64_t total_ns;
};

/*
 * Errors: -EEXIST dir exists; -ENOENT its parent or the base does not; -EINVAL the base is
 * not what was tracked since; -ENOSPC and what else a disk says; -ECANCELED; what the VM's
 * ops return. The VM then is in the state it was in before, and runs on where it ran.
 * progress may be NULL, result may be NULL.
 */
int snapshot_write(const struct snapshot_options *options, const struct migration_vm *vm,
		   struct snapshot_progress *progress, struct snapshot_result *result,
		   struct error *err);

/*
 * Reading. snapshot_open checks all of it but the contents of pages: files there and as
 * long as they must be, state tree whole and of a known version, regions, index, and the
 * chain of bases down to a full one. Errors name file and reason: -ENOENT, -EINVAL,
 * -EPROTONOSUPPORT newer. policy: opens files by thread_run_in_starter; may be NULL.
 */
struct snapshot;
struct snapshot *snapshot_open(const char *dir, const struct thread_policy *policy,
			       struct error *err);
void snapshot_close(struct snapshot *snapshot); /* NULL is allowed */

const char *snapshot_id(const struct snapshot *snapshot);
const char *snapshot_config(const struct snapshot *snapshot); /* JSON text, unparsed */
struct state_node snapshot_cpu(const struct snapshot *snapshot);
struct state_node snapshot_machine(const struct snapshot *snapshot);
uint64_t snapshot_ram_size(const struct snapshot *snapshot);
/* Gives the devices of the VM that was made their streams: before the node "machine" is
 * loaded. They are as many as were saved, by id. Does not let them run. */
int snapshot_load_devices(struct snapshot *snapshot, struct migratable *const *targets,
			  unsigned int count, struct error *err);

/*
 * Filling RAM, in one of three ways. The memory's regions must be the snapshot's (-EINVAL
 * naming the first that is not), empty, and untouched by the guest.
 */
struct snapshot_read_options {
	bool plain_io;
	int userfaultfd_device; /* lazy; as in snapshot_options */
	const struct thread_policy *policy;
};

/* Eager: all of it, now, in parallel. -EIO, -EINVAL (a corrupt frame), -ECANCELED. */
int snapshot_fill(struct snapshot *snapshot, struct guest_memory *memory,
		  const struct snapshot_read_options *options, struct snapshot_progress *progress,
		  struct error *err);

/*
 * Lazy: returns at once; a thread serves what is touched, and others, from
 * snapshot_lazy_fill on, fill RAM in order. Ends by itself; then the VM's RAM is as any
 * other. `snapshot` must stay open until snapshot_lazy_free. done, which may be NULL, is called
 * once, from a thread of this, with NULL or the error: RAM that cannot be read then stays
 * unreadable (SIGBUS, KVM_RUN fails with EFAULT; before Linux 6.6 the access waits until _free), so
 * the VM must be stopped. Refused, -EOPNOTSUPP, where there is no userfaultfd for the
 * kernel's faults; by the caller, where other processes map the RAM or devices DMA to it.
 */
struct snapshot_lazy;
struct snapshot_lazy *snapshot_lazy_start(struct snapshot *snapshot, struct guest_memory *memory,
					  const struct snapshot_read_options *options,
					  struct snapshot_progress *progress,
					  void (*done)(void *opaque, const struct error *err),
					  void *opaque, struct error *err);
/* From here on also what is not touched: the VM runs, and nobody waits for it any more whom
 * the fillers could keep from a CPU. Any thread. */
void snapshot_lazy_fill(struct snapshot_lazy *lazy);
/* Fills RAM and waits until that is done, at full speed: before a snapshot or a migration. */
int snapshot_lazy_wait(struct snapshot_lazy *lazy, struct error *err);
/* Ends it, filled or not; before guest_memory_free, after the vCPUs stopped. NULL is
 * allowed. Pages not filled are zero afterwards. Not from done(). */
void snapshot_lazy_free(struct snapshot_lazy *lazy);

/*
 * Shared-clean: the memory is made from these, each [offset, offset + size) of fd mapped
 * MAP_PRIVATE, read-write; clones share the pages that none of them wrote. fd is the
 * snapshot's, read-only: dup it. -EOPNOTSUPP, naming why: the snapshot is compressed or
 * differential.
 */
struct snapshot_file_region {
	uint64_t gpa, size;
	int fd;
	uint64_t offset; /* in the file */
};
int snapshot_shared_regions(struct snapshot *snapshot, const struct snapshot_file_region **regions,
			    unsigned int *count, struct error *err);

#endif
