/* SPDX-License-Identifier: Apache-2.0 */
/* Every virtio device, with its transport and its place on the PCI root: saved, loaded,
 * refused. That they go on working is in test_state_running.c. */
#include <fcntl.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_blk.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_net_priv.h"
#include "devices/virtio/virtio_simple.h"
#include "devices/virtio/virtio_vsock_priv.h"
#include "tests/unit/helpers/fake_machine.h"
#include "tests/unit/helpers/fake_tap.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/helpers/state_case.h"

#define EVENTS (VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) | VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC))
#define PACKED VIRTIO_FEATURE(VIRTIO_F_RING_PACKED)
#define WAIT_MS 5000
#define DISK_SIZE (64 * KIB)
#define DATA FAKE_MACHINE_DATA

static struct fake_tap taps[2];
static unsigned int taps_used;
static char disk[64], socket_path[64];

static const struct rate_limiter_options limits = {
	.bandwidth = { .size = 1 << 20, .one_time_burst = 1000, .refill_ms = 1000000000 },
	.ops = { .size = 100, .refill_ms = 1000000000 },
};

static void make_disk(void)
{
	int fd;

	strcpy(disk, "/var/tmp/ferry-state-XXXXXX");
	fd = mkstemp(disk);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, DISK_SIZE), 0);
	close(fd);
	snprintf(socket_path, sizeof(socket_path), "/var/tmp/ferry-state-%d.sock", getpid());
}

static void remove_disk(void)
{
	unlink(disk);
	for (unsigned int i = 0; i < ARRAY_SIZE(taps); i++)
		fake_tap_destroy(&taps[i]);
}

static void *plugged(struct fake_machine *m, struct virtio_device *dev)
{
	ck_assert_ptr_nonnull(dev);
	fake_machine_plug(m, dev);
	return m;
}

static void *blk_make(void)
{
	const struct virtio_blk_options options = {
		.path = disk,
		.unlocked = true,
		.queues = 2,
		.queue_size = 64,
		.discard = true,
		.rate_limit = limits,
	};
	struct fake_machine *m = fake_machine_new();

	return plugged(m, virtio_blk_new(&m->h.host, "disk0", &options, NULL));
}

static void *net_make(void)
{
	const struct virtio_net_options options = {
		.mac = { 2, 0, 0, 0, 0, 9 },
		.queue_pairs = 2,
		.queue_size = 64,
		.mtu = 1400,
		.offload_csum = true,
		.offload_tso = true,
		.rate_limit = limits,
	};
	struct fake_machine *m = fake_machine_new();
	struct fake_tap *tap = &taps[taps_used++ % ARRAY_SIZE(taps)];

	fake_tap_destroy(tap);
	fake_tap_init(tap);
	return plugged(m, virtio_net_new_with(&m->h.host, "net0", &options, &tap->ops,
					      &vhost_kernel_ops, NULL));
}

static void *rng_make(void)
{
	struct fake_machine *m = fake_machine_new();

	return plugged(m, virtio_rng_new(&m->h.host, "rng", NULL, NULL));
}

static int full_pipe = -1;

static void *console_make(void)
{
	struct fake_machine *m = fake_machine_new();
	int ends[2];

	if (full_pipe < 0) {
		ck_assert_int_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
		full_pipe = ends[1];
		while (write(full_pipe, "x", 1) == 1)
			;
	}
	return plugged(m, virtio_console_new(&m->h.host, "console", -1, full_pipe, NULL));
}

static void *balloon_make(void)
{
	struct fake_machine *m = fake_machine_new();

	return plugged(m, virtio_balloon_new(&m->h.host, "balloon", 0, true, true, NULL));
}

static void *vsock_make(void)
{
	const struct virtio_vsock_options options = { .cid = 42, .socket = socket_path };
	struct fake_machine *m = fake_machine_new();

	return plugged(m, virtio_vsock_new(&m->h.host, "vsock0", &options, NULL));
}

/* Drivers. */

static void wait_used(struct fake_machine *m, unsigned int queue)
{
	uint16_t id;
	uint32_t len;

	for (unsigned int i = 0; i < WAIT_MS; i++) {
		if (fake_driver_used(&m->drivers[queue], &id, &len))
			return;
		usleep(1000);
	}
	ck_abort_msg("queue %u returns nothing", queue);
}

static void pause_machine(struct fake_machine *m)
{
	/* Registers a driver leaves somewhere. */
	fake_machine_write(m, VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
	fake_machine_write(m, VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
	virtio_pci_pause(m->fn);
	ck_assert_uint_eq(m->h.fake.misuses, 0);
}

static void blk_prepare(void *opaque)
{
	struct fake_machine *m = opaque;

	fake_machine_start(m,
			   EVENTS | PACKED | VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH) |
				   VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE) |
				   VIRTIO_FEATURE(VIRTIO_BLK_F_MQ),
			   true);
	fake_machine_write(m, 0x2000 + offsetof(struct virtio_blk_config, wce), 0, 1);
	for (unsigned int i = 0; i < 5; i++) {
		memset(fake_machine_ram(m, DATA), 0, 16);
		fake_driver_add(&m->drivers[0],
				(struct fake_buffer[]){ { DATA, 16, false },
							{ DATA + 4096, 512, true },
							{ DATA + 16, 1, true } },
				3);
		fake_machine_kick(m, 0);
		wait_used(m, 0);
	}
	pause_machine(m);
	/* Vector 2 is masked, and pending. */
	fake_machine_vector(m, 2, true);
	virtio_device_signal(m->dev, 1);
}

static void net_prepare(void *opaque)
{
	struct fake_machine *m = opaque;
	const uint64_t features =
		EVENTS | VIRTIO_FEATURE(VIRTIO_NET_F_MAC) | VIRTIO_FEATURE(VIRTIO_NET_F_STATUS) |
		VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_FEATURE(VIRTIO_NET_F_MQ) |
		VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
		VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4) |
		VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) |
		VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_ANNOUNCE);
	uint8_t *request = fake_machine_ram(m, DATA);

	fake_machine_start(m, features, true);
	for (unsigned int i = 0; i < 2; i++) {
		request[0] = i ? VIRTIO_NET_CTRL_GUEST_OFFLOADS : VIRTIO_NET_CTRL_MQ;
		request[1] =
			i ? VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET : VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET;
		store_le64(request + 2, i ? VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM) : 2);
		fake_driver_add(&m->drivers[4],
				(struct fake_buffer[]){ { DATA, i ? 10 : 4, false },
							{ DATA + 64, 1, true } },
				2);
		fake_machine_kick(m, 4);
		wait_used(m, 4);
		ck_assert_uint_eq(request[64], VIRTIO_NET_OK);
	}
	for (unsigned int i = 0; i < 3; i++) {
		memset(fake_machine_ram(m, DATA), 0, 100);
		fake_driver_add(&m->drivers[1], &(struct fake_buffer){ DATA, 100, false }, 1);
		fake_machine_kick(m, 1);
		wait_used(m, 1);
	}
	virtio_net_announce(m->dev);
	pause_machine(m);
}

/* By INTx, with a queue the driver has broken. */
static void rng_prepare(void *opaque)
{
	struct fake_machine *m = opaque;

	fake_machine_start(m, EVENTS, false);
	fake_driver_add(&m->drivers[0], &(struct fake_buffer){ DATA, 64, true }, 1);
	fake_machine_kick(m, 0);
	wait_used(m, 0);
	fake_driver_set_avail(&m->drivers[0], 1000);
	fake_machine_kick(m, 0);
	for (unsigned int i = 0; i < WAIT_MS; i++) {
		if (fake_machine_read(m, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_NEEDS_RESET)
			break;
		usleep(1000);
	}
	pause_machine(m);
	ck_assert(m->h.fake.level[19]);
}

static void console_prepare(void *opaque)
{
	struct fake_machine *m = opaque;

	fake_machine_start(m, EVENTS, true);
	memcpy(fake_machine_ram(m, DATA), "not yet read", 12);
	fake_driver_add(&m->drivers[1], &(struct fake_buffer){ DATA, 12, false }, 1);
	fake_machine_kick(m, 1);
	wait_used(m, 1);
	pause_machine(m);
}

static void balloon_prepare(void *opaque)
{
	struct fake_machine *m = opaque;

	fake_machine_start(m, EVENTS, true);
	ck_assert_int_eq(virtio_balloon_resize(m->dev, 64 * 4096, NULL), 0);
	fake_machine_write(m, 0x2004, 17, 4);
	pause_machine(m);
}

static void vsock_prepare(void *opaque)
{
	fake_machine_start(opaque, EVENTS, true);
	pause_machine(opaque);
}

/* A device whose driver has come as far as the features. */
static void half_prepare(void *opaque)
{
	struct fake_machine *m = opaque;

	fake_machine_config_write(m, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE, 2);
	fake_machine_status(m, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	fake_machine_write(m, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
	fake_machine_write(m, VIRTIO_PCI_COMMON_GF, 1, 4);
	fake_machine_status(m, VIRTIO_CONFIG_S_FEATURES_OK);
	fake_machine_write(m, VIRTIO_PCI_COMMON_Q_SIZE, 16, 2);
	fake_machine_write(m, VIRTIO_PCI_COMMON_Q_DESCLO, 0x123456789000, 8);
}

static int machine_save(void *opaque, struct state_writer *writer, struct error *err)
{
	return pci_root_save(((struct fake_machine *)opaque)->root, writer, "devices", err);
}

static int machine_load(void *opaque, const struct state_node *node, struct error *err)
{
	return pci_root_load(((struct fake_machine *)opaque)->root, node, err);
}

static void destroy(void *opaque)
{
	fake_machine_free(opaque);
}

/* Written by the driver as it likes. */
static const char *const any_value[] = { "device-feature-select", "driver-feature-select",
					 "queue-select-any", "actual", NULL };
/* Of a queue that does not run, too. */
static const char *const half_any_value[] = { "device-feature-select", "driver-feature-select",
					      "descriptor-area",       "driver-area",
					      "device-area",	       NULL };
static const char *const any_size[] = { "unsent", NULL };
static const char *const console_any_value[] = { "device-feature-select", "driver-feature-select",
						 "unsent", NULL };

enum { BLK, NET, RNG, CONSOLE, BALLOON, VSOCK, HALF, CASES };

static const struct state_case cases[CASES] = {
	[BLK] = { "virtio-blk-v1", blk_make, blk_prepare, machine_save, machine_load, destroy,
		  any_value, any_size },
	[NET] = { "virtio-net-v1", net_make, net_prepare, machine_save, machine_load, destroy,
		  any_value, any_size },
	[RNG] = { "virtio-rng-v1", rng_make, rng_prepare, machine_save, machine_load, destroy,
		  any_value, any_size },
	[CONSOLE] = { "virtio-console-v1", console_make, console_prepare, machine_save,
		      machine_load, destroy, console_any_value, any_size },
	[BALLOON] = { "virtio-balloon-v1", balloon_make, balloon_prepare, machine_save,
		      machine_load, destroy, any_value, any_size },
	[VSOCK] = { "virtio-vsock-v1", vsock_make, vsock_prepare, machine_save, machine_load,
		    destroy, any_value, any_size },
	[HALF] = { "virtio-starting-v1", rng_make, half_prepare, machine_save, machine_load,
		   destroy, half_any_value, any_size },
};

START_TEST(what_a_fresh_device_loads_it_saves_again)
{
	state_case_round_trip(&cases[_i]);
}
END_TEST

START_TEST(the_first_version_loads)
{
	state_case_golden(&cases[_i]);
}
END_TEST

START_TEST(what_is_missing_or_wrong_is_refused_by_name)
{
	state_case_refusals(&cases[_i]);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("state of virtio devices");
	TCase *t = tcase_create("state");

	tcase_set_timeout(t, 120);
	tcase_add_checked_fixture(t, make_disk, remove_disk);
	tcase_add_loop_test(t, what_a_fresh_device_loads_it_saves_again, 0, CASES);
	tcase_add_loop_test(t, the_first_version_loads, 0, CASES);
	tcase_add_loop_test(t, what_is_missing_or_wrong_is_refused_by_name, 0, CASES);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run_suite(suite());
}
