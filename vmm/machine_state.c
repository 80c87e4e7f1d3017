/* SPDX-License-Identifier: Apache-2.0 */
/* The machine in the state tree: saved while paused, loaded before it has run. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vmm/machine_private.h"
#include "vmm/x86/cpu_compare.h"

#define MACHINE_VERSION 1
#define VCPUS_VERSION 1

static int save_vcpus(struct machine *machine, struct state_writer *writer, struct error *err)
{
	_cleanup_free_ struct kvm_msr_list_buffer *msrs = malloc(sizeof(*msrs));
	char name[16];
	int r = msrs ? 0 : error_set_errno(err, ENOMEM, "save vCPUs");

	if (!r)
		r = x86_msrs_find(&machine->kvm, msrs, err);
	state_begin(writer, "vcpus", "vcpus", VCPUS_VERSION);
	state_put_u32(writer, "count", machine->vcpu_count);
	for (unsigned int i = 0; !r && i < machine->vcpu_count; i++) {
		snprintf(name, sizeof(name), "vcpu%u", i);
		r = x86_vcpu_save(&machine->kvm, vcpu_fd(machine->vcpus[i]), name,
				  &machine->states[i], msrs, writer, err);
	}
	state_end(writer);
	return r;
}

static void save_platform(struct machine *machine, struct state_writer *writer)
{
	if (machine->serial)
		serial_save(machine->serial, writer, "serial");
	rtc_save(machine->rtc, writer, "rtc");
	i8042_save(machine->i8042, writer, "i8042");
	if (machine->pvpanic)
		pvpanic_save(machine->pvpanic, writer, "pvpanic");
	debug_port_save(machine->debug_port, writer, "debug-port");
	acpi_ged_save(machine->ged, writer, "ged");
	vmgenid_save(machine->vmgenid, writer, "vmgenid");
}

static int check_saveable(struct machine *machine, struct error *err)
{
	if (machine->running)
		return error_set(err, EBUSY, "save machine: it runs");
	if (!machine->clock_valid)
		return error_set(err, EBUSY, "save machine: it never ran");
	for (unsigned int i = 0; i < machine->vcpu_count; i++)
		if (vcpu_has_failed(machine->vcpus[i]))
			return error_set(err, EBUSY,
					 "save machine: vCPU %u has stopped, the guest is being "
					 "reset or has failed",
					 i);
	return 0;
}

int machine_save(struct machine *machine, struct state_writer *writer, struct error *err)
{
	int r = check_saveable(machine, err);

	if (r)
		return r;
	state_begin(writer, "machine", "machine", MACHINE_VERSION);
	state_put_u64(writer, "memory-size", guest_memory_size(machine->host.memory));
	kvm_clock_save(&machine->clock, writer);
	r = save_vcpus(machine, writer, err);
	if (!r)
		r = kvm_irqchip_save(&machine->kvm, writer, err);
	save_platform(machine, writer);
	if (!r)
		r = pci_root_save(machine->pci, writer, "pci", err);
	state_end(writer);
	return r;
}

static int load_vcpus(struct machine *machine, const struct state_node *parent, struct error *err)
{
	struct state_node vcpus, vcpu;
	char name[16];
	int r = state_expect_child(parent, "vcpus", "vcpus", VCPUS_VERSION, &vcpus, err);

	if (!r)
		r = state_match_u32(&vcpus, "count", machine->vcpu_count, err);
	for (unsigned int i = 0; !r && i < machine->vcpu_count; i++) {
		snprintf(name, sizeof(name), "vcpu%u", i);
		r = state_child(&vcpus, name, &vcpu, err);
		if (!r)
			r = x86_vcpu_load(&machine->kvm, vcpu_fd(machine->vcpus[i]), &vcpu,
					  &machine->states[i], err);
	}
	return r;
}

/* Devices that a machine may be without: there or not on both sides. */
static int load_optional(struct machine *machine, const struct state_node *parent,
			 struct error *err)
{
	struct state_node node;
	bool serial = state_has_child(parent, "serial", &node);
	int r = 0;

	if (serial != !!machine->serial)
		return error_set(err, EINVAL, "the saved machine has %s serial port, this one %s",
				 serial ? "a" : "no", serial ? "none" : "one");
	if (serial)
		r = serial_load(machine->serial, &node, err);
	if (r)
		return r;
	if (state_has_child(parent, "pvpanic", &node) != !!machine->pvpanic)
		return error_set(err, EINVAL,
				 "the saved machine has %s pvpanic device, this one %s",
				 machine->pvpanic ? "no" : "a", machine->pvpanic ? "one" : "none");
	return machine->pvpanic ? pvpanic_load(machine->pvpanic, &node, err) : 0;
}

static int load_platform(struct machine *machine, const struct state_node *parent,
			 struct error *err)
{
	struct state_node node;
	int r = load_optional(machine, parent, err);

	if (!r)
		r = state_child(parent, "rtc", &node, err);
	if (!r)
		r = rtc_load(machine->rtc, &node, err);
	if (!r)
		r = state_child(parent, "i8042", &node, err);
	if (!r)
		r = i8042_load(machine->i8042, &node, err);
	if (!r)
		r = state_child(parent, "debug-port", &node, err);
	if (!r)
		r = debug_port_load(machine->debug_port, &node, err);
	if (!r)
		r = state_child(parent, "ged", &node, err);
	if (!r)
		r = acpi_ged_load(machine->ged, &node, err);
	if (!r)
		r = state_child(parent, "vmgenid", &node, err);
	if (!r)
		r = vmgenid_load(machine->vmgenid, &node, err);
	if (!r)
		machine_keep_generation_id(machine);
	return r;
}

/* It is set when the machine is resumed. */
static int load_clock(struct machine *machine, const struct state_node *parent, struct error *err)
{
	struct state_node node;
	int r = state_child(parent, "clock", &node, err);

	if (!r)
		r = kvm_clock_load(&machine->clock, &node, err);
	if (!r)
		machine->clock_valid = machine->clock_loaded = true;
	return r;
}

int machine_load(struct machine *machine, const struct state_node *node, struct error *err)
{
	struct state_node child;
	int r = state_expect(node, "machine", MACHINE_VERSION, NULL, NULL, err);

	if (!r)
		r = state_match_u64(node, "memory-size", guest_memory_size(machine->host.memory),
				    err);
	if (!r)
		r = load_clock(machine, node, err);
	if (!r)
		r = load_vcpus(machine, node, err);
	if (!r)
		r = state_child(node, "irqchip", &child, err);
	if (!r)
		r = kvm_irqchip_load(&machine->kvm, &child, err);
	if (!r)
		r = load_platform(machine, node, err);
	if (!r)
		r = state_child(node, "pci", &child, err);
	if (!r)
		r = pci_root_load(machine->pci, &child, err);
	if (!r && machine->host.kept)
		machine_take_counters(machine);
	return r;
}

int machine_save_cpu(struct machine *machine, struct state_writer *writer, struct error *err)
{
	if (!machine->states[0].cpuid)
		return error_set(err, EBUSY, "save CPU: the vCPUs were not set up");
	/* The vCPUs may run: of them nothing can be asked now. */
	x86_cpu_save(machine->states[0].cpuid, machine->states[0].time.khz, writer);
	return 0;
}

/* *used: a vCPU had to be made. */
static uint32_t host_tsc_khz(struct kvm *kvm, bool *used)
{
	uint32_t khz = kvm_tsc_khz(kvm);
	int fd;

	*used = !khz;
	if (khz)
		return khz;
	fd = kvm_create_vcpu(kvm, 0, NULL);
	if (fd < 0)
		return 0;
	khz = kvm_vcpu_tsc_khz(fd);
	close(fd);
	return khz;
}

int machine_check_cpu(const struct state_node *node, struct kvm *kvm, struct error *err)
{
	_cleanup_free_ struct x86_cpuid *supported = malloc(sizeof(*supported));
	struct x86_host_cpu host = { .supported = supported };
	struct kvm own = KVM_INIT;
	bool used = false;
	int r;

	if (!supported)
		return error_set_errno(err, ENOMEM, "compare CPUs");
	r = kvm_open(&own, err);
	if (!r)
		r = x86_cpuid_supported(own.fd, supported, err);
	if (!r) {
		host.tsc_scaling = kvm_check(&own, KVM_CAP_TSC_CONTROL);
		host.tsc_khz = host_tsc_khz(&own, &used);
		r = x86_cpu_check(&host, node, err);
	}
	if (!r && !used && kvm)
		*kvm = own;
	else
		kvm_close(&own);
	return r;
}
