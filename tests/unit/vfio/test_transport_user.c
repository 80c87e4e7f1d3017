/* SPDX-License-Identifier: Apache-2.0 */
/* The vfio-user client over a fake server in a thread: what goes over the wire, every reply
 * cut short and corrupted, death and silence, threads, the server's commands. */
#include <check.h>
#include <errno.h>
#include <linux/vfio.h>
#include <poll.h>
#include <sys/resource.h>
#include <time.h>

#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vfio/user_bench.h"
#include "tests/unit/vfio/user_fake_server.h"

#define TIMEOUT_MS 20000

static struct bench b;
static struct fake_server s;
static struct vfio_region regions[9];

static void setup(void)
{
	bench_init(&b);
	s = (struct fake_server){ .caps = FAKE_CAPS, .version = { 0, 1 } };
}

static void teardown(void)
{
	bench_done(&b);
}

/* Opens over a new server; what exercise() needs is known afterwards. */
static struct vfio_transport *open_fake(unsigned int timeout_ms)
{
	int fd = fake_start(&s);

	b.err = (struct error)ERROR_INIT;
	b.t = vfio_transport_open_user_fd(&b.options, fd, timeout_ms, &b.err);
	if (!b.t)
		close(fd);
	return b.t;
}

static void open_good(void)
{
	ck_assert_msg(open_fake(TIMEOUT_MS) != NULL, "%s", b.err.message);
	for (uint32_t i = 0; i < 9; i++)
		ck_assert_msg(!b.t->ops->region_info(b.t, i, &regions[i], &b.err), "%s",
			      b.err.message);
}

static void end(void)
{
	if (b.t)
		b.t->ops->close(b.t);
	b.t = NULL;
	fake_stop(&s);
}

/* The last command of its kind, and its payload. */
static struct fake_seen last;

static const uint8_t *seen(unsigned int command)
{
	last = fake_seen(&s, command);
	return last.bytes + 16;
}

static size_t seen_len(unsigned int command)
{
	return fake_seen(&s, command).len;
}

static int ask_about_regions(void)
{
	struct vfio_ioeventfd io;
	void *p;
	int r = 0;

	for (uint32_t i = 0; i < 3 && !r; i++) {
		r = b.t->ops->region_info(b.t, i, &regions[i], &b.err);
		if (!r && regions[i].size)
			r = MIN(0, b.t->ops->region_ioeventfds(b.t, &regions[i], &io, 1, &b.err));
		if (!r && regions[i].area_count) {
			uint64_t size = regions[i].areas[0].size;

			r = b.t->ops->region_map(b.t, &regions[i], regions[i].areas[0].offset, size,
						 &p, &b.err);
			if (!r)
				munmap(p, size);
		}
	}
	return r;
}

/* Every command once: the first error, 0. */
static int exercise(void)
{
	const struct guest_memory_region *high = guest_memory_region(b.memory, 1);
	struct vfio_irq irq;
	uint8_t data[64];
	uint64_t flags;
	int r, fd = eventfd_new();

	r = ask_about_regions();
	if (!r)
		r = b.t->ops->irq_info(b.t, 2, &irq, &b.err);
	if (!r)
		r = b.t->ops->set_irq_fds(b.t, 2, 0, 1, &fd, &b.err);
	if (!r && regions[0].size >= 64)
		r = b.t->ops->region_read(b.t, &regions[0], 0, data, 64, &b.err);
	if (!r && regions[0].size >= 64)
		r = b.t->ops->region_write(b.t, &regions[0], 0, data, 64, &b.err);
	if (!r)
		r = MIN(0, b.t->ops->feature(b.t, VFIO_DEVICE_FEATURE_GET | 1, &flags, 8, &b.err));
	if (!r)
		r = (int)MIN(0, user_migration_read(b.t, -1, data, 64, 0, &b.err));
	if (!r)
		r = user_migration_write(b.t, -1, data, 64, &b.err);
	if (!r)
		r = b.t->space->ops->unmap(b.t->space, high->gpa, high->size, NULL, &b.err);
	if (!r && b.t->resettable)
		r = b.t->ops->reset(b.t, &b.err);
	close(fd);
	return r;
}

/* VERSION, GET_INFO, 2 x DMA_MAP, 3 x (REGION_INFO, IO_FDS), and 9 more. */
#define EXERCISE_COMMANDS 19

START_TEST(good_server_answers_every_command)
{
	ck_assert_msg(open_fake(TIMEOUT_MS) != NULL, "%s", b.err.message);
	ck_assert_msg(!exercise(), "%s", b.err.message);
	ck_assert_uint_eq(atomic_load(&s.commands), EXERCISE_COMMANDS);
	ck_assert_int_eq(atomic_load(&b.lost), 0);
	end();
}
END_TEST

START_TEST(version_offers_what_the_client_can_do)
{
	const uint8_t *v;

	open_good();
	v = seen(1) - 16;
	ck_assert_uint_eq(load_le32(v + 4), seen_len(1));
	ck_assert_uint_eq(load_le32(v + 8), 0); /* a command */
	ck_assert_uint_eq(load_le16(v + 16), 0);
	ck_assert_uint_eq(load_le16(v + 18), 1);
	ck_assert_uint_eq(v[seen_len(1) - 1], 0);
	bench_says((const char *)v + 20, "\"max_msg_fds\":64");
	bench_says((const char *)v + 20, "\"max_data_xfer_size\":1048576");
	bench_says((const char *)v + 20, "\"pgsizes\":4096");
	end();
}
END_TEST

static bool check_memory(struct fake_server *server, unsigned int number,
			 const struct fake_message *m, struct fake_message *reply)
{
	const uint8_t *in = m->bytes + 16;
	unsigned int *maps = server->opaque;
	uint32_t word = 0;

	if (load_le16(m->bytes + 2) != 2)
		return true;
	ck_assert_uint_eq(m->len, 48);
	ck_assert_uint_eq(load_le32(in), 32);
	ck_assert_uint_eq(load_le32(in + 4), 3); /* readable, writable */
	ck_assert_uint_eq(load_le64(in + 16), *maps ? 4 * GIB : 0);
	ck_assert_uint_eq(load_le64(in + 24), BENCH_RAM / 2);
	ck_assert_uint_eq(m->fd_count, 1);
	ck_assert_int_eq(fd_pread_full(m->fds[0], &word, 4, (off_t)load_le64(in + 8)), 0);
	ck_assert_uint_eq(word, 0x1000 + *maps);
	++*maps;
	return true;
}

START_TEST(guest_memory_is_mapped_by_its_memfd)
{
	unsigned int maps = 0;

	s.hook = check_memory;
	s.opaque = &maps;
	for (uint32_t i = 0; i < 2; i++)
		store_le32(guest_memory_region(b.memory, i)->hva, 0x1000 + i);
	open_good();
	end();
	ck_assert_uint_eq(maps, 2);
}
END_TEST

START_TEST(accesses_have_the_protocols_layout)
{
	uint8_t data[8] = { 0 };

	open_good();
	ck_assert_int_eq(b.t->ops->region_read(b.t, &regions[1], 0x123, data, 2, &b.err), 0);
	ck_assert_uint_eq(data[0], 0x23);
	ck_assert_uint_eq(data[1], 0x24);
	ck_assert_uint_eq(seen_len(9), 32);
	ck_assert_uint_eq(load_le64(seen(9) - 16 + 16), 0x123);
	ck_assert_uint_eq(load_le32(seen(9) - 16 + 24), 1);
	ck_assert_uint_eq(load_le32(seen(9) - 16 + 28), 2);
	memcpy(data, "12345678", 8);
	ck_assert_int_eq(b.t->ops->region_write(b.t, &regions[7], 0x10, data, 8, &b.err), 0);
	ck_assert_uint_eq(seen_len(10), 40);
	ck_assert_uint_eq(load_le32(seen(10) - 16 + 24), 7);
	ck_assert_mem_eq(seen(10) - 16 + 32, "12345678", 8);
	end();
}
END_TEST

START_TEST(interrupts_have_the_protocols_layout)
{
	int fds[6];
	const uint8_t *m;

	open_good();
	for (int i = 0; i < 6; i++)
		fds[i] = eventfd_new();
	/* The server takes four at a time. */
	ck_assert_int_eq(b.t->ops->set_irq_fds(b.t, 2, 10, 6, fds, &b.err), 0);
	m = seen(8);
	ck_assert_uint_eq(last.fds, 2);
	ck_assert_uint_eq(seen_len(8), 36);
	ck_assert_uint_eq(load_le32(m), 20);
	ck_assert_uint_eq(load_le32(m + 4),
			  VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER);
	ck_assert_uint_eq(load_le32(m + 8), 2);
	ck_assert_uint_eq(load_le32(m + 12), 14);
	ck_assert_uint_eq(load_le32(m + 16), 2);
	ck_assert_int_eq(b.t->ops->set_irq_fds(b.t, 2, 0, 0, NULL, &b.err), 0);
	m = seen(8);
	ck_assert_uint_eq(load_le32(m + 4), VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER);
	ck_assert_uint_eq(load_le32(m + 16), 0);
	ck_assert_int_eq(b.t->ops->mask_irq(b.t, 0, true, &b.err), 0);
	m = seen(8);
	ck_assert_uint_eq(load_le32(m + 4), VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK);
	ck_assert_uint_eq(load_le32(m + 16), 1);
	for (int i = 0; i < 6; i++)
		close(fds[i]);
	end();
}
END_TEST

START_TEST(region_with_areas_and_type_is_understood)
{
	struct vfio_ioeventfd io;
	struct vfio_region again;

	open_good();
	ck_assert_uint_eq(regions[2].area_count, 2);
	ck_assert_uint_eq(regions[2].areas[0].offset, 0x1000);
	ck_assert_uint_eq(regions[2].areas[1].offset, 0x3000);
	ck_assert_uint_eq(regions[2].type, 3);
	ck_assert_uint_eq(regions[2].subtype, 1);
	ck_assert_uint_eq(regions[2].offset, 0x1000);
	/* Asked twice, there is still one descriptor. */
	ck_assert_int_eq(b.t->ops->region_info(b.t, 2, &again, &b.err), 0);
	ck_assert_int_eq(again.map_fd, regions[2].map_fd);
	ck_assert_int_eq(b.t->ops->region_ioeventfds(b.t, &regions[0], &io, 1, &b.err), 1);
	ck_assert(io.offset == 0x100 && io.size == 2 && io.match && io.value == 77);
	end();
}
END_TEST

START_TEST(migration_data_are_a_stream)
{
	uint8_t data[10000] = { 0 };

	open_good();
	ck_assert_int_eq(user_migration_read(b.t, -1, data, sizeof(data), 0, &b.err), 4);
	ck_assert_mem_eq(data, "data", 4);
	ck_assert_uint_eq(load_le32(seen(17) + 4), 4096); /* what the server takes */
	ck_assert_int_eq(user_migration_write(b.t, -1, data, sizeof(data), &b.err), 0);
	ck_assert_uint_eq(load_le32(seen(18) + 4), 10000 - 2 * 4096);
	end();
}
END_TEST

/* Negotiation. */

static const struct {
	const char *caps, *says;
	unsigned int max_fds;
	uint64_t max_data;
} negotiations[] = {
	{ NULL, NULL, 1, MIB },
	{ "", NULL, 1, MIB },
	{ "{}", NULL, 1, MIB },
	{ "{\"capabilities\":{}}", NULL, 1, MIB },
	{ "{\"capabilities\":{\"max_msg_fds\":1000}}", NULL, 64, MIB },
	{ "{\"capabilities\":{\"max_msg_fds\":0,\"new\":[1]}}", NULL, 0, MIB },
	{ "{\"capabilities\":{\"max_data_xfer_size\":9}}", NULL, 1, 9 },
	{ "{\"capabilities\":{\"max_data_xfer_size\":9000000000}}", NULL, 1, MIB },
	{ "{\"capabilities\":{\"max_data_xfer_size\":7}}", "max_data_xfer_size", 0, 0 },
	{ "{\"capabilities\":{\"max_data_xfer_size\":4096.5}}", "max_data_xfer_size", 0, 0 },
	{ "{\"capabilities\":{\"max_data_xfer_size\":-1}}", "max_data_xfer_size", 0, 0 },
	{ "{\"capabilities\":{\"max_msg_fds\":\"8\"}}", "max_msg_fds", 0, 0 },
	{ "{\"capabilities\":{\"pgsizes\":0}}", "pgsizes", 0, 0 },
	{ "{\"capabilities\":{\"pgsizes\":8388608}}", "multiples of 0x800000", 0, 0 },
	{ "{\"capabilities\":{\"max_dma_maps\":1}}", "takes no more mappings", 0, 0 },
	{ "{\"capabilities\":{\"migration\":1}}", "migration is no object", 0, 0 },
	{ "{\"capabilities\":{\"migration\":{\"pgsize\":{}}}}", "pgsize", 0, 0 },
	{ "{\"capabilities\":{\"migration\":{\"max_bitmap_size\":1}}}", "max_bitmap_size", 0, 0 },
	{ "{\"capabilities\":[]}", "capabilities is no object", 0, 0 },
	{ "[]", "no JSON object", 0, 0 },
	{ "{\"capabilities\":", "no JSON object", 0, 0 },
	{ "\xff\xfe", "no JSON object", 0, 0 },
};

START_TEST(capabilities_are_taken_or_refused)
{
	s.caps = negotiations[_i].caps;
	if (negotiations[_i].says) {
		ck_assert_ptr_null(open_fake(TIMEOUT_MS));
		bench_says(b.err.message, negotiations[_i].says);
		bench_says(b.err.message, "test.sock");
	} else {
		ck_assert_msg(open_fake(TIMEOUT_MS) != NULL, "%s", b.err.message);
		ck_assert_uint_eq(to_user(b.t)->caps.max_fds, negotiations[_i].max_fds);
		ck_assert_uint_eq(to_user(b.t)->caps.max_data, negotiations[_i].max_data);
	}
	end();
}
END_TEST

START_TEST(only_versions_that_are_spoken_are_accepted)
{
	static const struct {
		uint16_t major, minor;
		bool good;
	} versions[] = { { 0, 0, true }, { 0, 1, true }, { 0, 2, false }, { 1, 0, false } };

	for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
		s.version[0] = versions[i].major;
		s.version[1] = versions[i].minor;
		ck_assert_int_eq(open_fake(TIMEOUT_MS) != NULL, versions[i].good);
		if (!versions[i].good)
			bench_says(b.err.message, "speaks version");
		end();
	}
}
END_TEST

START_TEST(path_of_a_socket_is_not_too_long)
{
	char path[200];

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	b.options.socket = path;
	ck_assert_ptr_null(vfio_transport_open_user(&b.options, &b.err));
	ck_assert_int_eq(b.err.code, -ENAMETOOLONG);
}
END_TEST

/* Every reply changed. */

struct change {
	unsigned int number; /* of the command whose reply is changed */
	size_t at;
	uint8_t flip;
	bool cut;
	size_t len; /* of the reply, as it was */
	uint16_t command;
};

static bool change_reply(struct fake_server *server, unsigned int number,
			 const struct fake_message *m, struct fake_message *reply)
{
	struct change *c = server->opaque;

	if (number != c->number)
		return true;
	c->len = reply->len;
	if (c->at >= reply->len)
		return true;
	if (c->cut)
		reply->len = c->at;
	else
		reply->bytes[c->at] ^= c->flip;
	if (c->cut) {
		if (c->at)
			fd_send(server->sock, reply->bytes, reply->len, reply->fds,
				reply->fd_count);
		shutdown(server->sock, SHUT_WR);
	}
	return !c->cut;
}

/* Open and exercise; whatever happens, it ends in order. */
static int run_changed(unsigned int timeout_ms)
{
	int r = -ECONNRESET;

	atomic_store(&b.lost, 0);
	if (open_fake(timeout_ms)) {
		r = exercise();
		if (r == -ECONNRESET)
			ck_assert(bench_wait_lost(&b));
		bench_settle(&b);
		ck_assert_int_le(atomic_load(&b.lost), 1);
	} else {
		ck_assert_int_lt(b.err.code, 0);
		ck_assert_int_eq(atomic_load(&b.lost), 0);
	}
	if (r)
		bench_says(b.err.message, "test.sock");
	end();
	ck_assert_int_eq(bench_open_fds(), b.fds_before);
	return r;
}

START_TEST(every_reply_may_be_cut_short_anywhere)
{
	struct change c = { .number = (unsigned int)_i + 1, .cut = true, .len = 1 };

	s.hook = change_reply;
	s.opaque = &c;
	for (c.at = 0; c.at < c.len; c.at++) {
		ck_assert_int_eq(run_changed(TIMEOUT_MS), -ECONNRESET);
		bench_says(b.err.message, "closed the connection");
	}
	ck_assert_uint_ge(c.at, 16);
}
END_TEST

START_TEST(every_byte_of_a_reply_may_be_wrong)
{
	static const uint8_t wrongs[] = { 0x01, 0x80, 0xff };
	struct change c = { .number = (unsigned int)_i + 1, .len = 1 };

	s.hook = change_reply;
	s.opaque = &c;
	for (c.at = 0; c.at < c.len; c.at++) {
		for (size_t i = 0; i < ARRAY_SIZE(wrongs); i++) {
			int r;

			c.flip = wrongs[i];
			r = run_changed(20);
			/* id, command, size, type: never believed. */
			if (c.at < 9 && !(c.at == 8 && c.flip == 0x80))
				ck_assert_int_eq(r, -ECONNRESET);
		}
	}
}
END_TEST

/* A reply that is whole, and says of itself that it is shorter or longer. */
static bool resize_reply(struct fake_server *server, unsigned int number,
			 const struct fake_message *m, struct fake_message *reply)
{
	struct change *c = server->opaque;

	if (number != c->number)
		return true;
	c->len = reply->len;
	c->command = load_le16(m->bytes + 2);
	memset(reply->bytes + reply->len, 0, 64);
	reply->len = c->at;
	store_le32(reply->bytes + 4, (uint32_t)c->at);
	return true;
}

START_TEST(every_reply_may_have_another_length)
{
	/* Of the payload: what has to come, and the most that may. */
	static const struct {
		size_t fixed, room;
	} sizes[32] = {
		[1] = { 4, 4100 },   [2] = { 0, 0 },	  [3] = { 0, 24 },  [4] = { 16, 272 },
		[5] = { 32, 16384 }, [6] = { 16, 10256 }, [7] = { 16, 16 }, [8] = { 0, 0 },
		[9] = { 80, 80 },    [10] = { 16, 16 },	  [13] = { 0, 0 },  [16] = { 8, 16 },
		[17] = { 8, 72 },    [18] = { 0, 8 },
	};
	struct change c = { .number = (unsigned int)_i + 1, .at = 16, .len = 16 };

	s.hook = resize_reply;
	s.opaque = &c;
	for (; c.at < c.len + 64; c.at++) {
		int r = run_changed(TIMEOUT_MS);

		if (c.at - 16 >= sizes[c.command].fixed && c.at - 16 <= sizes[c.command].room)
			continue;
		ck_assert_msg(r == -ECONNRESET, "command %u, %zu bytes", c.command, c.at);
		ck_assert(strstr(b.err.message, "needed") || strstr(b.err.message, "asked for") ||
			  strstr(b.err.message, "is about"));
	}
}
END_TEST

static bool die_at(struct fake_server *server, unsigned int number, const struct fake_message *m,
		   struct fake_message *reply)
{
	if (number < *(unsigned int *)server->opaque)
		return true;
	shutdown(server->sock, SHUT_RDWR);
	return false;
}

START_TEST(server_may_die_before_every_reply)
{
	unsigned int at = (unsigned int)_i + 1;

	s.hook = die_at;
	s.opaque = &at;
	ck_assert_int_eq(run_changed(TIMEOUT_MS), -ECONNRESET);
	bench_says(b.err.message, "closed the connection");
}
END_TEST

static bool silent_at(struct fake_server *server, unsigned int number, const struct fake_message *m,
		      struct fake_message *reply)
{
	return number < *(unsigned int *)server->opaque;
}

START_TEST(server_may_fall_silent_before_every_reply)
{
	unsigned int at = (unsigned int)_i + 1;

	s.hook = silent_at;
	s.opaque = &at;
	ck_assert_int_eq(run_changed(100), -ECONNRESET);
	bench_says(b.err.message, "for 100 ms");
}
END_TEST

static bool refuse_at(struct fake_server *server, unsigned int number, const struct fake_message *m,
		      struct fake_message *reply)
{
	const atomic_uint *o = server->opaque;

	if (number != o[0])
		return true;
	fake_close_fds(reply);
	reply->len = 16;
	store_le32(reply->bytes + 4, 16);
	store_le32(reply->bytes + 8, 1 | 32);
	store_le32(reply->bytes + 12, o[1]);
	return true;
}

START_TEST(every_command_may_be_refused)
{
	atomic_uint o[2] = { (unsigned int)_i + 1, EBUSY };
	int r;

	s.hook = refuse_at;
	s.opaque = o;
	atomic_store(&b.lost, 0);
	r = open_fake(TIMEOUT_MS) ? exercise() : b.err.code;
	/* Only ioeventfds are an offer nobody insists on. */
	if (seen_len(6) && r == 0)
		ck_assert(o[0] == 6 || o[0] == 8 || o[0] == 10);
	else
		ck_assert_int_eq(r, -EBUSY);
	if (r)
		bench_says(b.err.message, "refused");
	ck_assert_int_eq(atomic_load(&b.lost), 0);
	end();
}
END_TEST

START_TEST(refusals_have_an_errno_in_any_case)
{
	static const uint32_t errors[] = { 0, 4096, UINT32_MAX };
	atomic_uint o[2];
	uint32_t word;

	s.hook = refuse_at;
	s.opaque = o;
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		o[0] = 14; /* behind the nine regions */
		o[1] = errors[i];
		open_good();
		ck_assert_int_eq(b.t->ops->region_read(b.t, &regions[0], 0, &word, 4, &b.err),
				 -EIO);
		ck_assert_int_eq(b.t->ops->region_read(b.t, &regions[0], 0, &word, 4, &b.err), 0);
		end();
	}
}
END_TEST

START_TEST(unknown_region_and_interrupt_are_absent)
{
	atomic_uint o[2] = { 5, EINVAL };
	struct vfio_irq irq;

	s.hook = refuse_at;
	s.opaque = o;
	open_good();
	ck_assert_uint_eq(regions[0].size, 0);
	ck_assert_uint_eq(regions[1].size, 0x4000);
	o[0] = 14;
	ck_assert_int_eq(b.t->ops->irq_info(b.t, 2, &irq, &b.err), 0);
	ck_assert_uint_eq(irq.count, 0);
	end();
}
END_TEST

/* Descriptors. */

static bool add_fds(struct fake_server *server, unsigned int number, const struct fake_message *m,
		    struct fake_message *reply)
{
	if (number != *(unsigned int *)server->opaque)
		return true;
	while (reply->fd_count < ARRAY_SIZE(reply->fds))
		reply->fds[reply->fd_count++] = eventfd_new();
	return true;
}

START_TEST(descriptors_nobody_asked_for_are_closed)
{
	unsigned int at = (unsigned int)_i + 1;
	int r;

	s.hook = add_fds;
	s.opaque = &at;
	r = run_changed(TIMEOUT_MS);
	if (at == 6 || at == 8 || at == 10) { /* ioeventfds: as many as there are */
		ck_assert_int_eq(r, 0);
	} else {
		ck_assert_int_eq(r, -ECONNRESET);
		bench_says(b.err.message, "carries 8 descriptors");
	}
}
END_TEST

static bool exhaust_fds(struct fake_server *server, unsigned int number,
			const struct fake_message *m, struct fake_message *reply)
{
	if (number == 9) { /* region 2, with its descriptor */
		struct rlimit limit = { 8, 8 };

		setrlimit(RLIMIT_NOFILE, &limit);
	}
	return true;
}

START_TEST(process_out_of_descriptors_is_an_error)
{
	s.hook = exhaust_fds;
	ck_assert_int_eq(run_changed(TIMEOUT_MS), -ECONNRESET);
	bench_says(b.err.message, "than this process may open");
}
END_TEST

/* Threads. */

static bool reverse(struct fake_server *server, unsigned int number, const struct fake_message *m,
		    struct fake_message *reply)
{
	struct fake_message *kept = server->opaque;

	if (load_le16(m->bytes + 2) != 9)
		return true;
	if (!kept->len) { /* the first of two is answered last */
		memcpy(kept->bytes, reply->bytes, reply->len);
		kept->len = reply->len;
		return false;
	}
	memcpy(reply->bytes + reply->len, kept->bytes, kept->len);
	reply->len += kept->len;
	kept->len = 0;
	return true;
}

static void *read_own(void *opaque)
{
	uint64_t at = (uint64_t)(uintptr_t)opaque;

	for (int i = 0; i < 200; i++) {
		uint8_t byte = 0;

		if (b.t->ops->region_read(b.t, &regions[0], at, &byte, 1, NULL) || byte != at)
			return (void *)1;
	}
	return NULL;
}

START_TEST(replies_find_their_callers_in_any_order)
{
	uint8_t bytes[256];
	struct fake_message kept = { .bytes = bytes };
	pthread_t threads[2];
	void *failed;

	s.hook = reverse;
	s.opaque = &kept;
	open_good();
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, read_own, (void *)(10 + i));
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], &failed);
		ck_assert_ptr_null(failed);
	}
	end();
}
END_TEST

static void *read_lost(void *opaque)
{
	uint8_t byte;
	struct error err = ERROR_INIT;

	if (b.t->ops->region_read(b.t, &regions[0], 0, &byte, 1, &err) != -ECONNRESET ||
	    !strstr(err.message, "has not answered REGION_READ"))
		return (void *)1;
	return NULL;
}

START_TEST(all_who_wait_hear_of_the_loss_at_once)
{
	unsigned int at = 14;
	pthread_t threads[4];
	struct timespec t0, t1;
	void *failed;

	s.hook = silent_at;
	s.opaque = &at;
	ck_assert_ptr_nonnull(open_fake(500));
	for (uint32_t i = 0; i < 9; i++)
		ck_assert_int_eq(b.t->ops->region_info(b.t, i, &regions[i], &b.err), 0);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, read_lost, NULL);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &failed);
		ck_assert_ptr_null(failed);
	}
	clock_gettime(CLOCK_MONOTONIC, &t1);
	ck_assert_int_le(t1.tv_sec - t0.tv_sec, 5); /* not one after the other for ever */
	ck_assert(bench_wait_lost(&b));
	end();
}
END_TEST

/* A call whose reply is kept back. */
struct kept_back {
	int asked, go_on; /* eventfds */
};

static bool keep_back(struct fake_server *server, unsigned int number, const struct fake_message *m,
		      struct fake_message *reply)
{
	struct kept_back *k = server->opaque;
	struct pollfd p = { .fd = k->go_on, .events = POLLIN };

	if (load_le16(m->bytes + 2) == 9) {
		eventfd_signal(k->asked);
		poll(&p, 1, 10000);
	}
	return true;
}

static void *read_once(void *opaque)
{
	uint8_t byte;

	return b.t->ops->region_read(b.t, &regions[0], 5, &byte, 1, NULL) || byte != 5 ? (void *)1
										       : NULL;
}

/* As when a VM's vCPUs, not paused yet, use a device that is to change its process. */
START_TEST(connection_is_held_while_a_call_is_under_way)
{
	struct kept_back k = { eventfd_new(), eventfd_new() };
	struct pollfd p = { .fd = k.asked, .events = POLLIN };
	pthread_t thread;
	void *failed;

	s.hook = keep_back;
	s.opaque = &k;
	ck_assert_ptr_nonnull(open_fake(2000));
	for (uint32_t i = 0; i < 9; i++)
		ck_assert_int_eq(b.t->ops->region_info(b.t, i, &regions[i], &b.err), 0);
	pthread_create(&thread, NULL, read_once, NULL);
	ck_assert_int_eq(poll(&p, 1, 10000), 1);
	usleep(20000); /* the caller waits for its reply */
	ck_assert_msg(!b.t->ops->hold(b.t, true, &b.err), "%s", b.err.message);
	eventfd_signal(k.go_on);
	pthread_join(thread, &failed);
	ck_assert_ptr_null(failed);
	ck_assert_msg(!b.t->ops->hold(b.t, false, &b.err), "%s", b.err.message);
	end();
	close(k.asked);
	close(k.go_on);
}
END_TEST

static bool stop_reading(struct fake_server *server, unsigned int number,
			 const struct fake_message *m, struct fake_message *reply)
{
	struct pollfd p = { .fd = server->sock, .events = POLLRDHUP };

	if (load_le16(m->bytes + 2) != 10)
		return true;
	poll(&p, 1, 10000); /* until the client gives up */
	return false;
}

static void *write_much(void *opaque)
{
	static uint8_t zeros[0x4000];
	struct error err = ERROR_INIT;

	while (!b.t->ops->region_write(b.t, &regions[0], 0, zeros, sizeof(zeros), &err))
		;
	return (void *)(uintptr_t)(err.code != -ECONNRESET);
}

START_TEST(server_that_does_not_read_holds_nobody_up)
{
	pthread_t threads[40];
	void *failed;

	s.caps = NULL; /* large writes */
	s.hook = stop_reading;
	ck_assert_ptr_nonnull(open_fake(200));
	for (uint32_t i = 0; i < 9; i++)
		ck_assert_int_eq(b.t->ops->region_info(b.t, i, &regions[i], &b.err), 0);
	for (int i = 0; i < 40; i++)
		pthread_create(&threads[i], NULL, write_much, NULL);
	for (int i = 0; i < 40; i++) {
		pthread_join(threads[i], &failed);
		ck_assert_ptr_null(failed);
	}
	ck_assert(bench_wait_lost(&b));
	end();
}
END_TEST

static void close_in_lost(void *opaque, const char *reason)
{
	b.t->ops->close(b.t);
	b.t = NULL;
	bench_lost(opaque, reason);
}

START_TEST(lost_may_close_the_transport)
{
	b.options.lost = close_in_lost;
	open_good();
	bench_settle(&b); /* all that was done here is seen there */
	fake_stop(&s);
	ck_assert(bench_wait_lost(&b));
	ck_assert_ptr_null(b.t);
}
END_TEST

/* Commands of the server: a test sends them on a duplicate of its socket. */

static int server_socket;

static void open_by_hand(void)
{
	open_good();
	server_socket = dup(s.sock);
}

static void put_dma(uint8_t *m, uint16_t command, uint64_t iova, uint64_t count, size_t data,
		    uint32_t flags)
{
	fake_header(m, 0x4242, command, (uint32_t)(32 + data), flags);
	store_le64(m + 16, iova);
	store_le64(m + 24, count);
}

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int replies;
	uint8_t bytes[64][64];
	size_t len[64];
} answers = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

/* The server's thread receives our replies as if they were commands: kept. */
static bool keep_answer(struct fake_server *server, unsigned int number,
			const struct fake_message *m, struct fake_message *reply)
{
	if ((load_le32(m->bytes + 8) & 15) != 1)
		return true;
	pthread_mutex_lock(&answers.lock);
	memcpy(answers.bytes[answers.replies % 64], m->bytes, MIN(m->len, 64UL));
	answers.len[answers.replies++ % 64] = m->len;
	pthread_cond_signal(&answers.changed);
	pthread_mutex_unlock(&answers.lock);
	return false;
}

/* The reply to a message sent by the server. */
static const uint8_t *ask_client(const uint8_t *message, size_t len, size_t *reply_len)
{
	unsigned int before;

	pthread_mutex_lock(&answers.lock);
	before = answers.replies;
	pthread_mutex_unlock(&answers.lock);
	ck_assert_int_eq(fd_send(server_socket, message, len, NULL, 0), 0);
	pthread_mutex_lock(&answers.lock);
	while (answers.replies == before)
		pthread_cond_wait(&answers.changed, &answers.lock);
	pthread_mutex_unlock(&answers.lock);
	*reply_len = answers.len[before % 64];
	return answers.bytes[before % 64];
}

static void open_asking(void)
{
	s.hook = keep_answer;
	open_by_hand();
}

START_TEST(dma_is_served_while_nobody_calls)
{
	uint8_t m[64];
	const uint8_t *r;
	size_t len;

	open_asking();
	memcpy(guest_memory_ptr(b.memory, 0x2000, 8), "from ram", 8);
	put_dma(m, 11, 0x2000, 8, 0, 0);
	r = ask_client(m, 32, &len);
	ck_assert_uint_eq(len, 40);
	ck_assert_uint_eq(load_le16(r), 0x4242);
	ck_assert_uint_eq(load_le16(r + 2), 11);
	ck_assert_uint_eq(load_le32(r + 8), 1);
	ck_assert_uint_eq(load_le64(r + 16), 0x2000);
	ck_assert_uint_eq(load_le64(r + 24), 8);
	ck_assert_mem_eq(r + 32, "from ram", 8);
	put_dma(m, 12, 0x3000, 6, 6, 0);
	memcpy(m + 32, "to ram", 6);
	r = ask_client(m, 38, &len);
	ck_assert_uint_eq(len, 32);
	ck_assert_uint_eq(load_le64(r + 24), 6);
	bench_settle(&b);
	ck_assert_mem_eq(guest_memory_ptr(b.memory, 0x3000, 6), "to ram", 6);
	close(server_socket);
	end();
}
END_TEST

START_TEST(dma_outside_is_refused_and_nothing_written)
{
	static const struct {
		uint64_t iova, count;
		int error;
	} wrong[] = {
		{ BENCH_RAM / 2, 1, EFAULT }, { BENCH_RAM / 2 - 1, 2, EFAULT },
		{ UINT64_MAX, 1, EFAULT },    { UINT64_MAX - 3, 8, EFAULT },
		{ 4 * GIB - 4, 8, EFAULT },   { 0, MIB + 1, EINVAL },
		{ 0, UINT64_MAX, EINVAL },    { 4 * GIB + BENCH_RAM / 2 - 1, 2, EFAULT },
	};
	uint8_t m[64];

	open_asking();
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		const uint8_t *r;
		size_t len;

		put_dma(m, 11, wrong[i].iova, wrong[i].count, 0, 0);
		r = ask_client(m, 32, &len);
		ck_assert_uint_eq(len, 16);
		ck_assert_uint_eq(load_le32(r + 8), 33);
		ck_assert_uint_eq(load_le32(r + 12), (uint32_t)wrong[i].error);
	}
	put_dma(m, 12, BENCH_RAM / 2 - 4, 8, 8, 0);
	memset(m + 32, 0xff, 8);
	ask_client(m, 40, &(size_t){ 0 });
	ck_assert_uint_eq(load_le32(guest_memory_ptr(b.memory, BENCH_RAM / 2 - 4, 4)), 0);
	ck_assert_int_eq(atomic_load(&b.lost), 0);
	close(server_socket);
	end();
}
END_TEST

START_TEST(dma_may_span_mappings_that_adjoin)
{
	const struct guest_memory_region *low = guest_memory_region(b.memory, 0);
	struct dma_space *space;
	uint8_t m[64];
	const uint8_t *r;
	size_t len;

	open_asking();
	space = b.t->space;
	/* The same memory once more, right behind; and the last page there is. */
	ck_assert_int_eq(
		space->ops->map(space, low->size, 0x1000, low->memfd, 0, low->hva, true, &b.err),
		0);
	ck_assert_int_eq(space->ops->map(space, UINT64_MAX - 0xfff, 0x1000, low->memfd, 0, low->hva,
					 false, &b.err),
			 0);
	memcpy(low->hva + low->size - 4, "1234", 4);
	memcpy(low->hva, "5678", 4);
	put_dma(m, 11, low->size - 4, 8, 0, 0);
	r = ask_client(m, 32, &len);
	ck_assert_uint_eq(len, 40);
	ck_assert_mem_eq(r + 32, "12345678", 8);
	put_dma(m, 11, UINT64_MAX - 7, 8, 0, 0);
	ask_client(m, 32, &len);
	ck_assert_uint_eq(len, 40);
	put_dma(m, 12, UINT64_MAX - 7, 8, 8, 0);
	r = ask_client(m, 40, &len);
	ck_assert_uint_eq(load_le32(r + 12), EACCES);
	close(server_socket);
	end();
}
END_TEST

START_TEST(command_that_wants_no_reply_gets_none)
{
	uint8_t m[80];
	const uint8_t *r;
	size_t len;

	open_asking();
	put_dma(m, 12, 0x3000, 6, 6, 16);
	memcpy(m + 32, "silent", 6);
	fake_header(m + 38, 0x4343, 11, 32, 0);
	store_le64(m + 54, 0x3000);
	store_le64(m + 62, 6);
	r = ask_client(m, 70, &len); /* the second one's */
	ck_assert_uint_eq(load_le16(r), 0x4343);
	ck_assert_mem_eq(r + 32, "silent", 6);
	close(server_socket);
	end();
}
END_TEST

/* The last reply to a command of ours has another one in its wake. */
static bool command_behind(struct fake_server *server, unsigned int number,
			   const struct fake_message *m, struct fake_message *reply)
{
	if (load_le16(m->bytes + 2) == 9 && !(load_le32(m->bytes + 8) & 15)) {
		put_dma(reply->bytes + reply->len, 11, 0x2000, 8, 0, 0);
		reply->len += 32;
		return true;
	}
	return keep_answer(server, number, m, reply);
}

START_TEST(command_right_behind_a_reply_is_served)
{
	s.hook = command_behind;
	open_by_hand();
	for (unsigned int i = 1; i <= 500; i++) {
		uint8_t byte;
		bool answered = false;

		ck_assert_int_eq(b.t->ops->region_read(b.t, &regions[0], 0, &byte, 1, &b.err), 0);
		for (int wait = 0; wait < 3000 && !answered; wait++) {
			pthread_mutex_lock(&answers.lock);
			answered = answers.replies == i;
			pthread_mutex_unlock(&answers.lock);
			if (!answered)
				usleep(1000);
		}
		ck_assert_msg(answered, "command %u was left lying", i);
	}
	close(server_socket);
	end();
}
END_TEST

static const struct {
	uint16_t command;
	uint32_t size, flags;
	uint64_t count;
	const char *says;
} nonsense[] = {
	{ 11, 24, 0, 8, "makes no sense" },
	{ 11, 16, 0, 8, "makes no sense" },
	{ 11, 40, 0, 8, "makes no sense" },
	{ 12, 40, 0, 9, "makes no sense" },
	{ 12, 40, 0, UINT64_MAX, "makes no sense" },
	{ 0, 32, 0, 8, "the command 0" },
	{ 9, 32, 0, 8, "REGION_READ" },
	{ 65535, 16, 0, 8, "the command 65535" },
	{ 11, 32, 2, 8, "unknown type 2" },
	{ 11, 32, 1, 8, "that nobody sent" },
	{ 11, 15, 0, 8, "of 15 bytes" },
	{ 11, 0, 0, 8, "of 0 bytes" },
	{ 12, 0x7fffffff, 0, 8, "of 2147483647 bytes" },
};

START_TEST(nonsense_out_of_turn_loses_the_connection)
{
	uint8_t m[64] = { 0 }, byte;

	open_by_hand();
	put_dma(m, nonsense[_i].command, 0x2000, nonsense[_i].count, 0, nonsense[_i].flags);
	store_le32(m + 4, nonsense[_i].size);
	ck_assert_int_eq(fd_send(server_socket, m, 48, NULL, 0), 0);
	ck_assert(bench_wait_lost(&b));
	bench_says(b.reason, nonsense[_i].says);
	ck_assert_int_eq(b.t->ops->region_read(b.t, &regions[0], 0, &byte, 1, &b.err), -ECONNRESET);
	bench_says(b.err.message, nonsense[_i].says);
	close(server_socket);
	end();
}
END_TEST

static bool flood(struct fake_server *server, unsigned int number, const struct fake_message *m,
		  struct fake_message *reply)
{
	uint8_t dma[64] = { 0 };

	if (load_le16(m->bytes + 2) != 9)
		return true;
	put_dma(dma, 12, 0x3000, 8, 8, 16);
	while (!fd_send(server->sock, dma, 40, NULL, 0))
		;
	return false;
}

START_TEST(server_that_only_sends_commands_does_not_keep_a_caller)
{
	uint8_t byte;

	s.hook = flood;
	ck_assert_ptr_nonnull(open_fake(300));
	ck_assert_int_eq(b.t->ops->region_info(b.t, 0, &regions[0], &b.err), 0);
	ck_assert_int_eq(b.t->ops->region_read(b.t, &regions[0], 0, &byte, 1, &b.err), -ECONNRESET);
	bench_says(b.err.message, "has not answered REGION_READ for 300 ms");
	ck_assert(bench_wait_lost(&b));
	end();
}
END_TEST

/* Parsers. */

START_TEST(bitmaps_are_merged_bit_by_bit)
{
	static const uint64_t words[3] = { 0xf000000000000001, UINT64_MAX, 0x8000000000000003 };
	struct dirty_bitmap bitmap;

	ck_assert_int_eq(dirty_bitmap_init(&bitmap, 300, &b.err), 0);
	for (uint64_t pages = 0; pages <= 192; pages++) {
		dirty_bitmap_clear(&bitmap, 0, 300);
		user_bitmap_merge(&bitmap, 5, words, pages);
		for (uint64_t i = 0; i < 300; i++) {
			bool want =
				i >= 5 && i - 5 < pages && words[(i - 5) / 64] >> (i - 5) % 64 & 1;

			ck_assert_int_eq(dirty_bitmap_test(&bitmap, i), want);
		}
	}
	dirty_bitmap_destroy(&bitmap);
}
END_TEST

START_TEST(region_info_cut_short_is_refused)
{
	struct fake_server fake = { .memfd = -1 };
	uint8_t in[32] = { 0 }, out[512];
	struct fake_message reply = { .bytes = NULL };
	struct vfio_region region;

	store_le32(in + 8, 2);
	ck_assert_uint_eq(fake_region_info(&fake, in, out, &reply), 96);
	for (size_t len = 0; len <= 96; len++) {
		uint8_t *exact = malloc(len + 1); /* a sanitizer sees the end */
		int r;

		memcpy(exact, out, len);
		r = user_region_parse(exact, len, 2, &region, &b.err);
		free(exact);
		ck_assert_int_eq(r, len < 96 ? -EPROTO : 0);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vfio-user client");
	TCase *wire = tcase_create("wire"), *wrong = tcase_create("wrong"),
	      *server = tcase_create("server");

	tcase_add_checked_fixture(wire, setup, teardown);
	tcase_add_checked_fixture(wrong, setup, teardown);
	tcase_add_checked_fixture(server, setup, teardown);
	tcase_set_timeout(wire, 60);
	tcase_set_timeout(wrong, 240);
	tcase_set_timeout(server, 60);
	tcase_add_test(wire, good_server_answers_every_command);
	tcase_add_test(wire, version_offers_what_the_client_can_do);
	tcase_add_test(wire, guest_memory_is_mapped_by_its_memfd);
	tcase_add_test(wire, accesses_have_the_protocols_layout);
	tcase_add_test(wire, interrupts_have_the_protocols_layout);
	tcase_add_test(wire, region_with_areas_and_type_is_understood);
	tcase_add_test(wire, migration_data_are_a_stream);
	tcase_add_loop_test(wire, capabilities_are_taken_or_refused, 0, ARRAY_SIZE(negotiations));
	tcase_add_test(wire, only_versions_that_are_spoken_are_accepted);
	tcase_add_test(wire, path_of_a_socket_is_not_too_long);
	tcase_add_test(wire, bitmaps_are_merged_bit_by_bit);
	tcase_add_test(wire, region_info_cut_short_is_refused);
	tcase_add_loop_test(wrong, every_reply_may_be_cut_short_anywhere, 0, EXERCISE_COMMANDS);
	tcase_add_loop_test(wrong, every_byte_of_a_reply_may_be_wrong, 0, EXERCISE_COMMANDS);
	tcase_add_loop_test(wrong, every_reply_may_have_another_length, 0, EXERCISE_COMMANDS);
	tcase_add_loop_test(wrong, server_may_die_before_every_reply, 0, EXERCISE_COMMANDS);
	tcase_add_loop_test(wrong, server_may_fall_silent_before_every_reply, 0, EXERCISE_COMMANDS);
	tcase_add_loop_test(wrong, every_command_may_be_refused, 0, EXERCISE_COMMANDS);
	tcase_add_test(wrong, refusals_have_an_errno_in_any_case);
	tcase_add_test(wrong, unknown_region_and_interrupt_are_absent);
	tcase_add_loop_test(wrong, descriptors_nobody_asked_for_are_closed, 0, EXERCISE_COMMANDS);
	tcase_add_test(wrong, process_out_of_descriptors_is_an_error);
	tcase_add_test(server, replies_find_their_callers_in_any_order);
	tcase_add_test(server, all_who_wait_hear_of_the_loss_at_once);
	tcase_add_test(server, connection_is_held_while_a_call_is_under_way);
	tcase_add_test(server, server_that_does_not_read_holds_nobody_up);
	tcase_add_test(server, lost_may_close_the_transport);
	tcase_add_test(server, dma_is_served_while_nobody_calls);
	tcase_add_test(server, dma_outside_is_refused_and_nothing_written);
	tcase_add_test(server, dma_may_span_mappings_that_adjoin);
	tcase_add_test(server, command_that_wants_no_reply_gets_none);
	tcase_add_test(server, command_right_behind_a_reply_is_served);
	tcase_add_loop_test(server, nonsense_out_of_turn_loses_the_connection, 0,
			    ARRAY_SIZE(nonsense));
	tcase_add_test(server, server_that_only_sends_commands_does_not_keep_a_caller);
	suite_add_tcase(suite, wire);
	suite_add_tcase(suite, wrong);
	suite_add_tcase(suite, server);
	return run_suite(suite);
}
