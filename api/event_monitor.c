/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream must not break in the middle of an event: what a short write left over
 * goes first, and while it does not fit, new events are dropped whole.
 */
#include "api/event_monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/json_fields.h"
#include "base/fd.h"
#include "base/strbuf.h"

struct event_monitor {
	int fd;
	struct timespec start;
	pthread_mutex_t lock; /* guards rest and the order of writes */
	struct strbuf rest;
};

/* Both ends of a FIFO: opening succeeds without a reader, and a reader that comes
 * and goes neither fails our writes nor signals us. */
static int open_path(const char *path, struct error *err)
{
	struct stat st;
	int mode = !stat(path, &st) && S_ISFIFO(st.st_mode) ? O_RDWR : O_WRONLY;
	int fd = open(path, mode | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0600);

	return fd < 0 ? error_set_errno(err, errno, "open event monitor %s", path) : fd;
}

struct event_monitor *event_monitor_new(const char *path, int fd, struct error *err)
{
	struct event_monitor *monitor;
	int r;

	if (!path && fd < 0)
		return NULL;
	if (path) {
		fd = open_path(path, err);
		if (fd < 0)
			return NULL;
	} else if ((r = fd_set_nonblocking(fd, true))) {
		error_set_errno(err, r, "use fd %d as event monitor", fd);
		close(fd);
		return NULL;
	}
	monitor = calloc(1, sizeof(*monitor));
	if (!monitor) {
		error_set_errno(err, ENOMEM, "create event monitor");
		close(fd);
		return NULL;
	}
	monitor->fd = fd;
	clock_gettime(CLOCK_MONOTONIC, &monitor->start);
	pthread_mutex_init(&monitor->lock, NULL);
	return monitor;
}

struct event_monitor *event_monitor_new_silent(struct error *err)
{
	struct event_monitor *monitor = calloc(1, sizeof(*monitor));

	if (!monitor) {
		error_set_errno(err, ENOMEM, "create event monitor");
		return NULL;
	}
	monitor->fd = -1;
	clock_gettime(CLOCK_MONOTONIC, &monitor->start);
	pthread_mutex_init(&monitor->lock, NULL);
	return monitor;
}

int event_monitor_keep(struct event_monitor *monitor, struct kept *kept, bool last,
		       struct error *err)
{
	int r = 0;

	if (!monitor || monitor->fd < 0)
		return 0;
	if (!last)
		return kept_add(kept, monitor->fd, &monitor->start, sizeof(monitor->start), err,
				"@events");
	pthread_mutex_lock(&monitor->lock);
	/* What does not fit is an event cut short; its reader sees where the next begins. */
	if (monitor->rest.len && monitor->rest.len <= KEPT_DATA_MAX)
		r = kept_add(kept, -1, monitor->rest.data, monitor->rest.len, err, "@events/rest");
	pthread_mutex_unlock(&monitor->lock);
	return r;
}

void event_monitor_take(struct event_monitor *monitor, struct kept *kept, bool last)
{
	const struct timespec *start = kept_facts(kept, sizeof(*start), "@events");
	const void *rest;
	size_t len;

	if (!monitor)
		return;
	pthread_mutex_lock(&monitor->lock);
	if (!last && monitor->fd < 0 && start) {
		monitor->fd = kept_take(kept, "@events");
		memcpy(&monitor->start, start, sizeof(*start));
	}
	rest = last ? kept_bytes(kept, &len, "@events/rest") : NULL;
	if (rest)
		strbuf_append(&monitor->rest, rest, len);
	pthread_mutex_unlock(&monitor->lock);
}

void event_monitor_free(struct event_monitor *monitor)
{
	if (!monitor)
		return;
	if (monitor->fd >= 0)
		close(monitor->fd);
	strbuf_free(&monitor->rest);
	pthread_mutex_destroy(&monitor->lock);
	free(monitor);
}

static json_t *properties_of(va_list args)
{
	const char *key = va_arg(args, const char *);
	json_t *properties;

	if (!key)
		return json_null();
	properties = json_object();
	for (; properties && key; key = va_arg(args, const char *)) {
		const char *value = va_arg(args, const char *);

		json_object_set_new(properties, key, json_text(value ? value : ""));
	}
	return properties;
}

/* Since the monitor's start, as Cloud Hypervisor counts. */
static json_t *timestamp(const struct event_monitor *monitor)
{
	long long ns;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ns = (now.tv_sec - monitor->start.tv_sec) * 1000000000LL + now.tv_nsec -
	     monitor->start.tv_nsec;
	return json_pack("{s:I,s:I}", "secs", ns / 1000000000, "nanos", ns % 1000000000);
}

/* What fits now of the rest; true where nothing is left. */
static bool write_rest(struct event_monitor *monitor)
{
	while (monitor->rest.len) {
		ssize_t n = write(monitor->fd, monitor->rest.data, monitor->rest.len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		strbuf_consume(&monitor->rest, (size_t)n);
	}
	return true;
}

static void write_event(struct event_monitor *monitor, const char *text, size_t len)
{
	ssize_t n;

	pthread_mutex_lock(&monitor->lock);
	if (write_rest(monitor)) {
		do
			n = write(monitor->fd, text, len);
		while (n < 0 && errno == EINTR);
		if (n > 0 && (size_t)n < len)
			strbuf_append(&monitor->rest, text + n, len - (size_t)n);
	}
	pthread_mutex_unlock(&monitor->lock);
}

void event_monitor_emit(struct event_monitor *monitor, const char *source, const char *event, ...)
{
	_cleanup_strbuf_ struct strbuf out = STRBUF_INIT;
	json_t *json, *properties;
	char *text;
	va_list args;

	if (!monitor || monitor->fd < 0)
		return;
	va_start(args, event);
	properties = properties_of(args);
	va_end(args);
	json = json_pack("{s:o,s:o,s:o,s:o}", "timestamp", timestamp(monitor), "source",
			 json_text(source), "event", json_text(event), "properties", properties);
	text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
	json_decref(json);
	if (!text)
		return;
	strbuf_puts(&out, text);
	strbuf_puts(&out, "\n\n");
	free(text);
	if (!out.failed)
		write_event(monitor, out.data, out.len);
}
