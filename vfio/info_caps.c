/* SPDX-License-Identifier: Apache-2.0 */
#include "vfio/info_caps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "vfio/uapi_vfio.h"

int vfio_info_query(const struct vfio_kernel *kernel, int fd, unsigned long request,
		    const void *request_data, size_t size, void **info, size_t *info_size)
{
	_cleanup_free_ uint8_t *buffer = NULL;
	size_t room = size;

	/* The second answer may need more than the first said: a few tries, then no more. */
	for (int tries = 0; tries < 4; tries++) {
		uint32_t argsz = (uint32_t)room;
		int r;

		free(buffer);
		buffer = calloc(1, room);
		if (!buffer)
			return -ENOMEM;
		memcpy(buffer, request_data, size);
		memcpy(buffer, &argsz, sizeof(argsz));
		r = vfio_kernel_ioctl(kernel, fd, request, buffer);
		if (r < 0)
			return r;
		memcpy(&argsz, buffer, sizeof(argsz));
		if (argsz <= room) {
			*info = take_ptr(buffer);
			*info_size = room;
			return 0;
		}
		if (argsz > VFIO_INFO_SIZE_MAX)
			break;
		room = argsz;
	}
	return -EMSGSIZE;
}

uint32_t vfio_info_cap_find(const void *info, size_t info_size, uint32_t at, uint16_t id,
			    size_t len)
{
	size_t steps = info_size / sizeof(struct vfio_info_cap_header);

	while (at && steps--) {
		struct vfio_info_cap_header header;

		if (at > info_size || sizeof(header) > info_size - at)
			return 0;
		memcpy(&header, (const uint8_t *)info + at, sizeof(header));
		if (header.id == id && len <= info_size - at)
			return at;
		at = header.next;
	}
	return 0;
}
