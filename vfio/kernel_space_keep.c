/* SPDX-License-Identifier: Apache-2.0 */
/* A space's record of its mappings goes to another process, and comes from one. */
#include <errno.h>

#include "base/bytes.h"
#include "vfio/kernel_space.h"

#define MAPPING_SIZE 24u
#define MAPPINGS_AT_ONCE (KEPT_DATA_MAX / MAPPING_SIZE)
#define MAPPINGS_MAX 65536u

int kernel_space_keep(const struct kernel_space *ks, struct kept *kept, const char *name,
		      struct error *err)
{
	int r = 0;

	for (unsigned int first = 0; !r && first < ks->mapping_count; first += MAPPINGS_AT_ONCE) {
		unsigned int count = MIN(ks->mapping_count - first, MAPPINGS_AT_ONCE);
		uint8_t data[KEPT_DATA_MAX];

		for (unsigned int i = 0; i < count; i++) {
			const struct dma_mapping *m = &ks->mappings[first + i];

			store_le64(data + i * MAPPING_SIZE, m->iova);
			store_le64(data + i * MAPPING_SIZE + 8, m->size);
			store_le64(data + i * MAPPING_SIZE + 16, m->writable);
		}
		r = kept_add(kept, -1, data, count * MAPPING_SIZE, err, "%s/map/%u", name,
			     first / MAPPINGS_AT_ONCE);
	}
	return r;
}

static int take_some(struct kernel_space *ks, const uint8_t *data, size_t len, struct error *err)
{
	for (size_t at = 0; at < len; at += MAPPING_SIZE) {
		int r = kernel_space_reserve(ks, err);

		if (r)
			return r;
		kernel_space_remember(ks, load_le64(data + at), load_le64(data + at + 8), NULL,
				      load_le64(data + at + 16));
		ks->mappings[ks->mapping_count - 1].foreign = true;
	}
	return 0;
}

int kernel_space_take(struct kernel_space *ks, struct kept *kept, const char *name,
		      struct error *err)
{
	for (unsigned int n = 0; ks->mapping_count < MAPPINGS_MAX; n++) {
		size_t len;
		const uint8_t *data = kept_bytes(kept, &len, "%s/map/%u", name, n);
		int r;

		if (!data)
			return 0;
		if (len % MAPPING_SIZE)
			break;
		r = take_some(ks, data, len, err);
		if (r)
			return r;
	}
	return error_set(err, EBADMSG, "the DMA mappings did not come along whole");
}

struct dma_mapping *kernel_space_foreign(const struct kernel_space *ks, uint64_t iova,
					 uint64_t size)
{
	for (unsigned int i = 0; i < ks->mapping_count; i++) {
		struct dma_mapping *m = &ks->mappings[i];

		if (m->foreign && m->iova == iova && m->size == size)
			return m;
	}
	return NULL;
}
