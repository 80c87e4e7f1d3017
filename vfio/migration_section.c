/* SPDX-License-Identifier: Apache-2.0 */
/* The migration region of the first protocol: its registers, and the data behind them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "vfio/migration_region.h"

static int find(struct vfio_transport *t, struct vfio_region *region, struct error *err)
{
	for (uint32_t i = VFIO_PCI_NUM_REGIONS; i < t->region_count; i++) {
		int r = t->ops->region_info(t, i, region, err);

		if (r)
			return r;
		if (region->type == VFIO_REGION_TYPE_MIGRATION &&
		    region->subtype == VFIO_REGION_SUBTYPE_MIGRATION && region->size)
			return 0;
	}
	return error_set(err, ENOTTY, "%s: no migration region", t->name);
}

/* What a server shares it may cut short, and reading behind the end kills the reader: only
 * what is sealed against that is mapped. */
static bool may_shrink(const struct vfio_region *region)
{
	int seals;

	if (region->map_fd < 0) /* the kernel's */
		return false;
	seals = fcntl(region->map_fd, F_GET_SEALS);
	return seals < 0 || !(seals & F_SEAL_SHRINK);
}

static void map_areas(struct migration_section *s, struct log *log)
{
	struct vfio_transport *t = s->transport;
	const struct vfio_region *region = &s->region;

	if (!region->mappable || !region->area_count)
		return;
	if (may_shrink(region)) {
		log_info(log,
			 "%s: migration data go by messages: the memory offered for them is not "
			 "sealed against shrinking (F_SEAL_SHRINK)",
			 t->name);
		return;
	}
	for (unsigned int i = 0; i < region->area_count; i++) {
		const struct vfio_area *a = &region->areas[i];
		struct error why = ERROR_INIT;
		void *hva;

		if (t->ops->region_map(t, region, a->offset, a->size, &hva, &why)) {
			log_info(log, "%s: migration data go by system calls: %s", t->name,
				 why.message);
			continue;
		}
		s->maps[s->map_count].offset = a->offset;
		s->maps[s->map_count].size = a->size;
		s->maps[s->map_count++].hva = hva;
	}
}

int migration_section_open(struct migration_section *s, struct vfio_transport *transport,
			   struct log *log, struct error *err)
{
	struct vfio_region *region = &s->region;
	int r;

	*s = (struct migration_section){ .transport = transport };
	r = find(transport, region, err);
	if (r)
		return r;
	if (!region->readable || !region->writable || region->size <= REGION_HEADER_SIZE)
		return error_set(err, EPROTO,
				 "%s: its migration region (%u) has 0x%llx bytes%s: it cannot be "
				 "used",
				 transport->name, region->index, (unsigned long long)region->size,
				 region->readable && region->writable
					 ? ""
					 : " and cannot be both read and written");
	map_areas(s, log);
	return 0;
}

void migration_section_close(struct migration_section *s)
{
	while (s->map_count) {
		s->map_count--;
		munmap(s->maps[s->map_count].hva, s->maps[s->map_count].size);
	}
}

int migration_section_get(struct migration_section *s, uint64_t offset, unsigned int len,
			  uint64_t *value, struct error *err)
{
	uint8_t data[8];
	int r = s->transport->ops->region_read(s->transport, &s->region, offset, data, len, err);

	*value = r ? 0 : load_le(data, len);
	return r;
}

int migration_section_put(struct migration_section *s, uint64_t offset, unsigned int len,
			  uint64_t value, struct error *err)
{
	uint8_t data[8];

	store_le(data, value, len);
	return s->transport->ops->region_write(s->transport, &s->region, offset, data, len, err);
}

/* How much of [offset, offset + len) is of one kind: *hva where it is mapped, else NULL. */
static size_t piece(const struct migration_section *s, uint64_t offset, size_t len, uint8_t **hva)
{
	uint64_t end = offset + len;

	*hva = NULL;
	for (unsigned int i = 0; i < s->map_count; i++) {
		uint64_t start = s->maps[i].offset, stop = start + s->maps[i].size;

		if (offset >= start && offset < stop) {
			*hva = s->maps[i].hva + (offset - start);
			return (size_t)(MIN(end, stop) - offset);
		}
		if (start > offset && start < end)
			end = start;
	}
	return (size_t)(end - offset);
}

int migration_section_read(struct migration_section *s, uint64_t offset, void *data, size_t len,
			   struct error *err)
{
	for (size_t done = 0, n; done < len; done += n) {
		uint8_t *hva, *to = (uint8_t *)data + done;
		int r;

		n = piece(s, offset + done, len - done, &hva);
		if (hva) {
			memcpy(to, hva, n);
			continue;
		}
		r = s->transport->ops->region_read(s->transport, &s->region, offset + done, to, n,
						   err);
		if (r)
			return r;
	}
	return 0;
}

int migration_section_write(struct migration_section *s, uint64_t offset, const void *data,
			    size_t len, struct error *err)
{
	for (size_t done = 0, n; done < len; done += n) {
		const uint8_t *from = (const uint8_t *)data + done;
		uint8_t *hva;
		int r;

		n = piece(s, offset + done, len - done, &hva);
		if (hva) {
			memcpy(hva, from, n);
			continue;
		}
		r = s->transport->ops->region_write(s->transport, &s->region, offset + done, from,
						    n, err);
		if (r)
			return r;
	}
	return 0;
}

int migration_section_check(const struct migration_section *s, uint64_t offset, uint64_t size,
			    struct error *err)
{
	if (offset < REGION_HEADER_SIZE || offset >= s->region.size ||
	    size > s->region.size - offset)
		return error_set(err, EPROTO,
				 "%s: 0x%llx bytes of data at 0x%llx are not in its migration "
				 "region of 0x%llx",
				 s->transport->name, (unsigned long long)size,
				 (unsigned long long)offset, (unsigned long long)s->region.size);
	return 0;
}
