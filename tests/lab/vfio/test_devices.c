/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transports cdev and group, and the DMA spaces iommufd and type1, on the lab's devices
 * (tests/lab/vfio/run): every test runs for both, where the kernel has both.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "tests/lab/vfio/fixture.h"
#include "tests/unit/helpers/run_suite.h"

static const char *const names[] = { "EDU", "IGB", "NVME", "MTTY" };
enum { EDU, IGB, NVME, MTTY, DEVICES };

static const char *path_of(int device)
{
	char variable[32];

	snprintf(variable, sizeof(variable), "FERRY_VFIO_%s", names[device]);
	return getenv(variable);
}

static struct vfio_transport *open_device(int device, struct dma_space *space)
{
	struct error err = ERROR_INIT;
	struct vfio_transport *t = try_open(path_of(device), space, &err);

	ck_assert_msg(t != NULL, "%s", err.message);
	return t;
}

static unsigned int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* VmLck and VmPin are in it. */
static unsigned long long locked_kib(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long long sum = 0;
	char line[256];

	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "VmLck:", 6) || !strncmp(line, "VmPin:", 6))
			sum += strtoull(line + 6, NULL, 10);
	fclose(f);
	return sum;
}

static unsigned long sysfs_hex(const char *path, const char *name)
{
	char file[4096], text[32] = "";
	FILE *f;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	f = fopen(file, "r");
	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), f));
	fclose(f);
	return strtoul(text, NULL, 16);
}

static void check_regions(struct vfio_transport *t)
{
	for (uint32_t i = 0; i < t->region_count; i++) {
		struct vfio_region r = region(t, i);

		for (unsigned int a = 0; a < r.area_count; a++) {
			struct error err = ERROR_INIT;
			void *p;

			ck_assert_msg(!t->ops->region_map(t, &r, r.areas[a].offset, r.areas[a].size,
							  &p, &err),
				      "%s", err.message);
			munmap(p, r.areas[a].size);
		}
	}
}

static void check_interrupts(struct vfio_transport *t)
{
	struct error err = ERROR_INIT;

	for (uint32_t index = VFIO_PCI_MSI_IRQ_INDEX; index <= VFIO_PCI_MSIX_IRQ_INDEX; index++) {
		struct vfio_irq irq;
		int fds[4];

		ck_assert_msg(!t->ops->irq_info(t, index, &irq, &err), "%s", err.message);
		if (!irq.count || !t->is_pci)
			continue;
		ck_assert(irq.eventfd);
		for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
			fds[i] = eventfd_new();
		ck_assert_msg(!t->ops->set_irq_fds(t, index, 0, MIN(irq.count, 4U), fds, &err),
			      "%s", err.message);
		ck_assert_msg(!t->ops->set_irq_fds(t, index, 0, 0, NULL, &err), "%s", err.message);
		for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
			close(fds[i]);
	}
}

START_TEST(device_opens_answers_resets_and_leaves_nothing_open)
{
	enum mode mode = _i / DEVICES;
	const char *path = path_of(_i % DEVICES);
	unsigned int before = open_fds();
	struct error err = ERROR_INIT;
	struct dma_space *space;
	struct vfio_transport *t;

	if (!path || !have(mode))
		return;
	ck_assert_int_eq(vfio_cdev_available(path), have(IOMMUFD));
	space = open_space(mode);
	t = open_device(_i % DEVICES, space);
	ck_assert_ptr_nonnull(strstr(path, t->name));
	ck_assert(t->is_pci);
	ck_assert_uint_ge(t->region_count, VFIO_PCI_CONFIG_REGION_INDEX + 1);
	if (_i % DEVICES != MTTY) {
		ck_assert_uint_ne(config_read(t, PCI_VENDOR_ID, 2), 0);
		ck_assert_uint_eq(sysfs_hex(path, "class") >> 8,
				  config_read(t, PCI_CLASS_DEVICE, 2));
		ck_assert_int_eq(t->resettable,
				 _i % DEVICES != EDU); /* on the root bus, without FLR */
		ck_assert_int_eq(t->ops->reset(t, &err), t->resettable ? 0 : -EOPNOTSUPP);
	}
	check_regions(t);
	check_interrupts(t);
	t->ops->close(t);
	space->ops->free(space);
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

/* The edu device: 4 KiB of its own at 0x40000, one DMA engine. */

struct edu {
	struct dma_space *space;
	struct vfio_transport *t;
	struct guest_memory *memory;
	struct vfio_region bar;
	volatile uint8_t *regs;
	int msi;
};

static void edu_set_up(struct edu *edu, enum mode mode)
{
	struct error err = ERROR_INIT;
	void *p;

	edu->space = open_space(mode);
	edu->memory = make_memory();
	edu->t = open_device(EDU, edu->space);
	map_memory(edu->space, edu->memory);
	edu->bar = region(edu->t, VFIO_PCI_BAR0_REGION_INDEX);
	ck_assert_uint_eq(edu->bar.size, MIB);
	ck_assert_msg(!edu->t->ops->region_map(edu->t, &edu->bar, 0, MIB, &p, &err), "%s",
		      err.message);
	edu->regs = p;
	edu->msi = eventfd_new();
	config_write(edu->t, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	ck_assert_msg(
		!edu->t->ops->set_irq_fds(edu->t, VFIO_PCI_MSI_IRQ_INDEX, 0, 1, &edu->msi, &err),
		"%s", err.message);
}

static void edu_tear_down(struct edu *edu)
{
	munmap((void *)edu->regs, MIB);
	edu->t->ops->close(edu->t);
	edu->space->ops->free(edu->space);
	guest_memory_free(edu->memory);
	close(edu->msi);
}

static void edu_start(struct edu *edu, uint64_t source, uint64_t target, bool to_memory)
{
	*(volatile uint64_t *)(edu->regs + 0x80) = source;
	*(volatile uint64_t *)(edu->regs + 0x88) = target;
	*(volatile uint64_t *)(edu->regs + 0x90) = 4096;
	*(volatile uint64_t *)(edu->regs + 0x98) = 1 | (to_memory ? 2 : 0) | 4;
}

static void edu_wait(struct edu *edu)
{
	struct pollfd p = { .fd = edu->msi, .events = POLLIN };

	ck_assert_int_eq(poll(&p, 1, 20000), 1);
	ck_assert(eventfd_drain(edu->msi));
	ck_assert_uint_eq(*(volatile uint32_t *)(edu->regs + 0x24), 0x100);
	*(volatile uint32_t *)(edu->regs + 0x64) = 0x100;
}

static void edu_read(struct edu *edu, uint64_t iova)
{
	edu_start(edu, iova, 0x40000, false);
	edu_wait(edu);
}

static void edu_write(struct edu *edu, uint64_t iova)
{
	edu_start(edu, 0x40000, iova, true);
	edu_wait(edu);
}

static void fill(uint8_t *page, uint8_t seed)
{
	for (unsigned int i = 0; i < 4096; i++)
		page[i] = (uint8_t)(i * 7 + i / 256 + seed);
}

START_TEST(dma_goes_both_ways_and_ends_in_an_msi)
{
	struct edu edu;
	uint8_t want[4096];

	if (!have(_i))
		return;
	edu_set_up(&edu, _i);
	for (unsigned int round = 0; round < 3; round++) {
		uint64_t from = LOW - 4096, to = 4096 * (round + 1);

		fill(guest_memory_ptr(edu.memory, from, 4096), (uint8_t)round);
		fill(want, (uint8_t)round);
		edu_read(&edu, from);
		edu_write(&edu, to);
		ck_assert_mem_eq(guest_memory_ptr(edu.memory, to, 4096), want, 4096);
	}
	edu_tear_down(&edu);
}
END_TEST

START_TEST(dma_outside_the_map_does_nothing_and_the_device_goes_on)
{
	struct edu edu;
	uint8_t want[4096];

	if (!have(_i))
		return;
	edu_set_up(&edu, _i);
	fill(guest_memory_ptr(edu.memory, 0, 4096), 9);
	fill(want, 9);
	edu_read(&edu, 0);
	edu_write(&edu, LOW); /* the IOMMU says no */
	edu_write(&edu, LOW - 4096);
	ck_assert_mem_eq(guest_memory_ptr(edu.memory, LOW - 4096, 4096), want, 4096);
	edu_tear_down(&edu);
}
END_TEST

START_TEST(reset_clears_what_was_set)
{
	struct error err = ERROR_INIT;
	struct dma_space *space;
	struct vfio_transport *t;

	if (!have(_i))
		return;
	space = open_space(_i);
	t = open_device(NVME, space);
	config_write(t, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
	ck_assert_uint_eq(config_read(t, PCI_COMMAND, 2) & PCI_COMMAND_MASTER, PCI_COMMAND_MASTER);
	ck_assert_msg(!t->ops->reset(t, &err), "%s", err.message);
	t->ops->close(t);
	t = open_device(NVME, space);
	ck_assert_uint_eq(config_read(t, PCI_COMMAND, 2) & PCI_COMMAND_MASTER, 0);
	t->ops->close(t);
	space->ops->free(space);
}
END_TEST

START_TEST(intx_is_masked_while_pending_and_unmasked_by_an_eventfd)
{
	struct error err = ERROR_INIT;
	struct vfio_irq irq;
	struct pollfd p;
	struct edu edu;
	int resample = eventfd_new();

	if (!have(_i))
		return;
	edu_set_up(&edu, _i);
	ck_assert_int_eq(edu.t->ops->set_irq_fds(edu.t, VFIO_PCI_MSI_IRQ_INDEX, 0, 0, NULL, &err),
			 0);
	ck_assert_int_eq(edu.t->ops->irq_info(edu.t, VFIO_PCI_INTX_IRQ_INDEX, &irq, &err), 0);
	ck_assert(irq.count == 1 && irq.automasked && irq.maskable);
	ck_assert_msg(
		!edu.t->ops->set_irq_fds(edu.t, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &edu.msi, &err),
		"%s", err.message);
	ck_assert_msg(!edu.t->ops->set_unmask_fd(edu.t, VFIO_PCI_INTX_IRQ_INDEX, resample, &err),
		      "%s", err.message);
	p = (struct pollfd){ .fd = edu.msi, .events = POLLIN };
	*(volatile uint32_t *)(edu.regs + 0x60) = 1;
	ck_assert_int_eq(poll(&p, 1, 20000), 1);
	ck_assert(eventfd_drain(edu.msi));
	ck_assert_int_eq(poll(&p, 1, 200), 0); /* still asserted, but masked */
	eventfd_signal(resample);
	ck_assert_int_eq(poll(&p, 1, 20000), 1); /* and again, since nobody served it */
	ck_assert(eventfd_drain(edu.msi));
	*(volatile uint32_t *)(edu.regs + 0x64) = 1;
	ck_assert_int_eq(edu.t->ops->mask_irq(edu.t, VFIO_PCI_INTX_IRQ_INDEX, false, &err), 0);
	ck_assert_int_eq(poll(&p, 1, 200), 0);
	ck_assert_int_eq(edu.t->ops->set_unmask_fd(edu.t, VFIO_PCI_INTX_IRQ_INDEX, -1, &err), 0);
	ck_assert_int_eq(edu.t->ops->set_irq_fds(edu.t, VFIO_PCI_INTX_IRQ_INDEX, 0, 0, NULL, &err),
			 0);
	edu_tear_down(&edu);
	close(resample);
}
END_TEST

START_TEST(mappings_made_before_the_device_are_there_and_survive_it)
{
	struct error err = ERROR_INIT;
	struct edu edu;
	uint8_t want[4096];

	if (!have(_i))
		return;
	edu.space = open_space(_i);
	edu.memory = make_memory();
	map_memory(edu.space, edu.memory);
	fill(guest_memory_ptr(edu.memory, 0, 4096), 3);
	fill(want, 3);
	for (unsigned int round = 0; round < 3; round++) {
		uint64_t to = 4096 * (round + 1);
		void *p;

		edu.t = open_device(EDU, edu.space);
		edu.bar = region(edu.t, VFIO_PCI_BAR0_REGION_INDEX);
		ck_assert_int_eq(edu.t->ops->region_map(edu.t, &edu.bar, 0, MIB, &p, &err), 0);
		edu.regs = p;
		edu.msi = eventfd_new();
		config_write(edu.t, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
		ck_assert_int_eq(edu.t->ops->set_irq_fds(edu.t, VFIO_PCI_MSI_IRQ_INDEX, 0, 1,
							 &edu.msi, &err),
				 0);
		edu_read(&edu, 0);
		edu_write(&edu, to);
		ck_assert_mem_eq(guest_memory_ptr(edu.memory, to, 4096), want, 4096);
		munmap(p, MIB);
		close(edu.msi);
		edu.t->ops->close(edu.t);
	}
	edu.space->ops->free(edu.space);
	guest_memory_free(edu.memory);
}
END_TEST

START_TEST(devices_share_a_space_and_come_and_go)
{
	struct vfio_transport *t[DEVICES] = { NULL };
	struct guest_memory *memory;
	struct dma_space *space;
	unsigned int fds;
	unsigned long long locked;

	if (!have(_i))
		return;
	space = open_space(_i);
	memory = make_memory();
	fds = open_fds();
	locked = locked_kib();
	map_memory(space, memory);
	for (unsigned int round = 0; round < 20; round++) {
		for (int d = 0; d < DEVICES; d++)
			if (path_of(d))
				t[d] = open_device(d, space);
		for (int d = 0; d < DEVICES; d++) {
			if (t[d])
				t[d]->ops->close(t[d]);
			t[d] = NULL;
		}
		ck_assert_uint_eq(open_fds(), fds);
		ck_assert_uint_eq(locked_kib(), locked);
	}
	space->ops->free(space);
	guest_memory_free(memory);
}
END_TEST

START_TEST(dirty_log_has_what_the_device_wrote)
{
	struct dirty_bitmap bitmap;
	struct error err = ERROR_INIT;
	struct edu edu;
	int r;

	if (!have(_i))
		return;
	edu_set_up(&edu, _i);
	ck_assert_int_eq(dirty_bitmap_init(&bitmap, LOW / 4096, &err), 0);
	r = edu.space->ops->dirty_start(edu.space, &err);
	if (_i == IOMMUFD) { /* QEMU's IOMMUs have no tracking */
		ck_assert_int_eq(r, -EOPNOTSUPP);
		ck_assert_msg(strstr(err.message, edu.t->name) != NULL, "%s", err.message);
	} else {
		ck_assert_msg(!r, "%s", err.message);
		edu_write(&edu, 5 * 4096);
		r = edu.space->ops->dirty_collect(edu.space, 0, LOW, false, &bitmap, &err);
		ck_assert_msg(!r, "%s", err.message);
		ck_assert(dirty_bitmap_test(&bitmap, 5));
		dirty_bitmap_clear(&bitmap, 0, LOW / 4096);
		r = edu.space->ops->unmap(edu.space, 0, LOW, &bitmap, &err);
		ck_assert_msg(!r, "%s", err.message);
		ck_assert(dirty_bitmap_test(&bitmap, 5));
		edu.space->ops->dirty_stop(edu.space);
	}
	dirty_bitmap_destroy(&bitmap);
	edu_tear_down(&edu);
}
END_TEST

START_TEST(what_the_iommu_cannot_map_is_named)
{
	struct guest_memory_options options = { .size = 8 * MIB,
						.low_end = 4 * MIB,
						.high_start = 0xfec00000 };
	struct error err = ERROR_INIT;
	struct guest_memory *memory;
	struct vfio_transport *t;
	struct dma_space *space;

	if (!have(_i))
		return;
	space = open_space(_i);
	t = open_device(IGB, space);
	memory = guest_memory_new(&options, &err);
	ck_assert_msg(memory != NULL, "%s", err.message);
	ck_assert_int_eq(dma_space_map_memory(space, memory, &err), -EINVAL);
	ck_assert_msg(strstr(err.message, "0xfec00000-0xfeffffff") != NULL, "%s", err.message);
	ck_assert_msg(strstr(err.message, "0xfee00000") != NULL, "%s", err.message);
	t->ops->close(t);
	/* Without devices it fits; then none can come. */
	error_clear(&err);
	ck_assert_msg(!dma_space_map_memory(space, memory, &err), "%s", err.message);
	ck_assert_ptr_null(try_open(path_of(IGB), space, &err));
	ck_assert_msg(strstr(err.message, "0xfec00000-0xfeffffff") != NULL, "%s", err.message);
	space->ops->free(space);
	guest_memory_free(memory);
}
END_TEST

START_TEST(foreign_driver_is_named_with_the_commands_that_bind)
{
	const char *path = getenv("FERRY_VFIO_FOREIGN");
	struct error err = ERROR_INIT;
	struct dma_space *space;

	if (!have(_i))
		return;
	space = open_space(_i);
	ck_assert_ptr_null(try_open(path, space, &err));
	ck_assert_msg(strstr(err.message, "bound to driver igb") &&
			      strstr(err.message, "driver_override"),
		      "%s", err.message);
	ck_assert_ptr_null(try_open("/sys/bus/pci", space, &err));
	ck_assert_ptr_null(try_open("/nowhere", space, &err));
	space->ops->free(space);
}
END_TEST

START_TEST(a_device_is_opened_once)
{
	struct dma_space *space, *other;
	struct error err = ERROR_INIT;
	struct vfio_transport *t;

	if (!have(_i))
		return;
	space = open_space(_i);
	other = open_space(_i);
	t = open_device(IGB, space);
	ck_assert_ptr_null(try_open(path_of(IGB), other, &err));
	ck_assert_msg(strstr(err.message, "process") != NULL, "%s", err.message);
	t->ops->close(t);
	t = open_device(IGB, other);
	t->ops->close(t);
	space->ops->free(space);
	other->ops->free(other);
}
END_TEST

static void drop_ipc_lock(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	ck_assert_int_eq(syscall(SYS_capget, &header, data), 0);
	data[0].effective &= ~(1U << CAP_IPC_LOCK);
	ck_assert_int_eq(syscall(SYS_capset, &header, data), 0);
}

START_TEST(locked_memory_limit_is_checked_first_and_by_the_kernel)
{
	struct rlimit limit = { .rlim_cur = MIB, .rlim_max = MIB };
	struct error err = ERROR_INIT;
	struct guest_memory *memory;
	struct dma_space *space;
	struct vfio_transport *t;
	void *hva;

	if (!have(_i))
		return;
	ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	drop_ipc_lock();
	space = open_space(_i);
	t = open_device(IGB, space);
	memory = make_memory();
	ck_assert_int_eq(dma_space_map_memory(space, memory, &err), -ENOMEM);
	ck_assert_msg(strstr(err.message, "64 MiB would do") != NULL, "%s", err.message);
	hva = guest_memory_ptr(memory, 0, LOW);
	ck_assert_int_eq(space->ops->map(space, 0, LOW, guest_memory_region(memory, 0)->memfd, 0,
					 hva, true, &err),
			 -ENOMEM);
	ck_assert_msg(strstr(err.message, "32 MiB would do") != NULL, "%s", err.message);
	t->ops->close(t);
	space->ops->free(space);
	guest_memory_free(memory);
}
END_TEST

START_TEST(bar_of_a_device_is_mapped_for_its_peers_where_the_kernel_can)
{
	/* struct vfio_device_feature_dma_buf with its one range */
	struct {
		uint32_t region, open_flags, flags, count;
		struct vfio_region_dma_range range;
	} want = {
		.open_flags = O_RDWR | O_CLOEXEC,
		.count = 1,
		.range = { .offset = 0, .length = MIB },
	};
	struct error err = ERROR_INIT;
	struct edu edu;
	int fd;

	if (!have(_i))
		return;
	edu_set_up(&edu, _i);
	fd = edu.t->ops->feature(edu.t, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF,
				 &want, sizeof(want), &err);
	if (_i == TYPE1) { /* by address */
		ck_assert_msg(!edu.space->ops->map(edu.space, HIGH + GIB, MIB, -1, 0,
						   (void *)edu.regs, true, &err),
			      "%s", err.message);
		ck_assert_int_eq(edu.space->ops->unmap(edu.space, HIGH + GIB, MIB, NULL, &err), 0);
	} else {
		ck_assert_msg(fd >= 0, "%s", err.message);
		ck_assert_msg(
			!edu.space->ops->map(edu.space, HIGH + GIB, MIB, fd, 0, NULL, true, &err),
			"%s", err.message);
		ck_assert_int_eq(edu.space->ops->unmap(edu.space, HIGH + GIB, MIB, NULL, &err), 0);
	}
	if (fd >= 0)
		close(fd);
	edu_tear_down(&edu);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vfio_devices");
	TCase *t = tcase_create("vfio_devices");

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, device_opens_answers_resets_and_leaves_nothing_open, 0,
			    MODES * DEVICES);
	tcase_add_loop_test(t, dma_goes_both_ways_and_ends_in_an_msi, 0, MODES);
	tcase_add_loop_test(t, dma_outside_the_map_does_nothing_and_the_device_goes_on, 0, MODES);
	tcase_add_loop_test(t, reset_clears_what_was_set, 0, MODES);
	tcase_add_loop_test(t, intx_is_masked_while_pending_and_unmasked_by_an_eventfd, 0, MODES);
	tcase_add_loop_test(t, mappings_made_before_the_device_are_there_and_survive_it, 0, MODES);
	tcase_add_loop_test(t, devices_share_a_space_and_come_and_go, 0, MODES);
	tcase_add_loop_test(t, dirty_log_has_what_the_device_wrote, 0, MODES);
	tcase_add_loop_test(t, what_the_iommu_cannot_map_is_named, 0, MODES);
	tcase_add_loop_test(t, foreign_driver_is_named_with_the_commands_that_bind, 0, MODES);
	tcase_add_loop_test(t, a_device_is_opened_once, 0, MODES);
	tcase_add_loop_test(t, locked_memory_limit_is_checked_first_and_by_the_kernel, 0, MODES);
	tcase_add_loop_test(t, bar_of_a_device_is_mapped_for_its_peers_where_the_kernel_can, 0,
			    MODES);
	suite_add_tcase(s, t);
	return run_suite(s);
}
