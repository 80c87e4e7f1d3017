/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/migration_vm.h"

#include <errno.h>

int migration_vm_devices(const struct migration_vm *vm, struct migratable **devices,
			 const char *done, struct error *err)
{
	int n = vm->ops->devices ? vm->ops->devices(vm->opaque, devices, MIGRATION_DEVICES_MAX, err)
				 : 0;

	for (int i = 0; n > 1 && i < n; i++)
		if (!devices[i]->p2p)
			return error_set(err, EOPNOTSUPP,
					 "device %s cannot be kept from starting DMA to other "
					 "devices while it is stopped (it has no P2P state), so it "
					 "cannot be %s together with %d more: remove the others "
					 "first",
					 devices[i]->id, done, n - 1);
	return n;
}
