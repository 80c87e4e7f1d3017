/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/x86/aml.h"

#include <string.h>

#include "base/bytes.h"

#define EXT_OP 0x5b
#define SEGMENT 4

static void put(struct aml *aml, const void *data, size_t len)
{
	if (aml->failed || len > aml->cap - aml->len) {
		aml->failed = true;
		return;
	}
	memcpy(aml->data + aml->len, data, len);
	aml->len += len;
}

static void put_le(struct aml *aml, uint64_t value, unsigned int len)
{
	uint8_t bytes[8];

	store_le64(bytes, value);
	put(aml, bytes, len);
}

static void put8(struct aml *aml, uint8_t value)
{
	put(aml, &value, 1);
}

static void insert(struct aml *aml, size_t at, const uint8_t *bytes, size_t len)
{
	if (aml->failed || len > aml->cap - aml->len) {
		aml->failed = true;
		return;
	}
	memmove(aml->data + at + len, aml->data + at, aml->len - at);
	memcpy(aml->data + at, bytes, len);
	aml->len += len;
}

/* PkgLength of a block whose body has `len` bytes; counts itself where asked. */
static unsigned int package_length(uint8_t bytes[4], size_t len, bool counts_itself)
{
	static const size_t limit[] = { 1 << 6, 1 << 12, 1 << 20, 1 << 28 };
	unsigned int n = 1;

	while (n < 4 && len + (counts_itself ? n : 0) >= limit[n - 1])
		n++;
	if (counts_itself)
		len += n;
	if (n == 1) {
		bytes[0] = (uint8_t)len;
		return 1;
	}
	bytes[0] = (uint8_t)((n - 1) << 6 | (len & 0xf));
	for (unsigned int i = 1; i < n; i++)
		bytes[i] = (uint8_t)(len >> (8 * i - 4));
	return n;
}

void aml_close(struct aml *aml, size_t start)
{
	uint8_t bytes[4];
	unsigned int n;

	if (aml->failed)
		return;
	n = package_length(bytes, aml->len - start, true);
	insert(aml, start, bytes, n);
}

void aml_op(struct aml *aml, enum aml_op op)
{
	put8(aml, (uint8_t)op);
}

static size_t segment_length(const char *path)
{
	size_t len = strcspn(path, ".");

	return MIN(len, (size_t)SEGMENT);
}

void aml_path(struct aml *aml, const char *path)
{
	unsigned int segments = 1;

	if (*path == '\\')
		put8(aml, (uint8_t)*path++);
	for (const char *p = path; *p; p++)
		segments += *p == '.';
	if (segments == 2) {
		put8(aml, 0x2e);
	} else if (segments > 2) {
		put8(aml, 0x2f);
		put8(aml, (uint8_t)segments);
	}
	while (*path) {
		char name[SEGMENT] = { '_', '_', '_', '_' };
		size_t len = segment_length(path);

		memcpy(name, path, len);
		put(aml, name, sizeof(name));
		path += len;
		path += *path == '.';
	}
}

void aml_integer(struct aml *aml, uint64_t value)
{
	if (value <= 1) {
		put8(aml, (uint8_t)value); /* ZeroOp, OneOp */
	} else if (value <= 0xff) {
		put8(aml, 0x0a);
		put_le(aml, value, 1);
	} else if (value <= 0xffff) {
		put8(aml, 0x0b);
		put_le(aml, value, 2);
	} else if (value <= 0xffffffff) {
		put8(aml, 0x0c);
		put_le(aml, value, 4);
	} else {
		put8(aml, 0x0e);
		put_le(aml, value, 8);
	}
}

void aml_string(struct aml *aml, const char *text)
{
	put8(aml, 0x0d);
	put(aml, text, strlen(text) + 1);
}

static unsigned int hex_digit(char c)
{
	return (unsigned int)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10) & 0xf;
}

void aml_eisa_id(struct aml *aml, const char *id)
{
	uint32_t letters = 0, digits = 0;

	for (unsigned int i = 0; i < 3; i++)
		letters = letters << 5 | (uint32_t)((id[i] - 0x40) & 0x1f);
	for (unsigned int i = 3; i < 7; i++)
		digits = digits << 4 | hex_digit(id[i]);
	/* Big-endian in memory, and at fixed width whatever the value. */
	put8(aml, 0x0c);
	put_le(aml, __builtin_bswap32(letters << 16 | digits), 4);
}

static void put_buffer(struct aml *aml, const void *bytes, uint8_t len)
{
	size_t start;

	put8(aml, 0x11);
	start = aml->len;
	aml_integer(aml, len);
	put(aml, bytes, len);
	aml_close(aml, start);
}

void aml_uuid(struct aml *aml, const char *uuid)
{
	/* The first three groups are little-endian numbers. */
	static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	uint8_t bytes[16] = { 0 };

	for (unsigned int i = 0; i < 16 && uuid[0] && uuid[1]; i++) {
		bytes[order[i]] = (uint8_t)(hex_digit(uuid[0]) << 4 | hex_digit(uuid[1]));
		uuid += 2;
		uuid += *uuid == '-';
	}
	put_buffer(aml, bytes, sizeof(bytes));
}

void aml_name(struct aml *aml, const char *path)
{
	put8(aml, 0x08);
	aml_path(aml, path);
}

void aml_name_integer(struct aml *aml, const char *path, uint64_t value)
{
	aml_name(aml, path);
	aml_integer(aml, value);
}

size_t aml_scope(struct aml *aml, const char *path)
{
	size_t start;

	put8(aml, 0x10);
	start = aml->len;
	aml_path(aml, path);
	return start;
}

size_t aml_device(struct aml *aml, const char *path)
{
	size_t start;

	put8(aml, EXT_OP);
	put8(aml, 0x82);
	start = aml->len;
	aml_path(aml, path);
	return start;
}

size_t aml_method(struct aml *aml, const char *path, unsigned int args, bool serialized)
{
	size_t start;

	put8(aml, 0x14);
	start = aml->len;
	aml_path(aml, path);
	put8(aml, (uint8_t)(args | (serialized ? 8 : 0)));
	return start;
}

size_t aml_package(struct aml *aml, unsigned int elements)
{
	size_t start;

	put8(aml, 0x12);
	start = aml->len;
	put8(aml, (uint8_t)elements);
	return start;
}

size_t aml_if(struct aml *aml)
{
	put8(aml, 0xa0);
	return aml->len;
}

size_t aml_else(struct aml *aml)
{
	put8(aml, 0xa1);
	return aml->len;
}

void aml_memory_registers(struct aml *aml, const char *region, uint64_t address,
			  const char *const *fields, unsigned int count)
{
	size_t start;

	put8(aml, EXT_OP);
	put8(aml, 0x80);
	aml_path(aml, region);
	put8(aml, 0); /* SystemMemory */
	aml_integer(aml, address);
	aml_integer(aml, count * 4);
	put8(aml, EXT_OP);
	put8(aml, 0x81);
	start = aml->len;
	aml_path(aml, region);
	put8(aml, 0x03); /* DWordAcc, NoLock, Preserve */
	for (unsigned int i = 0; i < count; i++) {
		uint8_t bits[4] = { 0 };
		unsigned int len = package_length(bits, 32, false);

		aml_path(aml, fields[i]);
		put(aml, bits, len);
	}
	aml_close(aml, start);
}

size_t aml_resources(struct aml *aml)
{
	put8(aml, 0x11);
	return aml->len;
}

void aml_resources_close(struct aml *aml, size_t start)
{
	struct aml size = { .data = (uint8_t[9]){ 0 }, .cap = 9 };

	put8(aml, 0x79); /* end tag; checksum 0: not checked */
	put8(aml, 0);
	if (aml->failed)
		return;
	aml_integer(&size, aml->len - start);
	insert(aml, start, size.data, size.len);
	aml_close(aml, start);
}

void aml_memory32(struct aml *aml, uint32_t base, uint32_t size)
{
	put8(aml, 0x86);
	put_le(aml, 9, 2);
	put8(aml, 1); /* writable */
	put_le(aml, base, 4);
	put_le(aml, size, 4);
}

void aml_io(struct aml *aml, uint16_t port, uint8_t count)
{
	put8(aml, 0x47);
	put8(aml, 1); /* decodes 16 bits */
	put_le(aml, port, 2);
	put_le(aml, port, 2);
	put8(aml, 1);
	put8(aml, count);
}

void aml_interrupt(struct aml *aml, uint32_t gsi)
{
	put8(aml, 0x89);
	put_le(aml, 6, 2);
	put8(aml, 0x03); /* consumer, edge, active high, exclusive */
	put8(aml, 1);
	put_le(aml, gsi, 4);
}

/* An address space descriptor, fixed at both ends, positively decoded. `width` is
 * that of its fields: granularity, minimum, maximum, translation, length. */
static void window(struct aml *aml, uint8_t tag, uint8_t type, uint8_t flags, unsigned int width,
		   uint64_t base, uint64_t size)
{
	put8(aml, tag);
	put_le(aml, 3 + 5 * width, 2);
	put8(aml, type);
	put8(aml, 0x0c); /* minimum and maximum are fixed */
	put8(aml, flags);
	put_le(aml, 0, width);
	put_le(aml, base, width);
	put_le(aml, base + size - 1, width);
	put_le(aml, 0, width);
	put_le(aml, size, width);
}

enum { WINDOW_MEMORY = 0, WINDOW_IO = 1, WINDOW_BUS = 2 };
enum { WINDOW_WORD = 0x88, WINDOW_DWORD = 0x87, WINDOW_QWORD = 0x8a };

void aml_bus_window(struct aml *aml, uint16_t first, uint16_t last)
{
	window(aml, WINDOW_WORD, WINDOW_BUS, 0, 2, first, last - first + 1U);
}

void aml_io_window(struct aml *aml, uint16_t base, uint32_t size)
{
	window(aml, WINDOW_WORD, WINDOW_IO, 0x03, 2, base, size); /* the entire range */
}

void aml_memory_window32(struct aml *aml, uint32_t base, uint32_t size)
{
	window(aml, WINDOW_DWORD, WINDOW_MEMORY, 0x01, 4, base, size); /* uncached, writable */
}

/* Not prefetchable, since 64-bit BARs that are not go there, too. */
void aml_memory_window64(struct aml *aml, uint64_t base, uint64_t size)
{
	window(aml, WINDOW_QWORD, WINDOW_MEMORY, 0x01, 8, base, size);
}
