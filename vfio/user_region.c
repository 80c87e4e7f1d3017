/* SPDX-License-Identifier: Apache-2.0 */
/* Regions of a vfio-user device: what they are, accesses by messages, mappings, and
 * writes that become eventfds. */
#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "vfio/user_private.h"

/* A reply with 64 areas takes a little over 1 KiB. */
#define INFO_MAX 16384
#define IO_FDS_MAX 256

static void close_all(int *fds, unsigned int *count)
{
	while (*count)
		close(fds[--*count]);
}

void user_regions_free(struct user_transport *u)
{
	for (unsigned int i = 0; i < VFIO_REGIONS_MAX; i++) {
		struct user_region *r = u->regions[i];

		if (!r)
			continue;
		if (r->region.map_fd >= 0)
			close(r->region.map_fd);
		close_all(r->io_fds, &r->io_fd_count);
		free(r->ioeventfds);
		free(r);
	}
}

/* Asks with room for `len` bytes of reply; fd stays -1 where none comes. */
static int ask_info(struct user_transport *u, uint32_t index, uint8_t *reply, size_t len,
		    size_t *got, int *fd, struct error *err)
{
	struct vfio_region_info m = { .argsz = (uint32_t)len, .index = index };
	struct user_call call = {
		.command = VFIO_USER_DEVICE_GET_REGION_INFO,
		.out = { { &m, sizeof(m) } },
		.in = { { reply, sizeof(m) }, { reply + sizeof(m), len - sizeof(m) } },
		.reply_fds = fd,
		.reply_fds_max = 1,
	};
	int r = user_connection_call(u->connection, &call, err);

	*got = sizeof(m) + call.received;
	if (!r && !call.reply_fd_count)
		*fd = -1;
	return r;
}

/* err is not NULL. */
static int fetch_info(struct user_transport *u, uint32_t index, struct vfio_region *region,
		      struct error *err)
{
	_cleanup_free_ uint8_t *reply = malloc(INFO_MAX);
	_cleanup_close_ int fd = -1;
	struct vfio_region_info info;
	size_t got;
	int r;

	if (!reply)
		return error_set_errno(err, ENOMEM, "vfio-user device %s: region %u", u->t.name,
				       index);
	*region = (struct vfio_region){ .index = index, .map_fd = -1 };
	r = ask_info(u, index, reply, INFO_MAX, &got, &fd, err);
	if (r == -EINVAL) { /* an index it does not know */
		error_clear(err);
		return 0;
	}
	if (r)
		return r;
	memcpy(&info, reply, sizeof(info));
	/* Capabilities that do not fit are left out, and argsz says what it would take. */
	if (info.argsz > INFO_MAX)
		return user_connection_break(u->connection, err,
					     "region %u is described in %u bytes, at most %u are "
					     "taken",
					     index, info.argsz, INFO_MAX);
	if (user_region_parse(reply, got, index, region, err))
		return user_connection_break(u->connection, err, "the server's %s", err->message);
	if (region->mappable && fd < 0) {
		log_warn(u->log,
			 "vfio-user device %s: region %u can be mapped, but came without a "
			 "descriptor: it is trapped",
			 u->t.name, index);
		region->mappable = false;
		region->area_count = 0;
	}
	if (region->mappable)
		region->map_fd = take_fd(&fd);
	return 0;
}

int user_region_info(struct vfio_transport *t, uint32_t index, struct vfio_region *region,
		     struct error *err)
{
	struct user_transport *u = to_user(t);
	struct user_region *known;
	struct error local = ERROR_INIT;
	int r;

	if (index >= t->region_count)
		return error_set(err, EINVAL, "vfio-user device %s has no region %u", t->name,
				 index);
	if (!u->regions[index] && u->quiet)
		return user_is_quiet(u, err);
	if (!u->regions[index]) {
		known = calloc(1, sizeof(*known));
		if (!known)
			return error_set_errno(err, ENOMEM, "vfio-user device %s", t->name);
		r = fetch_info(u, index, &known->region, err ? err : &local);
		if (r) {
			free(known);
			return r;
		}
		u->regions[index] = known;
	}
	*region = u->regions[index]->region;
	return 0;
}

/* One message. */
static int access_part(struct user_transport *u, uint32_t index, uint64_t offset, void *in,
		       const void *out, size_t len, struct error *err)
{
	struct vfio_user_region_access m = { offset, index, (uint32_t)len }, back;
	struct user_call call = {
		.command = in ? VFIO_USER_REGION_READ : VFIO_USER_REGION_WRITE,
		.out = { { &m, sizeof(m) }, { (void *)out, out ? len : 0 } },
		.in = { { &back, sizeof(back) }, { in, in ? len : 0 } },
	};
	int r = user_connection_call(u->connection, &call, err);

	if (r)
		return err ? error_prefix(err, "region %u at 0x%llx", index,
					  (unsigned long long)offset)
			   : r;
	if (back.count != len || (in && call.received != len) || back.region != index ||
	    back.offset != offset)
		return user_connection_break(
			u->connection, err,
			"the server's reply to %s of %zu bytes at 0x%llx of "
			"region %u is about %u (%zu) at 0x%llx of region %u",
			in ? "REGION_READ" : "REGION_WRITE", len, (unsigned long long)offset, index,
			back.count, call.received, (unsigned long long)back.offset, back.region);
	return 0;
}

static int access_region(struct vfio_transport *t, const struct vfio_region *region,
			 uint64_t offset, void *in, const void *out, size_t len, struct error *err)
{
	struct user_transport *u = to_user(t);
	size_t most = in ? u->caps.max_data : MIN(u->caps.max_data, (uint64_t)USER_SEND_MAX);

	if (len > region->size || offset > region->size - len)
		return error_set(err, EINVAL,
				 "vfio-user device %s: region %u ends at 0x%llx: no access of %zu "
				 "bytes at 0x%llx",
				 t->name, region->index, (unsigned long long)region->size, len,
				 (unsigned long long)offset);
	most = align_down(most, 8);
	for (size_t done = 0; done < len;) {
		size_t part = MIN(len - done, most);
		int r = access_part(u, region->index, offset + done,
				    in ? (uint8_t *)in + done : NULL,
				    out ? (const uint8_t *)out + done : NULL, part, err);

		if (r)
			return r;
		done += part;
	}
	return 0;
}

int user_region_read(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		     void *data, size_t len, struct error *err)
{
	if (to_user(t)->quiet)
		return user_kept_read(to_user(t), region, offset, data, len, err);
	return access_region(t, region, offset, data, NULL, len, err);
}

int user_region_write(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		      const void *data, size_t len, struct error *err)
{
	return access_region(t, region, offset, NULL, data, len, err);
}

int user_region_map(struct vfio_transport *t, const struct vfio_region *region, uint64_t offset,
		    uint64_t size, void **address, struct error *err)
{
	int protection = (region->readable ? PROT_READ : 0) | (region->writable ? PROT_WRITE : 0);
	uint64_t from = region->offset + offset; /* both below 2^63 */
	bool inside = false;
	struct stat st;
	void *p;

	for (unsigned int i = 0; i < region->area_count && size; i++) {
		const struct vfio_area *a = &region->areas[i];

		inside |= offset >= a->offset && size <= a->size &&
			  offset - a->offset <= a->size - size;
	}
	if (!inside || region->map_fd < 0)
		return error_set(
			err, EINVAL,
			"vfio-user device %s: region %u cannot be mapped at 0x%llx, 0x%llx "
			"bytes",
			t->name, region->index, (unsigned long long)offset,
			(unsigned long long)size);
	/* Behind the end of a file there is nothing to map but a SIGBUS. */
	if (fstat(region->map_fd, &st))
		return error_set_errno(err, errno, "vfio-user device %s: map region %u", t->name,
				       region->index);
	if (S_ISREG(st.st_mode) && from + size > (uint64_t)st.st_size)
		return user_connection_break(to_user(t)->connection, err,
					     "the server's file behind region %u has 0x%llx bytes, "
					     "the region begins at 0x%llx and has 0x%llx",
					     region->index, (unsigned long long)st.st_size,
					     (unsigned long long)region->offset,
					     (unsigned long long)region->size);
	p = mmap(NULL, size, protection, MAP_SHARED, region->map_fd, (off_t)from);
	if (p == MAP_FAILED)
		return error_set_errno(err, errno,
				       "vfio-user device %s: map region %u at 0x%llx, 0x%llx bytes",
				       t->name, region->index, (unsigned long long)offset,
				       (unsigned long long)size);
	*address = p;
	return 0;
}

/* An entry of DEVICE_GET_REGION_IO_FDS: NULL, or what is wrong with it. */
static const char *check_io_fd(const struct vfio_user_io_fd *e, const struct user_region *r)
{
	if (e->fd_index >= r->io_fd_count)
		return "names a descriptor that did not come";
	if (e->size != 0 && e->size != 1 && e->size != 2 && e->size != 4 && e->size != 8)
		return "has an odd size";
	if (e->size > r->region.size || e->offset > r->region.size - MAX(e->size, 1ULL))
		return "lies outside of the region";
	return NULL;
}

static int keep_io_fds(struct user_transport *u, struct user_region *r, const uint8_t *entries,
		       uint32_t count, size_t stride, struct error *err)
{
	r->ioeventfds = calloc(count, sizeof(*r->ioeventfds));
	if (!r->ioeventfds)
		return error_set_errno(err, ENOMEM, "vfio-user device %s", u->t.name);
	for (uint32_t i = 0; i < count; i++) {
		struct vfio_user_io_fd e;
		const char *what;

		memcpy(&e, entries + i * stride, sizeof(e));
		/* ioregionfds have no kernel that takes them: those writes are messages. */
		if (e.type != VFIO_USER_IO_FD_IOEVENTFD)
			continue;
		what = check_io_fd(&e, r);
		if (what)
			return user_connection_break(
				u->connection, err, "region %u: the ioeventfd at 0x%llx %s",
				r->region.index, (unsigned long long)e.offset, what);
		r->ioeventfds[r->ioeventfd_count++] = (struct vfio_ioeventfd){
			.offset = e.offset,
			.size = (uint32_t)e.size,
			.match = e.flags & VFIO_USER_IOEVENTFD_DATAMATCH,
			.value = e.datamatch,
			.fd = r->io_fds[e.fd_index],
		};
	}
	return 0;
}

static int fetch_io_fds(struct user_transport *u, struct user_region *r, struct error *err)
{
	size_t room = IO_FDS_MAX * sizeof(struct vfio_user_io_fd);
	_cleanup_free_ uint8_t *entries = malloc(room);
	struct vfio_user_region_io_fds m = { .argsz = (uint32_t)(sizeof(m) + room),
					     .index = r->region.index },
				       back;
	struct user_call call = {
		.command = VFIO_USER_DEVICE_GET_REGION_IO_FDS,
		.out = { { &m, sizeof(m) } },
		.in = { { &back, sizeof(back) }, { entries, room } },
		.reply_fds = r->io_fds,
		.reply_fds_max = FD_PASS_MAX,
	};
	size_t stride;
	int result;

	if (!entries)
		return error_set_errno(err, ENOMEM, "vfio-user device %s", u->t.name);
	/* What an attempt before this one, out of memory, left. */
	close_all(r->io_fds, &r->io_fd_count);
	result = user_connection_call(u->connection, &call, err);
	if (result == -ECONNRESET)
		return result;
	r->io_fd_count = call.reply_fd_count;
	if (result || !back.count)
		return 0; /* offered by few servers, and known to few */
	stride = call.received / back.count;
	if (back.index != r->region.index || back.count > IO_FDS_MAX ||
	    stride < sizeof(struct vfio_user_io_fd))
		return user_connection_break(u->connection, err,
					     "region %u: %u ioeventfds in %zu bytes",
					     r->region.index, back.count, call.received);
	return keep_io_fds(u, r, entries, back.count, stride, err);
}

int user_region_ioeventfds(struct vfio_transport *t, const struct vfio_region *region,
			   struct vfio_ioeventfd *out, unsigned int max, struct error *err)
{
	struct user_transport *u = to_user(t);
	struct user_region *r = region->index < VFIO_REGIONS_MAX ? u->regions[region->index] : NULL;
	unsigned int count;

	if (!r)
		return error_set(err, EINVAL, "vfio-user device %s has no region %u", t->name,
				 region->index);
	if (!r->io_fds_asked) {
		int result = fetch_io_fds(u, r, err);

		if (result)
			return result;
		r->io_fds_asked = true;
	}
	count = MIN(r->ioeventfd_count, max);
	if (count)
		memcpy(out, r->ioeventfds, count * sizeof(*out));
	return (int)count;
}
