/* SPDX-License-Identifier: Apache-2.0 */
#include "vfio/migration_region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

/* How often what brings the source back is tried: it must not fail by chance. */
#define ROLLBACK_TRIES 3
/* Data that a stopped device may give out without pending_bytes ever getting less: so many
 * times what it said, and this much at least. Some devices only know "there is more". */
#define STALL_TIMES 4
#define STALL_BYTES (1ULL << 30)
/* Of a packet, kept while the device is stopped. */
#define KEPT_BYTES (256ULL << 20)

static const struct {
	uint32_t from, to;
} arcs[] = {
	/* saving, with and without pre-copy */
	{ REGION_STATE_RUNNING, REGION_STATE_RUNNING | REGION_STATE_SAVING },
	{ REGION_STATE_RUNNING | REGION_STATE_SAVING, REGION_STATE_SAVING },
	{ REGION_STATE_RUNNING, REGION_STATE_SAVING },
	{ REGION_STATE_SAVING, REGION_STATE_STOP },
	/* given up */
	{ REGION_STATE_RUNNING | REGION_STATE_SAVING, REGION_STATE_RUNNING },
	{ REGION_STATE_SAVING, REGION_STATE_RUNNING },
	{ REGION_STATE_STOP, REGION_STATE_RUNNING },
	/* resuming */
	{ REGION_STATE_RUNNING, REGION_STATE_RESUMING },
	{ REGION_STATE_RESUMING, REGION_STATE_RUNNING },
	/* an orderly end, which we have no use for */
	{ REGION_STATE_RUNNING, REGION_STATE_STOP },
};

bool migration_region_arc(uint32_t from, uint32_t to)
{
	for (size_t i = 0; i < ARRAY_SIZE(arcs); i++)
		if (arcs[i].from == from && arcs[i].to == to)
			return true;
	return false;
}

const char *migration_region_state_name(uint32_t state)
{
	switch (state & REGION_STATE_MASK) {
	case REGION_STATE_STOP: return "stopped";
	case REGION_STATE_RUNNING: return "running";
	case REGION_STATE_SAVING: return "stop-and-copy";
	case REGION_STATE_RUNNING | REGION_STATE_SAVING: return "pre-copy";
	case REGION_STATE_RESUMING: return "resuming";
	case REGION_STATE_ERROR: return "error";
	default: return "invalid";
	}
}

static struct migration_region *region_of(struct migratable *m)
{
	return (struct migration_region *)device_migration_of(m);
}

static int failed(const struct migration_region *g, const char *step, int r, struct error *err)
{
	return r && err ? device_migration_error(&g->dm, step, err) : r;
}

/* All of the register; the three bits into g->state. */
static int get_state(struct migration_region *g, uint32_t *whole, struct error *err)
{
	uint64_t value;
	int r = migration_section_get(&g->section, 0, 4, &value, err);

	*whole = (uint32_t)value;
	if (r)
		return error_prefix(err, "read device_state");
	g->state = (uint32_t)value & REGION_STATE_MASK;
	if (g->state == REGION_STATE_ERROR)
		return error_set(err, EIO,
				 "%s: its migration state is an error (device_state 0x%x), which "
				 "only a reset of it ends",
				 g->dm.transport->name, *whole);
	return 0;
}

/* Reads it first: other bits are not ours, and the device may have failed, or been reset. */
static int set_state(struct migration_region *g, uint32_t to, struct error *err)
{
	struct error why = ERROR_INIT;
	uint32_t whole, from;
	int r = get_state(g, &whole, err);

	if (r || g->state == to)
		return r;
	from = g->state;
	if (!migration_region_arc(from, to))
		return error_set(err, EBUSY, "%s is %s: from there it cannot be %s",
				 g->dm.transport->name, migration_region_state_name(from),
				 migration_region_state_name(to));
	r = migration_section_put(&g->section, 0, 4, (whole & ~REGION_STATE_MASK) | to, err);
	if (!r) {
		g->state = to;
		return 0;
	}
	r = error_prefix(err, "%s -> %s", migration_region_state_name(from),
			 migration_region_state_name(to));
	/* Where it is now. */
	if (get_state(g, &whole, &why) && g->state == REGION_STATE_ERROR)
		error_prefix(err, "%s", why.message);
	return r;
}

static void forget_packet(struct migration_region *g)
{
	free(g->rest);
	g->rest = NULL;
	g->rest_at = g->rest_len = 0;
	g->in_packet = g->filling = g->taken = false;
	g->left = 0;
	g->head_done = 0;
}

static void begin_reading(struct migration_region *g)
{
	forget_packet(g);
	g->ended = false;
	g->pending = 0;
	g->least = UINT64_MAX;
	g->since = 0;
}

static int save_begin(struct migratable *m, struct error *err)
{
	struct migration_region *g = region_of(m);
	uint32_t whole;
	int r = get_state(g, &whole, err);

	if (!r && g->state != REGION_STATE_RUNNING)
		r = error_set(err, EBUSY, "%s is %s, not running", g->dm.transport->name,
			      migration_region_state_name(g->state));
	if (!r)
		r = set_state(g, REGION_STATE_RUNNING | REGION_STATE_SAVING, err);
	begin_reading(g);
	return failed(g, "begin to save", r, err);
}

/* The device is stopped, and what it has left does not get less. */
static int check_progress(struct migration_region *g, struct error *err)
{
	uint64_t most;

	if (g->pending < g->least) {
		g->least = g->pending;
		g->since = 0;
	}
	most = g->least > UINT64_MAX / STALL_TIMES ? UINT64_MAX : STALL_TIMES * g->least;
	if (g->since <= MAX(most, STALL_BYTES))
		return 0;
	return error_set(err, EPROTO,
			 "%s: 0x%llx bytes were read in %s, and pending_bytes does not fall below "
			 "0x%llx",
			 g->dm.transport->name, (unsigned long long)g->since,
			 migration_region_state_name(g->state), (unsigned long long)g->least);
}

static int ask_pending(struct migration_region *g, struct error *err)
{
	int r = migration_section_get(&g->section, REGION_PENDING_BYTES, 8, &g->pending, err);

	g->taken = false;
	return r ? error_prefix(err, "read pending_bytes") : 0;
}

/* The next packet, in that order of accesses. in_packet stays false where there is none. */
static int open_packet(struct migration_region *g, struct error *err)
{
	uint64_t offset, size;
	int r = ask_pending(g, err);

	if (!r && g->state == REGION_STATE_SAVING)
		r = check_progress(g, err);
	if (r || !g->pending)
		return r;
	r = migration_section_get(&g->section, REGION_DATA_OFFSET, 8, &offset, err);
	if (!r)
		r = migration_section_get(&g->section, REGION_DATA_SIZE, 8, &size, err);
	if (r)
		return error_prefix(err, "read data_offset and data_size");
	if (!size && g->state == REGION_STATE_SAVING)
		return error_set(err, EPROTO, "%s: 0x%llx bytes are pending, but it gives out none",
				 g->dm.transport->name, (unsigned long long)g->pending);
	if (!size)
		return 0;
	r = migration_section_check(&g->section, offset, size, err);
	if (r)
		return r;
	g->at = offset;
	g->left = size;
	store_le64(g->head, size);
	g->head_done = 0;
	g->in_packet = true;
	return 0;
}

/* Of the packet that is open: at least a byte. */
static int read_packet(struct migration_region *g, uint8_t *buf, size_t len, size_t *got,
		       struct error *err)
{
	size_t head = MIN(len, (size_t)(REGION_PACKET_HEAD - g->head_done)), data;
	int r;

	memcpy(buf, g->head + g->head_done, head);
	g->head_done += (unsigned int)head;
	data = (size_t)MIN(g->left, (uint64_t)(len - head));
	r = data ? migration_section_read(&g->section, g->at, buf + head, data, err) : 0;
	if (r)
		return error_prefix(err, "read the data");
	g->at += data;
	g->left -= data;
	g->since += data;
	g->in_packet = g->left || g->head_done < REGION_PACKET_HEAD;
	g->taken = !g->in_packet;
	*got = head + data;
	return 0;
}

/* The packet that is open is taken whole, and the device told so: in another state it may
 * not be there. What the reader has not had yet is kept for it. */
static int finish_packet(struct migration_region *g, struct error *err)
{
	uint64_t len = g->in_packet ? REGION_PACKET_HEAD - g->head_done + g->left : 0;
	_cleanup_free_ uint8_t *rest = NULL;
	size_t got;
	int r;

	if (len && g->rest)
		return error_set(err, EBUSY, "what was kept of it before has not been read");
	if (len) {
		rest = len <= KEPT_BYTES ? malloc(len) : NULL;
		if (!rest)
			return error_set_errno(err, ENOMEM, "keep a packet of 0x%llx bytes",
					       (unsigned long long)len);
		r = read_packet(g, rest, len, &got, err);
		if (r)
			return r;
		g->rest = take_ptr(rest);
		g->rest_len = len;
	}
	return g->taken ? ask_pending(g, err) : 0;
}

static size_t read_rest(struct migration_region *g, uint8_t *buf, size_t len)
{
	size_t n = MIN(len, g->rest_len - g->rest_at);

	if (n)
		memcpy(buf, g->rest + g->rest_at, n);
	g->rest_at += n;
	return n;
}

static int read_packets(struct migration_region *g, uint8_t *buf, size_t len, size_t *got,
			struct error *err)
{
	int r = 0;

	while (!r && *got < len) {
		size_t n = 0;

		if (!g->in_packet)
			r = open_packet(g, err);
		if (r || !g->in_packet)
			break;
		r = read_packet(g, buf + *got, len - *got, &n, err);
		*got += n;
	}
	return r;
}

static ssize_t save_read(struct migratable *m, void *buf, size_t len, struct error *err)
{
	struct migration_region *g = region_of(m);
	size_t got = 0;
	int r = 0;

	pthread_mutex_lock(&g->lock);
	got = read_rest(g, buf, len);
	if (!g->ended && g->state & REGION_STATE_SAVING)
		r = read_packets(g, buf, len, &got, err);
	if (!r && len && !got && g->state == REGION_STATE_SAVING)
		g->ended = true;
	pthread_mutex_unlock(&g->lock);
	return r ? failed(g, "read its state", r, err) : (ssize_t)got;
}

static int save_pending(struct migratable *m, struct migratable_pending *pending, struct error *err)
{
	struct migration_region *g = region_of(m);
	int r = 0;

	*pending = (struct migratable_pending){ 0 };
	pthread_mutex_lock(&g->lock);
	/* Asking says that the packet is done with. */
	if (!g->in_packet && !g->ended && g->state & REGION_STATE_SAVING)
		r = ask_pending(g, err);
	if (g->state & REGION_STATE_RUNNING)
		pending->dirty = g->pending;
	pending->stop_copy = g->pending;
	pthread_mutex_unlock(&g->lock);
	return failed(g, "ask how much is to be saved", r, err);
}

/* The protocol has no state between running and stopped. */
static int nothing(struct migratable *m, struct error *err)
{
	return 0;
}

static int save_stop(struct migratable *m, struct error *err)
{
	struct migration_region *g = region_of(m);
	uint32_t was = g->state, whole;
	int r = finish_packet(g, err);

	if (!r)
		r = get_state(g, &whole, err);

	/* What was sent belongs to what the device was. */
	if (!r && g->state != was)
		r = error_set(err, EPROTO, "%s was in %s and is %s: it was reset meanwhile",
			      g->dm.transport->name, migration_region_state_name(was),
			      migration_region_state_name(g->state));
	if (!r)
		r = set_state(g, REGION_STATE_SAVING, err);
	g->least = UINT64_MAX;
	g->since = 0;
	return failed(g, "stop", r, err);
}

static int save_end(struct migratable *m, struct error *err)
{
	struct migration_region *g = region_of(m);

	if (!g->ended)
		return error_set(err, EBUSY, "device %s: end: its state is not read to the end",
				 m->id);
	return failed(g, "end", set_state(g, REGION_STATE_STOP, err), err);
}

static int rollback(struct migratable *m, struct error *err)
{
	struct migration_region *g = region_of(m);
	int r = -EIO;

	for (unsigned int i = 0; r && i < ROLLBACK_TRIES; i++) {
		error_clear(err);
		r = set_state(g, REGION_STATE_RUNNING, err);
		if (g->state == REGION_STATE_ERROR)
			break;
	}
	begin_reading(g);
	return failed(g, "let run on", r, err);
}

static int load_begin(struct migratable *m, struct error *err)
{
	struct migration_region *g = region_of(m);

	begin_reading(g);
	return failed(g, "begin to load", set_state(g, REGION_STATE_RESUMING, err), err);
}

/* Where the next of the packet goes. */
static int open_section(struct migration_region *g, struct error *err)
{
	int r = migration_section_get(&g->section, REGION_DATA_OFFSET, 8, &g->section_at, err);

	if (r)
		return error_prefix(err, "read data_offset");
	r = migration_section_check(&g->section, g->section_at, 1, err);
	if (r)
		return r;
	g->section_room = MIN(g->left, g->section.region.size - g->section_at);
	g->section_done = 0;
	g->filling = true;
	return 0;
}

/* It is full, or the packet is complete: the device takes it. */
static int close_section(struct migration_region *g, struct error *err)
{
	int r = migration_section_put(&g->section, REGION_DATA_SIZE, 8, g->section_done, err);

	g->filling = false;
	return r ? error_prefix(err, "write data_size") : 0;
}

static int write_packet(struct migration_region *g, const uint8_t *buf, size_t len, size_t *taken,
			struct error *err)
{
	size_t n;
	int r = g->filling ? 0 : open_section(g, err);

	if (r)
		return r;
	n = (size_t)MIN((uint64_t)len, g->section_room - g->section_done);
	r = migration_section_write(&g->section, g->section_at + g->section_done, buf, n, err);
	if (r)
		return error_prefix(err, "write the data");
	g->section_done += n;
	g->left -= n;
	*taken = n;
	return g->section_done == g->section_room ? close_section(g, err) : 0;
}

static int take_head(struct migration_region *g, const uint8_t *buf, size_t len, size_t *taken,
		     struct error *err)
{
	*taken = MIN(len, (size_t)(REGION_PACKET_HEAD - g->head_done));
	memcpy(g->head + g->head_done, buf, *taken);
	g->head_done += (unsigned int)*taken;
	if (g->head_done < REGION_PACKET_HEAD)
		return 0;
	g->head_done = 0;
	g->left = load_le64(g->head);
	return g->left ? 0 : error_set(err, EINVAL, "its saved state has a packet of 0 bytes");
}

static int load_write(struct migratable *m, const void *buf, size_t len, struct error *err)
{
	struct migration_region *g = region_of(m);
	const uint8_t *at = buf;
	int r = 0;

	if (g->state != REGION_STATE_RESUMING)
		return error_set(err, EINVAL, "device %s: load: it takes no state while %s", m->id,
				 migration_region_state_name(g->state));
	for (size_t done = 0, n = 0; !r && done < len; done += n)
		r = g->left ? write_packet(g, at + done, len - done, &n, err)
			    : take_head(g, at + done, len - done, &n, err);
	return failed(g, "load", r, err);
}

/* Whether it accepts what it got shows when it runs: resuming ends in running only. */
static int load_end(struct migratable *m, struct error *err)
{
	struct migration_region *g = region_of(m);
	uint32_t whole;

	if (g->left || g->head_done)
		return error_set(err, EINVAL,
				 "device %s: take what was loaded: its saved state ends within a "
				 "packet",
				 m->id);
	return failed(g, "take what was loaded", get_state(g, &whole, err), err);
}

static int run(struct migratable *m, struct error *err)
{
	struct migration_region *g = region_of(m);

	return failed(g, "run", set_state(g, REGION_STATE_RUNNING, err), err);
}

static const struct migratable_ops region_ops = {
	.kind = "region",
	.save_begin = save_begin,
	.save_pending = save_pending,
	.save_read = save_read,
	.quiesce = nothing,
	.save_stop = save_stop,
	.save_end = save_end,
	.rollback = rollback,
	.load_begin = load_begin,
	.load_write = load_write,
	.load_end = load_end,
	.resume = nothing,
	.run = run,
};

static void region_free(struct device_migration *dm)
{
	struct migration_region *g = (struct migration_region *)dm;

	forget_packet(g);
	migration_section_close(&g->section);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

struct device_migration *migration_region_new(struct vfio_transport *transport,
					      const struct device_migration_options *options,
					      struct error *err)
{
	struct migration_region *g = calloc(1, sizeof(*g));

	if (!g) {
		error_set_errno(err, ENOMEM, "%s: migration", transport->name);
		return NULL;
	}
	if (migration_section_open(&g->section, transport, options->log, err)) {
		free(g);
		return NULL;
	}
	device_migration_init(&g->dm, &region_ops, region_free, transport, options);
	pthread_mutex_init(&g->lock, NULL);
	g->state = REGION_STATE_RUNNING;
	g->dm.m.precopy = true;
	begin_reading(g);
	return &g->dm;
}
