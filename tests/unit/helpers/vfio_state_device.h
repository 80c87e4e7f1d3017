/* SPDX-License-Identifier: Apache-2.0 */
/* A device with all that the state of an assigned function has: golden files are of it. */
#ifndef TESTS_UNIT_HELPERS_VFIO_STATE_DEVICE_H
#define TESTS_UNIT_HELPERS_VFIO_STATE_DEVICE_H

#include <linux/pci_regs.h>
#include <string.h>

#include "tests/unit/helpers/fake_vfio_transport.h"

#define VFIO_STATE_PM 0x40
#define VFIO_STATE_MSI 0x50
#define VFIO_STATE_MSIX 0x70
#define VFIO_STATE_EXP 0x80
#define VFIO_STATE_VNDR 0xc0
#define VFIO_STATE_DVSEC 0x100

/* One with everything that the state has. */
static inline void vfio_state_device(struct fake_vfio_pci *dev)
{
	static const uint8_t vendor[] = { 'f', 'e', 'r', 'r', 'y' };
	uint8_t *config = fake_vfio_pci_config(dev);

	config[PCI_REVISION_ID] = 3;
	fake_vfio_pci_config32(dev, PCI_SUBSYSTEM_VENDOR_ID, 0x12341af4);
	fake_vfio_pci_add_bar(dev, 0, PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH,
			      0x10000, true);
	fake_vfio_pci_add_bar(dev, 2, PCI_BASE_ADDRESS_SPACE_IO, 0x20, false);
	fake_vfio_pci_add_region(dev, VFIO_PCI_ROM_REGION_INDEX, 0x1000, false);
	fake_vfio_pci_add_irq(dev, VFIO_PCI_INTX_IRQ_INDEX, 1, true);
	fake_vfio_pci_add_irq(dev, VFIO_PCI_MSI_IRQ_INDEX, 4, true);
	fake_vfio_pci_add_irq(dev, VFIO_PCI_MSIX_IRQ_INDEX, 8, false);
	fake_vfio_pci_add_cap(dev, PCI_CAP_ID_PM, VFIO_STATE_PM);
	fake_vfio_pci_config16(dev, VFIO_STATE_PM + PCI_PM_PMC, 3);
	fake_vfio_pci_add_cap(dev, PCI_CAP_ID_MSI, VFIO_STATE_MSI);
	fake_vfio_pci_config16(dev, VFIO_STATE_MSI + PCI_MSI_FLAGS,
			       PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT | 2 << 1);
	fake_vfio_pci_add_msix(dev, VFIO_STATE_MSIX, 8, 0, 0, 0, 0x8000);
	fake_vfio_pci_add_cap(dev, PCI_CAP_ID_EXP, VFIO_STATE_EXP);
	fake_vfio_pci_config16(dev, VFIO_STATE_EXP + PCI_EXP_FLAGS, 2);
	fake_vfio_pci_config32(dev, VFIO_STATE_EXP + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_FLR | 0x8001);
	fake_vfio_pci_config32(dev, VFIO_STATE_EXP + PCI_EXP_DEVCAP2, 0x1f);
	fake_vfio_pci_add_cap(dev, PCI_CAP_ID_VNDR, VFIO_STATE_VNDR);
	config[VFIO_STATE_VNDR + 2] = 3 + sizeof(vendor);
	memcpy(config + VFIO_STATE_VNDR + 3, vendor, sizeof(vendor));
	fake_vfio_pci_add_ext_cap(dev, PCI_EXT_CAP_ID_DVSEC, VFIO_STATE_DVSEC);
	fake_vfio_pci_config32(dev, VFIO_STATE_DVSEC + 4, 0x00c11e98);
	fake_vfio_pci_config16(dev, VFIO_STATE_DVSEC + 8, 0x7);
}

#endif
