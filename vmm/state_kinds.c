/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/state_kinds.h"

#include <errno.h>
#include <string.h>

#include "devices/virtio/virtio_device.h"

const struct state_kind state_kinds[] = {
	{ "machine", 1, 0, false },
	{ "clock", 1, 0, false },
	{ "vcpus", 1, 0, false },
	{ "vcpu", 1, 0, false },
	{ "irqchip", 1, 0, false },
	{ "serial-16550a", 1, 0, false },
	{ "rtc", 1, 0, false },
	{ "i8042", 1, 0, false },
	{ "pvpanic", 1, 0, false },
	{ "debug-port", 1, 0, false },
	{ "acpi-ged", 1, 0, false },
	{ "vmgenid", 1, 0, false },
	{ "pci-root", 1, 0, false },
	{ "pci-function", 1, 0, false },
	{ "msix", 1, 0, false },
	{ "virtio-pci", 1, 0, false },
	{ "virtqueue", 1, 0, false },
	{ "rate-limiter", 1, 0, false },
	{ "virtio-net", 1, VIRTIO_NET, false },
	{ "virtio-blk", 1, VIRTIO_BLK, false },
	{ "virtio-console", 1, VIRTIO_CONSOLE, false },
	{ "virtio-rng", 1, VIRTIO_RNG, false },
	{ "virtio-balloon", 1, VIRTIO_BALLOON, false },
	{ "virtio-vsock", 1, VIRTIO_VSOCK, false },
	{ "vfio-pci", 1, 0, true },
	{ NULL, 0, 0, false },
};

static const struct state_kind *find(const char *name)
{
	const struct state_kind *kind = state_kinds;

	while (kind->name && strcmp(kind->name, name))
		kind++;
	return kind->name ? kind : NULL;
}

int state_kinds_check(const json_t *kinds, struct error *err)
{
	const char *name;
	json_t *version;

	if (!json_is_object(kinds))
		return error_set(err, EBADMSG, "the kinds of state are not told");
	json_object_foreach((json_t *)kinds, name, version)
	{
		const struct state_kind *kind = find(name);

		if (!kind)
			return error_set(err, EPROTONOSUPPORT,
					 "the VM has state of a kind that this version does not "
					 "know: %.60s",
					 name);
		if (!json_is_integer(version) || json_integer_value(version) > kind->version)
			return error_set(err, EPROTONOSUPPORT,
					 "the VM has state %s of version %lld, this version reads "
					 "it up to %u",
					 name, (long long)json_integer_value(version),
					 kind->version);
	}
	return 0;
}
