/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a snapshot and what it is based on. All of it is hostile. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "migration/snapshot_devices.h"

/* A regular file's descriptor and size, or -errno. O_NONBLOCK: a fifo must not stop us. */
static int open_file(const struct thread_policy *policy, int dirfd, const char *name,
		     uint64_t *size, struct error *err)
{
	_cleanup_close_ int fd =
		snapshot_open_at(policy, dirfd, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0);
	struct stat st;

	if (fd < 0)
		return error_set_errno(err, fd, "%s", name);
	if (fstat(fd, &st))
		return error_set_errno(err, errno, "%s", name);
	if (!S_ISREG(st.st_mode))
		return error_set(err, EINVAL, "%s: it is no regular file", name);
	*size = (uint64_t)st.st_size;
	return take_fd(&fd);
}

/* The whole of a file, terminated; malloc'ed. */
static char *read_file(const struct thread_policy *policy, int dirfd, const char *name, size_t max,
		       size_t *len, struct error *err)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int fd = -1;
	uint64_t size = 0;
	int r;

	fd = open_file(policy, dirfd, name, &size, err);
	if (fd < 0)
		return NULL;
	if (!size || size > max) {
		error_set(err, EINVAL,
			  "%s: it has %" PRIu64 " bytes, between 1 and %zu are expected", name,
			  size, max);
		return NULL;
	}
	text = malloc((size_t)size + 1);
	r = text ? fd_pread_full(fd, text, (size_t)size, 0) : -ENOMEM;
	if (r) {
		error_set_errno(err, r, "%s", name);
		return NULL;
	}
	text[size] = '\0';
	*len = (size_t)size;
	return take_ptr(text);
}

static int open_ram(struct snapshot *s, unsigned int index, int dirfd,
		    const struct thread_policy *policy, struct error *err)
{
	uint64_t want = s->images[index]->file_size, size = 0;
	int fd = open_file(policy, dirfd, "ram", &size, err);

	if (fd < 0)
		return fd;
	s->fds[index] = s->direct[index] = fd;
	if (size != want)
		return error_set(err, EINVAL,
				 "ram: it has %" PRIu64 " bytes instead of %" PRIu64
				 ": truncated, or not of this snapshot",
				 size, want);
	fd = snapshot_open_at(policy, dirfd, "ram", O_RDONLY | O_NOFOLLOW | O_DIRECT, 0);
	if (fd >= 0)
		s->direct[index] = fd;
	return 0;
}

static int check_against_child(const struct snapshot *s, unsigned int index, struct error *err)
{
	const struct snapshot_image *image = s->images[index], *child = s->images[index - 1];
	const struct snapshot_layout *a = &image->layout, *b = &child->layout;

	if (strcmp(image->id, child->base_id))
		return error_set(err, EINVAL,
				 "state: it is snapshot %s, the one based on it was made on %s",
				 image->id, child->base_id);
	for (unsigned int i = 0; i < MAX(a->count, b->count); i++)
		if (i >= a->count || i >= b->count || a->regions[i].gpa != b->regions[i].gpa ||
		    a->regions[i].size != b->regions[i].size)
			return error_set(err, EINVAL,
					 "state: its RAM is not that of the snapshot based on it");
	if (a->unit != b->unit)
		return error_set(err, EINVAL,
				 "state: its units are not those of the snapshot based on it");
	return 0;
}

static struct snapshot_image *load_image(const struct state_node *root, struct error *err)
{
	struct snapshot_image *image = malloc(sizeof(*image));

	if (!image) {
		error_set_errno(err, ENOMEM, "state");
		return NULL;
	}
	if (!snapshot_image_load(image, root, err))
		return image;
	error_prefix(err, "state");
	free(image);
	return NULL;
}

/* One directory of the chain. The first one's tree is kept: it is the VM's. */
static int open_one(struct snapshot *s, const char *path, const struct thread_policy *policy,
		    struct error *err)
{
	struct state_node root = { .offset = -1 };
	unsigned int index = s->count;
	_cleanup_free_ char *blob = NULL;
	_cleanup_close_ int dirfd = -1;
	size_t len = 0;
	int r;

	dirfd = snapshot_open_at(policy, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
	if (dirfd < 0)
		return error_set_errno(err, dirfd, "open it");
	blob = read_file(policy, dirfd, "state", STATE_TREE_SIZE_MAX, &len, err);
	if (!blob)
		return -EINVAL;
	r = state_tree_open(blob, len, &root, err);
	if (r) {
		error_prefix(err, "state");
		return r;
	}
	s->images[index] = load_image(&root, err);
	if (!s->images[index])
		return -EINVAL;
	s->fds[index] = s->direct[index] = -1;
	s->count++;
	if (index)
		r = check_against_child(s, index, err);
	if (!r)
		r = open_ram(s, index, dirfd, policy, err);
	if (r || index)
		return r;
	s->root = root;
	s->state = take_ptr(blob);
	r = snapshot_devices_open(&s->devices, &root, dirfd, policy, err);
	if (r)
		return r;
	s->config = read_file(policy, dirfd, "config.json", SNAPSHOT_CONFIG_MAX, &len, err);
	if (!s->config)
		return -EINVAL;
	if (strlen(s->config) != len)
		return error_set(err, EINVAL, "config.json: it has a NUL byte");
	return 0;
}

static int open_chain(struct snapshot *s, const char *dir, const struct thread_policy *policy,
		      struct error *err)
{
	char path[SNAPSHOT_PATH_MAX], base[SNAPSHOT_PATH_MAX];
	int r = open_one(s, dir, policy, err);

	if (r || strlen(dir) >= sizeof(path))
		return r ? r : error_set(err, ENAMETOOLONG, "its path is too long");
	strcpy(path, dir);
	while (s->count && s->images[s->count - 1]->base_id[0]) {
		if (s->count == SNAPSHOT_CHAIN_MAX)
			return error_set(err, EINVAL, "it is based on more than %d others",
					 SNAPSHOT_CHAIN_MAX - 1);
		r = snapshot_base_path(path, s->images[s->count - 1]->base, base, sizeof(base),
				       err);
		if (r)
			return r;
		r = open_one(s, base, policy, err);
		if (r) {
			error_prefix(err, "its base %.200s", base);
			return r;
		}
		strcpy(path, base);
	}
	return 0;
}

static int find_nodes(struct snapshot *s, struct error *err)
{
	int r = state_child(&s->root, "cpu", &s->cpu, err);

	if (!r)
		r = state_child(&s->root, "machine", &s->machine, err);
	if (r)
		error_prefix(err, "state");
	return r;
}

struct snapshot *snapshot_open(const char *dir, const struct thread_policy *policy,
			       struct error *err)
{
	struct snapshot *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		error_set_errno(err, ENOMEM, "open snapshot %s", dir);
		return NULL;
	}
	r = open_chain(s, dir, policy, err);
	if (!r)
		r = find_nodes(s, err);
	if (r) {
		error_prefix(err, "open snapshot %.200s", dir);
		snapshot_close(s);
		return NULL;
	}
	return s;
}

void snapshot_close(struct snapshot *snapshot)
{
	if (!snapshot)
		return;
	for (unsigned int i = 0; i < snapshot->count; i++) {
		snapshot_image_destroy(snapshot->images[i]);
		free(snapshot->images[i]);
		if (snapshot->direct[i] >= 0 && snapshot->direct[i] != snapshot->fds[i])
			close(snapshot->direct[i]);
		if (snapshot->fds[i] >= 0)
			close(snapshot->fds[i]);
	}
	snapshot_devices_end(&snapshot->devices);
	free(snapshot->config);
	free(snapshot->state);
	free(snapshot);
}

const char *snapshot_id(const struct snapshot *snapshot)
{
	return snapshot->images[0]->id;
}

const char *snapshot_config(const struct snapshot *snapshot)
{
	return snapshot->config;
}

struct state_node snapshot_cpu(const struct snapshot *snapshot)
{
	return snapshot->cpu;
}

struct state_node snapshot_machine(const struct snapshot *snapshot)
{
	return snapshot->machine;
}

uint64_t snapshot_ram_size(const struct snapshot *snapshot)
{
	return snapshot->images[0]->layout.ram_size;
}

int snapshot_shared_regions(struct snapshot *snapshot, const struct snapshot_file_region **regions,
			    unsigned int *count, struct error *err)
{
	const struct snapshot_image *image = snapshot->images[0];

	if (image->compressed)
		return error_set(
			err, EOPNOTSUPP,
			"share the snapshot's pages: it is compressed, and memory cannot be "
			"mapped from it; restore it eagerly or lazily");
	if (snapshot->count > 1)
		return error_set(
			err, EOPNOTSUPP,
			"share the snapshot's pages: it is differential, and memory cannot be "
			"mapped from several files; restore it eagerly or lazily");
	for (unsigned int i = 0; i < image->layout.count; i++)
		snapshot->shared[i] = (struct snapshot_file_region){
			.gpa = image->layout.regions[i].gpa,
			.size = image->layout.regions[i].size,
			.fd = snapshot->fds[0],
			.offset = image->layout.regions[i].offset,
		};
	*regions = snapshot->shared;
	*count = image->layout.count;
	return 0;
}
