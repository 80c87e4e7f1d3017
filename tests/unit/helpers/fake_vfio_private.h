/* SPDX-License-Identifier: Apache-2.0 */
/* Between the parts of the fake VFIO kernel. */
#ifndef TESTS_FAKE_VFIO_PRIVATE_H
#define TESTS_FAKE_VFIO_PRIVATE_H

#include "tests/unit/helpers/fake_vfio_kernel.h"

int fake_vfio_device_ioctl(struct fake_vfio_kernel *fake, struct fake_device *dev,
			   unsigned long request, void *arg);
/* "IOMMU_IOAS_ALLOC" ... */
const char *fake_vfio_name(unsigned long request);

void fake_vfio_make_sysfs(struct fake_vfio_kernel *fake);
void fake_vfio_add_sysfs(const struct fake_vfio_kernel *fake, const struct fake_device *dev);

#endif
