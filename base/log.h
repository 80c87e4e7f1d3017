/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: lines "time level thread: message" to one file descriptor.
 *
 * A logger is created by main() and handed down; there is no global one. Any
 * thread may log; a line is one write(2), so lines of several threads do not
 * mix. log_* accept log == NULL and then do nothing. Messages a guest can cause
 * at will go through log_limited(), so that it cannot fill the host's disk.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/kept.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

struct log;

/* Opens (appends to) path, or stderr where path is NULL. */
struct log *log_new(const char *path, enum log_level level, struct error *err);
void log_free(struct log *log);
/* Another process goes on writing it (live update): a file that was opened here; and what
 * came along so is written from now on, unless this one was given a file of its own. */
int log_keep(const struct log *log, struct kept *kept, struct error *err);
void log_take(struct log *log, struct kept *kept);
bool log_enabled(const struct log *log, enum log_level level);

void log_write(struct log *log, enum log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Logs `err` as "<context>: <message>". */
void log_error(struct log *log, const char *context, const struct error *err);

/* At most `burst` lines of one limiter; afterwards one line a second. */
struct log_limit {
	atomic_uint burst_left; /* initialise to the burst wanted */
	atomic_llong next_ns;
};
#define LOG_LIMIT_INIT(n) \
	{ \
		.burst_left = (n) \
	}
void log_limited(struct log *log, struct log_limit *limit, enum log_level level, const char *format,
		 ...) __attribute__((format(printf, 4, 5)));

#define log_err(log, ...) log_write(log, LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(log, ...) log_write(log, LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(log, ...) log_write(log, LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(log, ...) log_write(log, LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
