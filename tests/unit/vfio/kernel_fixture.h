/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of DMA spaces and kernel transports start from. */
#ifndef TESTS_UNIT_VFIO_KERNEL_FIXTURE_H
#define TESTS_UNIT_VFIO_KERNEL_FIXTURE_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/helpers/fake_vfio_kernel.h"
#include "tests/unit/helpers/run_suite.h"
#include "vfio/kernel_device.h"
#include "vfio/kernel_space.h"
#include "vfio/transport.h"
#include "vfio/uapi_iommufd.h"
#include "vfio/uapi_vfio.h"

#define PF "0000:01:10.0"  /* group 7 */
#define VF "0000:01:10.2"  /* group 8 */
#define VF2 "0000:01:11.0" /* group 8 */

#define LOW (2 * MIB)
#define HIGH (4 * GIB)
#define RAM (3 * MIB)

static struct fake_vfio_kernel fake;
static struct guest_memory *memory;

static inline void fixture_setup(void)
{
	struct guest_memory_options options = { .size = RAM, .low_end = LOW, .high_start = HIGH };

	fake_vfio_init(&fake);
	memory = guest_memory_new(&options, NULL);
	ck_assert_ptr_nonnull(memory);
}

static inline void fixture_teardown(void)
{
	guest_memory_free(memory);
	ck_assert_int_eq(fake.opened, 0);
	ck_assert_uint_eq(fake.misordered, 0);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), 0);
	ck_assert_uint_eq(fake_vfio_hwpt_count(&fake), 0);
	fake_vfio_destroy(&fake);
}

static inline void check_message(const struct error *err, const char *text)
{
	ck_assert_msg(strstr(err->message, text) != NULL, "'%s' lacks '%s'", err->message, text);
}

static inline const char *path_of(const char *name)
{
	static char path[PATH_MAX];

	return fake_vfio_path(&fake, name, path);
}

static inline struct dma_space *open_iommufd(void)
{
	struct error err = ERROR_INIT;
	struct dma_space *space = dma_space_open_iommufd_with(&fake.kernel, -1, NULL, &err);

	ck_assert_msg(space != NULL, "%s", err.message);
	return space;
}

static inline struct dma_space *open_type1(void)
{
	struct error err = ERROR_INIT;
	struct dma_space *space = dma_space_open_type1_with(&fake.kernel, NULL, &err);

	ck_assert_msg(space != NULL, "%s", err.message);
	return space;
}

static inline struct vfio_transport *open_cdev(struct dma_space *space, const char *name)
{
	struct error err = ERROR_INIT;
	struct vfio_transport *t = vfio_transport_open_cdev(path_of(name), -1, space, NULL, &err);

	ck_assert_msg(t != NULL, "%s", err.message);
	return t;
}

static inline struct vfio_transport *open_group(struct dma_space *space, const char *name)
{
	struct error err = ERROR_INIT;
	struct vfio_transport *t = vfio_transport_open_group(path_of(name), space, NULL, &err);

	ck_assert_msg(t != NULL, "%s", err.message);
	return t;
}

static inline void map_memory(struct dma_space *space)
{
	struct error err = ERROR_INIT;

	ck_assert_msg(!dma_space_map_memory(space, memory, &err), "%s", err.message);
}

static inline struct dirty_bitmap make_bitmap(uint64_t pages)
{
	struct dirty_bitmap bitmap;

	ck_assert_int_eq(dirty_bitmap_init(&bitmap, pages, NULL), 0);
	return bitmap;
}

/* The fake with a lock around it, as a kernel has: for tests with threads. */
static pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;
static struct vfio_kernel fake_unlocked;

static inline int locked_open(void *opaque, const char *path, int flags)
{
	int r;

	pthread_mutex_lock(&fake_lock);
	r = fake_unlocked.open(opaque, path, flags);
	pthread_mutex_unlock(&fake_lock);
	return r;
}

static inline void locked_close(void *opaque, int fd)
{
	pthread_mutex_lock(&fake_lock);
	fake_unlocked.close(opaque, fd);
	pthread_mutex_unlock(&fake_lock);
}

static inline int locked_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	int r;

	pthread_mutex_lock(&fake_lock);
	r = fake_unlocked.ioctl(opaque, fd, request, arg);
	pthread_mutex_unlock(&fake_lock);
	return r;
}

static inline void fixture_lock_fake(void)
{
	fake_unlocked = fake.kernel;
	fake.kernel.open = locked_open;
	fake.kernel.close = locked_close;
	fake.kernel.ioctl = locked_ioctl;
}

#define PEER_ROUNDS 500
#define PEER_AT(n) (16 * GIB + (uint64_t)(n)*GIB)

struct peer_thread {
	struct dma_space *space;
	unsigned int number;
};

/* BARs of one device come and go, some of them at once, so that records move. */
static inline void *map_and_unmap(void *opaque)
{
	const struct peer_thread *p = opaque;
	const struct dma_space_ops *ops = p->space->ops;
	void *hva = guest_memory_region(memory, 0)->hva;

	for (unsigned int i = 0; i < PEER_ROUNDS; i++) {
		for (unsigned int bar = 0; bar < 3; bar++)
			ck_assert_int_eq(ops->map(p->space, PEER_AT(p->number) + bar * MIB, 4 * KIB,
						  -1, 0, hva, true, NULL),
					 0);
		for (unsigned int bar = 0; bar < 3; bar++)
			ck_assert_int_eq(ops->unmap(p->space, PEER_AT(p->number) + bar * MIB,
						    4 * KIB, NULL, NULL),
					 0);
	}
	return NULL;
}

/* The main loop maps BARs for peers while another device is opened and closed. `space` has
 * a device; afterwards there is of each mapping what there was before. */
static inline void map_peers_while_devices_come_and_go(
	struct dma_space *space,
	struct vfio_transport *(*open)(struct dma_space *space, const char *name))
{
	struct peer_thread first = { space, 0 }, second = { space, 1 };
	unsigned int before = kernel_space_of(space)->mapping_count;
	pthread_t thread;

	fixture_lock_fake();
	ck_assert_int_eq(pthread_create(&thread, NULL, map_and_unmap, &first), 0);
	for (unsigned int i = 0; i < PEER_ROUNDS / 10; i++) {
		struct vfio_transport *t = open(space, VF);

		t->ops->close(t);
	}
	map_and_unmap(&second);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ck_assert_uint_eq(kernel_space_of(space)->mapping_count, before);
	ck_assert_uint_eq(fake_vfio_map_count(&fake), before);
	for (unsigned int i = 0; i < before; i++)
		ck_assert_uint_lt(kernel_space_of(space)->mappings[i].iova, PEER_AT(0));
}

/* Messages of calls that failed: each has its own (a call that is made twice, the same). */
struct messages {
	char text[64][ERROR_MESSAGE_MAX];
	const char *failed;
	unsigned int count;
};

static inline void add_message(struct messages *messages, const struct error *err)
{
	ck_assert_int_eq(err->code, -fake.fail_code);
	ck_assert_uint_gt(strlen(err->message), 10);
	for (unsigned int i = 0; i < messages->count && fake.failed != messages->failed; i++)
		ck_assert_msg(strcmp(messages->text[i], err->message) != 0, "%s twice: %s",
			      fake.failed, err->message);
	messages->failed = fake.failed;
	strcpy(messages->text[messages->count++], err->message);
}

/* The n'th call from now on fails. */
static inline void fail_call(unsigned int n)
{
	fake.calls = 0;
	fake.fail_at = n;
	fake.failed = NULL;
}

#endif
