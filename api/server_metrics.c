/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /metrics, in Prometheus' text format 0.0.4: all samples of one name together,
 * below its HELP and TYPE.
 */
#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api/server_internal.h"
#include "base/cleanup.h"

#define METRICS_MAX (1 * MIB)

static void head(struct strbuf *out, const char *name, const char *type, const char *help)
{
	strbuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void gauge(struct strbuf *out, const char *name, const char *help, uint64_t value)
{
	head(out, name, "gauge", help);
	strbuf_printf(out, "%s %" PRIu64 "\n", name, value);
}

static void label(struct strbuf *out, const char *name, const char *value)
{
	strbuf_printf(out, "{%s=\"", name);
	for (; *value; value++) {
		if (*value == '\n')
			strbuf_puts(out, "\\n");
		else if (*value == '"' || *value == '\\')
			strbuf_printf(out, "\\%c", *value);
		else
			strbuf_append(out, value, 1);
	}
	strbuf_puts(out, "\"}");
}

static void vm_state(struct api_server *server, struct strbuf *out)
{
	static const char *const names[] = {
		[VM_CREATED] = "Created",	[VM_RUNNING] = "Running",
		[VM_SHUTDOWN] = "Shutdown",	[VM_PAUSED] = "Paused",
		[VM_BREAKPOINT] = "BreakPoint",
	};
	enum vm_state state = VM_CREATED;
	bool there = !server->ops.state(server->vm, &state);

	gauge(out, "ferry_vm_created", "Whether there is a VM.", there);
	head(out, "ferry_vm_state", "gauge", "1 for the state the VM is in.");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		strbuf_puts(out, "ferry_vm_state");
		label(out, "state", names[i]);
		strbuf_printf(out, " %d\n", there && state == i);
	}
}

/* Counters' names become part of a metric's: letters, digits, underscores. */
static void put_name(struct strbuf *out, const char *counter)
{
	strbuf_puts(out, "ferry_device_");
	for (; *counter; counter++) {
		char c = isascii((unsigned char)*counter) && isalnum((unsigned char)*counter)
				 ? *counter
				 : '_';

		strbuf_append(out, &c, 1);
	}
	strbuf_puts(out, "_total");
}

static bool seen_before(json_t *devices, const char *device, const char *counter)
{
	const char *id;
	json_t *counters;

	json_object_foreach(devices, id, counters)
	{
		if (!strcmp(id, device))
			return false;
		if (json_object_get(counters, counter))
			return true;
	}
	return false;
}

static void one_counter(struct strbuf *out, json_t *devices, const char *counter)
{
	const char *id;
	json_t *counters;

	strbuf_puts(out, "# HELP ");
	put_name(out, counter);
	strbuf_puts(out, " Counter of a device, see vm.counters.\n# TYPE ");
	put_name(out, counter);
	strbuf_puts(out, " counter\n");
	json_object_foreach(devices, id, counters)
	{
		json_t *value = json_object_get(counters, counter);

		if (!json_is_integer(value))
			continue;
		put_name(out, counter);
		label(out, "device", id);
		strbuf_printf(out, " %lld\n", (long long)json_integer_value(value));
	}
}

static void device_counters(struct api_server *server, struct strbuf *out)
{
	struct error err = ERROR_INIT;
	json_t *devices = server->ops.counters(server->vm, &err), *counters, *value;
	const char *id, *counter;

	json_object_foreach(devices, id, counters)
	{
		json_object_foreach(counters, counter, value)
		{
			if (!seen_before(devices, id, counter))
				one_counter(out, devices, counter);
		}
	}
	json_decref(devices);
}

/* Resident bytes now; false where /proc is out of reach (a jail). */
static bool resident_bytes(uint64_t *bytes)
{
	_cleanup_close_ int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	unsigned long size, resident;
	char text[128];
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	if (sscanf(text, "%lu %lu", &size, &resident) != 2)
		return false;
	*bytes = (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
	return true;
}

static void process(struct api_server *server, struct strbuf *out)
{
	struct rusage usage = { 0 };
	uint64_t resident;

	getrusage(RUSAGE_SELF, &usage);
	head(out, "process_cpu_seconds_total", "counter", "CPU time of the process.");
	strbuf_printf(out, "process_cpu_seconds_total %.6f\n",
		      (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
			      (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	if (resident_bytes(&resident))
		gauge(out, "process_resident_memory_bytes", "Resident memory, guest RAM included.",
		      resident);
	gauge(out, "process_max_resident_memory_bytes", "Highest resident memory so far.",
	      (uint64_t)usage.ru_maxrss * KIB);
	gauge(out, "process_start_time_seconds", "Start, in seconds since the epoch.",
	      (uint64_t)server->start_time);
}

/* Of the one that goes on, or was the last. */
static void migration(struct api_server *server, struct strbuf *out)
{
	struct vm_migration_progress p = { .direction = VM_MIGRATION_DIRECTION_NONE };

	if (server->ops.migration)
		server->ops.migration(server->vm, &p);
	gauge(out, "ferry_migration_active", "Whether a migration or snapshot goes on.",
	      p.direction != VM_MIGRATION_DIRECTION_NONE && !vm_migration_phase_over(p.phase));
	if (p.direction == VM_MIGRATION_DIRECTION_NONE)
		return;
	gauge(out, "ferry_migration_postcopy", "1 while the VM runs and its memory follows.",
	      p.phase == VM_MIGRATION_PHASE_POSTCOPY);
	gauge(out, "ferry_migration_transferred_bytes", "Bytes over the wire, or to the file.",
	      p.transferred_bytes);
	gauge(out, "ferry_migration_remaining_bytes", "Bytes of RAM that are still to come.",
	      p.remaining_bytes);
	gauge(out, "ferry_migration_page_faults", "Pages that the VM had to wait for (postcopy).",
	      p.faults.count);
	gauge(out, "ferry_migration_page_fault_mean_microseconds",
	      "How long it waited for one on average.", p.faults.mean);
	gauge(out, "ferry_migration_page_fault_max_microseconds",
	      "How long it waited for one at most.", p.faults.max);
	gauge(out, "ferry_migration_recoveries", "How often lost connections were made anew.",
	      p.faults.recoveries);
}

static void api(struct api_server *server, struct strbuf *out)
{
	gauge(out, "ferry_api_connections", "Connections to the API.", server->connection_count);
	head(out, "ferry_api_responses_total", "counter",
	     "Responses of the API by class of status.");
	for (unsigned int i = 2; i <= 5; i++)
		if (i != 3)
			strbuf_printf(out, "ferry_api_responses_total{code=\"%uxx\"} %" PRIu64 "\n",
				      i, server->responses[i]);
}

void api_metrics_write(struct api_server *server, struct strbuf *out)
{
	out->max = METRICS_MAX;
	gauge(out, "ferry_up", "1 while ferry answers.", 1);
	head(out, "ferry_build_info", "gauge", "The version of ferry.");
	strbuf_puts(out, "ferry_build_info");
	label(out, "version", server->version);
	strbuf_puts(out, " 1\n");
	vm_state(server, out);
	device_counters(server, out);
	migration(server, out);
	api(server, out);
	process(server, out);
}
