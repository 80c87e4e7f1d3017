/* SPDX-License-Identifier: Apache-2.0 */
/* The node "snapshot" of the state tree: what is in `ram`, and where. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "migration/snapshot_private.h"

#define REGION_VERSION 1
#define RAM_MAX (1ULL << 52) /* of guest-physical addresses */
#define FRAME_SIZE 8	     /* bytes, in the tree */

#define COMPRESSION_NONE "none"
#define COMPRESSION_ZSTD "zstd"

static const char *const snapshot_known[] = { "id",	 "unit-size", "compression", "ram-bytes",
					      "base-id", "base",      NULL };
static const char *const region_known[] = { "gpa", "size", "offset", "frames", "pages", NULL };

void snapshot_new_id(char id[SNAPSHOT_ID_SIZE])
{
	uint8_t bytes[(SNAPSHOT_ID_SIZE - 1) / 2] = { 0 };
	size_t got = 0;

	while (got < sizeof(bytes)) {
		ssize_t n = getrandom(bytes + got, sizeof(bytes) - got, 0);

		if (n > 0)
			got += (size_t)n;
	}
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(id + 2 * i, 3, "%02x", bytes[i]);
}

static uint64_t frames_of(uint64_t size, uint32_t unit)
{
	return size / unit + !!(size % unit);
}

int snapshot_layout_add(struct snapshot_layout *layout, uint64_t gpa, uint64_t size,
			struct error *err)
{
	const struct snapshot_region *last =
		layout->count ? &layout->regions[layout->count - 1] : NULL;
	struct snapshot_region *region = &layout->regions[layout->count];

	if (layout->count == SNAPSHOT_REGIONS_MAX)
		return error_set(err, E2BIG, "more than %d regions of RAM", SNAPSHOT_REGIONS_MAX);
	if (!size || (gpa | size) % GUEST_PAGE_SIZE || gpa > RAM_MAX || size > RAM_MAX)
		return error_set(err, EINVAL,
				 "RAM at 0x%" PRIx64 " of 0x%" PRIx64
				 " bytes is not in whole pages",
				 gpa, size);
	if (last && gpa < last->gpa + last->size)
		return error_set(
			err, EINVAL,
			"RAM at 0x%" PRIx64 " overlaps the region before, or is out of order", gpa);
	*region = (struct snapshot_region){
		.gpa = gpa,
		.size = size,
		.offset = align_up(layout->plain_end, layout->unit),
		.first_unit = layout->units,
		.units = frames_of(size, layout->unit),
	};
	layout->count++;
	layout->units += region->units;
	layout->ram_size += size;
	layout->plain_end = region->offset + size;
	return 0;
}

int snapshot_layout_of(struct snapshot_layout *layout, const struct guest_memory *memory,
		       struct error *err)
{
	int r = 0;

	*layout = (struct snapshot_layout){ .unit = SNAPSHOT_UNIT };
	for (unsigned int i = 0; i < guest_memory_region_count(memory); i++)
		if (guest_memory_region(memory, i)->page_size > SNAPSHOT_UNIT)
			layout->unit = SNAPSHOT_UNIT_MAX;
	for (unsigned int i = 0; i < guest_memory_region_count(memory) && !r; i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		r = snapshot_layout_add(layout, region->gpa, region->size, err);
	}
	return r;
}

int snapshot_layout_match(const struct snapshot_layout *layout, const struct guest_memory *memory,
			  struct error *err)
{
	unsigned int count = guest_memory_region_count(memory);

	for (unsigned int i = 0; i < MIN(layout->count, count); i++) {
		const struct guest_memory_region *have = guest_memory_region(memory, i);
		const struct snapshot_region *want = &layout->regions[i];

		if (have->gpa != want->gpa || have->size != want->size)
			return error_set(err, EINVAL,
					 "the snapshot has RAM at 0x%" PRIx64 " of %" PRIu64
					 " MiB, the VM at 0x%" PRIx64 " of %" PRIu64 " MiB",
					 want->gpa, (uint64_t)(want->size / MIB), have->gpa,
					 (uint64_t)(have->size / MIB));
	}
	if (layout->count != count)
		return error_set(err, EINVAL, "the snapshot has %u regions of RAM, the VM has %u",
				 layout->count, count);
	return 0;
}

void snapshot_layout_destroy(struct snapshot_layout *layout)
{
	for (unsigned int i = 0; i < layout->count; i++)
		dirty_bitmap_destroy(&layout->regions[i].held);
	layout->count = 0;
}

struct snapshot_place snapshot_place(const struct snapshot_layout *layout, uint64_t unit)
{
	struct snapshot_place place = { 0 };
	const struct snapshot_region *region = layout->regions;

	while (unit >= region->first_unit + region->units) {
		region++;
		place.region++;
	}
	place.offset = (unit - region->first_unit) * layout->unit;
	place.len = MIN((uint64_t)layout->unit, region->size - place.offset);
	return place;
}

static int save_frames(const struct snapshot_image *image, const struct snapshot_region *region,
		       struct state_writer *writer, struct error *err)
{
	size_t size = region->units * FRAME_SIZE;
	_cleanup_free_ uint8_t *bytes = malloc(size);

	if (!bytes)
		return error_set_errno(err, ENOMEM, "index of %" PRIu64 " frames", region->units);
	for (uint64_t i = 0; i < region->units; i++) {
		const struct snapshot_frame *frame = &image->frames[region->first_unit + i];

		store_le32(bytes + i * FRAME_SIZE, frame->block);
		store_le32(bytes + i * FRAME_SIZE + 4, frame->len);
	}
	state_put_bytes(writer, "frames", bytes, size);
	return 0;
}

static int save_held(const struct snapshot_region *region, struct state_writer *writer,
		     struct error *err)
{
	size_t words = (size_t)((region->held.pages + 63) / 64);
	_cleanup_free_ uint64_t *le = malloc(words * sizeof(*le));

	if (!le)
		return error_set_errno(err, ENOMEM, "bitmap of %" PRIu64 " pages",
				       region->held.pages);
	for (size_t i = 0; i < words; i++)
		le[i] = htole64(region->held.words[i]);
	state_put_bytes(writer, "pages", le, words * sizeof(*le));
	return 0;
}

static int save_region(const struct snapshot_image *image, unsigned int index,
		       struct state_writer *writer, struct error *err)
{
	const struct snapshot_region *region = &image->layout.regions[index];
	char name[32];
	int r = 0;

	snprintf(name, sizeof(name), "region@%" PRIx64, region->gpa);
	state_begin(writer, name, "ram-region", REGION_VERSION);
	state_put_u64(writer, "gpa", region->gpa);
	state_put_u64(writer, "size", region->size);
	if (image->compressed)
		r = save_frames(image, region, writer, err);
	else
		state_put_u64(writer, "offset", region->offset);
	if (!r && image->base_id[0])
		r = save_held(region, writer, err);
	state_end(writer);
	return r;
}

int snapshot_image_save(const struct snapshot_image *image, struct state_writer *writer,
			struct error *err)
{
	int r = 0;

	state_begin(writer, "snapshot", "snapshot", SNAPSHOT_VERSION);
	state_put_string(writer, "id", image->id);
	state_put_u32(writer, "unit-size", image->layout.unit);
	state_put_string(writer, "compression",
			 image->compressed ? COMPRESSION_ZSTD : COMPRESSION_NONE);
	state_put_u64(writer, "ram-bytes", image->file_size);
	if (image->base_id[0]) {
		state_put_string(writer, "base-id", image->base_id);
		state_put_string(writer, "base", image->base);
		state_require(writer, "base-id");
	}
	for (unsigned int i = 0; i < image->layout.count && !r; i++)
		r = save_region(image, i, writer, err);
	state_end(writer);
	return r;
}

static int bad(struct error *err, const struct state_node *node, const char *what)
{
	char path[128];

	state_path(node, path, sizeof(path));
	return error_set(err, EINVAL, "%s: %s", path, what);
}

static int load_id(const struct state_node *node, const char *name, char id[SNAPSHOT_ID_SIZE],
		   struct error *err)
{
	const char *text;
	int r = state_get_string(node, name, &text, err);

	if (r)
		return r;
	if (strlen(text) != SNAPSHOT_ID_SIZE - 1 ||
	    strspn(text, "0123456789abcdef") != SNAPSHOT_ID_SIZE - 1)
		return bad(err, node, "an id has 32 hexadecimal digits");
	memcpy(id, text, SNAPSHOT_ID_SIZE);
	return 0;
}

static int load_base(struct snapshot_image *image, const struct state_node *node, struct error *err)
{
	const char *base;
	int r;

	if (!state_has(node, "base-id"))
		return 0;
	r = load_id(node, "base-id", image->base_id, err);
	if (!r)
		r = state_get_string(node, "base", &base, err);
	if (r)
		return r;
	if (!*base || strlen(base) >= sizeof(image->base) ||
	    (*base != '/' && (strchr(base, '/') || !strcmp(base, ".") || !strcmp(base, ".."))))
		return bad(err, node, "base is neither an absolute path nor a name beside it");
	if (!strcmp(image->base_id, image->id))
		return bad(err, node, "it is its own base");
	strcpy(image->base, base);
	return 0;
}

static int load_header(struct snapshot_image *image, const struct state_node *node,
		       struct error *err)
{
	const char *compression;
	uint64_t unit = 0;
	int r = state_expect(node, "snapshot", SNAPSHOT_VERSION, snapshot_known, NULL, err);

	if (!r)
		r = load_id(node, "id", image->id, err);
	if (!r)
		r = state_get_range(node, "unit-size", SNAPSHOT_UNIT, SNAPSHOT_UNIT_MAX, &unit,
				    err);
	if (!r && !is_power_of_2(unit))
		r = bad(err, node, "unit-size is no power of two");
	if (!r)
		r = state_get_string(node, "compression", &compression, err);
	if (!r)
		r = state_get_range(node, "ram-bytes", 0, 2 * RAM_MAX, &image->file_size, err);
	if (!r)
		r = load_base(image, node, err);
	if (r)
		return r;
	image->layout.unit = (uint32_t)unit;
	image->compressed = !strcmp(compression, COMPRESSION_ZSTD);
	if (!image->compressed && strcmp(compression, COMPRESSION_NONE))
		return error_set(err, EPROTONOSUPPORT,
				 "/snapshot: compression '%.32s' is not known here", compression);
	return 0;
}

/* The frames that the property holds: count bytes were checked, so `units` is bounded. */
static int load_frames(struct snapshot_image *image, const struct snapshot_region *region,
		       const struct state_node *node, struct error *err)
{
	uint64_t total = region->first_unit + region->units;
	struct snapshot_frame *grown;
	const uint8_t *bytes;
	const void *data;
	size_t len;
	int r = state_get_blob(node, "frames", &data, &len, err);

	if (r)
		return r;
	if (len % FRAME_SIZE || len / FRAME_SIZE != region->units)
		return bad(err, node, "frames is not one entry for each unit");
	grown = reallocarray(image->frames, total, sizeof(*grown));
	if (!grown)
		return error_set_errno(err, ENOMEM, "%" PRIu64 " frames", total);
	image->frames = grown;
	bytes = data;
	for (uint64_t i = 0; i < region->units; i++) {
		uint64_t left = region->size - i * image->layout.unit;
		struct snapshot_frame frame = {
			.block = load_le32(bytes + i * FRAME_SIZE),
			.len = load_le32(bytes + i * FRAME_SIZE + 4),
		};
		uint64_t start = (uint64_t)frame.block * SNAPSHOT_BLOCK;

		if (frame.len > MIN(left, (uint64_t)image->layout.unit) ||
		    (frame.len && start + align_up(frame.len, SNAPSHOT_BLOCK) > image->file_size))
			return bad(err, node, "a frame is not inside ram");
		image->frames[region->first_unit + i] = frame;
	}
	return 0;
}

static int load_held(struct snapshot_region *region, const struct state_node *node,
		     struct error *err)
{
	uint64_t pages = region->size / GUEST_PAGE_SIZE;
	const void *data;
	size_t len;
	int r = state_get_blob(node, "pages", &data, &len, err);

	if (r)
		return r;
	if (len % 8 || len / 8 != (pages + 63) / 64)
		return bad(err, node, "pages is not one bit for each page");
	r = dirty_bitmap_init(&region->held, pages, err);
	if (r)
		return r;
	for (size_t i = 0; i < len / 8; i++)
		region->held.words[i] = load_le64((const uint8_t *)data + i * 8);
	if (pages % 64 && region->held.words[len / 8 - 1] >> pages % 64)
		return bad(err, node, "pages has bits past the end of the region");
	return 0;
}

static int load_region(struct snapshot_image *image, const struct state_node *node,
		       struct error *err)
{
	struct snapshot_region *region = &image->layout.regions[image->layout.count];
	uint64_t gpa, size;
	int r = state_expect(node, "ram-region", REGION_VERSION, region_known, NULL, err);

	if (!r)
		r = state_get_u64(node, "gpa", &gpa, err);
	if (!r)
		r = state_get_u64(node, "size", &size, err);
	if (!r) {
		r = snapshot_layout_add(&image->layout, gpa, size, err);
		if (r)
			error_prefix(err, "/snapshot");
	}
	if (!r && image->compressed)
		r = load_frames(image, region, node, err);
	if (!r && image->base_id[0])
		r = load_held(region, node, err);
	if (r || image->compressed)
		return r;
	r = state_get_u64(node, "offset", &region->offset, err);
	if (!r && (region->offset % SNAPSHOT_BLOCK || region->offset > image->file_size ||
		   size > image->file_size - region->offset))
		r = bad(err, node, "it is not inside ram");
	return r;
}

int snapshot_image_load(struct snapshot_image *image, const struct state_node *root,
			struct error *err)
{
	struct state_node node, child = { .offset = -1 };
	int r;

	*image = (struct snapshot_image){ 0 };
	r = state_child(root, "snapshot", &node, err);
	if (!r)
		r = load_header(image, &node, err);
	while (!r && state_next_child(&node, &child))
		r = load_region(image, &child, err);
	if (!r && !image->layout.count)
		r = bad(err, &node, "it has no RAM");
	if (r)
		snapshot_image_destroy(image);
	return r;
}

void snapshot_image_destroy(struct snapshot_image *image)
{
	snapshot_layout_destroy(&image->layout);
	free(image->frames);
	image->frames = NULL;
}
