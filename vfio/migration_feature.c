/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migration v2: the device is moved between states by the feature MIG_DEVICE_STATE, and its
 * own state is a stream that entering PRE_COPY, STOP_COPY or RESUMING begins. Over cdev and
 * group that is a descriptor, over vfio-user messages: the transport's business.
 *
 * After an arc that failed the device may be anywhere along it: its state is read back. In
 * ERROR it does nothing more; only a reset ends that, which loses what the guest's driver
 * made of it, so it is not done here.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "vfio/device_migration_private.h"
#include "vfio/migration_states.h"

/* How often what brings the source back is tried: it must not fail by chance. */
#define ROLLBACK_TRIES 3
/* What a stopped device may give out: so many times what it says, and this much at least.
 * One that does not say is read for as long as it has something. */
#define STOPPED_TIMES 4
#define STOPPED_BYTES (1ULL << 30)

struct migration_feature {
	struct device_migration dm; /* first */
	uint64_t flags;		    /* VFIO_MIGRATION_* */
	bool has_data_size;	    /* MIG_DATA_SIZE */
	bool has_reinit;	    /* MIG_PRECOPY_INFOv2 is on */
	uint32_t state;
	bool streaming;
	atomic_bool ended;    /* STOP_COPY: read to its end */
	uint64_t since, most; /* bytes read in STOP_COPY, and how many may be */
	int fd;		      /* of the stream; -1: none, or a transport that needs none */
	/* Where the transport has no precopy info: a pause has come, so what was there at the
	 * beginning is read. Until then all that is left is taken for it. */
	atomic_bool paused;
};

static struct migration_feature *feature_of(struct migratable *m)
{
	return (struct migration_feature *)device_migration_of(m);
}

static int get_feature(struct vfio_transport *t, uint32_t feature, void *data, size_t len,
		       struct error *err)
{
	int r = t->ops->feature(t, feature | VFIO_DEVICE_FEATURE_GET, data, len, err);

	if (r >= 0 && (size_t)r != len)
		return error_set(err, EPROTO, "%s: feature %u has %d bytes, not %zu", t->name,
				 feature, r, len);
	return MIN(r, 0);
}

static int get_state(struct migration_feature *f, uint32_t *state, struct error *err)
{
	struct vfio_transport *t = f->dm.transport;
	struct vfio_device_feature_mig_state data = { .data_fd = -1 };
	int r = get_feature(t, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &data, sizeof(data), err);

	if (!r && data.device_state >= MIGRATION_STATES)
		r = error_set(err, EPROTO, "%s: its migration state is %u, which does not exist",
			      t->name, data.device_state);
	if (!r)
		*state = data.device_state;
	return r;
}

static void end_stream(struct migration_feature *f)
{
	struct vfio_transport *t = f->dm.transport;

	if (f->streaming)
		t->ops->migration_end(t, f->fd);
	f->streaming = false;
	f->fd = -1;
}

static int in_error(const struct migration_feature *f, struct error *err)
{
	return error_set(err, EIO,
			 "%s is in the migration state ERROR, which only a reset of it ends",
			 f->dm.transport->name);
}

/* An arc that failed: err says so already. Where is the device now? */
static int after_failure(struct migration_feature *f, uint32_t to, struct error *err)
{
	struct error why = ERROR_INIT;
	uint32_t from = f->state;
	bool known = !get_state(f, &f->state, &why);
	int r;

	if (!known)
		f->state = from;
	r = error_prefix(err, "%s -> %s", migration_state_name(from), migration_state_name(to));
	if (known && f->state == VFIO_DEVICE_STATE_ERROR && err) {
		struct error in = ERROR_INIT;

		in_error(f, &in);
		return error_prefix(err, "%s", in.message);
	}
	return r;
}

static int set_state(struct migration_feature *f, uint32_t to, struct error *err)
{
	struct vfio_transport *t = f->dm.transport;
	struct vfio_device_feature_mig_state data = { .device_state = to, .data_fd = -1 };
	bool begins = migration_arc_begins(f->state, to);
	int r = t->ops->feature(t, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | VFIO_DEVICE_FEATURE_SET,
				&data, sizeof(data), err);

	if (r < 0)
		return after_failure(f, to, err);
	if (migration_arc_ends(f->state, to))
		end_stream(f);
	f->state = to;
	if (begins) {
		f->fd = data.data_fd;
		f->streaming = true;
		f->ended = false;
		f->since = 0;
		atomic_store(&f->paused, false);
		return 0;
	}
	if (data.data_fd < 0)
		return 0;
	/* It was not in the state it was left in. */
	t->ops->migration_end(t, data.data_fd);
	return error_set(err, EPROTO,
			 "%s: -> %s began another stream: the device was reset meanwhile", t->name,
			 migration_state_name(to));
}

/* Along the arcs of the table. */
static int go(struct migration_feature *f, uint32_t to, const char *step, struct error *err)
{
	while (f->state != to) {
		uint32_t next = migration_state_next(f->state, to, f->flags);
		int r;

		if (f->state == VFIO_DEVICE_STATE_ERROR)
			r = in_error(f, err);
		else if (next == VFIO_DEVICE_STATE_ERROR)
			r = error_set(err, EINVAL, "%s: there is no way from %s to %s",
				      f->dm.transport->name, migration_state_name(f->state),
				      migration_state_name(to));
		else
			r = set_state(f, next, err);
		if (r < 0)
			return err ? device_migration_error(&f->dm, step, err) : r;
	}
	return 0;
}

/* The device may have been reset since, by its driver in the guest. */
static int begin_at_running(struct migration_feature *f, const char *step, struct error *err)
{
	int r = get_state(f, &f->state, err);

	if (!r && f->state == VFIO_DEVICE_STATE_ERROR)
		r = in_error(f, err);
	else if (!r && f->state != VFIO_DEVICE_STATE_RUNNING)
		r = error_set(err, EBUSY, "%s is in the migration state %s, not RUNNING",
			      f->dm.transport->name, migration_state_name(f->state));
	if (r)
		return err ? device_migration_error(&f->dm, step, err) : r;
	end_stream(f);
	return 0;
}

static int save_begin(struct migratable *m, struct error *err)
{
	struct migration_feature *f = feature_of(m);
	int r = begin_at_running(f, "begin to save", err);

	if (r || !m->precopy)
		return r;
	return go(f, VFIO_DEVICE_STATE_PRE_COPY, "begin to save", err);
}

static bool in_precopy(const struct migration_feature *f)
{
	return f->state == VFIO_DEVICE_STATE_PRE_COPY || f->state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

/* pending->stop_copy is known. */
static int precopy_pending(struct migration_feature *f, struct migratable_pending *pending,
			   struct error *err)
{
	struct vfio_transport *t = f->dm.transport;
	struct vfio_precopy_info info = { .argsz = sizeof(info) };
	struct error why = ERROR_INIT;
	int r = t->ops->migration_precopy_info(t, f->fd, &info, &why);

	if (r == -ENOTTY) {
		pending->initial = atomic_load(&f->paused) ? 0 : MAX(pending->stop_copy, 1ULL);
		return 0;
	}
	if (r) {
		if (err)
			*err = why;
		return r;
	}
	pending->initial = info.initial_bytes;
	pending->dirty = info.dirty_bytes;
	pending->reinit = f->has_reinit && info.flags & VFIO_PRECOPY_INFO_REINIT;
	return 0;
}

static int save_pending(struct migratable *m, struct migratable_pending *pending, struct error *err)
{
	struct migration_feature *f = feature_of(m);
	struct vfio_device_feature_mig_data_size size = { 0 };
	int r = 0;

	*pending = (struct migratable_pending){ 0 };
	if (f->has_data_size)
		r = get_feature(f->dm.transport, VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, &size,
				sizeof(size), err);
	pending->stop_copy = f->ended ? 0 : size.stop_copy_length;
	if (!r && in_precopy(f))
		r = precopy_pending(f, pending, err);
	return r && err ? device_migration_error(&f->dm, "ask how much is to be saved", err) : r;
}

/* Is there an end to it? */
static int check_amount(struct migration_feature *f, size_t n, struct error *err)
{
	f->since += n;
	if (f->since <= f->most)
		return 0;
	return error_set(err, EPROTO,
			 "%s: 0x%llx bytes were read in STOP_COPY, many times what it said",
			 f->dm.transport->name, (unsigned long long)f->since);
}

static ssize_t save_read(struct migratable *m, void *buf, size_t len, struct error *err)
{
	struct migration_feature *f = feature_of(m);
	struct vfio_transport *t = f->dm.transport;
	bool stopped = f->state == VFIO_DEVICE_STATE_STOP_COPY;
	struct error why = ERROR_INIT;
	ssize_t n;

	if (!f->streaming || f->ended)
		return 0;
	n = t->ops->migration_read(t, f->fd, buf, len, stopped ? MIGRATABLE_STEP_MS : 0, &why);
	if (n > 0 && stopped && check_amount(f, (size_t)n, &why))
		n = why.code;
	if (n > 0)
		return n;
	/* While it runs a stream pauses; 0 is no end either: it may have more later. */
	if (!stopped && (n == 0 || n == -ENOMSG)) {
		atomic_store(&f->paused, true);
		return 0;
	}
	if (n == 0) {
		f->ended = true;
		return 0;
	}
	error_prefix(&why, "device %s: read its state in %s", m->id,
		     migration_state_name(f->state));
	if (err)
		*err = why;
	return n == -ENOMSG ? -ETIMEDOUT : n;
}

static int quiesce(struct migratable *m, struct error *err)
{
	struct migration_feature *f = feature_of(m);

	if (!m->p2p)
		return 0;
	return go(f, in_precopy(f) ? VFIO_DEVICE_STATE_PRE_COPY_P2P : VFIO_DEVICE_STATE_RUNNING_P2P,
		  "quiesce", err);
}

static int save_stop(struct migratable *m, struct error *err)
{
	struct migration_feature *f = feature_of(m);
	struct vfio_device_feature_mig_data_size size;
	int r = go(f, VFIO_DEVICE_STATE_STOP_COPY, "stop", err);

	f->most = UINT64_MAX;
	if (r || !f->has_data_size)
		return r;
	r = get_feature(f->dm.transport, VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, &size, sizeof(size),
			err);
	if (r)
		return err ? device_migration_error(&f->dm, "stop", err) : r;
	if (size.stop_copy_length < UINT64_MAX / STOPPED_TIMES)
		f->most = MAX(STOPPED_BYTES, STOPPED_TIMES * size.stop_copy_length);
	return 0;
}

static int save_end(struct migratable *m, struct error *err)
{
	struct migration_feature *f = feature_of(m);

	if (f->state == VFIO_DEVICE_STATE_STOP_COPY && !f->ended)
		return error_set(err, EBUSY, "device %s: end: its state is not read to the end",
				 m->id);
	return go(f, VFIO_DEVICE_STATE_STOP, "end", err);
}

static int rollback(struct migratable *m, struct error *err)
{
	struct migration_feature *f = feature_of(m);
	int r = -EIO;

	for (unsigned int i = 0; r && i < ROLLBACK_TRIES; i++) {
		error_clear(err);
		r = get_state(f, &f->state, err);
		if (r && err)
			device_migration_error(&f->dm, "let run on", err);
		if (!r)
			r = go(f, VFIO_DEVICE_STATE_RUNNING, "let run on", err);
		if (f->state == VFIO_DEVICE_STATE_ERROR)
			break;
	}
	end_stream(f);
	return r;
}

static int load_begin(struct migratable *m, struct error *err)
{
	struct migration_feature *f = feature_of(m);
	int r = begin_at_running(f, "begin to load", err);

	return r ? r : go(f, VFIO_DEVICE_STATE_RESUMING, "begin to load", err);
}

static int load_write(struct migratable *m, const void *buf, size_t len, struct error *err)
{
	struct migration_feature *f = feature_of(m);
	struct vfio_transport *t = f->dm.transport;
	int r;

	if (f->state != VFIO_DEVICE_STATE_RESUMING)
		return error_set(err, EINVAL, "device %s: load: it takes no state in %s", m->id,
				 migration_state_name(f->state));
	r = t->ops->migration_write(t, f->fd, buf, len, err);
	return r && err ? device_migration_error(&f->dm, "load", err) : r;
}

static int load_end(struct migratable *m, struct error *err)
{
	return go(feature_of(m), VFIO_DEVICE_STATE_STOP, "take what was loaded", err);
}

static int resume(struct migratable *m, struct error *err)
{
	return m->p2p ? go(feature_of(m), VFIO_DEVICE_STATE_RUNNING_P2P, "resume", err) : 0;
}

static int run(struct migratable *m, struct error *err)
{
	return go(feature_of(m), VFIO_DEVICE_STATE_RUNNING, "run", err);
}

static const struct migratable_ops feature_ops = {
	.kind = "feature",
	.save_begin = save_begin,
	.save_pending = save_pending,
	.save_read = save_read,
	.quiesce = quiesce,
	.save_stop = save_stop,
	.save_end = save_end,
	.rollback = rollback,
	.load_begin = load_begin,
	.load_write = load_write,
	.load_end = load_end,
	.resume = resume,
	.run = run,
};

static void feature_free(struct device_migration *dm)
{
	struct migration_feature *f = (struct migration_feature *)dm;

	end_stream(f);
	free(f);
}

static int probe(struct vfio_transport *t, uint64_t *flags, struct error *err)
{
	struct vfio_device_feature_migration data = { 0 };
	int r;

	if (!t->ops->migration_read)
		return error_set(err, ENOTTY, "%s: the transport moves no state", t->name);
	/* Old kernels and servers have more ways than ENOTTY to say that they do not know it. */
	r = t->ops->feature(t,
			    VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_PROBE |
				    VFIO_DEVICE_FEATURE_GET,
			    NULL, 0, err);
	if (r == -EINVAL || r == -EOPNOTSUPP || r == -ENOTTY)
		return error_set(err, ENOTTY, "%s: no migration features", t->name);
	if (r < 0)
		return r;
	r = get_feature(t, VFIO_DEVICE_FEATURE_MIGRATION, &data, sizeof(data), err);
	if (!r && !(data.flags & VFIO_MIGRATION_STOP_COPY))
		r = error_set(err, EOPNOTSUPP,
			      "%s: its driver offers migration (flags 0x%llx) without STOP_COPY, "
			      "which all of it needs",
			      t->name, (unsigned long long)data.flags);
	*flags = data.flags;
	return r;
}

/* Reinit is off until it is asked for; what came before the question has none. */
static void ask_for_more(struct migration_feature *f)
{
	struct vfio_transport *t = f->dm.transport;
	struct vfio_device_feature_mig_data_size size;

	f->has_data_size =
		!get_feature(t, VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, &size, sizeof(size), NULL);
	f->has_reinit =
		f->dm.m.precopy &&
		t->ops->feature(t, VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 | VFIO_DEVICE_FEATURE_SET,
				NULL, 0, NULL) >= 0;
}

/* A mediated device stays as the one before left it, in the middle of a load for instance.
 * What is in RESUMING or ERROR comes back by a reset; without one, from RESUMING perhaps. */
static int bring_back(struct migration_feature *f, struct error *err)
{
	struct vfio_transport *t = f->dm.transport;
	int r = get_state(f, &f->state, err);

	if (r)
		return r;
	if (t->resettable &&
	    (f->state == VFIO_DEVICE_STATE_ERROR || f->state == VFIO_DEVICE_STATE_RESUMING)) {
		r = t->ops->reset(t, err);
		if (!r)
			r = get_state(f, &f->state, err);
	}
	return r ? r : go(f, VFIO_DEVICE_STATE_RUNNING, "let run", err);
}

struct device_migration *migration_feature_new(struct vfio_transport *transport,
					       const struct device_migration_options *options,
					       struct error *err)
{
	struct migration_feature *f;
	uint64_t flags = 0;

	if (probe(transport, &flags, err))
		return NULL;
	f = calloc(1, sizeof(*f));
	if (!f) {
		error_set_errno(err, ENOMEM, "%s: migration", transport->name);
		return NULL;
	}
	device_migration_init(&f->dm, &feature_ops, feature_free, transport, options);
	f->flags = flags;
	f->fd = -1;
	if (bring_back(f, err)) {
		feature_free(&f->dm);
		return NULL;
	}
	f->dm.m.precopy = migration_state_exists(VFIO_DEVICE_STATE_PRE_COPY, flags);
	f->dm.m.p2p = migration_state_exists(VFIO_DEVICE_STATE_RUNNING_P2P, flags);
	ask_for_more(f);
	return &f->dm;
}
