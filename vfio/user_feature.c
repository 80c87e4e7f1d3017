/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device features over vfio-user. Callers speak the kernel's structures (linux/vfio.h);
 * where those point to memory of the caller (ranges and bitmap of DMA logging), the
 * protocol has the memory's content inline, and it is fetched and stored here.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vfio/user_private.h"

#define LOG_RANGES_MAX 1024
/* Bits of a logging report asked for at a time. */
#define REPORT_BITS (8UL * 256 * 1024)

/* A server without a feature has one of many ways to say so. */
static int refused(int code, uint32_t flags)
{
	bool probe = flags & VFIO_DEVICE_FEATURE_PROBE;

	if (code == -EOPNOTSUPP || code == -ENOSYS || code == -ENOTTY || (probe && code == -EINVAL))
		return -ENOTTY;
	return code;
}

static int call_feature(struct user_transport *u, uint32_t flags, const struct iovec *out,
			const struct iovec *in, size_t *received, struct error *err)
{
	uint8_t there[64], back[64]; /* a server may answer while the command is on its way */
	struct vfio_user_feature m = { .flags = flags };
	struct user_call call = { .command = VFIO_USER_DEVICE_FEATURE };
	int r;

	/* Header and the fixed part of the data go in one piece. */
	m.argsz = (uint32_t)(sizeof(m) + in[0].iov_len + in[1].iov_len);
	memcpy(there, &m, sizeof(m));
	if (out[0].iov_len)
		memcpy(there + sizeof(m), out[0].iov_base, out[0].iov_len);
	call.out[0] = (struct iovec){ there, sizeof(m) + out[0].iov_len };
	call.out[1] = out[1];
	call.in[0] = (struct iovec){ back, sizeof(m) + in[0].iov_len };
	call.in[1] = in[1];
	r = user_connection_call(u->connection, &call, err);
	if (r) {
		r = refused(r, flags);
		if (err)
			err->code = r;
		return r;
	}
	if (in[0].iov_len)
		memcpy(in[0].iov_base, back + sizeof(m), in[0].iov_len);
	*received = call.received;
	return 0;
}

static int start_logging(struct user_transport *u, uint32_t flags, void *data, struct error *err)
{
	struct vfio_device_feature_dma_logging_control *c = data;
	size_t size = c->num_ranges * sizeof(struct vfio_device_feature_dma_logging_range);
	struct iovec out[2] = { { c, 16 }, { (void *)(uintptr_t)c->ranges, size } };
	_cleanup_free_ void *back = malloc(size + 1);
	struct iovec in[2] = { { c, 16 }, { back, size } };
	uint32_t num_ranges = c->num_ranges;
	size_t received;
	int r;

	if (num_ranges > LOG_RANGES_MAX)
		return error_set(err, E2BIG, "vfio-user device %s: %u ranges to log, at most %u go",
				 u->t.name, num_ranges, LOG_RANGES_MAX);
	if (!back)
		return error_set_errno(err, ENOMEM, "vfio-user device %s: log DMA", u->t.name);
	/* The page size the device chose comes back in its place. */
	r = call_feature(u, flags, out, in, &received, err);
	c->num_ranges = num_ranges;
	return r;
}

static int report_part(struct user_transport *u, uint32_t flags,
		       const struct vfio_device_feature_dma_logging_report *want, uint64_t *words,
		       size_t bytes, struct error *err)
{
	struct vfio_device_feature_dma_logging_report m = *want;
	struct iovec out[2] = { { &m, 24 } }, in[2] = { { &m, 24 }, { words, bytes } };
	size_t received;
	int r = call_feature(u, flags, out, in, &received, err);

	if (!r && received != bytes)
		return user_connection_break(u->connection, err,
					     "the server's report of logged DMA has %zu bytes of "
					     "bitmap, %zu were asked for",
					     received, bytes);
	return r;
}

static int report_logging(struct user_transport *u, uint32_t flags, void *data, struct error *err)
{
	const struct vfio_device_feature_dma_logging_report *all = data;
	uint64_t *to = (uint64_t *)(uintptr_t)all->bitmap, bits;
	_cleanup_free_ uint64_t *words = malloc(REPORT_BITS / 8);
	int r = 0;

	if (!words)
		return error_set_errno(err, ENOMEM, "vfio-user device %s: report DMA", u->t.name);
	if (!is_power_of_2(all->page_size) || !to)
		return error_set(err, EINVAL, "vfio-user device %s: report DMA: no page size",
				 u->t.name);
	bits = all->length / all->page_size;
	for (uint64_t done = 0; done < bits && !r; done += REPORT_BITS) {
		struct vfio_device_feature_dma_logging_report part = *all;
		uint64_t count = MIN(bits - done, REPORT_BITS);
		size_t n = (count + 63) / 64;

		part.iova += done * all->page_size;
		part.length = count * all->page_size;
		r = report_part(u, flags, &part, words, n * 8, err);
		for (size_t i = 0; i < n && !r; i++)
			to[done / 64 + i] |= words[i];
	}
	return r;
}

int user_feature(struct vfio_transport *t, uint32_t flags, void *data, size_t len,
		 struct error *err)
{
	struct user_transport *u = to_user(t);
	bool probe = flags & VFIO_DEVICE_FEATURE_PROBE, get = flags & VFIO_DEVICE_FEATURE_GET;
	uint32_t feature = flags & VFIO_DEVICE_FEATURE_MASK;
	_cleanup_free_ void *back = NULL;
	struct iovec out[2] = { { NULL, 0 } }, in[2] = { { NULL, 0 } };
	size_t received;
	int r;

	if (len > USER_SEND_MAX)
		return error_set(err, E2BIG, "vfio-user device %s: feature %u of %zu bytes",
				 t->name, feature, len);
	if (!probe && !get && feature == VFIO_DEVICE_FEATURE_DMA_LOGGING_START &&
	    len >= sizeof(struct vfio_device_feature_dma_logging_control))
		return start_logging(u, flags, data, err);
	if (!probe && get && feature == VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT &&
	    len >= sizeof(struct vfio_device_feature_dma_logging_report))
		return report_logging(u, flags, data, err);
	if (!probe && get) {
		in[1] = (struct iovec){ data, len };
	} else if (!probe) {
		back = malloc(len + 1); /* the reply repeats the command */
		if (!back)
			return error_set_errno(err, ENOMEM, "vfio-user device %s", t->name);
		out[1] = (struct iovec){ data, len };
		in[1] = (struct iovec){ back, len };
	}
	r = call_feature(u, flags, out, in, &received, err);
	if (r)
		return r;
	return !probe && get ? (int)received : 0;
}

/* The server answers at once: there is nothing to wait for. */
ssize_t user_migration_read(struct vfio_transport *t, int fd, void *data, size_t len,
			    unsigned int wait_ms, struct error *err)
{
	struct user_transport *u = to_user(t);
	size_t part = MIN((uint64_t)len, u->caps.max_data);
	struct vfio_user_mig_data m = { .argsz = (uint32_t)(sizeof(m) + part),
					.size = (uint32_t)part },
				  back;
	struct user_call call = {
		.command = VFIO_USER_MIG_DATA_READ,
		.out = { { &m, sizeof(m) } },
		.in = { { &back, sizeof(back) }, { data, part } },
	};
	int r = user_connection_call(u->connection, &call, err);

	if (r)
		return r;
	if (back.size != call.received)
		return user_connection_break(u->connection, err,
					     "the server's migration data say %u bytes and are %zu",
					     back.size, call.received);
	return (ssize_t)call.received;
}

int user_migration_write(struct vfio_transport *t, int fd, const void *data, size_t len,
			 struct error *err)
{
	struct user_transport *u = to_user(t);
	size_t most = MIN(u->caps.max_data, (uint64_t)USER_SEND_MAX);

	for (size_t done = 0; done < len;) {
		size_t part = MIN(len - done, most);
		struct vfio_user_mig_data m = { .argsz = (uint32_t)(sizeof(m) + part),
						.size = (uint32_t)part },
					  back;
		struct user_call call = {
			.command = VFIO_USER_MIG_DATA_WRITE,
			.out = { { &m, sizeof(m) }, { (uint8_t *)(uintptr_t)data + done, part } },
			.in = { { NULL, 0 }, { &back, sizeof(back) } },
		};
		int r = user_connection_call(u->connection, &call, err);

		if (r)
			return r;
		done += part;
	}
	return 0;
}

int user_migration_precopy_info(struct vfio_transport *t, int fd, struct vfio_precopy_info *info,
				struct error *err)
{
	return error_set(err, ENOTTY, "vfio-user device %s: the protocol has no precopy info",
			 t->name);
}

void user_migration_end(struct vfio_transport *t, int fd)
{
}
