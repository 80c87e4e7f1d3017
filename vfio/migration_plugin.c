/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin backend: its process, and the states of a device out of band. */
#include "vfio/migration_plugin.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vfio/migration_plugin_private.h"
#include "vfio/plugin/vfio_lm_plugin.h"

#define STOP VFIO_LM_STATE_STOP
#define RUNNING VFIO_LM_STATE_RUNNING
#define SAVING VFIO_LM_STATE_SAVING
#define RESUMING VFIO_LM_STATE_RESUMING

static struct plugin_migration *to_plugin(struct migratable *m)
{
	return container_of(device_migration_of(m), struct plugin_migration, dm);
}

static void append(struct error *err, const char *format, int number, const char *text)
{
	size_t len;

	if (!err)
		return;
	len = strlen(err->message);
	snprintf(err->message + len, sizeof(err->message) - len, format, number, text);
}

/* Ends the process; by what it ended, if it did so by itself, is added to err. */
static void end_process(struct plugin_migration *p, struct error *err)
{
	int status;

	if (!p->alive)
		return;
	status = p->host ? plugin_host_end(p->host, &p->process) : -1;
	p->alive = false;
	if (!err || err->code == -ETIMEDOUT || status < 0)
		return;
	if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
		append(err, " (signal %d, %s)", WTERMSIG(status),
		       sigdescr_np(WTERMSIG(status)) ?: "unknown");
	else if (WIFEXITED(status))
		append(err, " (it called exit(%d)%s)", WEXITSTATUS(status), "");
}

int plugin_call(struct plugin_migration *p, enum plugin_call type, uint64_t in, uint32_t len,
		uint64_t *value, struct error *err)
{
	struct error own = ERROR_INIT;
	uint32_t flags = 0;
	int r;

	err = err ? err : &own;
	if (!p->alive)
		return error_set(err, ECONNRESET, "its process is gone");
	r = plugin_channel_call(&p->channel, type, in, len, value, &flags, err);
	if (r && p->channel.broken)
		end_process(p, err);
	if (type == PLUGIN_INIT && flags & PLUGIN_NO_LANDLOCK)
		log_warn(p->dm.log,
			 "device %s: plugin %s: this kernel has no Landlock: it can read what "
			 "ferry's user can",
			 p->dm.m.id, p->path);
	return r;
}

/* Who it was, in front of what happened. */
static int named(struct plugin_migration *p, int r, struct error *err)
{
	if (r < 0)
		error_prefix(err, "device %s: plugin %s", p->dm.m.id, p->path);
	return r;
}

static int call_init(struct plugin_migration *p, struct error *err)
{
	size_t device = strlen(p->device) + 1, arg = p->arg ? strlen(p->arg) + 1 : 0;

	if (device + arg > PLUGIN_WINDOW_SIZE)
		return error_set(err, E2BIG, "its argument is too long");
	memcpy(p->process.window, p->device, device);
	if (arg)
		memcpy(p->process.window + device, p->arg, arg);
	return plugin_call(p, PLUGIN_INIT, p->arg != NULL, (uint32_t)(device + arg), NULL, err);
}

static void attach(struct plugin_migration *p, const struct plugin_process *process)
{
	p->process = *process;
	p->alive = true;
	p->channel = (struct plugin_channel){ .sock = process->sock,
					      .window = process->window,
					      .timeout_ms = p->timeout_ms };
}

/* A new process, initialised. */
static int start(struct plugin_migration *p, struct error *err)
{
	struct plugin_process process;
	int r;

	end_process(p, NULL);
	r = plugin_host_start(p->host, p->path, &process, err);
	if (r)
		return r;
	attach(p, &process);
	r = call_init(p, err);
	if (r)
		end_process(p, NULL);
	return r;
}

/* cleanup(), whose failure is of no consequence any more, and the end. */
static void finish(struct plugin_migration *p)
{
	struct error err = ERROR_INIT;

	if (p->alive && plugin_call(p, PLUGIN_CLEANUP, 0, 0, NULL, &err))
		log_warn(p->dm.log, "device %s: plugin %s: %s", p->dm.m.id, p->path, err.message);
	end_process(p, NULL);
}

static int check_state(struct plugin_migration *p, struct error *err)
{
	uint64_t state = 0;
	int r = plugin_call(p, PLUGIN_GET_STATE, 0, 0, &state, err);

	if (r)
		return r;
	if (state == (SAVING | RESUMING))
		return error_set(err, EIO, "get_state() says that the device has failed: reset it");
	if (state > RESUMING)
		return error_set(err, EPROTO, "get_state() says 0x%llx, which is no state",
				 (unsigned long long)state);
	return 0;
}

static int set_state(struct plugin_migration *p, uint32_t state, struct error *err)
{
	int r = check_state(p, err);

	if (!r) {
		p->touched = true;
		r = plugin_call(p, PLUGIN_SET_STATE, state, 0, NULL, err);
	}
	return r;
}

static int save_begin(struct migratable *m, struct error *err)
{
	struct plugin_migration *p = to_plugin(m);
	int r;

	pthread_mutex_lock(&p->lock);
	plugin_stream_begin(p);
	p->touched = false;
	r = start(p, err);
	if (!r)
		r = set_state(p, RUNNING | SAVING, err);
	pthread_mutex_unlock(&p->lock);
	return named(p, r, err);
}

/* Beside a save() that is under way there is nothing to ask: its rest is what there is. */
static int save_pending(struct migratable *m, struct migratable_pending *pending, struct error *err)
{
	struct plugin_migration *p = to_plugin(m);
	uint64_t bytes;
	int r = 0;

	*pending = (struct migratable_pending){ 0 };
	if (pthread_mutex_trylock(&p->lock)) {
		pending->dirty = pending->stop_copy = PLUGIN_WINDOW_SIZE;
		return 0;
	}
	bytes = p->left;
	if (!bytes && !p->ended)
		r = plugin_call(p, PLUGIN_PENDING, 0, 0, &bytes, err);
	/* Whatever it says: sums of it do not overflow. */
	bytes = MIN(bytes, UINT64_MAX / 4) + p->head_len - p->head_at + p->data_len - p->data_at;
	pthread_mutex_unlock(&p->lock);
	if (r)
		return named(p, r, err);
	pending->dirty = p->stopped ? 0 : bytes;
	pending->stop_copy = bytes;
	return 0;
}

static ssize_t save_read(struct migratable *m, void *buf, size_t len, struct error *err)
{
	struct plugin_migration *p = to_plugin(m);
	ssize_t n;

	pthread_mutex_lock(&p->lock);
	n = plugin_stream_read(p, buf, len, err);
	pthread_mutex_unlock(&p->lock);
	return n < 0 ? named(p, (int)n, err) : n;
}

/* The interface has no state between running and stopped. */
static int nothing(struct migratable *m, struct error *err)
{
	return 0;
}

static int save_stop(struct migratable *m, struct error *err)
{
	struct plugin_migration *p = to_plugin(m);
	int r;

	pthread_mutex_lock(&p->lock);
	r = set_state(p, SAVING, err);
	p->stopped = !r;
	/* What there is to save is another question now. */
	p->left = 0;
	pthread_mutex_unlock(&p->lock);
	return named(p, r, err);
}

static int save_end(struct migratable *m, struct error *err)
{
	struct plugin_migration *p = to_plugin(m);
	int r;

	pthread_mutex_lock(&p->lock);
	r = set_state(p, STOP, err);
	pthread_mutex_unlock(&p->lock);
	return named(p, r, err);
}

static int rollback(struct migratable *m, struct error *err)
{
	struct plugin_migration *p = to_plugin(m);
	int r = 0;

	pthread_mutex_lock(&p->lock);
	if (p->touched) {
		r = p->alive ? set_state(p, RUNNING, err) : -ECONNRESET;
		/* A process that failed has a successor, which may do better. */
		if (r) {
			error_clear(err);
			r = start(p, err);
			if (!r)
				r = set_state(p, RUNNING, err);
		}
	}
	finish(p);
	p->touched = r != 0;
	pthread_mutex_unlock(&p->lock);
	if (r)
		error_prefix(err, "device %s cannot be set running again, reset it: plugin %s",
			     p->dm.m.id, p->path);
	return r;
}

static int load_begin(struct migratable *m, struct error *err)
{
	struct plugin_migration *p = to_plugin(m);
	int r;

	pthread_mutex_lock(&p->lock);
	plugin_stream_begin(p);
	r = start(p, err);
	if (!r)
		r = set_state(p, RESUMING, err);
	pthread_mutex_unlock(&p->lock);
	return named(p, r, err);
}

static int load_write(struct migratable *m, const void *buf, size_t len, struct error *err)
{
	struct plugin_migration *p = to_plugin(m);
	int r;

	pthread_mutex_lock(&p->lock);
	r = plugin_stream_write(p, buf, len, err);
	pthread_mutex_unlock(&p->lock);
	return named(p, r, err);
}

static int load_end(struct migratable *m, struct error *err)
{
	struct plugin_migration *p = to_plugin(m);
	int r;

	pthread_mutex_lock(&p->lock);
	if (p->ended)
		r = check_state(p, err);
	else
		r = error_set(err, EBADMSG, "the stream ends too early");
	pthread_mutex_unlock(&p->lock);
	return named(p, r, err);
}

static int run(struct migratable *m, struct error *err)
{
	struct plugin_migration *p = to_plugin(m);
	int r;

	pthread_mutex_lock(&p->lock);
	r = set_state(p, RUNNING, err);
	if (!r) {
		p->touched = false;
		finish(p);
	}
	pthread_mutex_unlock(&p->lock);
	return named(p, r, err);
}

static const struct migratable_ops plugin_ops = {
	.kind = "plugin",
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

static void free_plugin(struct device_migration *dm)
{
	struct plugin_migration *p = container_of(dm, struct plugin_migration, dm);

	finish(p);
	pthread_mutex_destroy(&p->lock);
	free(p->path);
	free(p->arg);
	free(p);
}

static struct plugin_migration *new_plugin(const char *device, unsigned int timeout_ms,
					   const struct device_migration_options *options)
{
	struct plugin_migration *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	device_migration_init(&p->dm, &plugin_ops, free_plugin, NULL, options);
	p->dm.m.precopy = true;
	snprintf(p->device, sizeof(p->device), "%s", device);
	p->host = options->plugin_host;
	p->timeout_ms = timeout_ms;
	p->process.sock = -1;
	pthread_mutex_init(&p->lock, NULL);
	plugin_stream_begin(p);
	p->path = strdup(options->plugin_path);
	p->arg = options->plugin_arg ? strdup(options->plugin_arg) : NULL;
	if (p->path && (p->arg || !options->plugin_arg))
		return p;
	free_plugin(&p->dm);
	return NULL;
}

struct plugin_migration *migration_plugin_attach(int sock, uint8_t *window, struct error *err)
{
	const struct device_migration_options options = { .id = "test", .plugin_path = "test.so" };
	struct plugin_migration *p = new_plugin("test", 1000, &options);

	if (!p) {
		error_set_errno(err, ENOMEM, "plugin");
		return NULL;
	}
	attach(p, &(struct plugin_process){ .sock = sock, .window = window });
	return p;
}

struct device_migration *migration_plugin_new_for(const char *device, unsigned int timeout_ms,
						  const struct device_migration_options *options,
						  struct error *err)
{
	struct plugin_migration *p;

	if (!options->plugin_host) {
		error_set(err, EACCES,
			  "%s: plugin %s: plugins are not allowed: start ferry with --plugins",
			  device, options->plugin_path);
		return NULL;
	}
	p = new_plugin(device, timeout_ms, options);
	if (!p) {
		error_set_errno(err, ENOMEM, "%s: plugin", device);
		return NULL;
	}
	if (start(p, err)) {
		error_prefix(err, "%s: plugin %s", device, p->path);
		free_plugin(&p->dm);
		return NULL;
	}
	finish(p);
	return &p->dm;
}

struct device_migration *migration_plugin_new(struct vfio_transport *transport,
					      const struct device_migration_options *options,
					      struct error *err)
{
	struct device_migration *dm =
		migration_plugin_new_for(transport->name, MIGRATABLE_STEP_MS, options, err);

	if (dm)
		dm->transport = transport;
	return dm;
}
