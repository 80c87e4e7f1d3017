/* SPDX-License-Identifier: Apache-2.0 */
/* What the sources of snapshots share; nobody else includes this. */
#ifndef MIGRATION_SNAPSHOT_PRIVATE_H
#define MIGRATION_SNAPSHOT_PRIVATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/state_tree.h"
#include "memory/dirty_bitmap.h"
#include "migration/snapshot.h"

#define SNAPSHOT_REGIONS_MAX 64
#define SNAPSHOT_CONFIG_MAX (16u << 20) /* bytes */
#define SNAPSHOT_PATH_MAX 4096

/* Sizes and offsets in `ram` are multiples of it: what O_DIRECT asks for at most, and the
 * page of a guest. */
#define SNAPSHOT_BLOCK 4096u

/*
 * RAM is saved and filled by units: what is protected and copied at once in a live
 * snapshot, read at once in a lazy restore, and compressed as one frame. Larger only
 * where the guest's pages are.
 */
#define SNAPSHOT_UNIT (256u << 10)
#define SNAPSHOT_UNIT_MAX (2u << 20)

/* A compressed unit in `ram`. In the tree: both as 32 bits, little-endian. */
struct snapshot_frame {
	uint32_t block; /* where it starts, in SNAPSHOT_BLOCKs */
	uint32_t len;	/* bytes; 0: the unit is zero; the unit's own size: not compressed */
};

struct snapshot_region {
	uint64_t gpa, size;
	uint64_t offset;	    /* in a plain `ram`, a multiple of the unit */
	uint64_t first_unit, units; /* the last one may be short */
	/* Of a differential snapshot: the pages that are in it. */
	struct dirty_bitmap held;
};

struct snapshot_layout {
	uint32_t unit;	    /* bytes */
	uint64_t units;	    /* of all regions */
	uint64_t ram_size;  /* bytes of all regions */
	uint64_t plain_end; /* the size of a plain `ram` */
	unsigned int count;
	struct snapshot_region regions[SNAPSHOT_REGIONS_MAX];
};

/* What the node "snapshot" says. */
struct snapshot_image {
	char id[SNAPSHOT_ID_SIZE];
	char base_id[SNAPSHOT_ID_SIZE]; /* "": full */
	char base[SNAPSHOT_PATH_MAX];	/* as written */
	bool compressed;
	uint64_t file_size; /* of `ram` */
	struct snapshot_layout layout;
	struct snapshot_frame *frames; /* one per unit; compressed */
};

/* Appends a region; sets its place. -EINVAL, -E2BIG. */
int snapshot_layout_add(struct snapshot_layout *layout, uint64_t gpa, uint64_t size,
			struct error *err);
/* The layout of a VM's RAM. -EOPNOTSUPP: pages larger than a unit can be. */
int snapshot_layout_of(struct snapshot_layout *layout, const struct guest_memory *memory,
		       struct error *err);
/* -EINVAL naming the first region that is not the same. */
int snapshot_layout_match(const struct snapshot_layout *layout, const struct guest_memory *memory,
			  struct error *err);
void snapshot_layout_destroy(struct snapshot_layout *layout);

/* Where a unit is. */
struct snapshot_place {
	unsigned int region;
	uint64_t offset; /* in the region */
	uint64_t len;
};
struct snapshot_place snapshot_place(const struct snapshot_layout *layout, uint64_t unit);

/* Writes the node "snapshot". -ENOMEM. */
int snapshot_image_save(const struct snapshot_image *image, struct state_writer *writer,
			struct error *err);
/* Reads it: hostile. Everything is checked against everything but the file itself. */
int snapshot_image_load(struct snapshot_image *image, const struct state_node *root,
			struct error *err);
void snapshot_image_destroy(struct snapshot_image *image);
void snapshot_new_id(char id[SNAPSHOT_ID_SIZE]);

/* Files by the thread that may open them (snapshot_dir.c). An fd, or -errno. */
int snapshot_open_at(const struct thread_policy *policy, int dirfd, const char *name, int flags,
		     mode_t mode);
/* A directory in the making. */
struct snapshot_dir {
	const struct thread_policy *policy;
	int parent, fd;
	char name[240], temporary[256]; /* temporary: "" when it is gone */
	const char *path;		/* the caller's */
};
int snapshot_dir_create(struct snapshot_dir *dir, const char *path,
			const struct thread_policy *policy, struct error *err);
int snapshot_dir_file(struct snapshot_dir *dir, const char *name, const void *data, size_t len,
		      struct error *err);
/* Syncs the directory, renames it, syncs its parent. -EEXIST. */
int snapshot_dir_commit(struct snapshot_dir *dir, struct error *err);
/* Removes what there is, where it was not committed. */
void snapshot_dir_end(struct snapshot_dir *dir);

/* The base's path, as written into a snapshot at `path`: its name where both have the same
 * parent, else absolute. */
int snapshot_base_reference(const char *path, const char *base, char *reference, size_t size,
			    const struct thread_policy *policy, struct error *err);
/* And back. */
int snapshot_base_path(const char *path, const char *reference, char *base, size_t size,
		       struct error *err);

/* A device whose state is a stream, in a file of its own (snapshot_devices.h). */
struct snapshot_device {
	struct migratable *device; /* NULL where it is read */
	char id[64], kind[16];
	uint64_t bytes;
	uint32_t crc;
	int fd;
	bool begun; /* rollback is due */
};

struct snapshot_devices {
	unsigned int count;
	uint8_t *buf;
	struct snapshot_device devices[MIGRATION_DEVICES_MAX];
};

/* An opened snapshot: the image asked for first, then its bases down to a full one. */
struct snapshot {
	unsigned int count;
	struct snapshot_image *images[SNAPSHOT_CHAIN_MAX];
	int fds[SNAPSHOT_CHAIN_MAX];	/* `ram` of each, through the page cache */
	int direct[SNAPSHOT_CHAIN_MAX]; /* and past it where it can be, else the same fd */
	char *config;
	void *state;
	struct state_node root, cpu, machine;
	struct snapshot_devices devices; /* of the first */
	struct snapshot_file_region shared[SNAPSHOT_REGIONS_MAX];
};

/* Workers of kind THREAD_MIGRATION besides the calling thread: at most `max`. */
unsigned int snapshot_cpus(unsigned int max);

static inline bool snapshot_canceled(const struct snapshot_progress *progress)
{
	return progress && atomic_load_explicit(&progress->cancel, memory_order_relaxed);
}

static inline void snapshot_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

#endif
