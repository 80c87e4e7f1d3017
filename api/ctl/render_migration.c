/* SPDX-License-Identifier: Apache-2.0 */
/* vm.migration as people read it. As in render.c, what is missing is left out. */
#include <inttypes.h>
#include <string.h>

#include "api/ctl/ctl.h"
#include "base/bytes.h"
#include "base/strbuf.h"

#define LABEL_WIDTH 13
#define BAR_MIN 8
#define BAR_MAX 30
#define LINE_MAX 512

static uint64_t number(const json_t *object, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(object, key));

	return v > 0 ? (uint64_t)v : 0;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* "1.2 GiB" */
static void put_size(struct strbuf *s, uint64_t bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
	double v = (double)bytes;
	size_t unit = 0;

	while (v >= 1024 && unit < ARRAY_SIZE(units) - 1) {
		v /= 1024;
		unit++;
	}
	strbuf_printf(s, unit && v < 100 ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

/* "4.2 ms", "1.3 s" */
static void put_time(struct strbuf *s, uint64_t us)
{
	if (us < 1000)
		strbuf_printf(s, "%" PRIu64 " us", us);
	else if (us < 1000000)
		strbuf_printf(s, us < 100000 ? "%.1f ms" : "%.0f ms", (double)us / 1e3);
	else
		strbuf_printf(s, us < 100000000 ? "%.1f s" : "%.0f s", (double)us / 1e6);
}

static void put_rate(struct strbuf *s, uint64_t rate)
{
	put_size(s, rate);
	strbuf_puts(s, "/s");
}

static void print(FILE *out, const struct strbuf *s)
{
	if (!s->failed && s->data)
		ctl_print_text(out, s->data);
}

/* --- one line ------------------------------------------------------------------------- */

static unsigned int percent(const json_t *p)
{
	uint64_t all = number(p, "ram_bytes"), left = number(p, "remaining_bytes");

	if (!all || !json_object_get(p, "remaining_bytes") || left >= all)
		return 0;
	return (unsigned int)((double)(all - left) * 100 / (double)all);
}

static void put_details(struct strbuf *s, const json_t *p)
{
	strbuf_printf(s, " %3u%% %s", percent(p), text_of(p, "phase"));
	if (number(p, "round"))
		strbuf_printf(s, " %" PRIu64, number(p, "round"));
	if (number(p, "rate")) {
		strbuf_puts(s, ", ");
		put_rate(s, number(p, "rate"));
	}
	if (number(p, "dirty_rate")) {
		strbuf_puts(s, ", dirty ");
		put_rate(s, number(p, "dirty_rate"));
	}
	if (number(p, "expected_downtime_us")) {
		strbuf_puts(s, ", downtime ");
		put_time(s, number(p, "expected_downtime_us"));
	}
	if (!strcmp(text_of(p, "phase"), "postcopy"))
		strbuf_printf(s, ", %" PRIu64 " page faults",
			      number(json_object_get(p, "faults_us"), "count"));
	if (number(p, "throttle"))
		strbuf_printf(s, ", throttled %" PRIu64 "%%", number(p, "throttle"));
	if (json_is_true(json_object_get(p, "cancelling")))
		strbuf_puts(s, ", cancelling");
}

void ctl_render_bar(FILE *out, const json_t *progress, unsigned int width)
{
	_cleanup_strbuf_ struct strbuf details = { .max = LINE_MAX },
				       line = { .max = 2 * LINE_MAX };
	unsigned int bar, filled;

	put_details(&details, progress);
	if (details.failed)
		return;
	if (details.len + BAR_MIN + 2 <= width) {
		bar = MIN((unsigned int)(width - details.len - 2), (unsigned int)BAR_MAX);
		filled = bar * percent(progress) / 100;
		strbuf_puts(&line, "[");
		for (unsigned int i = 0; i < bar; i++)
			strbuf_puts(&line, i < filled ? "#" : "-");
		strbuf_puts(&line, "]");
	}
	strbuf_puts(&line, details.data + (line.len ? 0 : 1));
	if (line.failed)
		return;
	/* What does not fit would wrap, and drawing over it would not. */
	if (line.len > width)
		line.data[width] = '\0';
	for (char *c = line.data; *c; c++)
		if (*c == '\n' || *c == '\t')
			*c = ' ';
	print(out, &line);
}

/* --- in full --------------------------------------------------------------------------- */

static void put_downtime_parts(struct strbuf *s, const json_t *downtime)
{
	static const struct {
		const char *key, *name;
	} parts[] = {
		{ "stop", "stop" },   { "devices", "devices" },	   { "memory", "memory" },
		{ "state", "state" }, { "handover", "hand-over" },
	};
	const char *separator = " (";

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!number(downtime, parts[i].key))
			continue;
		strbuf_printf(s, "%s%s ", separator, parts[i].name);
		put_time(s, number(downtime, parts[i].key));
		separator = ", ";
	}
	if (*separator == ',')
		strbuf_puts(s, ")");
}

static void print_line(FILE *out, const char *label, struct strbuf *s)
{
	if (s->len && !s->failed) {
		fprintf(out, "%-*s", LABEL_WIDTH, label);
		ctl_print_text(out, s->data);
		putc('\n', out);
	}
	strbuf_free(s);
	*s = (struct strbuf){ .max = LINE_MAX };
}

static void put_ram(struct strbuf *s, const json_t *p)
{
	uint64_t all = number(p, "ram_bytes"), left = number(p, "remaining_bytes");

	if (!all)
		return;
	put_size(s, all);
	if (left) {
		strbuf_puts(s, ", ");
		put_size(s, left);
		strbuf_puts(s, " to go");
	}
}

static void put_transferred(struct strbuf *s, const json_t *p)
{
	if (!json_object_get(p, "transferred_bytes"))
		return;
	put_size(s, number(p, "transferred_bytes"));
	if (number(p, "pages") || number(p, "zero_pages"))
		strbuf_printf(s, ", %" PRIu64 " pages, %" PRIu64 " zero pages", number(p, "pages"),
			      number(p, "zero_pages"));
	if (number(p, "elapsed_ms")) {
		strbuf_puts(s, " in ");
		put_time(s, number(p, "elapsed_ms") * 1000);
	}
}

static void print_connections(FILE *out, const json_t *p)
{
	struct strbuf s = { .max = LINE_MAX };
	const json_t *connection;
	char label[32];
	size_t i;

	json_array_foreach(json_object_get(p, "connections"), i, connection)
	{
		snprintf(label, sizeof(label), "Connection %zu", i);
		put_size(&s, number(connection, "bytes"));
		strbuf_puts(&s, ", ");
		put_rate(&s, number(connection, "rate"));
		print_line(out, label, &s);
	}
	strbuf_free(&s);
}

static void print_speed(FILE *out, const json_t *p)
{
	struct strbuf s = { .max = LINE_MAX };

	if (number(p, "rate"))
		put_rate(&s, number(p, "rate"));
	print_line(out, "Rate", &s);
	if (number(p, "dirty_rate"))
		put_rate(&s, number(p, "dirty_rate"));
	print_line(out, "Dirty rate", &s);
	if (number(p, "throttle"))
		strbuf_printf(&s, "%" PRIu64 "%%", number(p, "throttle"));
	print_line(out, "Throttled", &s);
	strbuf_free(&s);
}

static void print_downtime(FILE *out, const json_t *p)
{
	const json_t *downtime = json_object_get(p, "downtime_us");
	struct strbuf s = { .max = LINE_MAX };

	if (number(downtime, "total")) {
		put_time(&s, number(downtime, "total"));
		put_downtime_parts(&s, downtime);
	} else if (number(p, "expected_downtime_us")) {
		put_time(&s, number(p, "expected_downtime_us"));
		strbuf_puts(&s, " expected");
	}
	print_line(out, "Downtime", &s);
	strbuf_free(&s);
}

/* "812 page faults, mean 210 us, longest 3.1 ms" */
static void put_faults(struct strbuf *s, const json_t *p)
{
	const json_t *faults = json_object_get(p, "faults_us");

	if (!faults)
		return;
	strbuf_printf(s, "%" PRIu64 " page faults", number(faults, "count"));
	if (number(faults, "max")) {
		strbuf_puts(s, ", mean ");
		put_time(s, number(faults, "mean"));
		strbuf_puts(s, ", longest ");
		put_time(s, number(faults, "max"));
	}
	if (number(faults, "recoveries"))
		strbuf_printf(s, ", reconnected %" PRIu64 " time%s", number(faults, "recoveries"),
			      number(faults, "recoveries") == 1 ? "" : "s");
}

void ctl_render_migration(FILE *out, int status, const json_t *p)
{
	struct strbuf s = { .max = LINE_MAX };

	if (!strcmp(text_of(p, "direction"), "none")) {
		fputs("nothing was migrated, saved or restored yet\n", out);
		return;
	}
	strbuf_printf(&s, "%.40s: %.40s", text_of(p, "direction"), text_of(p, "phase"));
	if (number(p, "round"))
		strbuf_printf(&s, ", round %" PRIu64, number(p, "round"));
	if (json_is_true(json_object_get(p, "cancelling")))
		strbuf_puts(&s, ", cancelling");
	print_line(out, "State", &s);
	strbuf_printf(&s, "%.480s", text_of(p, "error"));
	print_line(out, "Error", &s);
	strbuf_printf(&s, "%.480s", text_of(p, "note"));
	print_line(out, "Note", &s);
	put_ram(&s, p);
	print_line(out, "RAM", &s);
	put_transferred(&s, p);
	print_line(out, "Transferred", &s);
	strbuf_free(&s);
	print_speed(out, p);
	print_downtime(out, p);
	s = (struct strbuf){ .max = LINE_MAX };
	put_faults(&s, p);
	print_line(out, "Postcopy", &s);
	strbuf_free(&s);
	print_connections(out, p);
}

void ctl_render_summary(FILE *out, const json_t *p)
{
	static const struct {
		const char *direction, *done, *moved;
	} words[] = {
		{ "send", "migrated", "sent" },
		{ "receive", "received", "received" },
		{ "snapshot", "saved", "written" },
		{ "restore", "restored", "read" },
	};
	_cleanup_strbuf_ struct strbuf s = { .max = 2 * LINE_MAX };
	const json_t *downtime = json_object_get(p, "downtime_us");
	uint64_t elapsed = number(p, "elapsed_ms");
	size_t i = 0;

	while (i < ARRAY_SIZE(words) && strcmp(words[i].direction, text_of(p, "direction")))
		i++;
	if (i == ARRAY_SIZE(words))
		return;
	strbuf_printf(&s, "%s in ", words[i].done);
	put_time(&s, elapsed * 1000);
	strbuf_puts(&s, ": ");
	put_size(&s, number(p, "transferred_bytes"));
	strbuf_printf(&s, " %s", words[i].moved);
	if (number(p, "round"))
		strbuf_printf(&s, " in %" PRIu64 " round%s", number(p, "round"),
			      number(p, "round") == 1 ? "" : "s");
	if (elapsed) {
		strbuf_puts(&s, ", ");
		put_rate(&s, number(p, "transferred_bytes") * 1000 / elapsed);
	}
	if (number(downtime, "total")) {
		strbuf_puts(&s, ", downtime ");
		put_time(&s, number(downtime, "total"));
		put_downtime_parts(&s, downtime);
	}
	if (json_object_get(p, "faults_us")) {
		strbuf_puts(&s, ", ");
		put_faults(&s, p);
	}
	strbuf_puts(&s, "\n");
	if (*text_of(p, "note"))
		strbuf_printf(&s, "%.256s\n", text_of(p, "note"));
	print(out, &s);
}
