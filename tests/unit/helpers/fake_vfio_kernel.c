/* SPDX-License-Identifier: Apache-2.0 */
/* The calls. sysfs is in fake_vfio_sysfs.c. */
#include "tests/unit/helpers/fake_vfio_kernel.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/helpers/fake_vfio_private.h"
#include "vfio/uapi_iommufd.h"
#include "vfio/uapi_vfio.h"

#define PAGE 4096U

static bool fails(struct fake_vfio_kernel *fake, const char *name)
{
	if (++fake->calls != fake->fail_at)
		return false;
	fake->failed = name;
	return true;
}

static int new_fd(struct fake_vfio_kernel *fake)
{
	int fd = memfd_create("fake", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	fake->opened++;
	return fd;
}

/* Descriptors that were copied are the same file. */
static bool same_file(int a, int b)
{
	struct stat x, y;

	return a >= 0 && b >= 0 && !fstat(a, &x) && !fstat(b, &y) && x.st_ino == y.st_ino &&
	       x.st_dev == y.st_dev;
}

/* Another descriptor of the same file; -1: there is none. */
static int another(int fd)
{
	for (int other = 3; other < 1024; other++)
		if (other != fd && same_file(other, fd))
			return other;
	return -1;
}

/* Of a copy, the one that is known. */
static int known_fd(struct fake_vfio_kernel *fake, int fd)
{
	for (unsigned int i = 0; i < fake->device_count; i++)
		if (same_file(fake->devices[i].fd, fd))
			return fake->devices[i].fd;
	for (unsigned int i = 0; i < FAKE_MAX; i++)
		if (same_file(fake->groups[i].fd, fd))
			return fake->groups[i].fd;
	if (same_file(fake->container, fd))
		return fake->container;
	return same_file(fake->iommufd, fd) ? fake->iommufd : fd;
}

static struct fake_device *device_of(struct fake_vfio_kernel *fake, int fd)
{
	for (unsigned int i = 0; i < fake->device_count; i++)
		if (fake->devices[i].fd == fd)
			return &fake->devices[i];
	return NULL;
}

static int open_device(struct fake_vfio_kernel *fake, struct fake_device *dev)
{
	if (dev->fd >= 0)
		return -EBUSY;
	dev->fd = new_fd(fake);
	ck_assert_int_eq(ftruncate(dev->fd, 64 * PAGE), 0);
	return dev->fd;
}

static int open_group(struct fake_vfio_kernel *fake, unsigned int number)
{
	unsigned int slot = 0;

	for (unsigned int i = 0; i < FAKE_MAX; i++)
		if (fake->groups[i].fd >= 0 && fake->groups[i].number == number)
			return -EBUSY;
	while (fake->groups[slot].fd >= 0)
		slot++;
	fake->groups[slot].fd = new_fd(fake);
	fake->groups[slot].number = number;
	fake->groups[slot].in_container = false;
	return fake->groups[slot].fd;
}

static int fake_open(void *opaque, const char *path, int flags)
{
	struct fake_vfio_kernel *fake = opaque;
	unsigned int number;

	if (fails(fake, path))
		return -fake->fail_code;
	if (!strcmp(path, "/dev/iommu"))
		return fake->no_iommufd ? -ENOENT : (fake->iommufd = new_fd(fake));
	if (!strcmp(path, "/dev/vfio/vfio"))
		return fake->container = new_fd(fake);
	if (sscanf(path, "/dev/vfio/devices/vfio%u", &number) == 1) {
		for (unsigned int i = 0; i < fake->device_count; i++)
			if (fake->devices[i].number == number)
				return open_device(fake, &fake->devices[i]);
		return -ENOENT;
	}
	if (sscanf(path, "/dev/vfio/%u", &number) == 1)
		return open_group(fake, number);
	return -ENOENT;
}

static void close_device(struct fake_vfio_kernel *fake, struct fake_device *dev)
{
	dev->fd = -1;
	dev->bound = false;
	dev->attached = 0;
	dev->unmask_fd = -1;
	for (unsigned int i = 0; i < FAKE_MAX; i++)
		dev->irq_fds[i] = -1;
}

static unsigned int groups_inside(const struct fake_vfio_kernel *fake)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < FAKE_MAX; i++)
		n += fake->groups[i].fd >= 0 && fake->groups[i].in_container;
	return n;
}

static void close_group(struct fake_vfio_kernel *fake, unsigned int slot)
{
	for (unsigned int i = 0; i < fake->device_count; i++)
		fake->misordered += fake->devices[i].fd >= 0 &&
				    fake->devices[i].group == fake->groups[slot].number;
	fake->groups[slot].fd = -1;
	if (groups_inside(fake))
		return;
	fake->iommu_set = fake->logging = false;
	memset(fake->maps, 0, sizeof(fake->maps));
}

static void fake_close(void *opaque, int fd)
{
	struct fake_vfio_kernel *fake = opaque;
	struct fake_device *dev = device_of(fake, fd);
	int other = another(fd);

	/* Not the last one: the file stays open. */
	if (other >= 0) {
		ck_assert_int_eq(close(fd), 0);
		if (dev)
			dev->fd = other;
		if (fd == fake->iommufd)
			fake->iommufd = other;
		if (fd == fake->container)
			fake->container = other;
		for (unsigned int i = 0; i < FAKE_MAX; i++)
			if (fake->groups[i].fd == fd)
				fake->groups[i].fd = other;
		return;
	}
	fake->opened--;
	ck_assert_int_eq(close(fd), 0);
	if (dev)
		close_device(fake, dev);
	for (unsigned int i = 0; i < FAKE_MAX; i++)
		if (fake->groups[i].fd == fd)
			close_group(fake, i);
	if (fd == fake->iommufd) {
		fake->iommufd = -1;
		fake->ioas = 0;
		memset(fake->maps, 0, sizeof(fake->maps));
	}
	if (fd == fake->container)
		fake->container = -1;
}

/* What both kinds of space do. */

static int add_map(struct fake_vfio_kernel *fake, const struct fake_dma *map)
{
	uint64_t last = map->iova + map->size - 1;
	struct fake_dma *free_one = NULL;
	bool allowed = !fake->range_count;

	if (!map->size || last < map->iova || map->iova % PAGE || map->size % PAGE)
		return -EINVAL;
	for (unsigned int i = 0; i < fake->range_count; i++)
		allowed |= map->iova >= fake->ranges[i].start && last <= fake->ranges[i].last;
	if (!allowed)
		return -EINVAL;
	for (unsigned int i = 0; i < FAKE_MAX; i++) {
		struct fake_dma *m = &fake->maps[i];

		if (!m->size)
			free_one = free_one ? free_one : m;
		else if (map->iova <= m->iova + m->size - 1 && m->iova <= last)
			return -EEXIST;
	}
	if (!free_one)
		return -ENOSPC;
	*free_one = *map;
	return 0;
}

static struct fake_dma *find_map(struct fake_vfio_kernel *fake, uint64_t iova, uint64_t size)
{
	for (unsigned int i = 0; i < FAKE_MAX; i++)
		if (fake->maps[i].size == size && fake->maps[i].iova == iova)
			return &fake->maps[i];
	return NULL;
}

static int remove_map(struct fake_vfio_kernel *fake, uint64_t iova, uint64_t size)
{
	struct fake_dma *there = size ? find_map(fake, iova, size) : NULL;

	if (!there)
		return -ENOENT;
	there->size = 0;
	return 0;
}

static void get_dirty(struct fake_vfio_kernel *fake, uint64_t iova, uint64_t size, bool clear,
		      uint64_t page, uint64_t *words)
{
	for (unsigned int i = 0; i < FAKE_MAX; i++) {
		uint64_t at = fake->dirty[i] - 1;

		if (!fake->dirty[i] || at < iova || at - iova >= size)
			continue;
		words[(at - iova) / page / 64] |= 1ULL << (at - iova) / page % 64;
		if (clear)
			fake->dirty[i] = 0;
	}
}

/* iommufd */

static struct fake_hwpt *hwpt_of(struct fake_vfio_kernel *fake, uint32_t id)
{
	for (unsigned int i = 0; id && i < FAKE_MAX; i++)
		if (fake->hwpts[i].id == id)
			return &fake->hwpts[i];
	return NULL;
}

static struct fake_device *by_devid(struct fake_vfio_kernel *fake, uint32_t devid)
{
	/* Devices' ids are 101, 102 ... */
	if (devid <= 100 || devid > 100 + fake->device_count || !fake->devices[devid - 101].bound)
		return NULL;
	return &fake->devices[devid - 101];
}

static int destroy(struct fake_vfio_kernel *fake, uint32_t id)
{
	struct fake_hwpt *hwpt = hwpt_of(fake, id);

	for (unsigned int i = 0; i < fake->device_count; i++)
		if (fake->devices[i].attached == id) {
			fake->misordered++;
			return -EBUSY;
		}
	if (hwpt) {
		*hwpt = (struct fake_hwpt){ .id = 0 };
	} else if (id == fake->ioas) {
		fake->ioas = 0;
		memset(fake->maps, 0, sizeof(fake->maps));
	} else {
		return -ENOENT;
	}
	return 0;
}

static int ioas_iova_ranges(struct fake_vfio_kernel *fake, struct iommu_ioas_iova_ranges *args)
{
	struct iommu_iova_range *out = (void *)(uintptr_t)args->allowed_iovas;
	uint32_t room = args->num_iovas;

	args->num_iovas = MAX(fake->range_count, 1U);
	for (unsigned int i = 0; i < MIN(room, args->num_iovas); i++) {
		out[i].start = fake->range_count ? fake->ranges[i].start : 0;
		out[i].last = fake->range_count ? fake->ranges[i].last : UINT64_MAX;
	}
	return room < args->num_iovas ? -EMSGSIZE : 0;
}

static int hwpt_alloc(struct fake_vfio_kernel *fake, struct iommu_hwpt_alloc *args)
{
	struct fake_device *dev = by_devid(fake, args->dev_id);
	unsigned int slot = 0;

	if (!dev || args->pt_id != fake->ioas)
		return -ENOENT;
	if (!dev->can_track)
		return -EOPNOTSUPP;
	while (slot < FAKE_MAX && fake->hwpts[slot].id)
		slot++;
	ck_assert_uint_lt(slot, FAKE_MAX);
	args->out_hwpt_id = ++fake->next_id;
	fake->hwpts[slot] = (struct fake_hwpt){ .id = args->out_hwpt_id, .iommu = dev->iommu };
	return 0;
}

static int hw_info(struct fake_vfio_kernel *fake, struct iommu_hw_info *args)
{
	struct fake_device *dev = by_devid(fake, args->dev_id);

	if (!dev || dev->software)
		return -ENOENT;
	args->out_capabilities = dev->can_track ? IOMMU_HW_CAP_DIRTY_TRACKING : 0;
	return 0;
}

static int set_tracking(struct fake_vfio_kernel *fake,
			const struct iommu_hwpt_set_dirty_tracking *args)
{
	struct fake_hwpt *hwpt = hwpt_of(fake, args->hwpt_id);

	if (!hwpt)
		return -ENOENT;
	hwpt->tracking = args->flags;
	return 0;
}

static int read_tracking(struct fake_vfio_kernel *fake,
			 const struct iommu_hwpt_get_dirty_bitmap *args)
{
	const struct fake_hwpt *hwpt = hwpt_of(fake, args->hwpt_id);

	if (!hwpt || !hwpt->tracking || args->page_size != PAGE || args->iova % PAGE ||
	    args->length % PAGE)
		return -EINVAL;
	fake->no_clears += args->flags != 0;
	get_dirty(fake, args->iova, args->length, !args->flags, PAGE,
		  (void *)(uintptr_t)args->data);
	return 0;
}

static int ioas_map(struct fake_vfio_kernel *fake, const struct iommu_ioas_map *args)
{
	if (args->ioas_id != fake->ioas || !(args->flags & IOMMU_IOAS_MAP_FIXED_IOVA))
		return -EINVAL;
	return add_map(fake,
		       &(struct fake_dma){ .iova = args->iova,
					   .size = args->length,
					   .address = args->user_va,
					   .fd = -1,
					   .writable = args->flags & IOMMU_IOAS_MAP_WRITEABLE });
}

static int ioas_map_file(struct fake_vfio_kernel *fake, const struct iommu_ioas_map_file *args)
{
	if (fake->no_map_file)
		return -ENOTTY;
	if (args->ioas_id != fake->ioas || !(args->flags & IOMMU_IOAS_MAP_FIXED_IOVA))
		return -EINVAL;
	return add_map(fake,
		       &(struct fake_dma){ .iova = args->iova,
					   .size = args->length,
					   .address = args->start,
					   .fd = args->fd,
					   .by_file = true,
					   .writable = args->flags & IOMMU_IOAS_MAP_WRITEABLE });
}

static int set_option(struct fake_vfio_kernel *fake, const struct iommu_option *args)
{
	if (fake->unprivileged)
		return -EPERM;
	if (fake->ioas)
		return -EBUSY;
	fake->process_accounting = args->val64;
	return 0;
}

static int iommufd_ioctl(struct fake_vfio_kernel *fake, unsigned long request, void *arg)
{
	struct iommu_ioas_unmap *unmap = arg;

	switch (request) {
	case IOMMU_IOAS_ALLOC:
		((struct iommu_ioas_alloc *)arg)->out_ioas_id = fake->ioas = ++fake->next_id;
		return 0;
	case IOMMU_IOAS_CHANGE_PROCESS: fake->changes++; return 0;
	case IOMMU_DESTROY: return destroy(fake, ((struct iommu_destroy *)arg)->id);
	case IOMMU_OPTION: return set_option(fake, arg);
	case IOMMU_IOAS_IOVA_RANGES: return ioas_iova_ranges(fake, arg);
	case IOMMU_IOAS_MAP: return ioas_map(fake, arg);
	case IOMMU_IOAS_MAP_FILE: return ioas_map_file(fake, arg);
	case IOMMU_IOAS_UNMAP: return remove_map(fake, unmap->iova, unmap->length);
	case IOMMU_GET_HW_INFO: return hw_info(fake, arg);
	case IOMMU_HWPT_ALLOC: return hwpt_alloc(fake, arg);
	case IOMMU_HWPT_SET_DIRTY_TRACKING: return set_tracking(fake, arg);
	case IOMMU_HWPT_GET_DIRTY_BITMAP: return read_tracking(fake, arg);
	default: return -ENOTTY;
	}
}

/* The container */

static uint32_t page_of_log(const struct fake_vfio_kernel *fake)
{
	return fake->dirty_page ? fake->dirty_page : PAGE;
}

/* As the kernel has it: of whole mappings, in its own page size. */
static int read_log(struct fake_vfio_kernel *fake, uint64_t iova, uint64_t size,
		    const struct vfio_bitmap *bitmap)
{
	bool starts = false, ends = false;

	for (unsigned int i = 0; i < FAKE_MAX; i++) {
		starts |= fake->maps[i].size && fake->maps[i].iova == iova;
		ends |= fake->maps[i].size &&
			fake->maps[i].iova + fake->maps[i].size == iova + size;
	}
	if (!fake->logging || !starts || !ends || bitmap->pgsize != page_of_log(fake) ||
	    bitmap->size > (fake->dirty_max ? fake->dirty_max : 256 * MIB) ||
	    bitmap->size < size / bitmap->pgsize / 8)
		return -EINVAL;
	get_dirty(fake, iova, size, true, bitmap->pgsize, (void *)bitmap->data);
	return 0;
}

/* The structure with its capabilities: migration, then ranges; Debian 12's numbers. */
static int iommu_info(struct fake_vfio_kernel *fake, struct vfio_iommu_type1_info *out)
{
	struct {
		struct vfio_iommu_type1_info info;
		struct vfio_iommu_type1_info_cap_migration migration;
		uint8_t ranges[sizeof(struct vfio_iommu_type1_info_cap_iova_range) +
			       sizeof(fake->ranges)];
	} all = {
		.info = { .argsz = sizeof(all),
			  .flags = VFIO_IOMMU_INFO_CAPS | VFIO_IOMMU_INFO_PGSIZES,
			  .iova_pgsizes = PAGE },
		.migration = { .header = { .id = VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
					   .version = 1,
					   .next = offsetof(__typeof__(all), ranges) },
			       .pgsize_bitmap = page_of_log(fake) | 1 << 21,
			       .max_dirty_bitmap_size =
				       fake->dirty_max ? fake->dirty_max : 256 * MIB },
	};
	struct vfio_iommu_type1_info_cap_iova_range ranges = {
		.header = { .id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, .version = 1 },
		.nr_iovas = fake->range_count,
	};
	uint32_t room = out->argsz;

	memcpy(all.ranges, &ranges, sizeof(ranges));
	memcpy(all.ranges + sizeof(ranges), fake->ranges, sizeof(fake->ranges));
	if (!fake->iommu_set)
		return -EINVAL;
	if (room >= sizeof(all))
		all.info.cap_offset = fake->no_dirty_log ? offsetof(__typeof__(all), ranges)
							 : offsetof(__typeof__(all), migration);
	memcpy(out, &all, MIN(room, sizeof(all)));
	return 0;
}

static int dirty_pages(struct fake_vfio_kernel *fake,
		       const struct vfio_iommu_type1_dirty_bitmap *args)
{
	struct vfio_iommu_type1_dirty_bitmap_get get;

	if (!fake->iommu_set)
		return -EINVAL;
	if (args->flags != VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP) {
		fake->logging = args->flags == VFIO_IOMMU_DIRTY_PAGES_FLAG_START;
		return 0;
	}
	memcpy(&get, args->data, sizeof(get));
	if (args->argsz != sizeof(*args) + sizeof(get))
		return -EINVAL;
	return read_log(fake, get.iova, get.size, &get.bitmap);
}

static int unmap_dma(struct fake_vfio_kernel *fake, struct vfio_iommu_type1_dma_unmap *args)
{
	struct vfio_bitmap bitmap;
	struct fake_dma *there;

	if (args->flags & VFIO_DMA_UNMAP_FLAG_VADDR) {
		there = find_map(fake, args->iova, args->size);
		if (args->flags != VFIO_DMA_UNMAP_FLAG_VADDR || fake->no_update_vaddr || !there ||
		    there->no_address)
			return -EINVAL;
		there->no_address = true;
		return 0;
	}
	if (args->flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) {
		memcpy(&bitmap, args->data, sizeof(bitmap));
		if (args->argsz != sizeof(*args) + sizeof(bitmap) ||
		    read_log(fake, args->iova, args->size, &bitmap))
			return -EINVAL;
	}
	/* The container says how much it was rather than fail. */
	if (remove_map(fake, args->iova, args->size))
		args->size = 0;
	return 0;
}

static int map_dma(struct fake_vfio_kernel *fake, const struct vfio_iommu_type1_dma_map *args)
{
	struct fake_dma *there;

	if (args->flags & VFIO_DMA_MAP_FLAG_VADDR) {
		there = find_map(fake, args->iova, args->size);
		if (args->flags != VFIO_DMA_MAP_FLAG_VADDR || !there || !there->no_address)
			return -EINVAL;
		there->no_address = false;
		there->address = args->vaddr;
		fake->changes++;
		return 0;
	}
	return add_map(fake,
		       &(struct fake_dma){ .iova = args->iova,
					   .size = args->size,
					   .address = args->vaddr,
					   .fd = -1,
					   .writable = args->flags & VFIO_DMA_MAP_FLAG_WRITE });
}

static int container_ioctl(struct fake_vfio_kernel *fake, unsigned long request, void *arg)
{
	switch (request) {
	case VFIO_GET_API_VERSION: return fake->api_version;
	case VFIO_CHECK_EXTENSION:
		if ((uintptr_t)arg == VFIO_UPDATE_VADDR)
			return fake->iommu_set && !fake->no_update_vaddr;
		return !fake->no_type1 && (uintptr_t)arg == VFIO_TYPE1v2_IOMMU;
	case VFIO_SET_IOMMU:
		if (!groups_inside(fake) || fake->iommu_set)
			return -EINVAL;
		fake->iommu_set = true;
		return 0;
	case VFIO_IOMMU_GET_INFO: return iommu_info(fake, arg);
	case VFIO_IOMMU_MAP_DMA: return fake->iommu_set ? map_dma(fake, arg) : -EINVAL;
	case VFIO_IOMMU_UNMAP_DMA: return fake->iommu_set ? unmap_dma(fake, arg) : -EINVAL;
	case VFIO_IOMMU_DIRTY_PAGES: return dirty_pages(fake, arg);
	default: return -ENOTTY;
	}
}

static int group_ioctl(struct fake_vfio_kernel *fake, unsigned int slot, unsigned long request,
		       void *arg)
{
	switch (request) {
	case VFIO_GROUP_GET_STATUS:
		((struct vfio_group_status *)arg)->flags =
			fake->not_viable ? 0 : VFIO_GROUP_FLAGS_VIABLE;
		return 0;
	case VFIO_GROUP_SET_CONTAINER:
		if (*(int *)arg != fake->container || fake->groups[slot].in_container)
			return -EINVAL;
		fake->groups[slot].in_container = true;
		return 0;
	case VFIO_GROUP_GET_DEVICE_FD:
		for (unsigned int i = 0; i < fake->device_count; i++)
			if (fake->devices[i].group == fake->groups[slot].number &&
			    !strcmp(fake->devices[i].name, arg))
				return !fake->iommu_set ? -EINVAL
				       : fake->devices[i].fd >= 0
					       ? new_fd(fake) /* as often as asked */
					       : open_device(fake, &fake->devices[i]);
		return -ENODEV;
	default: return -ENOTTY;
	}
}

static int fake_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	struct fake_vfio_kernel *fake = opaque;
	struct fake_device *dev = device_of(fake, fd = known_fd(fake, fd));

	if (fails(fake, fake_vfio_name(request)))
		return -fake->fail_code;
	if (fd == fake->iommufd)
		return iommufd_ioctl(fake, request, arg);
	if (fd == fake->container)
		return container_ioctl(fake, request, arg);
	if (dev)
		return fake_vfio_device_ioctl(fake, dev, request, arg);
	for (unsigned int i = 0; i < FAKE_MAX; i++)
		if (fake->groups[i].fd == fd)
			return group_ioctl(fake, i, request, arg);
	ck_abort_msg("ioctl on a stranger's descriptor");
	return -EBADF;
}

static ssize_t fake_pread(void *opaque, int fd, void *data, size_t len, uint64_t offset)
{
	struct fake_vfio_kernel *fake = opaque;
	struct fake_device *dev = device_of(fake, known_fd(fake, fd));

	ck_assert_ptr_nonnull(dev);
	if (fails(fake, "pread"))
		return -fake->fail_code;
	return pread(fd, data, len - MIN(len, dev->short_by), (off_t)offset);
}

static ssize_t fake_pwrite(void *opaque, int fd, const void *data, size_t len, uint64_t offset)
{
	struct fake_vfio_kernel *fake = opaque;
	struct fake_device *dev = device_of(fake, known_fd(fake, fd));

	ck_assert_ptr_nonnull(dev);
	if (fails(fake, "pwrite"))
		return -fake->fail_code;
	return pwrite(fd, data, len - MIN(len, dev->short_by), (off_t)offset);
}

static int fake_mmap(void *opaque, int fd, uint64_t offset, uint64_t size, int prot, void **address)
{
	if (fails(opaque, "mmap"))
		return -((struct fake_vfio_kernel *)opaque)->fail_code;
	*address = mmap(NULL, size, prot, MAP_SHARED, fd, (off_t)offset);
	return *address == MAP_FAILED ? -errno : 0;
}

static void fake_memlock(void *opaque, struct vfio_memlock *memlock)
{
	*memlock = ((struct fake_vfio_kernel *)opaque)->memlock;
}

static void add_device(struct fake_vfio_kernel *fake, const char *name, unsigned int group)
{
	struct fake_device *dev = &fake->devices[fake->device_count];

	*dev = (struct fake_device){
		.name = name,
		.number = fake->device_count++,
		.group = group,
		.info_flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
		.region_count = VFIO_PCI_NUM_REGIONS,
		.irq_count = VFIO_PCI_NUM_IRQS,
		.region_flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
				VFIO_REGION_INFO_FLAG_MMAP,
		.region_size = 16 * PAGE,
		.region_offset = 8 * PAGE,
		.vectors = 4,
	};
	close_device(fake, dev);
	fake_vfio_add_sysfs(fake, dev);
}

void fake_vfio_init(struct fake_vfio_kernel *fake)
{
	memset(fake, 0, sizeof(*fake));
	fake->kernel = (struct vfio_kernel){
		.open = fake_open,
		.close = fake_close,
		.ioctl = fake_ioctl,
		.pread = fake_pread,
		.pwrite = fake_pwrite,
		.mmap = fake_mmap,
		.memlock = fake_memlock,
		.opaque = fake,
	};
	fake->iommufd = fake->container = -1;
	for (unsigned int i = 0; i < FAKE_MAX; i++)
		fake->groups[i].fd = -1;
	fake->fail_code = EIO;
	fake->memlock.limit = UINT64_MAX;
	fake_vfio_make_sysfs(fake);
	add_device(fake, "0000:01:10.0", 7);
	add_device(fake, "0000:01:10.2", 8);
	add_device(fake, "0000:01:11.0", 8);
}

unsigned int fake_vfio_map_count(const struct fake_vfio_kernel *fake)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < FAKE_MAX; i++)
		n += fake->maps[i].size != 0;
	return n;
}

unsigned int fake_vfio_hwpt_count(const struct fake_vfio_kernel *fake)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < FAKE_MAX; i++)
		n += fake->hwpts[i].id != 0;
	return n;
}

void fake_vfio_write(struct fake_vfio_kernel *fake, uint64_t iova)
{
	for (unsigned int i = 0; i < FAKE_MAX; i++)
		if (!fake->dirty[i]) {
			fake->dirty[i] = iova + 1;
			return;
		}
	ck_abort_msg("too many dirty pages");
}
