/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that goes from one machine to another finds its devices as it left them. */
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <net/ethernet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_net_priv.h"
#include "devices/virtio/virtio_simple.h"
#include "devices/virtio/virtio_vsock_priv.h"
#include "tests/unit/helpers/fake_machine.h"
#include "tests/unit/helpers/fake_tap.h"
#include "tests/unit/helpers/run_suite.h"

#define EVENTS (VIRTIO_FEATURE(VIRTIO_F_EVENT_IDX) | VIRTIO_FEATURE(VIRTIO_F_INDIRECT_DESC))
#define PACKED VIRTIO_FEATURE(VIRTIO_F_RING_PACKED)
#define WAIT_MS 5000
#define DISK_SIZE (64 * KIB)
#define DATA FAKE_MACHINE_DATA
#define LINE 19 /* of slot 3 */

static char disk[64], sockets[2][64];
static struct fake_tap taps[2];
/* The guest runs on one of them at a time. */
static struct fake_machine *from, *to;

static void set_up(void)
{
	uint8_t sector[512];
	int fd;

	strcpy(disk, "/var/tmp/ferry-state-XXXXXX");
	fd = mkstemp(disk);
	ck_assert_int_ge(fd, 0);
	for (unsigned int i = 0; i < DISK_SIZE / 512; i++) {
		memset(sector, (int)i, sizeof(sector));
		ck_assert_int_eq(fd_write_full(fd, sector, sizeof(sector)), 0);
	}
	close(fd);
	for (int i = 0; i < 2; i++) {
		snprintf(sockets[i], sizeof(sockets[i]), "/var/tmp/ferry-state-%d-%d", getpid(), i);
		fake_tap_init(&taps[i]);
	}
	from = fake_machine_new();
	to = fake_machine_new();
}

static void tear_down(void)
{
	if (from)
		fake_machine_free(from);
	if (to)
		fake_machine_free(to);
	for (int i = 0; i < 2; i++)
		fake_tap_destroy(&taps[i]);
	unlink(disk);
}

static void *save(struct fake_machine *m, size_t *len)
{
	struct error err = ERROR_INIT;
	struct state_writer *writer = state_writer_new(&err);
	void *blob;

	ck_assert_msg(!pci_root_save(m->root, writer, "devices", &err), "%s", err.message);
	ck_assert_msg(!state_writer_finish(writer, &blob, len, &err), "%s", err.message);
	state_writer_free(writer);
	return blob;
}

static int load(struct fake_machine *m, const void *blob, size_t len, struct error *err)
{
	struct state_node root, node;

	ck_assert_int_eq(state_tree_open(blob, len, &root, NULL), 0);
	ck_assert_int_eq(state_child(&root, "devices", &node, NULL), 0);
	return pci_root_load(m->root, &node, err);
}

/* Paused there, loaded here, paused. */
static void transfer(void)
{
	struct error err = ERROR_INIT;
	void *blob;
	size_t len;

	virtio_pci_pause(from->fn);
	blob = save(from, &len);
	fake_machine_move_guest(from, to);
	ck_assert_msg(!load(to, blob, len, &err), "%s", err.message);
	free(blob);
}

static void move(void)
{
	transfer();
	virtio_pci_resume(to->fn);
}

static bool used_soon(struct fake_machine *m, unsigned int queue, uint32_t *len)
{
	uint16_t id;

	for (unsigned int i = 0; i < WAIT_MS; i++) {
		if (fake_driver_used(&m->drivers[queue], &id, len))
			return true;
		usleep(1000);
	}
	return false;
}

static void wait_used(struct fake_machine *m, unsigned int queue)
{
	uint32_t len;

	ck_assert(used_soon(m, queue, &len));
}

/* Disks. */

static void plug_disk(struct fake_machine *m, bool unlocked)
{
	const struct virtio_blk_options options = {
		.path = disk,
		.unlocked = unlocked,
		.queues = 1,
		.queue_size = 16,
	};
	struct error err = ERROR_INIT;
	struct virtio_device *dev = virtio_blk_new(&m->h.host, "disk0", &options, &err);

	ck_assert_msg(dev != NULL, "%s", err.message);
	fake_machine_plug(m, dev);
}

/* Asks for sector n; the answer is checked by got_sector(). */
static void ask_sector(struct fake_machine *m, unsigned int n)
{
	uint64_t at = DATA + 4096 * (uint64_t)(n % 16);
	uint8_t *request = fake_machine_ram(m, at);

	memset(request, 0, 1024);
	store_le64(request + 8, n);
	request[16] = 0xff;
	fake_driver_add(&m->drivers[0],
			(struct fake_buffer[]){
				{ at, 16, false }, { at + 512, 512, true }, { at + 16, 1, true } },
			3);
}

static void got_sector(struct fake_machine *m, unsigned int n)
{
	const uint8_t *request = fake_machine_ram(m, DATA + 4096 * (uint64_t)(n % 16));

	wait_used(m, 0);
	ck_assert_uint_eq(request[16], VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request[512], n);
	ck_assert_uint_eq(request[1023], n);
}

static uint64_t ring(int i)
{
	return (i & 1 ? PACKED : 0) | (i & 2 ? EVENTS : 0);
}

START_TEST(requests_go_on_where_they_were_whatever_the_ring)
{
	unsigned int n = 0;

	plug_disk(from, false);
	plug_disk(to, true);
	fake_machine_start(from, ring(_i) | VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH), true);
	for (; n < 21; n++) {
		ask_sector(from, n);
		fake_machine_kick(from, 0);
		got_sector(from, n);
	}
	virtio_pci_pause(from->fn);
	/* Asked for, and kicked, while nobody serves. */
	for (unsigned int i = 0; i < 3; i++)
		ask_sector(from, n + i);
	fake_machine_kick(from, 0);
	move();
	ck_assert_uint_eq(to->h.fake.ioevent_count, 1); /* kicks need no exit here either */
	for (unsigned int i = 0; i < 3; i++, n++)
		got_sector(to, n);
	for (; n < 60; n++) {
		ask_sector(to, n);
		fake_machine_kick(to, 0);
		got_sector(to, n);
	}
}
END_TEST

START_TEST(nothing_is_served_between_load_and_resume)
{
	uint32_t len;
	uint16_t id;

	plug_disk(from, false);
	plug_disk(to, true);
	fake_machine_start(from, EVENTS, true);
	virtio_pci_pause(from->fn);
	ask_sector(from, 1);
	transfer();
	usleep(20000);
	ck_assert(!fake_driver_used(&to->drivers[0], &id, &len));
	virtio_pci_resume(to->fn);
	got_sector(to, 1);
}
END_TEST

START_TEST(the_source_goes_on_where_the_move_failed)
{
	void *blob;
	size_t len;

	plug_disk(from, false);
	fake_machine_start(from, EVENTS | PACKED, true);
	ask_sector(from, 1);
	fake_machine_kick(from, 0);
	got_sector(from, 1);
	virtio_pci_pause(from->fn);
	ask_sector(from, 2);
	blob = save(from, &len);
	free(blob);
	virtio_pci_resume(from->fn);
	got_sector(from, 2);
}
END_TEST

START_TEST(a_disks_lock_moves_and_comes_back)
{
	struct error err = ERROR_INIT;

	plug_disk(from, false);
	plug_disk(to, true);
	ck_assert_int_eq(virtio_blk_take_lock(to->dev, &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.message, disk));
	ck_assert_int_eq(virtio_blk_release_lock(from->dev, &err), 0);
	ck_assert_int_eq(virtio_blk_release_lock(from->dev, &err), 0);
	ck_assert_int_eq(virtio_blk_take_lock(to->dev, &err), 0);
	ck_assert_int_eq(virtio_blk_take_lock(to->dev, &err), 0);
	ck_assert_int_eq(virtio_blk_take_lock(from->dev, &err), -EBUSY);
	ck_assert_int_eq(virtio_blk_release_lock(to->dev, &err), 0);
	ck_assert_int_eq(virtio_blk_take_lock(from->dev, &err), 0);
	ck_assert_int_eq(virtio_blk_take_lock(to->dev, &err), -EBUSY);
}
END_TEST

START_TEST(a_disk_that_shrank_is_refused_and_one_that_grew_is_told)
{
	struct error err = ERROR_INIT;
	void *blob;
	size_t len;

	plug_disk(from, true);
	fake_machine_start(from, EVENTS, true);
	virtio_pci_pause(from->fn);
	blob = save(from, &len);
	ck_assert_int_eq(truncate(disk, DISK_SIZE / 2), 0);
	plug_disk(to, true);
	ck_assert_int_eq(load(to, blob, len, &err), -EINVAL);
	ck_assert_ptr_nonnull(
		strstr(err.message, "/devices/disk0/virtio/device: property capacity"));
	fake_machine_free(to);
	ck_assert_int_eq(truncate(disk, DISK_SIZE * 2), 0);
	to = fake_machine_new();
	plug_disk(to, true);
	fake_machine_move_guest(from, to);
	ck_assert_int_eq(load(to, blob, len, &err), 0);
	virtio_pci_resume(to->fn);
	fake_interrupts_deliver(&to->h.fake);
	ck_assert_uint_eq(fake_machine_read(to, VIRTIO_PCI_COMMON_CFGGENERATION, 1), 1);
	ck_assert_uint_eq(fake_machine_read(to, 0x2000, 8), DISK_SIZE * 2 / 512);
	free(blob);
}
END_TEST

START_TEST(a_write_cache_that_was_off_stays_off)
{
	plug_disk(from, true);
	plug_disk(to, true);
	fake_machine_start(from, EVENTS | VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE), true);
	fake_machine_write(from, 0x2000 + offsetof(struct virtio_blk_config, wce), 0, 1);
	move();
	ck_assert_uint_eq(
		fake_machine_read(to, 0x2000 + offsetof(struct virtio_blk_config, wce), 1), 0);
	/* Until the next driver. */
	fake_machine_write(to, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	ck_assert_uint_eq(
		fake_machine_read(to, 0x2000 + offsetof(struct virtio_blk_config, wce), 1), 1);
}
END_TEST

/* Interrupts. */

START_TEST(a_pending_vector_is_delivered_when_it_is_unmasked)
{
	plug_disk(from, true);
	plug_disk(to, true);
	fake_machine_start(from, EVENTS, true);
	fake_machine_vector(from, 1, true);
	virtio_device_signal(from->dev, 0);
	transfer();
	ck_assert_uint_eq(to->h.fake.delivered, 0);
	ck_assert_uint_eq(fake_machine_read(to, 0x5000, 4), 2);
	fake_machine_vector(to, 1, false);
	ck_assert_uint_eq(to->h.fake.delivered, 1);
	ck_assert_uint_eq(to->h.fake.last_delivered.data, 0x41);
	ck_assert_uint_eq(to->h.fake.last_delivered.address, FAKE_MACHINE_MSI);
}
END_TEST

START_TEST(every_queue_interrupts_once_after_the_move)
{
	plug_disk(from, true);
	plug_disk(to, true);
	fake_machine_start(from, EVENTS, true);
	move();
	ck_assert_uint_eq(fake_interrupts_deliver(&to->h.fake), 1);
	ck_assert_uint_eq(to->h.fake.last_delivered.data, 0x41);
}
END_TEST

START_TEST(a_line_that_was_high_is_high_until_the_isr_is_read)
{
	plug_disk(from, true);
	plug_disk(to, true);
	fake_machine_start(from, EVENTS, false);
	virtio_device_config_changed(from->dev);
	ck_assert(from->h.fake.level[LINE]);
	transfer();
	ck_assert(to->h.fake.level[LINE]);
	ck_assert_uint_eq(fake_machine_read(to, 0x1000, 1), 2);
	ck_assert(!to->h.fake.level[LINE]);
}
END_TEST

START_TEST(a_line_the_guest_disabled_stays_low)
{
	plug_disk(from, true);
	plug_disk(to, true);
	fake_machine_start(from, EVENTS, false);
	fake_machine_config_write(from, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE,
				  2);
	virtio_device_config_changed(from->dev);
	transfer();
	ck_assert(!to->h.fake.level[LINE]);
	fake_machine_config_write(to, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	ck_assert(to->h.fake.level[LINE]);
}
END_TEST

START_TEST(a_route_that_cannot_be_had_fails_the_load_and_names_the_vector)
{
	struct error err = ERROR_INIT;
	void *blob;
	size_t len;

	plug_disk(from, true);
	plug_disk(to, true);
	fake_machine_start(from, EVENTS, true);
	virtio_pci_pause(from->fn);
	blob = save(from, &len);
	to->h.fake.route_limit = 1;
	ck_assert_int_eq(load(to, blob, len, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.message, "disk0: MSI-X vector 1"));
	free(blob);
}
END_TEST

START_TEST(a_device_reset_before_it_resumed_starts_anew)
{
	plug_disk(from, true);
	plug_disk(to, true);
	fake_machine_start(from, EVENTS, true);
	transfer();
	fake_machine_write(to, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	ck_assert(!to->dev->active);
	virtio_pci_resume(to->fn);
	ck_assert(!to->dev->active);
	fake_machine_start(to, EVENTS, true);
	ask_sector(to, 5);
	fake_machine_kick(to, 0);
	got_sector(to, 5);
}
END_TEST

START_TEST(a_guest_that_runs_before_its_device_finds_it_resumed)
{
	plug_disk(from, true);
	plug_disk(to, true);
	fake_machine_start(from, EVENTS | VIRTIO_FEATURE(VIRTIO_BLK_F_CONFIG_WCE), true);
	virtio_pci_pause(from->fn);
	ask_sector(from, 3);
	transfer();
	if (_i)
		fake_machine_write(to, 0x2000 + offsetof(struct virtio_blk_config, wce), 0, 1);
	else
		fake_machine_write(to, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	got_sector(to, 3);
	virtio_pci_resume(to->fn);
	ask_sector(to, 4);
	fake_machine_kick(to, 0);
	got_sector(to, 4);
}
END_TEST

static void expect_there(uint64_t doorbells)
{
	uint64_t addresses[PCI_BARS];

	pci_function_mappings(from->fn, addresses);
	pci_function_expect(to->fn, addresses);
	virtio_pci_expect_doorbells(to->fn, doorbells);
}

START_TEST(doorbells_that_are_expected_are_there_before_the_state)
{
	plug_disk(from, true);
	plug_disk(to, true);
	ck_assert_uint_eq(virtio_pci_doorbells(from->fn), 0);
	fake_machine_start(from, EVENTS, true);
	ck_assert_uint_eq(virtio_pci_doorbells(from->fn), 1);
	expect_there(virtio_pci_doorbells(from->fn));
	ck_assert_uint_eq(to->h.fake.ioevent_count, 1);
	virtio_pci_pause(from->fn);
	ask_sector(from, 3);
	transfer();
	ck_assert_uint_eq(to->h.fake.ioevent_count, 1);
	virtio_pci_resume(to->fn);
	got_sector(to, 3);
	ask_sector(to, 4);
	fake_machine_kick(to, 0);
	got_sector(to, 4);
}
END_TEST

START_TEST(doorbells_that_were_expected_in_vain_go)
{
	plug_disk(from, true);
	plug_disk(to, true);
	fake_machine_start(from, EVENTS, true);
	expect_there(UINT64_MAX); /* of queues that it does not have, too */
	ck_assert_uint_eq(to->h.fake.ioevent_count, 1);
	/* The driver let go of it. */
	fake_machine_write(from, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	transfer();
	ck_assert_uint_eq(to->h.fake.ioevent_count, 0);
	fake_machine_start(to, EVENTS, true);
	ck_assert_uint_eq(to->h.fake.ioevent_count, 1);
}
END_TEST

START_TEST(a_device_that_runs_is_neither_saved_nor_loaded)
{
	struct error err = ERROR_INIT;
	struct state_writer *writer = state_writer_new(NULL);
	void *blob;
	size_t len;

	plug_disk(from, true);
	fake_machine_start(from, EVENTS, true);
	ck_assert_int_eq(pci_root_save(from->root, writer, "devices", &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.message, "disk0"));
	state_writer_free(writer);
	virtio_pci_pause(from->fn);
	blob = save(from, &len);
	ck_assert_int_eq(load(from, blob, len, &err), -EBUSY);
	free(blob);
}
END_TEST

START_TEST(a_loaded_machine_that_has_not_run_is_saved_again)
{
	struct fake_machine *third = fake_machine_new();
	struct error err = ERROR_INIT;
	void *blob;
	size_t len;

	plug_disk(from, true);
	plug_disk(to, true);
	plug_disk(third, true);
	fake_machine_start(from, EVENTS, true);
	virtio_pci_pause(from->fn);
	ask_sector(from, 9);
	transfer();
	blob = save(to, &len);
	fake_machine_move_guest(to, third);
	ck_assert_msg(!load(third, blob, len, &err), "%s", err.message);
	free(blob);
	virtio_pci_resume(third->fn);
	got_sector(third, 9);
	fake_machine_free(third);
}
END_TEST

/* Networks. */

static void plug_net(struct fake_machine *m, struct fake_tap *tap, const uint8_t mac[6])
{
	struct virtio_net_options options = {
		.queue_pairs = 2,
		.queue_size = 16,
		.offload_csum = true,
		.offload_tso = true,
	};
	struct error err = ERROR_INIT;
	struct virtio_device *dev;

	if (mac)
		memcpy(options.mac, mac, 6);
	dev = virtio_net_new_with(&m->h.host, "net0", &options, &tap->ops, &vhost_kernel_ops, &err);
	ck_assert_msg(dev != NULL, "%s", err.message);
	fake_machine_plug(m, dev);
}

static uint8_t control(struct fake_machine *m, uint8_t class, uint8_t command, uint64_t value,
		       uint32_t len)
{
	uint8_t *request = fake_machine_ram(m, DATA);

	request[0] = class;
	request[1] = command;
	store_le64(request + 2, value);
	fake_driver_add(&m->drivers[4],
			(struct fake_buffer[]){ { DATA, 2 + len, false }, { DATA + 64, 1, true } },
			2);
	fake_machine_kick(m, 4);
	wait_used(m, 4);
	return request[64];
}

static const uint64_t net_features =
	EVENTS | VIRTIO_FEATURE(VIRTIO_NET_F_STATUS) | VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ) |
	VIRTIO_FEATURE(VIRTIO_NET_F_MQ) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
	VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4) | VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) |
	VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_ANNOUNCE);

START_TEST(a_net_device_keeps_its_queues_offloads_and_frames)
{
	uint8_t frame[NET_HEADER_SIZE + 60] = { 0 };
	uint32_t len;

	plug_net(from, &taps[0], NULL);
	plug_net(to, &taps[1], NULL);
	fake_machine_start(from, net_features, true);
	ck_assert_uint_eq(control(from, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 2, 2),
			  VIRTIO_NET_OK);
	ck_assert_uint_eq(control(from, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
				  VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
				  VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM), 8),
			  VIRTIO_NET_OK);
	ck_assert(!from->h.fake.misuses);
	/* Receive buffers of the second queue, which the device holds. */
	for (unsigned int i = 0; i < 3; i++)
		fake_driver_add(&from->drivers[2],
				&(struct fake_buffer){ DATA + 4096 * (i + 1), 2048, true }, 1);
	fake_machine_kick(from, 2);
	frame[20] = 1;
	ck_assert_int_eq(write(taps[0].peers[1], frame, sizeof(frame)), sizeof(frame));
	ck_assert(used_soon(from, 2, &len));
	move();
	ck_assert(taps[1].attached[1]);
	ck_assert_uint_eq(taps[1].offload, TUN_F_CSUM);
	frame[20] = 2;
	ck_assert_int_eq(write(taps[1].peers[1], frame, sizeof(frame)), sizeof(frame));
	ck_assert(used_soon(to, 2, &len));
	ck_assert_uint_eq(len, sizeof(frame));
	ck_assert_uint_eq(fake_machine_ram(to, DATA + 4096 * 2)[20], 2);
}
END_TEST

START_TEST(a_mac_that_was_made_up_moves_and_one_that_was_asked_for_stays)
{
	const uint8_t asked[6] = { 2, 0, 0, 0, 0, 7 };
	uint8_t here[6], there[6];

	plug_net(from, &taps[0], NULL);
	plug_net(to, &taps[1], _i ? asked : NULL);
	move();
	virtio_net_mac(from->dev, there);
	virtio_net_mac(to->dev, here);
	ck_assert_mem_eq(here, _i ? asked : there, 6);
}
END_TEST

START_TEST(a_moved_net_device_announces_itself_by_rarp_and_by_its_driver)
{
	struct pollfd p;
	uint8_t got[256], mac[6];
	unsigned int frames = 0;

	plug_net(from, &taps[0], NULL);
	plug_net(to, &taps[1], NULL);
	fake_machine_start(from, net_features, true);
	move();
	virtio_net_mac(to->dev, mac);
	virtio_net_announce(to->dev);
	p = (struct pollfd){ .fd = taps[1].peers[0], .events = POLLIN };
	while (poll(&p, 1, 400) == 1) {
		ck_assert_int_eq(read(p.fd, got, sizeof(got)), NET_HEADER_SIZE + 60);
		ck_assert_mem_eq(got + NET_HEADER_SIZE, "\xff\xff\xff\xff\xff\xff", 6);
		ck_assert_mem_eq(got + NET_HEADER_SIZE + 6, mac, 6);
		/* RARP; Ethernet, IPv4, their lengths, reverse request */
		ck_assert_mem_eq(got + NET_HEADER_SIZE + 12, "\x80\x35\0\1\x08\0\6\4\0\3", 10);
		ck_assert_mem_eq(got + NET_HEADER_SIZE + 22, mac, 6);
		ck_assert_mem_eq(got + NET_HEADER_SIZE + 32, mac, 6);
		frames++;
	}
	ck_assert_uint_eq(frames, 5);
	ck_assert_uint_eq(fake_machine_read(to, 0x2006, 2),
			  VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	ck_assert_uint_eq(control(to, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, 0, 0),
			  VIRTIO_NET_OK);
	ck_assert_uint_eq(fake_machine_read(to, 0x2006, 2), VIRTIO_NET_S_LINK_UP);
}
END_TEST

START_TEST(a_net_device_without_a_driver_or_paused_announces_nothing)
{
	struct pollfd p;

	plug_net(from, &taps[0], NULL);
	p = (struct pollfd){ .fd = taps[0].peers[0], .events = POLLIN };
	virtio_net_announce(from->dev);
	fake_machine_start(from, net_features, true);
	virtio_pci_pause(from->fn);
	virtio_net_announce(from->dev);
	ck_assert_int_eq(poll(&p, 1, 50), 0);
	virtio_pci_resume(from->fn);
	virtio_net_announce(from->dev);
	ck_assert_int_eq(poll(&p, 1, WAIT_MS), 1);
	/* With rounds to come. */
}
END_TEST

START_TEST(features_that_are_not_offered_here_are_refused)
{
	struct error err = ERROR_INIT;
	void *blob;
	size_t len;

	plug_net(from, &taps[0], NULL);
	taps[1].no_ufo = true;
	fake_machine_start(from, net_features, true);
	virtio_pci_pause(from->fn);
	blob = save(from, &len);
	plug_net(to, &taps[1], NULL);
	to->dev->device_features &= ~VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4);
	ck_assert_int_eq(load(to, blob, len, &err), -EINVAL);
	ck_assert_ptr_nonnull(
		strstr(err.message, "/devices/net0/virtio: property driver-features"));
	ck_assert_ptr_nonnull(strstr(err.message, "0x80 is not offered here"));
	free(blob);
}
END_TEST

START_TEST(another_number_of_queues_is_refused_by_name)
{
	const struct virtio_net_options options = { .queue_pairs = 1, .queue_size = 16 };
	struct error err = ERROR_INIT;
	void *blob;
	size_t len;

	plug_net(from, &taps[0], NULL);
	blob = save(from, &len);
	fake_machine_plug(to, virtio_net_new_with(&to->h.host, "net0", &options, &taps[1].ops,
						  &vhost_kernel_ops, &err));
	ck_assert_int_eq(load(to, blob, len, &err), -EINVAL);
	ck_assert_str_eq(err.message, "/devices/net0/virtio: property queue-count is 5, here 3");
	free(blob);
}
END_TEST

START_TEST(another_kind_of_device_is_refused)
{
	struct error err = ERROR_INIT;
	void *blob;
	size_t len;

	plug_disk(from, true);
	blob = save(from, &len);
	fake_machine_plug(to, virtio_rng_new(&to->h.host, "disk0", NULL, &err));
	ck_assert_int_eq(load(to, blob, len, &err), -EINVAL);
	ck_assert_str_eq(err.message, "/devices/disk0: property config is of a device 1af4:1042, "
				      "here is 1af4:1044");
	free(blob);
}
END_TEST

/* Sockets. */

static void plug_vsock(struct fake_machine *m, const char *path, uint64_t cid)
{
	const struct virtio_vsock_options options = { .cid = cid, .socket = path };
	struct error err = ERROR_INIT;
	struct virtio_device *dev = virtio_vsock_new(&m->h.host, "vsock0", &options, &err);

	ck_assert_msg(dev != NULL, "%s", err.message);
	fake_machine_plug(m, dev);
}

START_TEST(a_moved_vsock_tells_its_guest_that_the_transport_was_reset)
{
	uint32_t len;

	plug_vsock(from, sockets[0], 42);
	plug_vsock(to, sockets[1], 43);
	fake_machine_start(from, EVENTS | (_i & 1 ? PACKED : 0), true);
	memset(fake_machine_ram(from, DATA), 0xff, 8);
	if (_i & 2)
		fake_driver_add(&from->drivers[VSOCK_EVENT], &(struct fake_buffer){ DATA, 8, true },
				1);
	move();
	if (!(_i & 2)) {
		fake_driver_add(&to->drivers[VSOCK_EVENT], &(struct fake_buffer){ DATA, 8, true },
				1);
		ck_assert(fake_driver_wants_kick(&to->drivers[VSOCK_EVENT]));
		fake_machine_kick(to, VSOCK_EVENT);
	}
	ck_assert(used_soon(to, VSOCK_EVENT, &len));
	ck_assert_uint_eq(len, 4);
	ck_assert_uint_eq(load_le32(fake_machine_ram(to, DATA)),
			  VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	ck_assert_uint_eq(fake_machine_read(to, 0x2000, 8), 43);
	/* Once. */
	fake_driver_add(&to->drivers[VSOCK_EVENT], &(struct fake_buffer){ DATA, 8, true }, 1);
	fake_machine_kick(to, VSOCK_EVENT);
	virtio_pci_pause(to->fn);
	virtio_pci_resume(to->fn);
	usleep(20000);
	ck_assert(!fake_driver_used(&to->drivers[VSOCK_EVENT], &(uint16_t){ 0 }, &len));
}
END_TEST

/* The small ones. */

START_TEST(a_consoles_output_that_waited_is_written_after_the_move)
{
	int slow[2], good[2];
	char got[16];
	struct pollfd p;

	ck_assert_int_eq(pipe2(slow, O_CLOEXEC | O_NONBLOCK), 0);
	ck_assert_int_eq(pipe2(good, O_CLOEXEC | O_NONBLOCK), 0);
	while (write(slow[1], "x", 1) == 1)
		;
	fake_machine_plug(from, virtio_console_new(&from->h.host, "console", -1, slow[1], NULL));
	fake_machine_plug(to, virtio_console_new(&to->h.host, "console", -1, good[1], NULL));
	fake_machine_start(from, EVENTS, true);
	memcpy(fake_machine_ram(from, DATA), "not yet read", 12);
	fake_driver_add(&from->drivers[1], &(struct fake_buffer){ DATA, 12, false }, 1);
	fake_machine_kick(from, 1);
	wait_used(from, 1);
	transfer();
	p = (struct pollfd){ .fd = good[0], .events = POLLIN };
	ck_assert_int_eq(poll(&p, 1, 20), 0); /* not before it is certain that it goes on here */
	virtio_pci_resume(to->fn);
	ck_assert_int_eq(poll(&p, 1, WAIT_MS), 1);
	ck_assert_int_eq(read(good[0], got, sizeof(got)), 12);
	ck_assert_mem_eq(got, "not yet read", 12);
	for (int i = 0; i < 2; i++) {
		close(slow[i]);
		close(good[i]);
	}
}
END_TEST

START_TEST(a_balloon_keeps_its_size)
{
	fake_machine_plug(from, virtio_balloon_new(&from->h.host, "balloon", 0, true, false, NULL));
	fake_machine_plug(to, virtio_balloon_new(&to->h.host, "balloon", 0, true, false, NULL));
	fake_machine_start(from, EVENTS, true);
	ck_assert_int_eq(virtio_balloon_resize(from->dev, 64 * 4096, NULL), 0);
	fake_machine_write(from, 0x2004, 17, 4);
	move();
	ck_assert_uint_eq(fake_machine_read(to, 0x2000, 4), 64);
	ck_assert_uint_eq(virtio_balloon_actual(to->dev), 17 * 4096);
}
END_TEST

START_TEST(a_generator_goes_on)
{
	uint32_t len;

	fake_machine_plug(from, virtio_rng_new(&from->h.host, "rng", NULL, NULL));
	fake_machine_plug(to, virtio_rng_new(&to->h.host, "rng", NULL, NULL));
	fake_machine_start(from, EVENTS | PACKED, true);
	virtio_pci_pause(from->fn);
	fake_driver_add(&from->drivers[0], &(struct fake_buffer){ DATA, 64, true }, 1);
	move();
	ck_assert(used_soon(to, 0, &len));
	ck_assert_uint_eq(len, 64);
}
END_TEST

static void add_disks(TCase *t)
{
	tcase_add_loop_test(t, requests_go_on_where_they_were_whatever_the_ring, 0, 4);
	tcase_add_test(t, nothing_is_served_between_load_and_resume);
	tcase_add_test(t, the_source_goes_on_where_the_move_failed);
	tcase_add_test(t, a_disks_lock_moves_and_comes_back);
	tcase_add_test(t, a_disk_that_shrank_is_refused_and_one_that_grew_is_told);
	tcase_add_test(t, a_write_cache_that_was_off_stays_off);
	tcase_add_test(t, a_device_reset_before_it_resumed_starts_anew);
	tcase_add_loop_test(t, a_guest_that_runs_before_its_device_finds_it_resumed, 0, 2);
	tcase_add_test(t, doorbells_that_are_expected_are_there_before_the_state);
	tcase_add_test(t, doorbells_that_were_expected_in_vain_go);
	tcase_add_test(t, a_device_that_runs_is_neither_saved_nor_loaded);
	tcase_add_test(t, a_loaded_machine_that_has_not_run_is_saved_again);
}

static void add_interrupts(TCase *t)
{
	tcase_add_test(t, a_pending_vector_is_delivered_when_it_is_unmasked);
	tcase_add_test(t, every_queue_interrupts_once_after_the_move);
	tcase_add_test(t, a_line_that_was_high_is_high_until_the_isr_is_read);
	tcase_add_test(t, a_line_the_guest_disabled_stays_low);
	tcase_add_test(t, a_route_that_cannot_be_had_fails_the_load_and_names_the_vector);
}

static void add_others(TCase *t)
{
	tcase_add_test(t, a_net_device_keeps_its_queues_offloads_and_frames);
	tcase_add_loop_test(t, a_mac_that_was_made_up_moves_and_one_that_was_asked_for_stays, 0, 2);
	tcase_add_test(t, a_moved_net_device_announces_itself_by_rarp_and_by_its_driver);
	tcase_add_test(t, a_net_device_without_a_driver_or_paused_announces_nothing);
	tcase_add_test(t, features_that_are_not_offered_here_are_refused);
	tcase_add_test(t, another_number_of_queues_is_refused_by_name);
	tcase_add_test(t, another_kind_of_device_is_refused);
	tcase_add_loop_test(t, a_moved_vsock_tells_its_guest_that_the_transport_was_reset, 0, 4);
	tcase_add_test(t, a_consoles_output_that_waited_is_written_after_the_move);
	tcase_add_test(t, a_balloon_keeps_its_size);
	tcase_add_test(t, a_generator_goes_on);
}

static void add(Suite *s, const char *name, void (*tests)(TCase *t))
{
	TCase *t = tcase_create(name);

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, set_up, tear_down);
	tests(t);
	suite_add_tcase(s, t);
}

int main(void)
{
	Suite *s = suite_create("devices of a guest that moves");

	add(s, "disks", add_disks);
	add(s, "interrupts", add_interrupts);
	add(s, "others", add_others);
	return run_suite(s);
}
