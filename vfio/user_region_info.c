/* SPDX-License-Identifier: Apache-2.0 */
/* A server's reply to DEVICE_GET_REGION_INFO: struct vfio_region_info and a list of
 * capabilities, none of it believed. */
#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "vfio/user_private.h"

/* There are five kinds. A longer list is a loop. */
#define CAPS_MAX 32
#define PAGE 4096ULL

struct reply {
	const uint8_t *data;
	size_t len;
	struct vfio_region *region;
	struct error *err;
	bool sparse;
};

static int wrong(struct reply *r, const char *what, uint64_t value)
{
	return error_set(r->err, EPROTO, "region %u: %s (0x%llx)", r->region->index, what,
			 (unsigned long long)value);
}

static int by_offset(const void *a, const void *b)
{
	const struct vfio_area *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Areas without overlap, inside the region, of whole pages. */
static int check_areas(struct reply *r)
{
	struct vfio_region *region = r->region;

	qsort(region->areas, region->area_count, sizeof(region->areas[0]), by_offset);
	for (unsigned int i = 0; i < region->area_count; i++) {
		const struct vfio_area *a = &region->areas[i];

		if ((a->offset | a->size) % PAGE)
			return wrong(r, "a mappable area is not of whole pages", a->offset);
		if (a->size > region->size || a->offset > region->size - a->size)
			return wrong(r, "a mappable area lies outside of the region", a->offset);
		if (i && a[-1].offset + a[-1].size > a->offset)
			return wrong(r, "mappable areas overlap", a->offset);
	}
	return 0;
}

static int parse_sparse(struct reply *r, size_t at)
{
	struct vfio_region_info_cap_sparse_mmap cap;
	struct vfio_region *region = r->region;

	if (r->len - at < sizeof(cap))
		return wrong(r, "the list of mappable areas is cut short", at);
	memcpy(&cap, r->data + at, sizeof(cap));
	at += sizeof(cap);
	if (r->sparse)
		return wrong(r, "two lists of mappable areas", at);
	if (cap.nr_areas > VFIO_SPARSE_AREAS_MAX)
		return wrong(r, "too many mappable areas", cap.nr_areas);
	if ((r->len - at) / sizeof(struct vfio_region_sparse_mmap_area) < cap.nr_areas)
		return wrong(r, "the list of mappable areas is cut short", cap.nr_areas);
	r->sparse = true;
	for (uint32_t i = 0; i < cap.nr_areas; i++) {
		struct vfio_region_sparse_mmap_area area;

		memcpy(&area, r->data + at + i * sizeof(area), sizeof(area));
		if (area.size) /* drivers leave empty ones in */
			region->areas[region->area_count++] =
				(struct vfio_area){ area.offset, area.size };
	}
	return 0;
}

static int parse_cap(struct reply *r, const struct vfio_info_cap_header *header, size_t at)
{
	struct vfio_region_info_cap_type type;

	switch (header->id) {
	case VFIO_REGION_INFO_CAP_SPARSE_MMAP: return parse_sparse(r, at);
	case VFIO_REGION_INFO_CAP_TYPE:
		if (r->len - at < sizeof(type))
			return wrong(r, "the type is cut short", at);
		memcpy(&type, r->data + at, sizeof(type));
		r->region->type = type.type;
		r->region->subtype = type.subtype;
		return 0;
	case VFIO_REGION_INFO_CAP_MSIX_MAPPABLE: r->region->msix_mappable = true; return 0;
	default: /* none we need */ return 0;
	}
}

static int parse_caps(struct reply *r, uint32_t at)
{
	struct vfio_info_cap_header header;

	for (unsigned int i = 0; at; i++, at = header.next) {
		if (i == CAPS_MAX)
			return wrong(r, "the list of capabilities has a loop", at);
		if (at < sizeof(struct vfio_region_info) || at > r->len ||
		    r->len - at < sizeof(header))
			return wrong(r, "a capability lies outside of the reply", at);
		memcpy(&header, r->data + at, sizeof(header));
		if (parse_cap(r, &header, at))
			return -EPROTO;
	}
	return 0;
}

int user_region_parse(const void *data, size_t len, uint32_t index, struct vfio_region *region,
		      struct error *err)
{
	struct reply r = { .data = data, .len = len, .region = region, .err = err };
	struct vfio_region_info info;

	memset(region, 0, sizeof(*region));
	region->index = index;
	region->map_fd = -1;
	if (len < sizeof(info))
		return wrong(&r, "the reply is cut short", len);
	memcpy(&info, data, sizeof(info));
	if (info.index != index)
		return wrong(&r, "the reply is about another one", info.index);
	if (info.size > INT64_MAX || info.offset > INT64_MAX || info.offset > INT64_MAX - info.size)
		return wrong(&r, "too large", info.size);
	region->readable = info.flags & VFIO_REGION_INFO_FLAG_READ;
	region->writable = info.flags & VFIO_REGION_INFO_FLAG_WRITE;
	region->size = info.size;
	region->offset = info.offset;
	if (info.flags & VFIO_REGION_INFO_FLAG_CAPS && parse_caps(&r, info.cap_offset))
		return -EPROTO;
	if (!(info.flags & VFIO_REGION_INFO_FLAG_MMAP) || !info.size) {
		region->area_count = 0;
		return 0;
	}
	if (!r.sparse && align_down(info.size, PAGE)) {
		region->area_count = 1;
		region->areas[0] = (struct vfio_area){ 0, align_down(info.size, PAGE) };
	}
	if (check_areas(&r))
		return -EPROTO;
	if (region->area_count && info.offset % PAGE)
		return wrong(&r, "a mappable region does not start at a page", info.offset);
	region->mappable = region->area_count;
	return 0;
}
