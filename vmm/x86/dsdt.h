/* SPDX-License-Identifier: Apache-2.0 */
/* The definition block of the DSDT, without the table's header. */
#ifndef VMM_X86_DSDT_H
#define VMM_X86_DSDT_H

#include "vmm/x86/acpi.h"
#include "vmm/x86/aml.h"

void x86_dsdt_build(struct aml *aml, const struct x86_acpi_options *options);

#endif
