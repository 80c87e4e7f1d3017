/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/legacy/vmgenid.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define KIND "vmgenid"
#define STATE_VERSION 1
#define ALIGNMENT 8 /* what the specification asks for */

struct vmgenid {
	struct guest_memory *memory;
	struct acpi_ged *ged;
	uint64_t gpa;
	uint8_t id[VMGENID_SIZE];
};

static bool is_zero(const uint8_t id[VMGENID_SIZE])
{
	static const uint8_t zero[VMGENID_SIZE];

	return !memcmp(id, zero, VMGENID_SIZE);
}

/* A random UUID (RFC 9562, version 4), in the byte order of a GUID in memory. */
static int make_id(uint8_t id[VMGENID_SIZE], struct error *err)
{
	ssize_t got;

	do {
		got = getrandom(id, VMGENID_SIZE, 0);
	} while (got < 0 && errno == EINTR);
	if (got != VMGENID_SIZE)
		return error_set_errno(err, got < 0 ? errno : EIO, "make a VM generation id");
	id[7] = (uint8_t)((id[7] & 0x0f) | 0x40);
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
	return 0;
}

static int check_place(const struct vmgenid *vmgenid, uint64_t gpa, struct error *err)
{
	if (gpa % ALIGNMENT || !guest_memory_ptr(vmgenid->memory, gpa, VMGENID_SIZE))
		return error_set(
			err, EFAULT,
			"VM generation id: memory has no 0x%llx; give the VM 1 MiB or more",
			(unsigned long long)gpa);
	return 0;
}

struct vmgenid *vmgenid_new(struct device_host *host, uint64_t gpa, const uint8_t *id,
			    struct acpi_ged *ged, struct error *err)
{
	struct vmgenid *vmgenid = calloc(1, sizeof(*vmgenid));
	int r;

	if (!vmgenid) {
		error_set_errno(err, ENOMEM, "create VM generation id");
		return NULL;
	}
	vmgenid->memory = host->memory;
	vmgenid->ged = ged;
	vmgenid->gpa = gpa;
	r = check_place(vmgenid, gpa, err);
	if (!r && id && !is_zero(id))
		memcpy(vmgenid->id, id, VMGENID_SIZE);
	else if (!r)
		r = make_id(vmgenid->id, err);
	if (r) {
		free(vmgenid);
		return NULL;
	}
	return vmgenid;
}

void vmgenid_free(struct vmgenid *vmgenid)
{
	free(vmgenid);
}

static int write_id(struct vmgenid *vmgenid, const uint8_t id[VMGENID_SIZE], struct error *err)
{
	if (guest_memory_write(vmgenid->memory, vmgenid->gpa, id, VMGENID_SIZE))
		return error_set(err, EFAULT, "VM generation id: no RAM at 0x%llx",
				 (unsigned long long)vmgenid->gpa);
	return 0;
}

int vmgenid_write(struct vmgenid *vmgenid, struct error *err)
{
	return write_id(vmgenid, vmgenid->id, err);
}

int vmgenid_renew(struct vmgenid *vmgenid, struct error *err)
{
	uint8_t id[VMGENID_SIZE];
	int r = make_id(id, err);

	if (!r)
		r = write_id(vmgenid, id, err);
	if (r)
		return r;
	memcpy(vmgenid->id, id, VMGENID_SIZE);
	acpi_ged_raise(vmgenid->ged, ACPI_EVENT_VMGENID);
	return 0;
}

void vmgenid_get(const struct vmgenid *vmgenid, uint8_t id[VMGENID_SIZE])
{
	memcpy(id, vmgenid->id, VMGENID_SIZE);
}

void vmgenid_save(struct vmgenid *vmgenid, struct state_writer *writer, const char *name)
{
	state_begin(writer, name, KIND, STATE_VERSION);
	state_put_u64(writer, "address", vmgenid->gpa);
	state_put_bytes(writer, "id", vmgenid->id, VMGENID_SIZE);
	state_end(writer);
}

int vmgenid_load(struct vmgenid *vmgenid, const struct state_node *node, struct error *err)
{
	uint8_t id[VMGENID_SIZE];
	uint64_t gpa = 0;
	int r = state_expect(node, KIND, STATE_VERSION, NULL, NULL, err);

	if (!r)
		r = state_get_u64(node, "address", &gpa, err);
	if (!r && check_place(vmgenid, gpa, NULL))
		r = state_refuse(node, "address", err, "is 0x%llx, no place for the id in RAM",
				 (unsigned long long)gpa);
	if (!r)
		r = state_get_bytes(node, "id", id, sizeof(id), err);
	if (!r && is_zero(id))
		r = state_refuse(node, "id", err, "is zero");
	if (r)
		return r;
	vmgenid->gpa = gpa;
	memcpy(vmgenid->id, id, VMGENID_SIZE);
	return 0;
}
