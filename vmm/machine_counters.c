/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine counts, for vm.counters and /metrics. Each part counts from its making on;
 * what another process counted of the same machine before a live update is added here.
 *
 *   @counters/N   that, as the text of machine_counters(), in parts
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "devices/virtio/virtio_pci.h"
#include "vfio/vfio_pci.h"
#include "vmm/machine_private.h"

#define NAME "@counters/%u"
#define TEXT_MAX (1u << 20)

static json_t *virtio_counters(const struct virtio_device *dev)
{
	json_t *counters = json_object();

	for (unsigned int i = 0; counters && i < dev->counter_count; i++)
		json_object_set_new(counters, dev->counters[i].name,
				    json_integer((json_int_t)dev->counters[i].value));
	return counters;
}

static json_t *device_counters(struct pci_function *fn)
{
	struct virtio_device *dev = virtio_pci_device(fn);
	struct vfio_pci_counters c;

	if (dev)
		return dev->counter_count ? virtio_counters(dev) : NULL;
	if (!vfio_pci_is(fn))
		return NULL;
	vfio_pci_count(fn, &c);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "config_reads",
			 (json_int_t)c.config_reads, "config_writes", (json_int_t)c.config_writes,
			 "bar_reads", (json_int_t)c.bar_reads, "bar_writes",
			 (json_int_t)c.bar_writes, "intx_exits", (json_int_t)c.intx_exits,
			 "msi_vectors", (json_int_t)c.msi_vectors, "mapped_bytes",
			 (json_int_t)c.mapped_bytes);
}

static json_t *vcpu_counters(const struct vcpu *vcpu)
{
	const struct vcpu_exits *exits = vcpu_exit_counts(vcpu);

	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "pio_exits", (json_int_t)exits->pio,
			 "mmio_exits", (json_int_t)exits->mmio, "halt_exits",
			 (json_int_t)exits->halt, "interrupted_exits",
			 (json_int_t)exits->interrupted, "other_exits", (json_int_t)exits->other);
}

/* What there is of something now is no sum. */
static bool is_sum(const char *counter)
{
	return strcmp(counter, "msi_vectors") != 0 && strcmp(counter, "mapped_bytes") != 0;
}

static void add_counted(const struct machine *machine, json_t *all)
{
	json_t *counters, *value;
	const char *id, *name;

	json_object_foreach(all, id, counters)
	{
		const json_t *before = json_object_get(machine->counted, id);

		json_object_foreach(counters, name, value)
		{
			json_int_t sum = json_integer_value(value);
			json_int_t more = json_integer_value(json_object_get(before, name));

			if (more > 0 && is_sum(name) && !__builtin_add_overflow(sum, more, &sum))
				json_integer_set(value, sum);
		}
	}
}

json_t *machine_counters(struct machine *machine)
{
	json_t *all = json_object();
	char name[16];

	pthread_mutex_lock(&machine->lock);
	for (struct machine_device *d = machine->devices; all && d; d = d->next) {
		json_t *counters = d->ejected ? NULL : device_counters(d->fn);

		if (counters)
			json_object_set_new(all, d->id, counters);
	}
	for (unsigned int i = 0; all && i < machine->vcpu_count; i++) {
		snprintf(name, sizeof(name), "_vcpu%u", i);
		json_object_set_new(all, name, vcpu_counters(machine->vcpus[i]));
	}
	add_counted(machine, all);
	pthread_mutex_unlock(&machine->lock);
	return all;
}

void machine_forget_counters(struct machine *machine, const char *id)
{
	pthread_mutex_lock(&machine->lock);
	json_object_del(machine->counted, id);
	pthread_mutex_unlock(&machine->lock);
}

int machine_keep_counters(struct machine *machine, struct kept *kept, struct error *err)
{
	json_t *counters = machine_counters(machine);
	_cleanup_free_ char *text = json_dumps(counters, JSON_COMPACT);
	size_t len = text ? strlen(text) : 0;
	int r = 0;

	json_decref(counters);
	for (size_t at = 0; !r && at < len && len <= TEXT_MAX; at += KEPT_DATA_MAX)
		r = kept_add(kept, -1, text + at, MIN(len - at, (size_t)KEPT_DATA_MAX), err, NAME,
			     (unsigned int)(at / KEPT_DATA_MAX));
	return r;
}

/* Without them, or where they make no sense, it begins at 0. */
void machine_take_counters(struct machine *machine)
{
	_cleanup_strbuf_ struct strbuf text = { .max = TEXT_MAX };
	const void *part;
	size_t len;

	for (unsigned int i = 0; (part = kept_bytes(machine->host.kept, &len, NAME, i)); i++)
		strbuf_append(&text, part, len);
	if (!text.failed && text.len) {
		pthread_mutex_lock(&machine->lock);
		json_decref(machine->counted);
		machine->counted = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
		pthread_mutex_unlock(&machine->lock);
	}
}
