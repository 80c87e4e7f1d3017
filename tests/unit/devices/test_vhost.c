/* SPDX-License-Identifier: Apache-2.0 */
/* vhost-net and vhost-vsock over a kernel that only writes down what it was asked. */
#include <dirent.h>
#include <linux/vhost.h>

#include "base/fd.h"
#include "devices/virtio/virtio_net_priv.h"
#include "devices/virtio/virtio_vsock_priv.h"
#include "tests/unit/helpers/fake_driver.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/fake_machine.h"
#include "tests/unit/helpers/fake_tap.h"
#include "tests/unit/helpers/run_suite.h"

#define RAM (8 * MIB)
#define RINGS 0x10000
#define INSTANCES 4

#define KERNEL_FEATURES \
	(VIRTIO_FEATURE(VIRTIO_F_VERSION_1) | VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF) | \
	 VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC) | VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) | \
	 VIRTIO_FEATURE(VIRTIO_F_ACCESS_PLATFORM) | VIRTIO_FEATURE(26 /* LOG_ALL */))

/* One open file of the kernel's. */
struct instance {
	int fd;
	bool owned;
	uint64_t features;
	unsigned int regions;
	struct vhost_memory_region region[4];
	struct {
		unsigned int num, base;
		struct vhost_vring_addr addr;
		int kick, call, backend;
		bool ready_at_backend; /* all of the above was set when the backend came */
	} ring[2];
	uint64_t cid, log;
	int running;
};

static struct {
	struct vhost_ops ops;
	const char *path; /* the one that exists */
	uint64_t features;
	struct instance instances[INSTANCES];
	unsigned int opened;
	unsigned int calls, fail_at; /* the n-th ioctl fails, from 1 on; 0: none */
	int cid_error;
} kernel;

static struct fake_host host;
static struct fake_tap tap;
static struct fake_transport transport;
static struct virtio_device *dev;
static struct virtio_net_options options;

static int fake_open(void *opaque, const char *path)
{
	struct instance *in = &kernel.instances[kernel.opened];

	if (!kernel.path || strcmp(path, kernel.path))
		return -ENOENT;
	ck_assert_uint_lt(kernel.opened++, INSTANCES);
	in->fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 2; i++)
		in->ring[i].kick = in->ring[i].call = in->ring[i].backend = -1;
	return in->fd;
}

static struct instance *instance(int fd)
{
	for (unsigned int i = 0; i < kernel.opened; i++)
		if (kernel.instances[i].fd == fd)
			return &kernel.instances[i];
	ck_abort_msg("ioctl on a stranger's fd");
}

static int set_memory(struct instance *in, const struct vhost_memory *memory)
{
	ck_assert_uint_le(memory->nregions, ARRAY_SIZE(in->region));
	in->regions = memory->nregions;
	memcpy(in->region, memory->regions, memory->nregions * sizeof(in->region[0]));
	return 0;
}

static int set_backend(struct instance *in, const struct vhost_vring_file *file)
{
	in->ring[file->index].backend = file->fd;
	in->ring[file->index].ready_at_backend =
		in->features && in->regions && in->ring[file->index].num &&
		in->ring[file->index].addr.desc_user_addr && in->ring[file->index].kick >= 0 &&
		in->ring[file->index].call >= 0;
	return 0;
}

static int fake_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	struct instance *in = instance(fd);
	struct vhost_vring_state *state = arg;
	struct vhost_vring_file *file = arg;

	if (++kernel.calls == kernel.fail_at)
		return -ENOMEM;
	if (request != VHOST_SET_OWNER)
		ck_assert(in->owned); /* before anything else */
	switch (request) {
	case VHOST_SET_OWNER: in->owned = true; return 0;
	case VHOST_GET_FEATURES: *(uint64_t *)arg = kernel.features; return 0;
	case VHOST_SET_FEATURES:
		in->features = *(uint64_t *)arg;
		return in->features & ~kernel.features ? -EOPNOTSUPP : 0;
	case VHOST_SET_MEM_TABLE: return set_memory(in, arg);
	case VHOST_SET_VRING_NUM: in->ring[state->index].num = state->num; return 0;
	case VHOST_SET_VRING_BASE: in->ring[state->index].base = state->num; return 0;
	case VHOST_GET_VRING_BASE:
		ck_assert_int_eq(in->ring[state->index].backend, -1); /* idle by now */
		state->num = in->ring[state->index].base;
		return 0;
	case VHOST_SET_VRING_ADDR:
		in->ring[((struct vhost_vring_addr *)arg)->index].addr =
			*(struct vhost_vring_addr *)arg;
		return 0;
	case VHOST_SET_VRING_KICK: in->ring[file->index].kick = file->fd; return 0;
	case VHOST_SET_VRING_CALL: in->ring[file->index].call = file->fd; return 0;
	case VHOST_NET_SET_BACKEND: return set_backend(in, file);
	case VHOST_SET_LOG_BASE: in->log = *(uint64_t *)arg; return 0;
	case VHOST_VSOCK_SET_GUEST_CID: in->cid = *(uint64_t *)arg; return kernel.cid_error;
	case VHOST_VSOCK_SET_RUNNING: in->running = *(int *)arg; return 0;
	default: return -ENOTTY;
	}
}

static void setup(void)
{
	ck_assert_int_eq(fake_host_init_ram(&host, RAM), 0);
	fake_tap_init(&tap);
	memset(&kernel, 0, sizeof(kernel));
	kernel.ops = (struct vhost_ops){ .open = fake_open, .ioctl = fake_ioctl };
	kernel.path = VHOST_NET_PATH;
	kernel.features = KERNEL_FEATURES;
	options = (struct virtio_net_options){
		.tap = "tap7",
		.queue_pairs = 1,
		.queue_size = 256,
		.vhost = true,
		.offload_csum = true,
		.offload_tso = true,
	};
	dev = NULL;
}

static void teardown(void)
{
	if (dev)
		fake_transport_destroy(&transport);
	fake_tap_destroy(&tap);
	fake_host_destroy_ram(&host);
}

static void make(void)
{
	struct error err = ERROR_INIT;

	dev = virtio_net_new_with(&host.host, "net0", &options, &tap.ops, &kernel.ops, &err);
	ck_assert_msg(dev != NULL, "%s", err.message);
	fake_transport_attach(&transport, dev);
}

static void make_vsock(void)
{
	struct virtio_vsock_options vsock = { .cid = 77 };
	struct error err = ERROR_INIT;

	kernel.path = VHOST_VSOCK_PATH;
	dev = virtio_vsock_new_with(&host.host, "vsock0", &vsock, &kernel.ops, &err);
	ck_assert_msg(dev != NULL, "%s", err.message);
	fake_transport_attach(&transport, dev);
}

static void *hva(uint64_t gpa)
{
	return guest_memory_ptr(host.host.memory, gpa, 1);
}

static void check_ring(unsigned int i, unsigned int ring, unsigned int queue)
{
	const struct virtqueue *vq = &dev->queues[queue];

	ck_assert_uint_eq(kernel.instances[i].ring[ring].num, vq->size);
	ck_assert_uint_eq(kernel.instances[i].ring[ring].addr.desc_user_addr,
			  (uintptr_t)hva(vq->desc));
	ck_assert_uint_eq(kernel.instances[i].ring[ring].addr.avail_user_addr,
			  (uintptr_t)hva(vq->driver));
	ck_assert_uint_eq(kernel.instances[i].ring[ring].addr.used_user_addr,
			  (uintptr_t)hva(vq->device));
	ck_assert_int_eq(kernel.instances[i].ring[ring].kick, dev->kick_fd[queue]);
	ck_assert_int_eq(kernel.instances[i].ring[ring].call, transport.call_fd[queue]);
}

START_TEST(vhost_net_gets_everything_before_its_backend)
{
	const struct instance *in = &kernel.instances[0];

	make();
	fake_transport_activate(
		&transport, dev->device_features | VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX), RINGS, 0);
	ck_assert_uint_eq(kernel.opened, 1);
	ck_assert_uint_eq(in->features, VIRTIO_FEATURE(VIRTIO_F_VERSION_1) |
						VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF) |
						VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX));
	ck_assert_uint_eq(in->regions, guest_memory_region_count(host.host.memory));
	ck_assert_uint_eq(in->region[0].memory_size, RAM);
	ck_assert_uint_eq(in->region[0].userspace_addr, (uintptr_t)hva(0));
	for (unsigned int ring = 0; ring < 2; ring++) {
		check_ring(0, ring, ring);
		ck_assert_int_eq(in->ring[ring].backend, tap.ends[0]);
		ck_assert(in->ring[ring].ready_at_backend);
		/* Chains that were there before it looked are not forgotten. */
		ck_assert(eventfd_drain(dev->kick_fd[ring]));
	}
}
END_TEST

START_TEST(vhost_serves_one_instance_a_pair_and_control_stays_here)
{
	uint8_t *request = hva(4 * MIB);
	uint16_t id;
	uint32_t len;

	options.queue_pairs = 2;
	make();
	fake_transport_activate(&transport, dev->device_features, RINGS, 0);
	ck_assert_uint_eq(kernel.opened, 2);
	for (unsigned int queue = 0; queue < 4; queue++) {
		check_ring(queue / 2, queue % 2, queue);
		ck_assert_int_eq(kernel.instances[queue / 2].ring[queue % 2].backend,
				 tap.ends[queue / 2]);
	}
	request[0] = VIRTIO_NET_CTRL_MQ;
	request[1] = VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET;
	store_le16(request + 2, 2);
	ck_assert(!tap.attached[1]);
	fake_driver_add(&transport.drivers[4],
			(struct fake_buffer[]){ { 4 * MIB, 4, false }, { 5 * MIB, 1, true } }, 2);
	fake_transport_kick(&transport, 4);
	ck_assert(fake_transport_wait_used(&transport, 4, &id, &len, 3000));
	ck_assert_uint_eq(*(uint8_t *)hva(5 * MIB), VIRTIO_NET_OK);
	ck_assert(tap.attached[1]);
}
END_TEST

START_TEST(positions_come_back_at_pause_and_go_out_at_resume)
{
	struct instance *in = &kernel.instances[0];

	make();
	fake_transport_activate(&transport, dev->device_features, RINGS, 0);
	/* The kernel has served seven receive and 65530 transmit chains. */
	in->ring[0].base = 7;
	in->ring[1].base = 65530;
	store_le16((uint8_t *)hva(dev->queues[0].device) + 2, 7);
	store_le16((uint8_t *)hva(dev->queues[1].device) + 2, 65530);
	dev->ops->pause(dev);
	ck_assert_int_eq(in->ring[0].backend, -1);
	ck_assert_int_eq(in->ring[0].kick, -1);
	ck_assert_int_eq(in->ring[1].call, -1);
	ck_assert_uint_eq(dev->queues[0].last_avail, 7);
	ck_assert_uint_eq(dev->queues[0].last_used, 7);
	ck_assert_uint_eq(dev->queues[1].last_avail, 65530);
	ck_assert_uint_eq(dev->queues[1].last_used, 65530);
	in->ring[0].base = in->ring[1].base = 0;
	dev->ops->resume(dev);
	ck_assert_uint_eq(in->ring[0].base, 7);
	ck_assert_uint_eq(in->ring[1].base, 65530);
	ck_assert_int_eq(in->ring[1].backend, tap.ends[0]);
}
END_TEST

START_TEST(ring_features_the_kernel_lacks_are_withheld)
{
	kernel.features &=
		~(VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) | VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF));
	make();
	ck_assert(dev->withheld & VIRTIO_FEATURE(VIRTIO_F_RING_PACKED));
	ck_assert(dev->withheld & VIRTIO_FEATURE(VIRTIO_F_IN_ORDER));
	ck_assert(dev->withheld & VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX));
	ck_assert(!(dev->withheld & VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC)));
	ck_assert(!(dev->device_features & VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF)));
}
END_TEST

/* As fake_transport_activate(), expecting an error. */
static void activate_fails(uint64_t features, const char *text)
{
	struct error err = ERROR_INIT;
	uint64_t gpa = RINGS;

	dev->features = features | VIRTIO_FEATURE(VIRTIO_F_VERSION_1);
	for (unsigned int i = 0; i < dev->queue_count; i++) {
		gpa = fake_driver_init(&transport.drivers[i], host.host.memory, gpa,
				       dev->queues[i].size_max,
				       virtio_device_has(dev, VIRTIO_F_RING_PACKED));
		fake_driver_configure(&transport.drivers[i], &dev->queues[i]);
		ck_assert_int_eq(virtqueue_start(&dev->queues[i], &err), 0);
	}
	ck_assert_int_lt(dev->ops->activate(dev, &err), 0);
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' is not in '%s'", text, err.message);
}

START_TEST(packed_ring_negotiated_all_the_same_is_refused)
{
	make();
	activate_fails(VIRTIO_FEATURE(VIRTIO_F_RING_PACKED), "does not serve ring features");
	ck_assert_int_eq(kernel.instances[0].ring[0].backend, -1);
}
END_TEST

START_TEST(translation_by_us_is_never_asked_for)
{
	make();
	fake_transport_activate(&transport, VIRTIO_FEATURE(VIRTIO_F_ACCESS_PLATFORM), RINGS, 0);
	ck_assert(!(kernel.instances[0].features & VIRTIO_FEATURE(VIRTIO_F_ACCESS_PLATFORM)));
}
END_TEST

START_TEST(queue_without_an_eventfd_is_relayed)
{
	int call;

	make();
	close(transport.call_fd[0]);
	transport.call_fd[0] = -1;
	fake_transport_activate(&transport, dev->device_features, RINGS, 0);
	call = kernel.instances[0].ring[0].call;
	ck_assert_int_ge(call, 0);
	eventfd_signal(call);
	for (int i = 0; i < 3000 && !transport.signals[0]; i++)
		usleep(1000);
	ck_assert_uint_eq(transport.signals[0], 1);
	/* One signalled right before a pause is not lost. */
	dev->ops->pause(dev);
	ck_assert_int_lt(fcntl(call, F_GETFD), 0);
	dev->ops->resume(dev);
	transport.call_fd[0] = eventfd_new(); /* for destroy to close */
}
END_TEST

static unsigned int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

START_TEST(failure_at_any_step_is_undone)
{
	const struct instance *in = &kernel.instances[0];
	unsigned int before, failures = 0;

	make();
	transport.call_fd[1] = -1; /* a relay to be undone as well */
	before = open_fds();
	for (unsigned int step = 1;; step++) {
		struct error err = ERROR_INIT;
		uint64_t gpa = RINGS;

		for (unsigned int i = 0; i < dev->queue_count; i++) {
			gpa = fake_driver_init(&transport.drivers[i], host.host.memory, gpa, 256,
					       false);
			fake_driver_configure(&transport.drivers[i], &dev->queues[i]);
			ck_assert_int_eq(virtqueue_start(&dev->queues[i], &err), 0);
		}
		dev->features = VIRTIO_FEATURE(VIRTIO_F_VERSION_1);
		kernel.calls = 0;
		kernel.fail_at = step;
		if (!dev->ops->activate(dev, &err))
			break;
		failures++;
		ck_assert_int_eq(err.code, -ENOMEM);
		ck_assert_int_eq(in->ring[0].backend, -1);
		ck_assert_int_eq(in->ring[1].backend, -1);
		ck_assert_uint_eq(open_fds(), before);
	}
	kernel.fail_at = 0;
	ck_assert_uint_ge(failures, 12);
	dev->ops->deactivate(dev);
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(without_vhost_net_the_queues_are_served_here)
{
	uint8_t got[200];

	if (_i == 0)
		kernel.path = NULL;
	else if (_i == 1)
		kernel.fail_at = 1; /* there, but not for us */
	else
		options.rate_limit.ops =
			(struct token_bucket_options){ .size = 100, .refill_ms = 100 };
	make();
	ck_assert_uint_eq(dev->withheld, 0);
	fake_transport_activate(&transport, dev->device_features, RINGS, 0);
	fake_driver_add(&transport.drivers[1], &(struct fake_buffer){ 4 * MIB, 100, false }, 1);
	fake_transport_kick(&transport, 1);
	for (int i = 0; i < 3000 && read(tap.peers[0], got, sizeof(got)) != 100; i++)
		usleep(1000);
	ck_assert_uint_eq(dev->counters[NET_COUNTER_TX_FRAMES].value, 1);
}
END_TEST

START_TEST(memory_of_several_regions_is_one_table)
{
	struct guest_memory_options split = { .size = RAM,
					      .low_end = 2 * MIB,
					      .high_start = 4 * GIB };
	const struct instance *in = &kernel.instances[0];
	struct error err = ERROR_INIT;

	guest_memory_free(host.host.memory);
	host.host.memory = guest_memory_new(&split, &err);
	ck_assert_ptr_nonnull(host.host.memory);
	make();
	fake_transport_activate(&transport, dev->device_features, RINGS, 0);
	ck_assert_uint_eq(in->regions, 2);
	ck_assert_uint_eq(in->region[1].guest_phys_addr, 4 * GIB);
	ck_assert_uint_eq(in->region[1].memory_size, RAM - 2 * MIB);
	ck_assert_uint_eq(in->region[1].userspace_addr, (uintptr_t)hva(4 * GIB));
}
END_TEST

START_TEST(vhost_vsock_runs_between_activate_and_deactivate)
{
	const struct instance *in = &kernel.instances[0];
	uint8_t cid[8];

	kernel.features |= VIRTIO_FEATURE(VIRTIO_VSOCK_F_SEQPACKET);
	make_vsock();
	ck_assert_uint_eq(in->cid, 77);
	ck_assert_uint_eq(dev->device_features, VIRTIO_FEATURE(VIRTIO_VSOCK_F_SEQPACKET));
	dev->ops->config_read(dev, 0, cid, 8);
	ck_assert_uint_eq(load_le64(cid), 77);
	ck_assert_int_eq(in->running, 0);
	fake_transport_activate(&transport, dev->device_features, RINGS, 0);
	ck_assert_int_eq(in->running, 1);
	check_ring(0, 0, VSOCK_RX);
	check_ring(0, 1, VSOCK_TX);
	dev->ops->pause(dev);
	ck_assert_int_eq(in->running, 0);
	dev->ops->resume(dev);
	ck_assert_int_eq(in->running, 1);
}
END_TEST

static void vsock_fails(int code, const char *text)
{
	struct virtio_vsock_options vsock = { .cid = 77 };
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(virtio_vsock_new_with(&host.host, "vsock0", &vsock, &kernel.ops, &err));
	ck_assert_int_eq(err.code, code);
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' is not in '%s'", text, err.message);
}

START_TEST(vhost_vsock_says_what_it_lacks)
{
	kernel.path = NULL;
	vsock_fails(-ENOENT, "/dev/vhost-vsock");
	kernel.path = VHOST_VSOCK_PATH;
	kernel.cid_error = -EADDRINUSE;
	vsock_fails(-EADDRINUSE, "CID 77 is in use");
}
END_TEST

START_TEST(vhost_vsock_start_that_fails_is_undone)
{
	unsigned int failures = 0;

	make_vsock();
	for (unsigned int step = 1; step < 40; step++) {
		struct error err = ERROR_INIT;
		uint64_t gpa = RINGS;

		for (unsigned int i = 0; i < dev->queue_count; i++) {
			gpa = fake_driver_init(&transport.drivers[i], host.host.memory, gpa, 256,
					       false);
			fake_driver_configure(&transport.drivers[i], &dev->queues[i]);
			ck_assert_int_eq(virtqueue_start(&dev->queues[i], &err), 0);
		}
		dev->features = VIRTIO_FEATURE(VIRTIO_F_VERSION_1);
		kernel.calls = 0;
		kernel.fail_at = step;
		if (!dev->ops->activate(dev, &err))
			break;
		failures++;
		ck_assert_int_eq(kernel.instances[0].running, 0);
		ck_assert_int_eq(kernel.instances[0].ring[0].kick, -1);
	}
	ck_assert_uint_ge(failures, 12);
	dev->ops->deactivate(dev);
}
END_TEST

/* What vhost writes to RAM. */

#define LOG_ALL VIRTIO_FEATURE(VHOST_F_LOG_ALL)

static struct dirty_source *source_of(struct virtio_device *device)
{
	struct dirty_source *source = NULL;
	struct error err = ERROR_INIT;

	ck_assert_msg(!virtio_device_dirty_source(device, &source, &err), "%s", err.message);
	ck_assert_ptr_nonnull(source);
	return source;
}

static void kernel_writes(uint64_t page)
{
	uint8_t *log = (uint8_t *)(uintptr_t)kernel.instances[0].log;

	log[page / 8] |= (uint8_t)(1 << page % 8);
}

static unsigned int rings_logged(const struct instance *in)
{
	return (in->ring[0].addr.flags & 1U << VHOST_VRING_F_LOG ? 1 : 0) +
	       (in->ring[1].addr.flags & 1U << VHOST_VRING_F_LOG ? 1 : 0);
}

START_TEST(pages_the_kernel_writes_are_collected_once)
{
	const struct instance *in = &kernel.instances[0];
	const struct guest_memory_region *ram;
	struct dirty_source *source;
	struct dirty_bitmap bitmap;

	make();
	fake_transport_activate(&transport, dev->device_features, RINGS, 0);
	ram = guest_memory_region(host.host.memory, 0);
	ck_assert_int_eq(dirty_bitmap_init(&bitmap, ram->size / 4096, NULL), 0);
	source = source_of(dev);
	ck_assert_ptr_eq(source_of(dev), source);
	ck_assert_int_eq(source->ops->collect(source, ram, &bitmap, NULL), -EINVAL);
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	ck_assert(in->log && in->features & LOG_ALL);
	ck_assert_uint_eq(rings_logged(in), 2);
	ck_assert_uint_eq(in->ring[1].addr.log_guest_addr, dev->queues[1].device);
	ck_assert_int_eq(in->ring[0].backend, tap.ends[0]); /* it ran on */
	ck_assert_int_eq(source->ops->start(source, NULL), -EBUSY);
	kernel_writes(0);
	kernel_writes(70);
	kernel_writes(RAM / 4096 - 1);
	ck_assert_int_eq(source->ops->collect(source, ram, &bitmap, NULL), 0);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), 3);
	ck_assert(dirty_bitmap_test(&bitmap, 0) && dirty_bitmap_test(&bitmap, 70) &&
		  dirty_bitmap_test(&bitmap, RAM / 4096 - 1));
	dirty_bitmap_clear(&bitmap, 0, bitmap.pages);
	ck_assert_int_eq(source->ops->collect(source, ram, &bitmap, NULL), 0);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), 0);
	source->ops->stop(source);
	ck_assert(!(in->features & LOG_ALL));
	ck_assert_uint_eq(rings_logged(in), 0);
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(a_region_takes_its_own_pages_of_the_log)
{
	const struct guest_memory_region part = { .gpa = 3 * 4096, .size = 66 * 4096 };
	struct dirty_source *source;
	struct dirty_bitmap bitmap;

	make();
	source = source_of(dev);
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	fake_transport_activate(&transport, dev->device_features, RINGS, 0);
	ck_assert_int_eq(dirty_bitmap_init(&bitmap, 66, NULL), 0);
	for (uint64_t page = 2; page <= 69; page++)
		kernel_writes(page);
	ck_assert_int_eq(source->ops->collect(source, &part, &bitmap, NULL), 0);
	ck_assert_uint_eq(dirty_bitmap_count(&bitmap), 66);
	ck_assert_uint_eq(*(uint8_t *)(uintptr_t)kernel.instances[0].log, 1 << 2);
	ck_assert_uint_eq(((uint8_t *)(uintptr_t)kernel.instances[0].log)[8], 1 << (69 - 64));
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(the_log_is_kept_over_a_pause_and_set_at_the_start_of_a_device)
{
	const struct instance *in = &kernel.instances[0];
	struct dirty_source *source;
	uint64_t log;

	make();
	source = source_of(dev);
	ck_assert_int_eq(source->ops->start(source, NULL), 0);
	fake_transport_activate(&transport, dev->device_features, RINGS, 0);
	ck_assert(in->features & LOG_ALL);
	ck_assert_uint_eq(rings_logged(in), 2);
	log = in->log;
	kernel_writes(9);
	dev->ops->pause(dev);
	dev->ops->resume(dev);
	ck_assert_uint_eq(in->log, log);
	ck_assert_uint_eq(rings_logged(in), 2);
	ck_assert_uint_eq(((uint8_t *)(uintptr_t)log)[1], 2);
	/* A device may go with its log on. */
}
END_TEST

START_TEST(a_log_that_cannot_be_kept_is_said_and_undone)
{
	const struct instance *in = &kernel.instances[0];
	struct error err = ERROR_INIT;
	struct dirty_source *source;
	unsigned int failures = 0;

	if (_i)
		kernel.features &= ~LOG_ALL;
	make();
	fake_transport_activate(&transport, dev->device_features, RINGS, 0);
	source = source_of(dev);
	if (_i) {
		ck_assert_int_eq(source->ops->start(source, &err), -EOPNOTSUPP);
		ck_assert_ptr_nonnull(strstr(err.message, "net0"));
		return;
	}
	for (unsigned int step = 1;; step++) {
		kernel.calls = 0;
		kernel.fail_at = step;
		if (!source->ops->start(source, &err))
			break;
		failures++;
		ck_assert_int_eq(err.code, -ENOMEM);
		ck_assert(!(in->features & LOG_ALL));
		ck_assert_uint_eq(rings_logged(in), 0);
	}
	kernel.fail_at = 0;
	ck_assert_uint_eq(failures, 4); /* base, features, two rings */
}
END_TEST

START_TEST(a_device_served_here_needs_no_log_and_vhost_vsock_has_none)
{
	struct dirty_source *source = (struct dirty_source *)&source;
	struct error err = ERROR_INIT;

	if (_i) {
		make_vsock();
		ck_assert_int_eq(virtio_device_dirty_source(dev, &source, &err), -EOPNOTSUPP);
		ck_assert_ptr_nonnull(strstr(err.message, "vsock0"));
	} else {
		options.vhost = false;
		make();
		ck_assert_int_eq(virtio_device_dirty_source(dev, &source, &err), 0);
	}
	ck_assert_ptr_null(source);
}
END_TEST

/* Guests that move. */

static void move_to(struct fake_machine *from, struct fake_machine *to)
{
	struct state_writer *writer = state_writer_new(NULL);
	struct error err = ERROR_INIT;
	struct state_node root, node;
	void *blob;
	size_t len;

	virtio_pci_pause(from->fn);
	ck_assert_msg(!pci_root_save(from->root, writer, "devices", &err), "%s", err.message);
	ck_assert_int_eq(state_writer_finish(writer, &blob, &len, &err), 0);
	state_writer_free(writer);
	fake_machine_move_guest(from, to);
	ck_assert_int_eq(state_tree_open(blob, len, &root, NULL), 0);
	ck_assert_int_eq(state_child(&root, "devices", &node, NULL), 0);
	ck_assert_msg(!pci_root_load(to->root, &node, &err), "%s", err.message);
	virtio_pci_resume(to->fn);
	free(blob);
}

static struct fake_machine *machine_with_net(bool vhost)
{
	struct fake_machine *m = fake_machine_new();
	struct error err = ERROR_INIT;
	struct virtio_device *net;

	options.vhost = vhost;
	net = virtio_net_new_with(&m->h.host, "net0", &options, &tap.ops, &kernel.ops, &err);
	ck_assert_msg(net != NULL, "%s", err.message);
	fake_machine_plug(m, net);
	return m;
}

static void send_frame(struct fake_machine *m)
{
	memset(fake_machine_ram(m, FAKE_MACHINE_DATA), 0, 100);
	fake_driver_add(&m->drivers[1], &(struct fake_buffer){ FAKE_MACHINE_DATA, 100, false }, 1);
	fake_machine_kick(m, 1);
}

static void wait_sent(struct fake_machine *m)
{
	uint16_t id;
	uint32_t len;

	for (int i = 0; i < 3000; i++) {
		if (fake_driver_used(&m->drivers[1], &id, &len))
			return;
		usleep(1000);
	}
	ck_abort_msg("no frame was sent");
}

START_TEST(a_device_served_here_and_one_by_vhost_take_each_others_state)
{
	struct fake_machine *first = machine_with_net(false), *second = machine_with_net(true),
			    *third = machine_with_net(false);
	struct instance *in = &kernel.instances[0];

	fake_machine_start(first, VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX), true);
	for (int i = 0; i < 3; i++) {
		send_frame(first);
		wait_sent(first);
	}
	move_to(first, second);
	ck_assert_uint_eq(in->ring[0].base, 0);
	ck_assert_uint_eq(in->ring[1].base, 3);
	ck_assert_int_eq(in->ring[1].backend, tap.ends[1]);
	ck_assert_uint_eq(in->ring[1].addr.used_user_addr,
			  (uintptr_t)fake_machine_ram(second, second->dev->queues[1].device));
	/* The kernel sends one. */
	send_frame(second);
	in->ring[1].base = 4;
	store_le16(fake_machine_ram(second, second->dev->queues[1].device + 2), 4);
	second->drivers[1].used = 4;
	move_to(second, third);
	ck_assert_uint_eq(third->dev->queues[1].last_avail, 4);
	send_frame(third);
	wait_sent(third);
	ck_assert_uint_eq(third->drivers[1].used, 5);
	fake_machine_free(first);
	fake_machine_free(second);
	fake_machine_free(third);
}
END_TEST

static struct fake_machine *machine_with_vsock(uint64_t cid)
{
	const struct virtio_vsock_options vsock = { .cid = cid };
	struct fake_machine *m = fake_machine_new();

	kernel.path = VHOST_VSOCK_PATH;
	fake_machine_plug(m,
			  virtio_vsock_new_with(&m->h.host, "vsock0", &vsock, &kernel.ops, NULL));
	return m;
}

START_TEST(a_moved_vhost_vsock_tells_its_guest_that_the_transport_was_reset)
{
	struct fake_machine *from = machine_with_vsock(77), *to = machine_with_vsock(78);
	uint32_t len;
	uint16_t id;

	fake_machine_start(from, VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX), true);
	memset(fake_machine_ram(from, FAKE_MACHINE_DATA), 0xff, 8);
	fake_driver_add(&from->drivers[VSOCK_EVENT],
			&(struct fake_buffer){ FAKE_MACHINE_DATA, 8, true }, 1);
	move_to(from, to);
	ck_assert(!kernel.instances[0].running && kernel.instances[1].running);
	ck_assert(fake_driver_used(&to->drivers[VSOCK_EVENT], &id, &len));
	ck_assert_uint_eq(len, 4);
	ck_assert_uint_eq(load_le32(fake_machine_ram(to, FAKE_MACHINE_DATA)),
			  VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	fake_machine_free(from);
	fake_machine_free(to);
}
END_TEST

static void add_cases(Suite *s)
{
	TCase *net = tcase_create("vhost-net"), *vsock = tcase_create("vhost-vsock");
	TCase *all[] = { net, vsock };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		tcase_add_checked_fixture(all[i], setup, teardown);
		tcase_set_timeout(all[i], 60);
		suite_add_tcase(s, all[i]);
	}
	tcase_add_test(net, vhost_net_gets_everything_before_its_backend);
	tcase_add_test(net, vhost_serves_one_instance_a_pair_and_control_stays_here);
	tcase_add_test(net, positions_come_back_at_pause_and_go_out_at_resume);
	tcase_add_test(net, ring_features_the_kernel_lacks_are_withheld);
	tcase_add_test(net, packed_ring_negotiated_all_the_same_is_refused);
	tcase_add_test(net, translation_by_us_is_never_asked_for);
	tcase_add_test(net, queue_without_an_eventfd_is_relayed);
	tcase_add_test(net, failure_at_any_step_is_undone);
	tcase_add_loop_test(net, without_vhost_net_the_queues_are_served_here, 0, 3);
	tcase_add_test(net, memory_of_several_regions_is_one_table);
	tcase_add_test(net, pages_the_kernel_writes_are_collected_once);
	tcase_add_test(net, a_region_takes_its_own_pages_of_the_log);
	tcase_add_test(net, the_log_is_kept_over_a_pause_and_set_at_the_start_of_a_device);
	tcase_add_loop_test(net, a_log_that_cannot_be_kept_is_said_and_undone, 0, 2);
	tcase_add_loop_test(net, a_device_served_here_needs_no_log_and_vhost_vsock_has_none, 0, 2);
	tcase_add_test(net, a_device_served_here_and_one_by_vhost_take_each_others_state);
	tcase_add_test(vsock, a_moved_vhost_vsock_tells_its_guest_that_the_transport_was_reset);
	tcase_add_test(vsock, vhost_vsock_runs_between_activate_and_deactivate);
	tcase_add_test(vsock, vhost_vsock_says_what_it_lacks);
	tcase_add_test(vsock, vhost_vsock_start_that_fails_is_undone);
}

int main(void)
{
	Suite *suite = suite_create("vhost");

	add_cases(suite);
	return run_suite(suite);
}
