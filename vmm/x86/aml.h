/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A builder of AML, the byte code of ACPI's DSDT (ACPI 6.4, chapter 20; resource
 * descriptors: 6.4).
 *
 * Everything is appended to one buffer in the order it is written. A block (scope,
 * device, method, package, buffer, condition) is opened by a function that returns its
 * start, which aml_close() takes to put the length in. Out of room sets `failed`;
 * check it once, at the end. One thread at a time.
 */
#ifndef VMM_X86_AML_H
#define VMM_X86_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *data; /* the caller's */
	size_t len, cap;
	bool failed;
};

/* Objects and terms that are one byte. */
enum aml_op {
	AML_LOCAL0 = 0x60,
	AML_LOCAL1 = 0x61,
	AML_ARG0 = 0x68,
	AML_ARG3 = 0x6b,
	AML_STORE = 0x70,
	AML_AND = 0x7b,
	AML_OR = 0x7d,
	AML_NOTIFY = 0x86,
	AML_CREATE_DWORD_FIELD = 0x8a,
	AML_LEQUAL = 0x93,
	AML_RETURN = 0xa4,
};

void aml_op(struct aml *aml, enum aml_op op);
/* "\\_SB_.PCI0" or "PCI0": segments of one to four characters, padded with '_'. */
void aml_path(struct aml *aml, const char *path);
void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *text);
/* A seven-character PNP id ("PNP0A08") as the integer ACPI packs it into. */
void aml_eisa_id(struct aml *aml, const char *id);
/* The text form of a UUID as the buffer ToUUID() makes of it. */
void aml_uuid(struct aml *aml, const char *uuid);
/* Name (path, ...): the object follows. */
void aml_name(struct aml *aml, const char *path);
void aml_name_integer(struct aml *aml, const char *path, uint64_t value);

size_t aml_scope(struct aml *aml, const char *path);
size_t aml_device(struct aml *aml, const char *path);
size_t aml_method(struct aml *aml, const char *path, unsigned int args, bool serialized);
size_t aml_package(struct aml *aml, unsigned int elements);
size_t aml_if(struct aml *aml);
size_t aml_else(struct aml *aml);
void aml_close(struct aml *aml, size_t start);

/* OperationRegion (name, SystemMemory, address, size), with a Field of dwords over it
 * whose 32-bit names follow one another from offset 0. */
void aml_memory_registers(struct aml *aml, const char *region, uint64_t address,
			  const char *const *fields, unsigned int count);

/* A resource template: open, descriptors, close. */
size_t aml_resources(struct aml *aml);
void aml_resources_close(struct aml *aml, size_t start);
void aml_memory32(struct aml *aml, uint32_t base, uint32_t size);
void aml_io(struct aml *aml, uint16_t port, uint8_t count);
/* Edge-triggered, active high, exclusive. */
void aml_interrupt(struct aml *aml, uint32_t gsi);
/* Windows of a bridge (address space descriptors, produced). */
void aml_bus_window(struct aml *aml, uint16_t first, uint16_t last);
void aml_io_window(struct aml *aml, uint16_t base, uint32_t size);
void aml_memory_window32(struct aml *aml, uint32_t base, uint32_t size);
void aml_memory_window64(struct aml *aml, uint64_t base, uint64_t size);

#endif
