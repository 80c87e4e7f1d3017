/* SPDX-License-Identifier: Apache-2.0 */
/* Replies as people read them. Fields that are missing, or of another type than
 * they should have, are left out: the reply is a peer's. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "api/ctl/ctl.h"
#include "base/bytes.h"
#include "base/strbuf.h"

#define WIDTH_MAX 40 /* a column that one long name does not push off the screen */
#define ROWS_MAX 4096

void ctl_print_text(FILE *out, const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if ((*p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7f) {
			putc('?', out);
		} else if (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) {
			/* C1 controls in UTF-8: some terminals obey them. */
			putc('?', out);
			p++;
		} else {
			putc(*p, out);
		}
	}
}

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* One line per row; columns are texts, or NULL for an empty one. */
struct table {
	unsigned int columns, rows;
	char **cells;
	bool number_last; /* the last column is aligned right */
};

static void table_row(struct table *table, ...)
{
	size_t used = (size_t)table->columns * table->rows;
	char **cells;
	va_list args;

	if (table->rows >= ROWS_MAX)
		return;
	cells = realloc(table->cells, (used + table->columns) * sizeof(*cells));
	if (!cells)
		return;
	table->cells = cells;
	va_start(args, table);
	for (unsigned int i = 0; i < table->columns; i++) {
		const char *text = va_arg(args, const char *);

		cells[used + i] = strdup(text ? text : "");
	}
	va_end(args);
	table->rows++;
}

static const char *cell(const struct table *table, unsigned int row, unsigned int column)
{
	const char *text = table->cells[row * table->columns + column];

	return text ? text : "";
}

static void pad(FILE *out, size_t len, size_t width)
{
	for (; len < width; len++)
		putc(' ', out);
}

static void table_line(const struct table *table, FILE *out, unsigned int row, const size_t *widths)
{
	unsigned int last = table->columns - 1;

	while (last && !*cell(table, row, last))
		last--;
	for (unsigned int c = 0; c <= last; c++) {
		const char *text = cell(table, row, c);

		if (c == table->columns - 1 && table->number_last)
			pad(out, strlen(text), widths[c]);
		ctl_print_text(out, text);
		if (c < last)
			pad(out, strlen(text), widths[c] + 2);
	}
	putc('\n', out);
}

static void table_free(struct table *table)
{
	for (size_t i = 0; i < (size_t)table->rows * table->columns; i++)
		free(table->cells[i]);
	free(table->cells);
	table->cells = NULL;
	table->rows = 0;
}

static void table_print(struct table *table, FILE *out)
{
	size_t widths[4] = { 0 };

	for (unsigned int r = 0; r < table->rows; r++)
		for (unsigned int c = 0; c < table->columns; c++) {
			size_t len = strlen(cell(table, r, c));

			widths[c] = MAX(widths[c], MIN(len, (size_t)WIDTH_MAX));
		}
	for (unsigned int r = 0; r < table->rows; r++)
		table_line(table, out, r, widths);
	table_free(table);
}

static void size_text(char *buf, size_t len, const json_t *value)
{
	static const struct {
		unsigned int shift;
		const char *unit;
	} units[] = { { 30, "GiB" }, { 20, "MiB" }, { 10, "KiB" } };
	uint64_t size;

	buf[0] = '\0';
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return;
	size = (uint64_t)json_integer_value(value);
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (size && !(size & ((1ULL << units[i].shift) - 1))) {
			snprintf(buf, len, "%" PRIu64 " %s", size >> units[i].shift, units[i].unit);
			return;
		}
	snprintf(buf, len, "%" PRIu64 " bytes", size);
}

void ctl_render_ping(FILE *out, int status, const json_t *body)
{
	const json_t *pid = json_object_get(body, "pid");
	const char *version = text_of(body, "version");

	fputs("ferry ", out);
	ctl_print_text(out, version ? version : "of unknown version");
	if (json_is_integer(pid))
		fprintf(out, ", pid %" JSON_INTEGER_FORMAT, json_integer_value(pid));
	putc('\n', out);
}

void ctl_render_place(FILE *out, int status, const json_t *body)
{
	const char *id = text_of(body, "id"), *bdf = text_of(body, "bdf");

	if (!id) {
		fputs("added; the VM has it when it boots\n", out);
		return;
	}
	ctl_print_text(out, id);
	if (bdf) {
		fputs(" at ", out);
		ctl_print_text(out, bdf);
	}
	putc('\n', out);
}

static void info_machine(struct table *table, const json_t *info, const json_t *config)
{
	const json_t *vcpus = json_object_get(json_object_get(config, "cpus"), "boot_vcpus");
	const json_t *payload = json_object_get(config, "payload");
	const json_t *size = json_object_get(json_object_get(config, "memory"), "size");
	const json_t *actual = json_object_get(info, "memory_actual_size");
	char text[64], memory[160];

	table_row(table, "State", text_of(info, "state"));
	if (json_is_integer(vcpus)) {
		snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(vcpus));
		table_row(table, "vCPUs", text);
	}
	size_text(memory, sizeof(memory), size);
	if (json_is_integer(actual) && !json_equal(actual, size)) {
		size_text(text, sizeof(text), actual);
		snprintf(memory + strlen(memory), sizeof(memory) - strlen(memory), ", %s in use",
			 text);
	}
	if (memory[0])
		table_row(table, "Memory", memory);
	if (text_of(payload, "kernel"))
		table_row(table, "Kernel", text_of(payload, "kernel"));
	if (text_of(payload, "initramfs"))
		table_row(table, "Initramfs", text_of(payload, "initramfs"));
	if (text_of(payload, "cmdline"))
		table_row(table, "Command line", text_of(payload, "cmdline"));
}

static void info_console(struct table *table, const char *name, const json_t *console)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT;
	const char *mode = text_of(console, "mode");
	const char *file = text_of(console, "file"), *socket = text_of(console, "socket");

	if (!mode)
		return;
	strbuf_puts(&text, mode);
	if (file || socket)
		strbuf_printf(&text, " %s", file ? file : socket);
	table_row(table, name, text.failed ? mode : text.data);
}

/* "net tap0, 2e:..." for the device of that id; "" where the configuration has none. */
static void describe(struct strbuf *text, const json_t *config, const char *id)
{
	const json_t *device, *vsock = json_object_get(config, "vsock");
	size_t i;

	json_array_foreach(json_object_get(config, "disks"), i, device)
	{
		const char *path = text_of(device, "path"), *own = text_of(device, "id");

		if (own && !strcmp(own, id))
			strbuf_printf(text, "disk %s%s", path ? path : "",
				      json_is_true(json_object_get(device, "readonly"))
					      ? " (read-only)"
					      : "");
	}
	json_array_foreach(json_object_get(config, "net"), i, device)
	{
		const char *tap = text_of(device, "tap"), *mac = text_of(device, "mac");
		const char *own = text_of(device, "id");

		if (own && !strcmp(own, id))
			strbuf_printf(text, "net %s%s%s", tap ? tap : "", tap && mac ? ", " : "",
				      mac ? mac : "");
	}
	json_array_foreach(json_object_get(config, "devices"), i, device)
	{
		const char *path = text_of(device, "path"), *own = text_of(device, "id");

		if (own && !strcmp(own, id))
			strbuf_printf(text, "device %s", path ? path : "(by descriptor)");
	}
	json_array_foreach(json_object_get(config, "user_devices"), i, device)
	{
		const char *socket = text_of(device, "socket"), *own = text_of(device, "id");

		if (own && !strcmp(own, id))
			strbuf_printf(text, "vfio-user %s", socket ? socket : "");
	}
	if (text_of(vsock, "id") && !strcmp(text_of(vsock, "id"), id)) {
		const char *socket = text_of(vsock, "socket");

		strbuf_printf(text, "vsock cid %" JSON_INTEGER_FORMAT "%s%s",
			      json_integer_value(json_object_get(vsock, "cid")), socket ? ", " : "",
			      socket ? socket : "");
	}
}

static void info_device(struct table *table, const json_t *config, const char *id, const char *bdf)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT;

	describe(&text, config, id);
	table_row(table, id, bdf ? bdf : "-", text.failed ? "" : text.data);
}

/* Devices of the configuration that a VM which is not booted has no place for yet. */
static void info_unplaced(struct table *table, const json_t *config, const json_t *tree)
{
	static const char *const lists[] = { "disks", "net", "devices", "user_devices" };
	const char *vsock = text_of(json_object_get(config, "vsock"), "id");
	const json_t *device;
	size_t k;

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		json_array_foreach(json_object_get(config, lists[i]), k, device)
		{
			const char *id = text_of(device, "id");

			if (id && !json_object_get(tree, id))
				info_device(table, config, id, NULL);
		}
	if (vsock && !json_object_get(tree, vsock))
		info_device(table, config, vsock, NULL);
}

void ctl_render_info(FILE *out, int status, const json_t *body)
{
	struct table machine = { .columns = 2 }, devices = { .columns = 3 };
	json_t *config = json_object_get(body, "config");
	json_t *tree = json_object_get(body, "device_tree"), *node;
	const char *id;

	info_machine(&machine, body, config);
	info_console(&machine, "Serial", json_object_get(config, "serial"));
	info_console(&machine, "Console", json_object_get(config, "console"));
	table_print(&machine, out);
	table_row(&devices, "DEVICE", "ADDRESS", "WHAT");
	json_object_foreach(tree, id, node)
	{
		info_device(&devices, config, id, text_of(node, "pci_bdf"));
	}
	info_unplaced(&devices, config, tree);
	if (devices.rows <= 1) {
		table_free(&devices);
		return;
	}
	putc('\n', out);
	table_print(&devices, out);
}

void ctl_render_counters(FILE *out, int status, const json_t *body)
{
	struct table table = { .columns = 3, .number_last = true };
	json_t *devices = (json_t *)body, *counters, *value;
	const char *id, *name;
	char text[32];

	table_row(&table, "DEVICE", "COUNTER", "VALUE");
	json_object_foreach(devices, id, counters)
	{
		json_object_foreach(counters, name, value)
		{
			if (!json_is_integer(value))
				continue;
			snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT,
				 json_integer_value(value));
			table_row(&table, id, name, text);
		}
	}
	table_print(&table, out);
}
