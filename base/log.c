/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

struct log {
	_Atomic int fd;
	bool owned;
	enum log_level level;
};

struct log *log_new(const char *path, enum log_level level, struct error *err)
{
	struct log *log = calloc(1, sizeof(*log));

	if (!log) {
		error_set_errno(err, ENOMEM, "create log");
		return NULL;
	}
	log->level = level;
	log->fd = STDERR_FILENO;
	if (path) {
		log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (log->fd < 0) {
			error_set_errno(err, errno, "open log file %s", path);
			free(log);
			return NULL;
		}
		log->owned = true;
	}
	return log;
}

void log_free(struct log *log)
{
	if (!log)
		return;
	if (log->owned)
		close(log->fd);
	free(log);
}

int log_keep(const struct log *log, struct kept *kept, struct error *err)
{
	return log && log->owned ? kept_add(kept, log->fd, NULL, 0, err, "@log") : 0;
}

void log_take(struct log *log, struct kept *kept)
{
	int fd = log && !log->owned ? kept_take(kept, "@log") : -1;

	if (fd < 0)
		return;
	log->fd = fd;
	log->owned = true;
}

bool log_enabled(const struct log *log, enum log_level level)
{
	return log && level <= log->level;
}

static void write_line(struct log *log, enum log_level level, const char *format, va_list args)
{
	static const char *const names[] = { "ERROR", "WARN", "INFO", "DEBUG" };
	char line[ERROR_MESSAGE_MAX + 128];
	char thread[17] = "";
	struct timespec now;
	struct tm tm;
	size_t used;
	int n;

	clock_gettime(CLOCK_REALTIME, &now);
	clock_utc(now.tv_sec, &tm);
	prctl(PR_GET_NAME, thread);
	n = snprintf(line, sizeof(line),
		     "%04d-%02d-%02dT%02d:%02d:%02d.%06ldZ %s %s: ", tm.tm_year + 1900,
		     tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		     now.tv_nsec / 1000, names[level], thread);
	used = (size_t)n;
	n = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
	if (n > 0)
		used += (size_t)n < sizeof(line) - used - 1 ? (size_t)n : sizeof(line) - used - 2;
	/* Guests and peers reach these messages: no control characters. */
	for (size_t i = 0; i < used; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[used++] = '\n';
	n = (int)write(log->fd, line, used);
	(void)n;
}

void log_write(struct log *log, enum log_level level, const char *format, ...)
{
	va_list args;

	if (!log_enabled(log, level))
		return;
	va_start(args, format);
	write_line(log, level, format, args);
	va_end(args);
}

void log_error(struct log *log, const char *context, const struct error *err)
{
	log_write(log, LOG_LEVEL_ERROR, "%s: %s", context, err->message);
}

void log_limited(struct log *log, struct log_limit *limit, enum log_level level, const char *format,
		 ...)
{
	unsigned int left = atomic_load(&limit->burst_left);
	va_list args;

	if (!log_enabled(log, level))
		return;
	while (left && !atomic_compare_exchange_weak(&limit->burst_left, &left, left - 1))
		;
	if (!left) {
		long long next = atomic_load(&limit->next_ns), t = (long long)clock_ns();

		if (t < next ||
		    !atomic_compare_exchange_strong(&limit->next_ns, &next, t + 1000000000LL))
			return;
	}
	va_start(args, format);
	write_line(log, level, format, args);
	va_end(args);
}
