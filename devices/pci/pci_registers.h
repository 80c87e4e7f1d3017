/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers of configuration space that this folder emulates: PCI Local Bus 3.0,
 * 6.1 (header), 6.2.5 (BARs), 6.8.2 (MSI-X). Others use <linux/pci_regs.h>.
 */
#ifndef DEVICES_PCI_PCI_REGISTERS_H
#define DEVICES_PCI_PCI_REGISTERS_H

#include <linux/pci_regs.h>

#define PCI_HEADER_END 0x40	   /* first byte after a type 0 header */
#define PCI_CONVENTIONAL_END 0x100 /* end of the conventional part */
#define PCI_BAR_OFFSET(bar) (PCI_BASE_ADDRESS_0 + 4 * (bar))

/* What a guest may set in the command register. The other bits are hardwired to
 * 0 in PCIe, or ask for something that no emulated device does. */
#define PCI_COMMAND_WRITABLE \
	(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | \
	 PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE)
/* Error bits of the status register: cleared by writing 1. */
#define PCI_STATUS_W1C \
	(PCI_STATUS_PARITY | PCI_STATUS_SIG_TARGET_ABORT | PCI_STATUS_REC_TARGET_ABORT | \
	 PCI_STATUS_REC_MASTER_ABORT | PCI_STATUS_SIG_SYSTEM_ERROR | PCI_STATUS_DETECTED_PARITY)

#endif
