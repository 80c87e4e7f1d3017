/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vfio-user device whose client changes (live update): the connection goes on, with the
 * DMA maps, interrupts and regions that the server has been told of. Two processes have
 * the socket for a while, and one of them speaks: until it owns the device, the new one
 * knows what the old one knew and asks nothing, so that the old one can go on at any time.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vfio/user_private.h"

#define IRQS_MAX 32u
#define CONFIG_MAX 4096u
#define PAGE 4096u

struct user_quiet {
	struct vfio_irq irqs[IRQS_MAX];
	size_t config_len;
	uint8_t config[CONFIG_MAX];
};

void user_quiet_free(struct user_transport *u)
{
	free(take_ptr(u->quiet));
}

int user_is_quiet(const struct user_transport *u, struct error *err)
{
	return error_set(err, EBUSY, "vfio-user device %s: another process uses it", u->t.name);
}

int user_kept_irq(const struct user_transport *u, uint32_t index, struct vfio_irq *irq,
		  struct error *err)
{
	if (index >= IRQS_MAX)
		return user_is_quiet(u, err);
	*irq = u->quiet->irqs[index];
	return 0;
}

int user_kept_read(const struct user_transport *u, const struct vfio_region *region,
		   uint64_t offset, void *data, size_t len, struct error *err)
{
	if (region->index != VFIO_PCI_CONFIG_REGION_INDEX || len > u->quiet->config_len ||
	    offset > u->quiet->config_len - len)
		return user_is_quiet(u, err);
	memcpy(data, u->quiet->config + offset, len);
	return 0;
}

/* What was negotiated, and the device's own facts: eight words. */
enum { FACT_FDS, FACT_DATA, FACT_PGSIZES, FACT_MAPS, FACT_BITMAP, FACT_FLAGS, FACT_COUNTS, FACTS };
enum { FLAG_DIRTY = 1, FLAG_RESET = 2 };

static int keep_socket(struct user_transport *u, struct kept *kept, const char *id,
		       struct error *err)
{
	const struct user_caps *caps = &u->caps;
	const uint64_t facts[FACTS] = {
		[FACT_FDS] = htole64(caps->max_fds),
		[FACT_DATA] = htole64(caps->max_data),
		[FACT_PGSIZES] = htole64(caps->pgsizes),
		[FACT_MAPS] = htole64(caps->max_dma_maps),
		[FACT_BITMAP] = htole64(caps->max_bitmap),
		[FACT_FLAGS] = htole64((caps->dirty_pages ? FLAG_DIRTY : 0U) |
				       (u->t.resettable ? FLAG_RESET : 0U)),
		[FACT_COUNTS] = htole64(u->t.region_count | (uint64_t)u->t.irq_count << 32),
	};

	return kept_add(kept, u->t.fd, facts, sizeof(facts), err, "%s/socket", id);
}

static int take_socket(struct user_transport *u, struct kept *kept, const char *id,
		       struct error *err)
{
	uint64_t facts[FACTS], counts;
	const void *data = kept_facts(kept, sizeof(facts), "%s/socket", id);

	if (!data)
		return error_set(err, EBADMSG, "vfio-user device %s: it did not come along whole",
				 u->t.name);
	memcpy(facts, data, sizeof(facts));
	for (unsigned int i = 0; i < FACTS; i++)
		facts[i] = le64toh(facts[i]);
	counts = facts[FACT_COUNTS];
	u->caps = (struct user_caps){
		.pgsizes = facts[FACT_PGSIZES],
		.max_dma_maps = facts[FACT_MAPS],
		.dirty_pages = facts[FACT_FLAGS] & FLAG_DIRTY,
	};
	u->caps.max_fds = (unsigned int)MIN(facts[FACT_FDS], (uint64_t)FD_PASS_MAX);
	u->caps.max_data = MIN(facts[FACT_DATA], (uint64_t)USER_DATA_MAX);
	u->caps.max_bitmap = MIN(facts[FACT_BITMAP], (uint64_t)USER_DATA_MAX);
	u->t.is_pci = true;
	u->t.resettable = facts[FACT_FLAGS] & FLAG_RESET;
	u->t.region_count = (uint32_t)counts;
	u->t.irq_count = (uint32_t)(counts >> 32);
	if (u->t.region_count <= VFIO_PCI_CONFIG_REGION_INDEX ||
	    u->t.region_count > VFIO_REGIONS_MAX || u->t.irq_count <= VFIO_PCI_MSIX_IRQ_INDEX ||
	    u->t.irq_count > IRQS_MAX || u->caps.max_data < 8)
		return error_set(err, EBADMSG, "vfio-user device %s: what came makes no sense",
				 u->t.name);
	return 0;
}

/* Regions: words, and the descriptor they are mapped from. */

enum {
	REGION_FLAGS,
	REGION_SIZE,
	REGION_OFFSET,
	REGION_TYPE,
	REGION_AREAS,
	REGION_WORDS, /* and two for each area */
};
enum { REGION_READ = 1, REGION_WRITE = 2, REGION_MAP = 4, REGION_MSIX = 8 };

static int keep_ioeventfds(const struct user_region *region, struct kept *kept, const char *id,
			   struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < region->ioeventfd_count; i++) {
		const struct vfio_ioeventfd *e = &region->ioeventfds[i];
		const uint64_t words[] = { htole64(e->offset),
					   htole64(e->size | (uint64_t)e->match << 32),
					   htole64(e->value) };

		r = kept_add(kept, e->fd, words, sizeof(words), err, "%s/region/%u/io/%u", id,
			     region->region.index, i);
	}
	return r;
}

static int keep_region(const struct user_region *known, struct kept *kept, const char *id,
		       struct error *err)
{
	const struct vfio_region *region = &known->region;
	uint64_t words[REGION_WORDS + 2 * VFIO_SPARSE_AREAS_MAX] = {
		[REGION_FLAGS] = (region->readable ? REGION_READ : 0U) |
				 (region->writable ? REGION_WRITE : 0U) |
				 (region->mappable ? REGION_MAP : 0U) |
				 (region->msix_mappable ? REGION_MSIX : 0U),
		[REGION_SIZE] = region->size,
		[REGION_OFFSET] = region->offset,
		[REGION_TYPE] = region->type | (uint64_t)region->subtype << 32,
		[REGION_AREAS] = region->area_count,
	};
	unsigned int count = REGION_WORDS;
	int r;

	for (unsigned int i = 0; i < region->area_count; i++) {
		words[count++] = region->areas[i].offset;
		words[count++] = region->areas[i].size;
	}
	for (unsigned int i = 0; i < count; i++)
		words[i] = htole64(words[i]);
	r = kept_add(kept, region->map_fd, words, count * sizeof(*words), err, "%s/region/%u", id,
		     region->index);
	return r ? r : keep_ioeventfds(known, kept, id, err);
}

static bool areas_are_sound(const struct vfio_region *region)
{
	uint64_t end = 0;

	for (unsigned int i = 0; i < region->area_count; i++) {
		const struct vfio_area *a = &region->areas[i];

		if ((a->offset | a->size) % PAGE || !a->size || a->offset < end ||
		    a->size > region->size || a->offset > region->size - a->size)
			return false;
		end = a->offset + a->size;
	}
	return true;
}

static bool decode_region(struct vfio_region *region, const uint8_t *data, size_t len)
{
	uint64_t words[REGION_WORDS + 2 * VFIO_SPARSE_AREAS_MAX];
	size_t count = len / sizeof(*words);

	if (len % sizeof(*words) || count < REGION_WORDS || count > ARRAY_SIZE(words))
		return false;
	for (size_t i = 0; i < count; i++)
		words[i] = load_le64(data + i * sizeof(*words));
	if (words[REGION_AREAS] > VFIO_SPARSE_AREAS_MAX ||
	    count != REGION_WORDS + 2 * words[REGION_AREAS] || words[REGION_SIZE] > INT64_MAX ||
	    words[REGION_OFFSET] > INT64_MAX - words[REGION_SIZE])
		return false;
	region->readable = words[REGION_FLAGS] & REGION_READ;
	region->writable = words[REGION_FLAGS] & REGION_WRITE;
	region->mappable = words[REGION_FLAGS] & REGION_MAP;
	region->msix_mappable = words[REGION_FLAGS] & REGION_MSIX;
	region->size = words[REGION_SIZE];
	region->offset = words[REGION_OFFSET];
	region->type = (uint32_t)words[REGION_TYPE];
	region->subtype = (uint32_t)(words[REGION_TYPE] >> 32);
	region->area_count = (unsigned int)words[REGION_AREAS];
	for (unsigned int i = 0; i < region->area_count; i++)
		region->areas[i] = (struct vfio_area){ words[REGION_WORDS + 2 * i],
						       words[REGION_WORDS + 2 * i + 1] };
	return areas_are_sound(region);
}

static int take_ioeventfds(struct user_region *known, struct kept *kept, const char *id,
			   struct error *err)
{
	uint32_t index = known->region.index;

	known->ioeventfds = calloc(FD_PASS_MAX, sizeof(*known->ioeventfds));
	if (!known->ioeventfds)
		return error_set_errno(err, ENOMEM, "take %s", id);
	known->io_fds_asked = true;
	while (known->io_fd_count < FD_PASS_MAX) {
		unsigned int i = known->io_fd_count;
		const uint8_t *words = kept_facts(kept, 24, "%s/region/%u/io/%u", id, index, i);
		int fd = kept_take(kept, "%s/region/%u/io/%u", id, index, i);

		if (fd < 0)
			break;
		known->io_fds[known->io_fd_count++] = fd;
		if (!words || load_le64(words) > known->region.size)
			return error_set(err, EBADMSG, "take %s: an ioeventfd makes no sense", id);
		known->ioeventfds[known->ioeventfd_count++] = (struct vfio_ioeventfd){
			.offset = load_le64(words),
			.size = load_le32(words + 8),
			.match = load_le32(words + 12),
			.value = load_le64(words + 16),
			.fd = fd,
		};
	}
	return 0;
}

static int take_region(struct user_transport *u, uint32_t index, struct kept *kept, const char *id,
		       struct error *err)
{
	size_t len;
	const uint8_t *data = kept_bytes(kept, &len, "%s/region/%u", id, index);
	struct user_region *known;

	if (!data) /* nobody has asked for it */
		return 0;
	known = calloc(1, sizeof(*known));
	if (!known)
		return error_set_errno(err, ENOMEM, "take %s", id);
	u->regions[index] = known;
	known->region.index = index;
	known->region.map_fd = kept_take(kept, "%s/region/%u", id, index);
	if (!decode_region(&known->region, data, len) ||
	    (known->region.mappable && known->region.map_fd < 0))
		return error_set(err, EBADMSG, "take %s: region %u makes no sense", id, index);
	return take_ioeventfds(known, kept, id, err);
}

/* Interrupts and config space: the server says once more what they are. */

static int keep_irqs(struct user_transport *u, struct kept *kept, const char *id, struct error *err)
{
	uint8_t facts[IRQS_MAX * 8] = "";

	for (uint32_t i = 0; i < u->t.irq_count; i++) {
		struct vfio_irq irq;
		int r = u->t.ops->irq_info(&u->t, i, &irq, err);

		if (r)
			return r;
		store_le32(facts + 8 * i, irq.count);
		store_le32(facts + 8 * i + 4, (irq.eventfd ? 1U : 0) | (irq.maskable ? 2U : 0) |
						      (irq.automasked ? 4U : 0) |
						      (irq.noresize ? 8U : 0));
	}
	return kept_add(kept, -1, facts, (size_t)u->t.irq_count * 8, err, "%s/irqs", id);
}

static int take_irqs(struct user_transport *u, struct kept *kept, const char *id, struct error *err)
{
	const uint8_t *facts = kept_facts(kept, (size_t)u->t.irq_count * 8, "%s/irqs", id);

	if (!facts)
		return error_set(err, EBADMSG, "take %s: its interrupts did not come along", id);
	for (uint32_t i = 0; i < u->t.irq_count; i++) {
		uint32_t count = MIN(load_le32(facts + 8 * i), 2048U);
		uint32_t flags = load_le32(facts + 8 * i + 4);

		u->quiet->irqs[i] = (struct vfio_irq){
			.index = i,
			.count = count,
			.eventfd = flags & 1,
			.maskable = flags & 2,
			.automasked = flags & 4,
			.noresize = flags & 8,
		};
	}
	return 0;
}

/* In one piece where the server gives it so, else by registers. */
static int read_config(struct user_transport *u, const struct vfio_region *region, uint8_t *config,
		       size_t len, struct error *err)
{
	int r = user_region_read(&u->t, region, 0, config, len, NULL);

	if (!r || r == -ECONNRESET)
		return r ? error_set(err, ECONNRESET, "read config space of %s", u->t.name) : 0;
	for (size_t at = 0; at < len; at += 4) {
		r = user_region_read(&u->t, region, at, config + at, 4, err);
		if (r)
			return r;
	}
	return 0;
}

static int keep_config(struct user_transport *u, struct kept *kept, const char *id,
		       struct error *err)
{
	uint8_t config[CONFIG_MAX];
	struct vfio_region region;
	size_t len;
	int r = user_region_info(&u->t, VFIO_PCI_CONFIG_REGION_INDEX, &region, err);

	if (r)
		return r;
	len = align_down(MIN(region.size, (uint64_t)sizeof(config)), 4);
	r = read_config(u, &region, config, len, err);
	return r ? r : kept_add(kept, -1, config, len, err, "%s/config", id);
}

int user_keep(struct vfio_transport *t, struct kept *kept, const char *id, bool paused,
	      struct error *err)
{
	struct user_transport *u = to_user(t);
	int r;

	if (paused)
		return 0;
	r = keep_socket(u, kept, id, err);
	if (!r)
		r = keep_config(u, kept, id, err);
	if (!r)
		r = keep_irqs(u, kept, id, err);
	for (unsigned int i = 0; !r && i < VFIO_REGIONS_MAX; i++)
		if (u->regions[i])
			r = keep_region(u->regions[i], kept, id, err);
	return r;
}

int user_take(struct user_transport *u, struct kept *kept, const char *id, struct error *err)
{
	const void *config;
	int r;

	u->quiet = calloc(1, sizeof(*u->quiet));
	if (!u->quiet)
		return error_set_errno(err, ENOMEM, "take %s", id);
	r = take_socket(u, kept, id, err);
	if (!r)
		r = take_irqs(u, kept, id, err);
	for (uint32_t i = 0; !r && i < u->t.region_count; i++)
		r = take_region(u, i, kept, id, err);
	if (r)
		return r;
	config = kept_bytes(kept, &u->quiet->config_len, "%s/config", id);
	if (!config || u->quiet->config_len > CONFIG_MAX)
		return error_set(err, EBADMSG, "take %s: its config space did not come along", id);
	memcpy(u->quiet->config, config, u->quiet->config_len);
	return 0;
}

int user_hold(struct vfio_transport *t, bool hold, struct error *err)
{
	struct user_transport *u = to_user(t);
	int r = user_hold_unmask(u, hold, err);

	if (!r)
		r = hold ? user_connection_unwatch(u->connection, err)
			 : user_connection_watch(u->connection, err);
	return r;
}

int user_own(struct vfio_transport *t, struct error *err)
{
	user_quiet_free(to_user(t));
	return user_connection_watch(to_user(t)->connection, err);
}
