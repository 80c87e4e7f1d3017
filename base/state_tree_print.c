/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree as text. Its properties have no types: text is what is printable and ends in
 * zero, a number what has 4 or 8 bytes, and the rest bytes, the first of them and a
 * checksum of all.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <libfdt.h>
#include <stdio.h>
#include <string.h>

#include "base/state_tree_private.h"

#define BYTES_SHOWN 32

/* CRC-32 (IEEE 802.3), bit by bit: as good as `crc32` of the property's bytes. */
static uint32_t checksum(const uint8_t *data, size_t len)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < len; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

/* One or more texts, none of them empty; or one that is. */
static bool is_text(const char *data, size_t len)
{
	if (!len || data[len - 1])
		return false;
	if (len == 1)
		return true;
	for (size_t i = 0; i < len; i++) {
		bool end = !data[i] && i && data[i - 1];

		if (!end && data[i] != '\n' && data[i] != '\t' && (data[i] < ' ' || data[i] > '~'))
			return false;
	}
	return true;
}

static void print_text(FILE *out, const char *data, size_t len)
{
	fputc('"', out);
	for (size_t i = 0; i < len - 1; i++) {
		switch (data[i]) {
		case '\0': fputs("\", \"", out); break;
		case '\n': fputs("\\n", out); break;
		case '\t': fputs("\\t", out); break;
		case '"':
		case '\\': fputc('\\', out); /* fallthrough */
		default: fputc(data[i], out);
		}
	}
	fputc('"', out);
}

static void print_bytes(FILE *out, const uint8_t *data, size_t len)
{
	fputc('[', out);
	for (size_t i = 0; i < len && i < BYTES_SHOWN; i++)
		fprintf(out, i ? " %02x" : "%02x", data[i]);
	if (len > BYTES_SHOWN)
		fprintf(out, " ...] %zu bytes, crc32 %08" PRIx32, len, checksum(data, len));
	else
		fputc(']', out);
}

static void print_number(FILE *out, uint64_t number)
{
	fprintf(out, "%" PRIu64, number);
	if (number > 9)
		fprintf(out, " (0x%" PRIx64 ")", number);
}

static void print_value(FILE *out, const void *data, size_t len)
{
	uint32_t narrow;
	uint64_t wide;

	if (is_text(data, len)) {
		print_text(out, data, len);
	} else if (len == sizeof(narrow)) {
		memcpy(&narrow, data, sizeof(narrow));
		print_number(out, be32toh(narrow));
	} else if (len == sizeof(wide)) {
		memcpy(&wide, data, sizeof(wide));
		print_number(out, be64toh(wide));
	} else {
		print_bytes(out, data, len);
	}
}

static void print_properties(FILE *out, const struct state_node *node, int indent)
{
	int offset;

	fdt_for_each_property_offset(offset, node->blob, node->offset)
	{
		const char *name;
		int len;
		const void *data = fdt_getprop_by_offset(node->blob, offset, &name, &len);

		if (!data || !strcmp(name, STATE_COMPATIBLE) || !strcmp(name, STATE_VERSION))
			continue;
		fprintf(out, "%*s%s = ", indent, "", name);
		print_value(out, data, (size_t)len);
		fputc('\n', out);
	}
}

static void print_title(FILE *out, const struct state_node *node, int indent)
{
	const char *kind, *name = state_name(node);
	uint32_t version;

	fprintf(out, "%*s%s: ", indent, "", *name ? name : "/");
	if (state_get_string(node, STATE_COMPATIBLE, &kind, NULL))
		fputs("(no kind)", out);
	else
		print_text(out, kind, strlen(kind) + 1);
	if (!state_get_u32(node, STATE_VERSION, &version, NULL))
		fprintf(out, " version %" PRIu32, version);
	fputc('\n', out);
}

/* Recursion is as deep as state_tree_open lets a tree be. */
static void print_node(FILE *out, const struct state_node *node, int indent)
{
	struct state_node child = { .offset = -1 };

	print_title(out, node, indent);
	print_properties(out, node, indent + 2);
	while (state_next_child(node, &child))
		print_node(out, &child, indent + 2);
}

int state_tree_print(const void *blob, size_t len, void *out, struct error *err)
{
	struct state_node root;
	int rc = state_tree_open(blob, len, &root, err);

	if (rc)
		return rc;
	print_node(out, &root, 0);
	return 0;
}
