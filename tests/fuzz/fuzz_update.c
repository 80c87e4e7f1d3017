/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What another process hands over in a live update: KEPT, and what is made of it: a
 * vfio-user device, an IOAS. The input: u8 descriptors that come along, then the body.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "migration/update.h"
#include "tests/fuzz/without_check.h"
#include "vfio/kernel_space.h"
#include "vfio/user_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take_user(struct kept *kept)
{
	struct user_transport *u = calloc(1, sizeof(*u));
	struct vfio_region region = { .index = 7, .size = 4096 };
	struct vfio_irq irq;
	uint8_t value[8];

	u->unmask_fd = -1;
	user_dma_init(u);
	if (!user_take(u, kept, "dev", NULL)) {
		for (uint32_t i = 0; i < u->t.irq_count; i++)
			user_kept_irq(u, i, &irq, NULL);
		user_kept_read(u, &region, 0, value, sizeof(value), NULL);
		user_kept_read(u, &region, 4092, value, sizeof(value), NULL);
	}
	user_quiet_free(u);
	user_regions_free(u);
	user_dma_destroy(u);
	free(u);
}

static void take_iommufd(struct kept *kept)
{
	struct dma_space *space = dma_space_take_iommufd(kept, NULL, NULL);

	if (space)
		space->ops->free(space);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kept kept = { .count = 0 };
	int fds[FD_PASS_MAX];
	unsigned int count;

	if (!size)
		return 0;
	count = *data % FD_PASS_MAX;
	for (unsigned int i = 0; i < count; i++)
		fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (!kept_decode(&kept, data + 1, size - 1, fds, count, NULL)) {
		take_user(&kept);
		take_iommufd(&kept);
	}
	kept_destroy(&kept);
	return 0;
}
