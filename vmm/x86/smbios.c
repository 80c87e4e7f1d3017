/* SPDX-License-Identifier: Apache-2.0 */
/* SMBIOS 3.0 (DMTF DSP0134): entry point (5.2.2) and types 0, 1, 11, 127. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/checksum.h"
#include "vmm/x86/layout.h"

#define ENTRY_POINT_SIZE 24
#define STRUCTURES_OFFSET 32
#define AREA_SIZE (X86_SMBIOS_END - X86_SMBIOS_BASE)
#define STRINGS_MAX 255

struct area {
	uint8_t *data;
	size_t len;
	bool failed; /* out of room */
	uint16_t handle;
};

static void put(struct area *area, const void *bytes, size_t len)
{
	if (area->failed || len > AREA_SIZE - area->len) {
		area->failed = true;
		return;
	}
	if (len)
		memcpy(area->data + area->len, bytes, len);
	area->len += len;
}

/* The formatted part; its strings follow by put_string, then end(). */
static void begin(struct area *area, uint8_t type, const void *body, uint8_t size)
{
	uint8_t header[4] = { type, (uint8_t)(size + sizeof(header)) };

	store_le16(header + 2, area->handle++);
	put(area, header, sizeof(header));
	put(area, body, size);
}

static void put_string(struct area *area, const char *text)
{
	put(area, text, strlen(text) + 1);
}

static void end(struct area *area, bool strings)
{
	put(area, "\0", strings ? 1 : 2);
}

static void put_bios(struct area *area)
{
	uint8_t body[0x18 - 4] = { 0 };

	body[0x04 - 4] = 1;		     /* vendor */
	body[0x05 - 4] = 2;		     /* version */
	body[0x08 - 4] = 3;		     /* release date */
	store_le64(body + 0x0a - 4, 1 << 3); /* characteristics: not supported */
	body[0x13 - 4] = 1 << 4;	     /* extension 2: a virtual machine */
	begin(area, 0, body, sizeof(body));
	put_string(area, "Ferry");
	put_string(area, "1");
	put_string(area, "01/01/2026");
	end(area, true);
}

static int parse_uuid(const char *text, uint8_t uuid[16])
{
	static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	static const char digits[] = "0123456789abcdef";

	for (unsigned int i = 0; i < 16; i++) {
		unsigned int value = 0;

		if (i == 4 || i == 6 || i == 8 || i == 10)
			if (*text++ != '-')
				return -EINVAL;
		for (unsigned int n = 0; n < 2; n++, text++) {
			const char *digit = *text ? strchr(digits, *text | 0x20) : NULL;

			if (!digit)
				return -EINVAL;
			value = value << 4 | (unsigned int)(digit - digits);
		}
		uuid[order[i]] = (uint8_t)value;
	}
	return *text ? -EINVAL : 0;
}

static int put_system(struct area *area, const struct x86_smbios_options *options,
		      struct error *err)
{
	const char *serial = options->serial_number;
	uint8_t body[0x1b - 4] = { 0 };

	body[0x04 - 4] = 1; /* manufacturer */
	body[0x05 - 4] = 2; /* product */
	body[0x06 - 4] = 3; /* version */
	body[0x07 - 4] = serial && *serial ? 4 : 0;
	if (options->uuid && parse_uuid(options->uuid, body + 0x08 - 4))
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "platform uuid \"%.64s\": not 8-4-4-4-12 hexadecimal digits",
				      options->uuid);
	body[0x18 - 4] = 0x6; /* woken by the power switch */
	begin(area, 1, body, sizeof(body));
	put_string(area, "Ferry");
	put_string(area, "microVM");
	put_string(area, "1");
	if (serial && *serial)
		put_string(area, serial);
	end(area, true);
	return 0;
}

static int put_oem_strings(struct area *area, const struct x86_smbios_options *options,
			   struct error *err)
{
	uint8_t count = (uint8_t)options->oem_string_count;

	if (!options->oem_string_count)
		return 0;
	if (options->oem_string_count > STRINGS_MAX)
		return error_set_kind(err, ERROR_BAD_REQUEST, E2BIG,
				      "platform oem_strings: %u strings, at most %u are possible",
				      options->oem_string_count, STRINGS_MAX);
	begin(area, 11, &count, 1);
	for (unsigned int i = 0; i < options->oem_string_count; i++) {
		/* An empty string would end the list. */
		if (!options->oem_strings[i] || !*options->oem_strings[i])
			return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
					      "platform oem_strings: string %u is empty", i + 1);
		put_string(area, options->oem_strings[i]);
	}
	end(area, true);
	return 0;
}

static void write_entry_point(uint8_t *to, size_t structures_size)
{
	memcpy(to, "_SM3_", 5);
	to[6] = ENTRY_POINT_SIZE;
	to[7] = 3; /* version 3.0 */
	to[8] = 0;
	to[10] = 1; /* entry point revision */
	store_le32(to + 12, (uint32_t)structures_size);
	store_le64(to + 16, X86_SMBIOS_BASE + STRUCTURES_OFFSET);
	to[5] = x86_checksum(to, ENTRY_POINT_SIZE);
}

static int put_all(struct area *area, const struct x86_smbios_options *options, struct error *err)
{
	int r;

	put_bios(area);
	r = put_system(area, options, err);
	if (!r)
		r = put_oem_strings(area, options, err);
	if (r)
		return r;
	begin(area, 127, NULL, 0);
	end(area, false);
	if (area->failed)
		return error_set_kind(err, ERROR_BAD_REQUEST, E2BIG,
				      "platform serial_number and oem_strings: more than the %llu "
				      "KiB there are for SMBIOS",
				      (unsigned long long)(AREA_SIZE / KIB));
	write_entry_point(area->data, area->len - STRUCTURES_OFFSET);
	return 0;
}

int x86_smbios_write(struct guest_memory *memory, const struct x86_smbios_options *options,
		     struct error *err)
{
	/* The guest does not run yet: the area is the VMM's own. */
	struct area area = {
		.data = guest_memory_ptr(memory, X86_SMBIOS_BASE, AREA_SIZE),
		.len = STRUCTURES_OFFSET,
	};
	int r;

	if (!area.data)
		return error_set(err, EFAULT, "SMBIOS tables: %#llx is not guest RAM",
				 (unsigned long long)X86_SMBIOS_BASE);
	memset(area.data, 0, STRUCTURES_OFFSET);
	r = put_all(&area, options, err);
	guest_memory_mark_dirty(memory, X86_SMBIOS_BASE, area.len);
	return r;
}
