/* SPDX-License-Identifier: Apache-2.0 */
/* What a chain asks for (virtio 1.2, 5.2.6), and doing it in the calling thread. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/bytes.h"
#include "devices/virtio/virtio_blk_private.h"

#define HEADER_SIZE sizeof(struct virtio_blk_outhdr)
#define BOUNCE_SIZE (256 * KIB)
/* Ranges handled by one system call of the synchronous path. */
#define WINDOW 64

/* Finds the status byte, the last one the device may write, and cuts it off the data. */
static void find_status(struct blk_request *req)
{
	struct virtqueue_chain *chain = &req->chain;
	unsigned int last = chain->readable + chain->writable - 1;
	struct iovec *iov;

	req->status = NULL;
	if (!chain->writable_len)
		return;
	iov = &chain->iov[last];
	iov->iov_len--;
	req->status = (uint8_t *)iov->iov_base + iov->iov_len;
	req->status_gpa = chain->gpa[last] + iov->iov_len;
}

/* Cuts the header off the front of the readable part. */
static void skip_header(struct blk_request *req)
{
	size_t left = HEADER_SIZE;
	unsigned int i;

	for (i = 0; left && i < req->chain.readable; i++) {
		struct iovec *iov = &req->chain.iov[i];
		size_t part = MIN(left, iov->iov_len);

		iov->iov_base = (uint8_t *)iov->iov_base + part;
		iov->iov_len -= part;
		left -= part;
		if (iov->iov_len)
			break;
	}
	req->data = req->chain.iov + i;
	req->data_count = req->chain.readable - i;
}

static bool within_disk(struct virtio_blk *blk, uint64_t sector, uint64_t count)
{
	uint64_t sectors = atomic_load_explicit(&blk->sectors, memory_order_relaxed);

	return sector <= sectors && count <= sectors - sector;
}

static uint8_t parse_data(struct virtio_blk *blk, struct blk_request *req, uint64_t sector)
{
	if (req->type == VIRTIO_BLK_T_IN) {
		req->data = req->chain.iov + req->chain.readable;
		req->data_count = req->chain.writable;
		req->len = req->chain.writable_len - 1;
	} else {
		if (blk->file.readonly)
			return VIRTIO_BLK_S_IOERR;
		req->len = req->chain.readable_len - HEADER_SIZE;
	}
	/* The last range may have held nothing but the status. */
	if (req->data_count && !req->data[req->data_count - 1].iov_len)
		req->data_count--;
	if (req->len % SECTOR_SIZE || !within_disk(blk, sector, req->len >> SECTOR_SHIFT))
		return VIRTIO_BLK_S_IOERR;
	req->offset = sector << SECTOR_SHIFT;
	return VIRTIO_BLK_S_OK;
}

static uint8_t parse_range(struct virtio_blk *blk, struct blk_request *req)
{
	bool discard = req->type == VIRTIO_BLK_T_DISCARD;
	unsigned int bit = discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES;
	struct virtio_blk_discard_write_zeroes range;
	uint64_t sector, count;
	uint32_t flags;

	if (!virtio_device_has(&blk->dev, bit))
		return VIRTIO_BLK_S_UNSUPP;
	/* One range is offered. */
	if (req->chain.readable_len != HEADER_SIZE + sizeof(range) ||
	    virtqueue_chain_read(&req->chain, 0, &range, sizeof(range)) != sizeof(range))
		return VIRTIO_BLK_S_IOERR;
	sector = le64toh(range.sector);
	count = le32toh(range.num_sectors);
	flags = le32toh(range.flags);
	if (flags & ~(discard ? 0U : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP))
		return VIRTIO_BLK_S_UNSUPP;
	if (count > BLK_ZERO_SECTORS_MAX || !within_disk(blk, sector, count))
		return VIRTIO_BLK_S_IOERR;
	req->offset = sector << SECTOR_SHIFT;
	req->len = count << SECTOR_SHIFT;
	req->zero_mode =
		FALLOC_FL_KEEP_SIZE |
		(discard || flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP ? FALLOC_FL_PUNCH_HOLE
								       : FALLOC_FL_ZERO_RANGE);
	return VIRTIO_BLK_S_OK;
}

uint8_t blk_request_parse(struct virtio_blk *blk, struct blk_request *req)
{
	struct virtio_blk_outhdr header;

	find_status(req);
	req->type = UINT32_MAX;
	req->offset = req->len = 0;
	if (virtqueue_chain_read(&req->chain, 0, &header, HEADER_SIZE) != HEADER_SIZE)
		return VIRTIO_BLK_S_IOERR;
	if (!req->status)
		return VIRTIO_BLK_S_IOERR;
	skip_header(req);
	req->type = le32toh(header.type);
	switch (req->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT: return parse_data(blk, req, le64toh(header.sector));
	case VIRTIO_BLK_T_FLUSH:
	case VIRTIO_BLK_T_GET_ID: return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES: return parse_range(blk, req);
	default: return VIRTIO_BLK_S_UNSUPP;
	}
}

/* Direct I/O of it works without a copy. */
static bool aligned(const struct blk_file *file, const struct blk_request *req)
{
	uintptr_t bits = req->offset;

	if (!file->direct)
		return true;
	for (unsigned int i = 0; i < req->data_count; i++)
		bits |= (uintptr_t)req->data[i].iov_base | req->data[i].iov_len;
	return !(bits & (file->align - 1));
}

bool blk_request_async(const struct virtio_blk *blk, const struct blk_request *req)
{
	switch (req->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT: return req->len && aligned(&blk->file, req);
	case VIRTIO_BLK_T_FLUSH: return true;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return req->len && !atomic_load_explicit(&blk->dsync, memory_order_relaxed);
	case VIRTIO_BLK_T_DISCARD: return req->len && !blk->file.block_device;
	default: return false;
	}
}

/* The ranges of the data from byte `done` on, as many as fit. */
static unsigned int window(const struct blk_request *req, uint64_t done, struct iovec *iov)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < req->data_count && n < WINDOW; i++) {
		const struct iovec *from = &req->data[i];

		if (done >= from->iov_len) {
			done -= from->iov_len;
			continue;
		}
		iov[n].iov_base = (uint8_t *)from->iov_base + done;
		iov[n++].iov_len = from->iov_len - done;
		done = 0;
	}
	return n;
}

static int transfer(struct virtio_blk *blk, const struct blk_request *req, uint64_t done)
{
	bool in = req->type == VIRTIO_BLK_T_IN;
	int flags = !in && atomic_load_explicit(&blk->dsync, memory_order_relaxed) ? RWF_DSYNC : 0;
	struct iovec iov[WINDOW];

	while (done < req->len) {
		unsigned int n = window(req, done, iov);
		off_t at = (off_t)(req->offset + done);
		ssize_t r = in ? preadv2(blk->file.fd, iov, (int)n, at, 0)
			       : pwritev2(blk->file.fd, iov, (int)n, at, flags);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r) /* the file is shorter than it was */
			return -EIO;
		done += (uint64_t)r;
	}
	return 0;
}

static ssize_t bounce_io(struct virtio_blk *blk, bool in, uint8_t *buf, uint64_t len, uint64_t at)
{
	int flags = atomic_load_explicit(&blk->dsync, memory_order_relaxed) ? RWF_DSYNC : 0;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	ssize_t r;

	do
		r = in ? pread(blk->file.fd, buf, len, (off_t)at)
		       : pwritev2(blk->file.fd, &iov, 1, (off_t)at, flags);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static uint8_t *bounce(struct blk_queue *q)
{
	if (!q->bounce && posix_memalign((void **)&q->bounce, BLK_ALIGN_MAX, BOUNCE_SIZE))
		q->bounce = NULL;
	return q->bounce;
}

/*
 * Direct I/O by way of an aligned buffer. Reads may begin and end anywhere; a write
 * of a part of a block would have to read the rest first, while another request may
 * be writing that: it is refused, and BLK_SIZE tells the driver so.
 */
static int transfer_bounced(struct blk_queue *q, const struct blk_request *req, uint64_t done)
{
	struct virtio_blk *blk = q->blk;
	bool in = req->type == VIRTIO_BLK_T_IN;
	uint64_t align = blk->file.align;

	if (!in && (req->offset | req->len) % align)
		return -EINVAL;
	if (!bounce(q))
		return -ENOMEM;
	if (!in)
		done = align_down(done, align);
	while (done < req->len) {
		uint64_t start = align_down(req->offset + done, align);
		uint64_t skip = req->offset + done - start;
		uint64_t part = MIN(req->len - done, BOUNCE_SIZE - skip);
		uint64_t len = align_up(skip + part, align);
		ssize_t r;

		if (!in)
			virtqueue_chain_read(&req->chain, done, q->bounce, part);
		r = bounce_io(blk, in, q->bounce, len, start);
		if (r < 0)
			return (int)r;
		if ((uint64_t)r < skip + part)
			return -EIO;
		if (in)
			virtqueue_chain_write(&req->chain, done, q->bounce + skip, part);
		done += part;
	}
	return 0;
}

/* What fallocate cannot do on this file system, writing does. */
static int write_zeroes(struct blk_queue *q, uint64_t offset, uint64_t len)
{
	struct iovec iov[WINDOW];

	if (!bounce(q))
		return -ENOMEM;
	memset(q->bounce, 0, BOUNCE_SIZE);
	while (len) {
		uint64_t left = MIN(len, WINDOW * BOUNCE_SIZE);
		unsigned int n = 0;
		ssize_t r;

		for (; left; n++) {
			iov[n].iov_base = q->bounce;
			iov[n].iov_len = MIN(left, BOUNCE_SIZE);
			left -= iov[n].iov_len;
		}
		r = pwritev(q->blk->file.fd, iov, (int)n, (off_t)offset);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r ? -errno : -EIO;
		offset += (uint64_t)r;
		len -= (uint64_t)r;
	}
	return 0;
}

static int zero(struct blk_queue *q, const struct blk_request *req)
{
	const struct blk_file *file = &q->blk->file;
	uint64_t range[2] = { req->offset, req->len };
	int r;

	if (!req->len)
		return 0;
	if (req->type == VIRTIO_BLK_T_DISCARD && file->block_device)
		r = ioctl(file->fd, BLKDISCARD, range);
	else
		r = fallocate(file->fd, req->zero_mode, (off_t)req->offset, (off_t)req->len);
	r = r ? -errno : 0;
	if (r == -EOPNOTSUPP || r == -EINVAL)
		/* Discarding is a hint; zeroes are not. */
		r = req->type == VIRTIO_BLK_T_DISCARD ? 0 : write_zeroes(q, req->offset, req->len);
	if (!r && atomic_load_explicit(&q->blk->dsync, memory_order_relaxed))
		r = fdatasync(file->fd) ? -errno : 0;
	return r;
}

int blk_request_execute(struct blk_queue *q, struct blk_request *req, uint64_t done)
{
	struct virtio_blk *blk = q->blk;

	switch (req->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		if (!aligned(&blk->file, req) || done % blk->file.align)
			return transfer_bounced(q, req, done);
		return transfer(blk, req, done);
	case VIRTIO_BLK_T_FLUSH: return fdatasync(blk->file.fd) ? -errno : 0;
	case VIRTIO_BLK_T_GET_ID:
		virtqueue_chain_write(&req->chain, 0, blk->serial, sizeof(blk->serial));
		return 0;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES: return zero(q, req);
	default: return -EOPNOTSUPP;
	}
}

uint8_t blk_request_status(struct virtio_blk *blk, const struct blk_request *req, int result)
{
	if (result < 0) {
		blk_count(blk, COUNT_ERRORS, 1);
		log_limited(blk->dev.host->log, &blk->log_limit, LOG_LEVEL_WARNING,
			    "disk %s: request of type %u at byte %llu, %llu bytes: %s",
			    blk->file.path, req->type, (unsigned long long)req->offset,
			    (unsigned long long)req->len, strerrordesc_np(-result));
		return VIRTIO_BLK_S_IOERR;
	}
	switch (req->type) {
	case VIRTIO_BLK_T_IN:
		blk_count(blk, COUNT_READ_OPS, 1);
		blk_count(blk, COUNT_READ_BYTES, req->len);
		break;
	case VIRTIO_BLK_T_OUT:
		blk_count(blk, COUNT_WRITE_OPS, 1);
		blk_count(blk, COUNT_WRITE_BYTES, req->len);
		break;
	case VIRTIO_BLK_T_FLUSH: blk_count(blk, COUNT_FLUSH_OPS, 1); break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES: blk_count(blk, COUNT_DISCARD_OPS, 1); break;
	}
	return VIRTIO_BLK_S_OK;
}
