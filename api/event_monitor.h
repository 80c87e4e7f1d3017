/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events as JSON objects, one after another with an empty line between, in Cloud
 * Hypervisor's form: { "timestamp": {secs, nanos}, "source": "vm", "event": "booted",
 * "properties": {...} | null }. Any thread; one write(2) each, non-blocking: a reader
 * that does not read loses events, the VM never waits.
 */
#ifndef API_EVENT_MONITOR_H
#define API_EVENT_MONITOR_H

#include <stdbool.h>

#include "base/error.h"
#include "base/kept.h"

struct event_monitor;

/* path (created, appended) or fd (taken over); both absent: NULL is a valid monitor. */
struct event_monitor *event_monitor_new(const char *path, int fd, struct error *err);
/* One that has nowhere to write yet: event_monitor_take() may bring it. */
struct event_monitor *event_monitor_new_silent(struct error *err);
/* It goes on in another process (live update): its descriptor and its clock, and at last
 * what did not fit of an event. take has no effect on one that writes somewhere. */
int event_monitor_keep(struct event_monitor *monitor, struct kept *kept, bool last,
		       struct error *err);
void event_monitor_take(struct event_monitor *monitor, struct kept *kept, bool last);
void event_monitor_free(struct event_monitor *monitor);
/* key/value string pairs, NULL-terminated. monitor may be NULL. */
void event_monitor_emit(struct event_monitor *monitor, const char *source, const char *event, ...)
	__attribute__((sentinel));

#endif
