/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/snapshot_devices.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "migration/crc32c.h"

#define VERSION 1
#define STREAM_VERSION 1
#define BUFFER_SIZE (1U << 20)

static const char *const stream_known[] = { "id", "kind", "bytes", "crc32c", NULL };

#define NAME_MAX_LEN 24

static void file_name(unsigned int index, char name[NAME_MAX_LEN])
{
	snprintf(name, NAME_MAX_LEN, "device%u", index);
}

/* --- writing --------------------------------------------------------------------------- */

int snapshot_devices_find(struct snapshot_devices *devices, const struct migration_vm *vm,
			  struct error *err)
{
	struct migratable *found[MIGRATION_DEVICES_MAX];
	int n = migration_vm_devices(vm, found, "saved", err);

	if (n <= 0)
		return n;
	devices->buf = malloc(BUFFER_SIZE);
	if (!devices->buf)
		return error_set_errno(err, ENOMEM, "save devices");
	for (int i = 0; i < n; i++) {
		struct snapshot_device *d = &devices->devices[i];

		*d = (struct snapshot_device){ .device = found[i], .fd = -1 };
		snprintf(d->id, sizeof(d->id), "%s", found[i]->id);
		snprintf(d->kind, sizeof(d->kind), "%s", found[i]->ops->kind);
	}
	devices->count = (unsigned int)n;
	return 0;
}

/* Reads up to `limit` bytes of what the device has now, and writes them to its file. */
static int copy(struct snapshot_devices *devices, struct snapshot_device *d, uint64_t limit,
		struct error *err)
{
	while (limit) {
		size_t room = limit < BUFFER_SIZE ? (size_t)limit : BUFFER_SIZE;
		ssize_t n = d->device->ops->save_read(d->device, devices->buf, room, err);
		int r;

		if (n <= 0)
			return (int)n;
		if ((size_t)n > room)
			return error_set(err, EOVERFLOW, "device %s: read more than was asked for",
					 d->id);
		r = fd_write_full(d->fd, devices->buf, (size_t)n);
		if (r)
			return error_set_errno(err, r, "state of device %s", d->id);
		d->crc = crc32c(d->crc, devices->buf, (size_t)n);
		d->bytes += (uint64_t)n;
		limit -= (uint64_t)n;
	}
	return 0;
}

static int begin_one(struct snapshot_devices *devices, unsigned int index, struct snapshot_dir *dir,
		     struct error *err)
{
	struct snapshot_device *d = &devices->devices[index];
	struct migratable_pending pending = { 0 };
	char name[NAME_MAX_LEN];
	int r;

	file_name(index, name);
	d->fd = snapshot_open_at(dir->policy, dir->fd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
	if (d->fd < 0)
		return error_set_errno(err, d->fd, "%s", name);
	d->begun = true;
	r = d->device->ops->save_begin(d->device, err);
	if (r || !d->device->precopy)
		return r;
	r = d->device->ops->save_pending(d->device, &pending, err);
	/* What changes is worth more in the pause: once is enough. */
	return r ? r : copy(devices, d, pending.initial + pending.dirty, err);
}

int snapshot_devices_begin(struct snapshot_devices *devices, struct snapshot_dir *dir,
			   struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < devices->count; i++)
		r = begin_one(devices, i, dir, err);
	return r;
}

int snapshot_devices_stop(struct snapshot_devices *devices, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < devices->count; i++)
		r = devices->devices[i].device->ops->quiesce(devices->devices[i].device, err);
	for (unsigned int i = 0; !r && i < devices->count; i++)
		r = devices->devices[i].device->ops->save_stop(devices->devices[i].device, err);
	return r;
}

int snapshot_devices_rest(struct snapshot_devices *devices, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < devices->count; i++) {
		struct snapshot_device *d = &devices->devices[i];

		r = copy(devices, d, UINT64_MAX, err);
		if (!r)
			r = d->device->ops->save_end(d->device, err);
	}
	return r;
}

int snapshot_devices_rollback(struct snapshot_devices *devices, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < devices->count; i++) {
		struct snapshot_device *d = &devices->devices[i];
		int one = d->begun ? d->device->ops->rollback(d->device, r ? NULL : err) : 0;

		d->begun = false;
		r = r ? r : one;
	}
	return r;
}

int snapshot_devices_finish(struct snapshot_devices *devices, struct state_writer *writer,
			    struct error *err)
{
	char name[NAME_MAX_LEN];

	if (!devices->count)
		return 0;
	state_begin(writer, "device-streams", "device-streams", VERSION);
	for (unsigned int i = 0; i < devices->count; i++) {
		const struct snapshot_device *d = &devices->devices[i];

		if (fsync(d->fd))
			return error_set_errno(err, errno, "state of device %s: sync", d->id);
		snprintf(name, sizeof(name), "stream%u", i);
		state_begin(writer, name, "device-stream", STREAM_VERSION);
		state_put_string(writer, "id", d->id);
		state_put_string(writer, "kind", d->kind);
		state_put_u64(writer, "bytes", d->bytes);
		state_put_u32(writer, "crc32c", d->crc);
		state_end(writer);
	}
	state_end(writer);
	return 0;
}

void snapshot_devices_end(struct snapshot_devices *devices)
{
	for (unsigned int i = 0; i < devices->count; i++)
		cleanup_close(&devices->devices[i].fd);
	free(take_ptr(devices->buf));
	devices->count = 0;
}

/* --- reading --------------------------------------------------------------------------- */

static int read_node(struct snapshot_device *d, const struct state_node *node, struct error *err)
{
	const char *id, *kind;
	int r = state_expect(node, "device-stream", STREAM_VERSION, stream_known, NULL, err);

	if (!r)
		r = state_get_string(node, "id", &id, err);
	if (!r)
		r = state_get_string(node, "kind", &kind, err);
	if (!r)
		r = state_get_u64(node, "bytes", &d->bytes, err);
	if (!r)
		r = state_get_u32(node, "crc32c", &d->crc, err);
	if (r)
		return r;
	if (!*id || strlen(id) >= sizeof(d->id) || !*kind || strlen(kind) >= sizeof(d->kind))
		return error_set(err, EINVAL, "state: a device stream has no name that can be one");
	snprintf(d->id, sizeof(d->id), "%s", id);
	snprintf(d->kind, sizeof(d->kind), "%s", kind);
	return 0;
}

static int open_stream(struct snapshot_device *d, unsigned int index, int dirfd,
		       const struct thread_policy *policy, struct error *err)
{
	char name[NAME_MAX_LEN];
	struct stat st;

	file_name(index, name);
	d->fd = snapshot_open_at(policy, dirfd, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0);
	if (d->fd < 0)
		return error_set_errno(err, d->fd, "%s", name);
	if (fstat(d->fd, &st))
		return error_set_errno(err, errno, "%s", name);
	if (!S_ISREG(st.st_mode))
		return error_set(err, EINVAL, "%s: it is no regular file", name);
	if ((uint64_t)st.st_size != d->bytes)
		return error_set(err, EINVAL,
				 "%s: it has %" PRIu64 " bytes instead of %" PRIu64
				 ": truncated, or not of this snapshot",
				 name, (uint64_t)st.st_size, d->bytes);
	return 0;
}

int snapshot_devices_open(struct snapshot_devices *devices, const struct state_node *root,
			  int dirfd, const struct thread_policy *policy, struct error *err)
{
	struct state_node node, child = { .offset = -1 };
	int r;

	if (!state_has_child(root, "device-streams", &node))
		return 0;
	r = state_expect(&node, "device-streams", VERSION, NULL, NULL, err);
	while (!r && state_next_child(&node, &child)) {
		struct snapshot_device *d = &devices->devices[devices->count];

		if (devices->count == MIGRATION_DEVICES_MAX)
			return error_set(err, EINVAL, "state: more than %d device streams",
					 MIGRATION_DEVICES_MAX);
		*d = (struct snapshot_device){ .fd = -1 };
		r = read_node(d, &child, err);
		for (unsigned int i = 0; !r && i < devices->count; i++)
			if (!strcmp(devices->devices[i].id, d->id))
				r = error_set(err, EINVAL, "state: device %s is there twice",
					      d->id);
		if (!r)
			r = open_stream(d, devices->count, dirfd, policy, err);
		devices->count++;
	}
	return r;
}

static struct snapshot_device *find(struct snapshot *snapshot, const char *id)
{
	for (unsigned int i = 0; i < snapshot->devices.count; i++)
		if (!strcmp(snapshot->devices.devices[i].id, id))
			return &snapshot->devices.devices[i];
	return NULL;
}

static int load_stream(const struct snapshot_device *d, struct migratable *m, uint8_t *buf,
		       struct error *err)
{
	uint32_t crc = 0;
	int r = m->ops->load_begin(m, err);

	for (uint64_t at = 0; !r && at < d->bytes;) {
		size_t n = d->bytes - at < BUFFER_SIZE ? (size_t)(d->bytes - at) : BUFFER_SIZE;

		r = fd_pread_full(d->fd, buf, n, (off_t)at);
		if (r)
			return error_set_errno(err, r, "state of device %s", d->id);
		crc = crc32c(crc, buf, n);
		r = m->ops->load_write(m, buf, n, err);
		at += n;
	}
	if (!r && crc != d->crc)
		return error_set(err, EINVAL, "state of device %s is damaged (CRC32C)", d->id);
	return r ? r : m->ops->load_end(m, err);
}

int snapshot_load_devices(struct snapshot *snapshot, struct migratable *const *targets,
			  unsigned int count, struct error *err)
{
	_cleanup_free_ uint8_t *buf = malloc(BUFFER_SIZE);
	int r = 0;

	if (!buf)
		return error_set_errno(err, ENOMEM, "load devices");
	if (count != snapshot->devices.count)
		return error_set(err, EINVAL,
				 "the snapshot has the state of %u assigned devices, the VM has %u",
				 snapshot->devices.count, count);
	for (unsigned int i = 0; !r && i < count; i++) {
		const struct snapshot_device *d = find(snapshot, targets[i]->id);

		if (!d)
			return error_set(err, EINVAL, "the snapshot has no state of device %s",
					 targets[i]->id);
		if (strcmp(d->kind, targets[i]->ops->kind) != 0)
			return error_set(
				err, EINVAL,
				"device %s: its state was saved by \"%s\", this one has it "
				"by \"%s\": give it a device with the same driver (or "
				"plugin)",
				d->id, d->kind, targets[i]->ops->kind);
		r = load_stream(d, targets[i], buf, err);
	}
	return r;
}
