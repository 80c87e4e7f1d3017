/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a snapshot, from the first file to the rename. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "migration/snapshot_devices.h"
#include "migration/snapshot_early.h"
#include "migration/snapshot_ram.h"
#include "migration/snapshot_tracking.h"

/* While the VM runs, what it writes is protected again, until it is this little or this
 * does not get less. */
#define ROUNDS_MAX 16
#define ROUNDS_MIN 4 /* it may get more once by chance */
#define UNITS_FEW 32

struct writing {
	const struct snapshot_options *options;
	const struct migration_vm *vm;
	struct snapshot_progress *progress;
	struct snapshot_result *result;

	struct snapshot_image image;
	struct snapshot_units units;
	struct snapshot_live live;
	struct snapshot_early early;
	struct snapshot_devices devices;
	struct snapshot_tracking *rounds; /* of early: the caller's, or its own */
	uint64_t tail;			  /* of a compressed file that was begun */
	struct snapshot_dir dir;
	struct state_writer *state;
	char *config;
	int ram; /* fd */
	bool is_live, is_early, paused, tracking, differential;
	uint64_t paused_at;
};

unsigned int snapshot_cpus(unsigned int max)
{
	cpu_set_t set;
	unsigned int count = 1;

	if (!sched_getaffinity(0, sizeof(set), &set))
		count = (unsigned int)CPU_COUNT(&set);
	return MIN(count, max);
}

const char *snapshot_phase_name(enum snapshot_phase phase)
{
	static const char *const names[] = {
		[SNAPSHOT_PREPARING] = "preparing",
		[SNAPSHOT_PAUSED] = "paused",
		[SNAPSHOT_RAM] = "ram",
		[SNAPSHOT_SYNCING] = "syncing",
		[SNAPSHOT_DONE] = "done",
	};

	return (size_t)phase < ARRAY_SIZE(names) ? names[phase] : "unknown";
}

static void enter(struct writing *w, enum snapshot_phase phase)
{
	if (w->progress)
		atomic_store(&w->progress->phase, phase);
}

/* The base is what the VM was tracked since, and is there as a whole. */
static int check_base(struct writing *w, struct error *err)
{
	const struct snapshot_options *o = w->options;
	const char *since = o->tracking ? snapshot_tracking_id(o->tracking) : "";
	struct snapshot *base;
	int r = 0;

	if (!*since)
		return error_set_kind(
			err, ERROR_BAD_REQUEST, EINVAL,
			"base %s: what the VM wrote since was not tracked; a snapshot "
			"that is full and starts tracking comes first",
			o->base);
	base = snapshot_open(o->base, o->policy, err);
	if (!base) {
		error_prefix(err, "base");
		return err ? err->code : -EINVAL;
	}
	if (strcmp(base->images[0]->id, since))
		r = error_set_kind(
			err, ERROR_BAD_REQUEST, EINVAL,
			"base %s: it is not the VM's last snapshot (its id is %s, the VM "
			"was tracked since %s)",
			o->base, base->images[0]->id, since);
	else if (base->count == SNAPSHOT_CHAIN_MAX)
		r = error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				   "base %s: it is the last of %d that are based on each other; a "
				   "full one is due",
				   o->base, SNAPSHOT_CHAIN_MAX);
	else
		r = snapshot_layout_match(&base->images[0]->layout,
					  w->vm->ops->memory(w->vm->opaque), err);
	memcpy(w->image.base_id, base->images[0]->id, sizeof(w->image.base_id));
	snapshot_close(base);
	return r ? r
		 : snapshot_base_reference(o->dir, o->base, w->image.base, sizeof(w->image.base),
					   o->policy, err);
}

static int make_layout(struct writing *w, struct error *err)
{
	const struct guest_memory *memory = w->vm->ops->memory(w->vm->opaque);
	struct snapshot_layout *layout = &w->image.layout;
	int r = snapshot_layout_of(layout, memory, err);

	for (unsigned int i = 0; i < layout->count && !r && w->differential; i++)
		r = dirty_bitmap_init(&layout->regions[i].held,
				      layout->regions[i].size / GUEST_PAGE_SIZE, err);
	if (!r && w->image.compressed) {
		w->image.frames = calloc(layout->units, sizeof(*w->image.frames));
		if (!w->image.frames)
			r = error_set_errno(err, ENOMEM, "index of RAM");
	}
	return r ? r : snapshot_units_init(&w->units, layout, memory, err);
}

/* O_DIRECT where the file system has it. */
static int make_ram_file(struct writing *w, struct error *err)
{
	const int flags = O_RDWR | O_CREAT;
	int fd = snapshot_open_at(w->options->policy, w->dir.fd, "ram", flags | O_DIRECT, 0600);

	w->result->direct = fd >= 0;
	if (fd == -EINVAL)
		fd = snapshot_open_at(w->options->policy, w->dir.fd, "ram", flags, 0600);
	if (fd < 0)
		return error_set_errno(err, fd, "ram");
	w->ram = fd;
	return 0;
}

struct truncation {
	int fd, result;
	uint64_t size;
};

static void truncate_in_starter(void *opaque)
{
	struct truncation *t = opaque;

	t->result = ftruncate(t->fd, (off_t)t->size) ? -errno : 0;
}

static int set_ram_size(struct writing *w, uint64_t size, struct error *err)
{
	struct truncation t = { .fd = w->ram, .size = size };

	thread_run_in_starter(w->options->policy, truncate_in_starter, &t);
	return t.result ? error_set_errno(err, t.result, "ram") : 0;
}

/* A round of the dirty sources, and who has to know what is new. */
static int collect(struct writing *w, struct snapshot_tracking *tracking, struct error *err)
{
	snapshot_note_fn note = NULL;
	void *opaque = NULL;

	if (w->is_early) {
		note = snapshot_early_note;
		opaque = &w->early;
	} else if (w->is_live && w->differential) {
		note = snapshot_live_note;
		opaque = &w->live;
	}
	return snapshot_tracking_collect(tracking, &w->image.layout, w->differential, note, opaque,
					 err);
}

/* Protects RAM while the VM runs. Where that cannot be, the reason is in the result. */
static int prepare_live(struct writing *w, struct error *err)
{
	const struct snapshot_options *o = w->options;
	struct error reason = ERROR_INIT;
	uint64_t units = 0, before = UINT64_MAX;
	int r;

	r = snapshot_live_start(&w->live, &w->units, w->vm->ops->memory(w->vm->opaque), o,
				w->progress, &reason);
	if (r) {
		snapshot_live_end(&w->live);
		snprintf(w->result->not_live, sizeof(w->result->not_live), "%.250s",
			 reason.message);
		return 0;
	}
	w->is_live = true;
	for (unsigned int i = 0; i < ROUNDS_MAX && !r; i++) {
		if (w->tracking)
			r = collect(w, o->tracking, err);
		if (!r)
			r = snapshot_live_again(&w->live, &units, err);
		if (units <= UNITS_FEW || (units >= before && i >= ROUNDS_MIN))
			break;
		before = units;
	}
	return r;
}

/* There is more to do than all RAM once. */
static void add_work(struct writing *w, uint64_t bytes)
{
	if (w->progress)
		snapshot_count(&w->progress->total, bytes);
}

static struct snapshot_ram ram_of(struct writing *w, struct snapshot_live *live)
{
	return (struct snapshot_ram){
		.image = &w->image,
		.units = &w->units,
		.live = live,
		.fd = w->ram,
		.rewrite = w->is_early,
		.tail = w->tail,
		.plain_io = w->options->plain_io,
		.level = w->options->level,
		.policy = w->options->policy,
		.progress = w->progress,
	};
}

static int write_round(struct writing *w, struct error *err)
{
	struct snapshot_ram ram = ram_of(w, NULL);
	int r = snapshot_ram_start(&ram, err);

	if (!r)
		r = snapshot_ram_finish(&ram, err);
	w->tail = ram.tail;
	w->result->written_bytes += ram.written;
	w->result->early_rounds++;
	return r;
}

/* RAM before the pause, in rounds, until what is left is little or does not get less. */
static int write_early(struct writing *w, struct error *err)
{
	const struct snapshot_layout *layout = &w->image.layout;
	uint64_t bytes = UINT64_MAX, before;
	int r = 0;

	w->rounds = w->options->tracking ? w->options->tracking : snapshot_tracking_new(err);
	if (!w->rounds)
		return -ENOMEM;
	if (!w->tracking)
		r = snapshot_tracking_start(w->rounds, w->vm, err);
	if (!r)
		r = snapshot_early_init(&w->early, &w->units, err);
	for (unsigned int i = 0; !r && i < layout->count; i++)
		snapshot_units_scan(&w->units, layout->regions[i].first_unit,
				    layout->regions[i].units);
	enter(w, SNAPSHOT_RAM);
	for (unsigned int i = 0; !r && i < ROUNDS_MAX; i++) {
		r = write_round(w, err);
		w->is_early = true;
		if (!r)
			r = collect(w, w->rounds, err);
		if (r)
			break;
		before = bytes;
		bytes = snapshot_early_again(&w->early);
		add_work(w, bytes);
		if (bytes <= UNITS_FEW * (uint64_t)layout->unit ||
		    (bytes >= before && i >= ROUNDS_MIN))
			break;
	}
	return r;
}

static int prepare(struct writing *w, struct error *err)
{
	const struct snapshot_options *o = w->options;
	bool running = w->vm->ops->running(w->vm->opaque);
	int r = snapshot_devices_find(&w->devices, w->vm, err);

	if (!r && w->differential)
		r = check_base(w, err);

	w->image.compressed = o->compress;
	if (!r)
		r = make_layout(w, err);
	if (!r)
		r = snapshot_dir_create(&w->dir, o->dir, o->policy, err);
	if (!r)
		r = make_ram_file(w, err);
	if (!r && !o->compress)
		r = set_ram_size(w, w->image.layout.plain_end, err);
	if (r)
		return r;
	w->config = w->vm->ops->config(w->vm->opaque, err);
	if (!w->config)
		return err && err->code ? err->code : -ENOMEM;
	w->state = state_writer_new(err);
	if (!w->state)
		return -ENOMEM;
	if (o->tracking) {
		r = snapshot_tracking_start(o->tracking, w->vm, err);
		w->tracking = !r;
		if (!r)
			r = collect(w, o->tracking, err);
	}
	if (!r)
		r = snapshot_devices_begin(&w->devices, &w->dir, err);
	if (!r && o->live && running)
		r = w->devices.count ? write_early(w, err) : prepare_live(w, err);
	return r;
}

static int resume(struct writing *w, struct error *err)
{
	int r = snapshot_devices_rollback(&w->devices, err);

	if (!w->paused)
		return r;
	w->paused = false;
	if (w->vm->ops->resume(w->vm->opaque, r ? NULL : err))
		r = r ? r : err->code;
	w->result->pause_ns = clock_ns() - w->paused_at;
	return r;
}

/* The VM as it is now: what of RAM is wanted, and the rest of its state. */
static int save_machine(struct writing *w, struct error *err)
{
	const struct snapshot_layout *layout = &w->image.layout;
	uint64_t start = clock_ns(), saved;
	int r = 0;

	if (w->rounds || w->tracking)
		r = collect(w, w->rounds ? w->rounds : w->options->tracking, err);
	if (!r && w->is_live)
		r = snapshot_live_save(&w->live, w->vm->ops->memory(w->vm->opaque), err);
	if (!r && w->is_early)
		add_work(w, snapshot_early_again(&w->early));
	for (unsigned int i = 0; i < layout->count && !r && !w->is_live && !w->is_early; i++)
		snapshot_units_scan(&w->units, layout->regions[i].first_unit,
				    layout->regions[i].units);
	saved = clock_ns();
	w->result->pause_protect_ns = saved - start;
	if (!r)
		r = w->vm->ops->save_cpu(w->vm->opaque, w->state, err);
	if (!r)
		r = w->vm->ops->save(w->vm->opaque, w->state, err);
	w->result->pause_save_ns = clock_ns() - saved;
	return r;
}

static int save_ram(struct writing *w, struct error *err)
{
	struct snapshot_ram ram = ram_of(w, w->is_live ? &w->live : NULL);
	struct error late = ERROR_INIT, lost = ERROR_INIT;
	int r = snapshot_ram_start(&ram, err), resumed = 0, rest;

	if (r)
		return r;
	if (w->is_live) {
		resumed = resume(w, &late);
		if (resumed)
			snapshot_ram_cancel(&ram);
		enter(w, SNAPSHOT_RAM);
	}
	/* Meanwhile: it is in the pause. */
	rest = snapshot_devices_rest(&w->devices, &lost);
	if (rest)
		snapshot_ram_cancel(&ram);
	r = snapshot_ram_finish(&ram, err);
	if (rest && err)
		*err = lost;
	r = rest ? rest : r;
	w->result->io = ram.used_ring ? "io_uring" : "pwrite";
	w->result->written_bytes += ram.written;
	/* Also where it failed. */
	if (!w->is_live)
		resumed = resume(w, &late);
	if (!resumed || (r && !w->is_live))
		return r;
	if (err)
		*err = late;
	return resumed;
}

static int finish(struct writing *w, struct error *err)
{
	_cleanup_free_ void *blob = NULL;
	size_t len;
	int r = 0;

	enter(w, SNAPSHOT_SYNCING);
	if (w->options->compress)
		r = set_ram_size(w, w->image.file_size, err);
	if (!r && fsync(w->ram))
		r = error_set_errno(err, errno, "ram: sync");
	if (!r)
		r = snapshot_image_save(&w->image, w->state, err);
	if (!r)
		r = snapshot_devices_finish(&w->devices, w->state, err);
	if (!r)
		r = state_writer_finish(w->state, &blob, &len, err);
	if (!r)
		r = snapshot_dir_file(&w->dir, "state", blob, len, err);
	if (!r)
		r = snapshot_dir_file(&w->dir, "config.json", w->config, strlen(w->config), err);
	if (!r && snapshot_canceled(w->progress))
		r = error_set(err, ECANCELED, "it was canceled");
	return r ? r : snapshot_dir_commit(&w->dir, err);
}

static int write_all(struct writing *w, struct error *err)
{
	int r = prepare(w, err);

	if (!r && snapshot_canceled(w->progress))
		r = error_set(err, ECANCELED, "it was canceled");
	if (r)
		return r;
	enter(w, SNAPSHOT_PAUSED);
	if (w->vm->ops->running(w->vm->opaque)) {
		w->paused_at = clock_ns();
		w->paused = true;
		r = w->vm->ops->pause(w->vm->opaque, err);
	}
	if (!r)
		r = snapshot_devices_stop(&w->devices, err);
	if (!r)
		r = save_machine(w, err);
	if (!r)
		r = save_ram(w, err);
	/* What was written since is let through: there is nothing more to be saved. */
	if (w->is_live)
		snapshot_live_end(&w->live);
	w->is_live = false;
	return r ? r : finish(w, err);
}

static void clean_up(struct writing *w, int result)
{
	struct error late = ERROR_INIT;

	if (w->is_live)
		snapshot_live_end(&w->live);
	resume(w, &late);
	if (w->rounds && w->rounds != w->options->tracking)
		snapshot_tracking_free(w->rounds);
	snapshot_early_destroy(&w->early);
	snapshot_devices_end(&w->devices);
	if (w->tracking && !result)
		snapshot_tracking_commit(w->options->tracking, w->image.id);
	else if (w->tracking)
		snapshot_tracking_abort(w->options->tracking);
	state_writer_free(w->state);
	free(w->config);
	if (w->ram >= 0)
		close(w->ram);
	snapshot_dir_end(&w->dir);
	snapshot_units_destroy(&w->units);
	snapshot_image_destroy(&w->image);
}

int snapshot_write(const struct snapshot_options *options, const struct migration_vm *vm,
		   struct snapshot_progress *progress, struct snapshot_result *result,
		   struct error *err)
{
	struct snapshot_result unused = { 0 };
	uint64_t start = clock_ns();
	struct writing *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return error_set_errno(err, ENOMEM, "write snapshot %s", options->dir);
	w->options = options;
	w->vm = vm;
	w->progress = progress;
	w->result = result ? result : &unused;
	w->differential = options->base;
	w->ram = w->dir.fd = w->dir.parent = -1;
	*w->result = (struct snapshot_result){ .io = "" };
	snapshot_new_id(w->image.id);
	w->result->ram_bytes = guest_memory_size(vm->ops->memory(vm->opaque));
	if (progress)
		atomic_store(&progress->total, w->result->ram_bytes);
	enter(w, SNAPSHOT_PREPARING);
	r = write_all(w, err);
	if (r)
		error_prefix(err, "write snapshot %.200s", options->dir);
	w->result->live = w->result->pause_ns && options->live && !w->result->not_live[0];

	memcpy(w->result->id, w->image.id, sizeof(w->result->id));
	w->result->total_ns = clock_ns() - start;
	clean_up(w, r);
	if (!r)
		enter(w, SNAPSHOT_DONE);
	free(w);
	return r;
}
