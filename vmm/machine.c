/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/virtio/virtio_simple.h"
#include "vmm/kvm_dirty.h"
#include "vmm/machine_private.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/layout.h"

static void request(struct machine *machine, enum machine_request request, const char *detail)
{
	const struct machine_callbacks *callbacks = &machine->env.callbacks;

	callbacks->request(callbacks->opaque, request, detail);
}

static void on_reset(void *opaque)
{
	request(opaque, MACHINE_RESET, "the guest asked for a reset");
}

static void on_shutdown(void *opaque)
{
	request(opaque, MACHINE_SHUTDOWN, "the guest powered off");
}

static void on_panicked(void *opaque, unsigned int event)
{
	char detail[48];

	snprintf(detail, sizeof(detail), "pvpanic event 0x%x", event);
	request(opaque, MACHINE_PANICKED, detail);
}

static void on_debug(void *opaque, uint8_t value)
{
	struct machine *machine = opaque;

	log_debug(machine->env.log, "debug port: 0x%02x", value);
}

static void on_vcpu_shutdown(void *opaque, unsigned int cpu)
{
	char detail[48];

	snprintf(detail, sizeof(detail), "triple fault on vCPU %u", cpu);
	request(opaque, MACHINE_RESET, detail);
}

static void on_vcpu_failed(void *opaque, unsigned int cpu, const char *reason)
{
	char detail[256];

	snprintf(detail, sizeof(detail), "vCPU %u: %s", cpu, reason);
	request(opaque, MACHINE_FAILED, detail);
}

static void on_hotplug(void *opaque)
{
	struct machine *machine = opaque;

	acpi_ged_raise(machine->ged, ACPI_EVENT_PCI_HOTPLUG);
}

/* RAM that is handed in lies where guest_memory_new would have put it. */
static int check_regions(const struct guest_memory *memory,
			 const struct guest_memory_options *options, struct error *err)
{
	const uint64_t low = MIN(options->size, options->low_end);
	const struct {
		uint64_t gpa, size;
	} wanted[] = { { 0, low }, { options->high_start, options->size - low } };
	unsigned int count = options->size > low ? 2 : 1;

	if (guest_memory_region_count(memory) != count)
		return error_set(err, EINVAL, "RAM comes in %u regions, expected %u",
				 guest_memory_region_count(memory), count);
	for (unsigned int i = 0; i < count; i++) {
		const struct guest_memory_region *region = guest_memory_region(memory, i);

		if (region->gpa != wanted[i].gpa || region->size != wanted[i].size)
			return error_set(err, EINVAL,
					 "RAM at 0x%llx+0x%llx is not where the configuration has "
					 "it: 0x%llx+0x%llx",
					 (unsigned long long)region->gpa,
					 (unsigned long long)region->size,
					 (unsigned long long)wanted[i].gpa,
					 (unsigned long long)wanted[i].size);
	}
	return 0;
}

static int create_memory(struct machine *machine, const struct vm_config *config,
			 const struct machine_incoming *incoming, struct error *err)
{
	const struct memory_config *memory = &config->memory;
	struct guest_memory_options options = {
		.size = memory->size,
		.hugepage_size = memory->hugepages ? (memory->hugepage_size ?: 2 * MIB) : 0,
		.transparent_hugepages = memory->thp,
		.prefault = memory->prefault,
		.mergeable = memory->mergeable,
		.low_end = X86_LOW_RAM_END,
		.high_start = X86_HIGH_RAM_START,
	};

	if (incoming && incoming->memory) {
		int r = check_regions(incoming->memory, &options, err);

		if (r)
			return r;
		machine->host.memory = incoming->memory;
	} else {
		machine->host.memory = guest_memory_new(&options, err);
	}
	if (!machine->host.memory)
		return err->code;
	return kvm_map_memory(&machine->kvm, machine->host.memory, false, err);
}

/* The 64-bit window: the upper half of what the CPU can address, or all of it above
 * RAM where RAM reaches there. */
static int place_mem64_window(struct machine *machine, struct error *err)
{
	unsigned int bits = x86_cpuid_phys_bits(machine->supported);
	uint64_t top = 1ULL << MIN(bits, 47U), base = top / 2, ram_end = 0;

	if (machine->layout)
		return machine_layout_window(machine, err);
	for (unsigned int i = 0; i < guest_memory_region_count(machine->host.memory); i++) {
		const struct guest_memory_region *region =
			guest_memory_region(machine->host.memory, i);

		ram_end = MAX(ram_end, region->gpa + region->size);
	}
	base = MAX(base, align_up(ram_end, GIB));
	if (base + GIB > top)
		return error_set(err, E2BIG,
				 "memory size: RAM ends at 0x%llx, this CPU addresses only %u bits",
				 (unsigned long long)ram_end, bits);
	machine->mem64_base = base;
	machine->mem64_size = top - base;
	return 0;
}

static int create_buses(struct machine *machine, struct error *err)
{
	machine->host.mmio = bus_new(err);
	machine->host.pio = bus_new(err);
	if (!machine->host.mmio || !machine->host.pio)
		return err->code;
	machine->interrupts = kvm_interrupts_new(&machine->kvm, err);
	if (!machine->interrupts)
		return err->code;
	machine->host.interrupts = kvm_interrupts_ops(machine->interrupts);
	machine->host.ioevents = kvm_ioevents_ops(&machine->kvm);
	return 0;
}

static struct irq_line line(struct machine *machine, unsigned int gsi)
{
	return (struct irq_line){ .interrupts = &machine->host.interrupts, .gsi = gsi };
}

struct serial_call {
	struct machine *machine;
	struct error *err;
};

/* The serial port watches its input in the main loop, so it is made and freed there. */
static void create_serial(void *opaque)
{
	struct serial_call *call = opaque;
	struct machine *machine = call->machine;
	const struct console *console = machine->env.serial;

	machine->serial = serial_new(&machine->host, X86_SERIAL_PORT, line(machine, X86_SERIAL_IRQ),
				     console_in_fd(console), console_out_fd(console), call->err);
}

struct hold_call {
	struct machine *machine;
	bool hold;
};

static void hold_serial(void *opaque)
{
	struct hold_call *call = opaque;

	serial_hold(call->machine->serial, call->hold);
}

void machine_hold_serial(struct machine *machine, bool hold)
{
	struct hold_call call = { .machine = machine, .hold = hold };

	if (machine->serial)
		loop_call(machine->env.loop, hold_serial, &call);
}

static void free_serial(void *opaque)
{
	struct machine *machine = opaque;

	serial_free(machine->serial);
}

static int create_platform(struct machine *machine, const struct vm_config *config,
			   struct error *err)
{
	const struct machine_requests requests = {
		.reset = on_reset,
		.shutdown = on_shutdown,
		.panicked = on_panicked,
		.debug = on_debug,
		.opaque = machine,
	};
	struct device_host *host = &machine->host;
	const struct machine_env *env = &machine->env;
	uint64_t size = guest_memory_size(host->memory);
	uint64_t low = MIN(size, X86_LOW_RAM_END);

	if (env->serial) {
		struct serial_call call = { .machine = machine, .err = err };

		loop_call(env->loop, create_serial, &call);
		if (!machine->serial)
			return err->code;
	}
	machine->rtc = rtc_new(host, low, size - low, err);
	if (!machine->rtc)
		return err->code;
	machine->i8042 = i8042_new(host, &requests, err);
	if (!machine->i8042)
		return err->code;
	if (config->pvpanic) {
		machine->pvpanic = pvpanic_new(host, &requests, err);
		if (!machine->pvpanic)
			return err->code;
	}
	machine->debug_port = debug_port_new(
		host, &requests, env->debug_console ? config->debug_console.iobase : 0,
		env->debug_console ? console_out_fd(env->debug_console) : -1, err);
	if (!machine->debug_port)
		return err->code;
	machine->ged = acpi_ged_new(host, X86_GED_BASE, line(machine, X86_GED_IRQ), &requests, err);
	if (!machine->ged)
		return err->code;
	machine->vmgenid = vmgenid_new(host, X86_VMGENID, env->generation_id, machine->ged, err);
	return machine->vmgenid ? 0 : err->code;
}

static int create_pci(struct machine *machine, struct error *err)
{
	const struct pci_root_layout layout = {
		.ecam_base = X86_ECAM_BASE,
		.mem32_base = X86_MEM32_BASE,
		.mem32_size = X86_MEM32_SIZE,
		.mem64_base = machine->mem64_base,
		.mem64_size = machine->mem64_size,
		.io_base = X86_PCI_IO_BASE,
		.io_size = X86_PCI_IO_SIZE,
		.intx_gsi = { X86_PCI_INTX_GSI, X86_PCI_INTX_GSI + 1, X86_PCI_INTX_GSI + 2,
			      X86_PCI_INTX_GSI + 3 },
		.hotplug_base = X86_PCI_HOTPLUG_BASE,
		.ecam_only = true,
	};
	const struct pci_root_callbacks callbacks = {
		.hotplug_notify = on_hotplug,
		.ejected = machine_on_ejected,
		.reset = on_reset,
		.opaque = machine,
	};

	machine->pci = pci_root_new(&machine->host, &layout, &callbacks, err);
	return machine->pci ? 0 : err->code;
}

static int load_guest(struct machine *machine, const struct vm_config *config,
		      struct x86_boot *boot, struct error *err)
{
	const struct x86_acpi_options acpi = {
		.cpus = config->cpus.boot_vcpus,
		.apic_ids = machine->apic_ids,
		.mem64_base = machine->mem64_base,
		.mem64_size = machine->mem64_size,
		.serial = machine->serial != NULL,
		.pvpanic = machine->pvpanic != NULL,
		.vmgenid = X86_VMGENID,
	};
	const struct x86_smbios_options smbios = {
		.serial_number = config->platform.serial_number,
		.uuid = config->platform.uuid,
		.oem_strings = config->platform.oem_strings,
		.oem_string_count = config->platform.oem_string_count,
	};
	struct x86_boot_options options = {
		.kernel = config->payload.kernel,
		.initramfs = config->payload.initramfs,
		.cmdline = config->payload.cmdline,
		.rsdp = X86_ACPI_BASE,
	};
	int r;

	/* The files first: the tables' RAM is allocated meanwhile. */
	r = x86_boot_load(machine->host.memory, &options, boot, err);
	if (!r)
		r = x86_acpi_write(machine->host.memory, &acpi, err);
	if (!r)
		r = x86_mptable_write(machine->host.memory, machine->apic_ids, acpi.cpus, err);
	if (!r)
		r = vmgenid_write(machine->vmgenid, err);
	if (!r)
		r = x86_smbios_write(machine->host.memory, &smbios, err);
	return r;
}

static void choose_topology(struct machine *machine, const struct cpus_config *cpus)
{
	machine->topology = (struct x86_topology){
		.threads_per_core = cpus->threads_per_core ?: 1,
		.cores_per_die = cpus->cores_per_die ?: cpus->boot_vcpus,
		.dies_per_package = cpus->dies_per_package ?: 1,
		.packages = cpus->packages ?: 1,
	};
	for (unsigned int i = 0; i < cpus->boot_vcpus; i++)
		machine->apic_ids[i] = x86_apic_id(&machine->topology, i);
}

static void on_dirty_ring_full(void *opaque, unsigned int cpu)
{
	struct machine *machine = opaque;

	/* Without a reader of the ring its entries are of no use. */
	if (machine->kvm_writes)
		kvm_dirty_ring_harvest(machine->kvm_writes, cpu);
	else
		kvm_reset_dirty_rings(&machine->kvm);
}

/* They stand still, without a state. Before the guest is loaded, since RAM is allocated from
 * then on, and whoever maps something waits for that. */
static int create_vcpus(struct machine *machine, struct error *err)
{
	for (unsigned int i = 0; i < machine->vcpu_count; i++) {
		const struct vcpu_options options = {
			.kvm = &machine->kvm,
			.id = machine->apic_ids[i],
			.index = i,
			.mmio = machine->host.mmio,
			.pio = machine->host.pio,
			.threads = machine->env.threads,
			.log = machine->env.log,
			.callbacks = {
				.shutdown = on_vcpu_shutdown,
				.failed = on_vcpu_failed,
				.dirty_ring_full = on_dirty_ring_full,
				.opaque = machine,
			},
		};
		int r;

		machine->vcpus[i] = vcpu_new(&options, err);
		if (!machine->vcpus[i])
			return err->code;
		machine->states[i].time.khz = kvm_vcpu_tsc_khz(vcpu_fd(machine->vcpus[i]));
		r = vcpu_start(machine->vcpus[i], err);
		if (r)
			return r;
	}
	return 0;
}

static int set_up_vcpus(struct machine *machine, const struct x86_boot *boot, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < machine->vcpu_count; i++)
		r = x86_vcpu_setup(vcpu_fd(machine->vcpus[i]), i, machine->supported,
				   &machine->topology, i == 0 ? boot : NULL,
				   &machine->states[i].cpuid, err);
	return r;
}

static int make_kvm(struct machine *machine, const struct machine_incoming *incoming,
		    struct error *err)
{
	if (!incoming || !incoming->kvm || incoming->kvm->vm_fd < 0)
		return kvm_open(&machine->kvm, err);
	machine->kvm = *incoming->kvm;
	*incoming->kvm = (struct kvm)KVM_INIT;
	return 0;
}

static int assemble(struct machine *machine, const struct vm_config *config,
		    const struct machine_incoming *incoming, struct error *err)
{
	struct x86_boot boot;
	int r;

	machine->vcpu_count = config->cpus.boot_vcpus;
	choose_topology(machine, &config->cpus);
	r = make_kvm(machine, incoming, err);
	if (!r)
		r = x86_cpuid_supported(machine->kvm.fd, machine->supported, err);
	if (!r)
		r = create_memory(machine, config, incoming, err);
	if (!r)
		r = kvm_create_irqchip(&machine->kvm, err);
	if (!r)
		r = place_mem64_window(machine, err);
	if (!r)
		r = create_buses(machine, err);
	if (!r)
		r = create_platform(machine, config, err);
	if (!r)
		r = create_pci(machine, err);
	if (!r)
		r = machine_create_devices(machine, config, err);
	if (!r)
		r = create_vcpus(machine, err);
	if (!r && !incoming)
		r = load_guest(machine, config, &boot, err);
	if (!r && !incoming)
		r = set_up_vcpus(machine, &boot, err);
	if (!r && incoming)
		machine_expect(machine);
	return r;
}

struct machine *machine_new(const struct vm_config *config, const struct machine_env *env,
			    const struct machine_incoming *incoming, struct error *err)
{
	struct machine *machine = calloc(1, sizeof(*machine));
	struct error own = ERROR_INIT;

	if (!err)
		err = &own;
	if (machine)
		machine->supported = calloc(1, sizeof(*machine->supported));
	if (!machine || !machine->supported) {
		free(machine);
		error_set_errno(err, ENOMEM, "create machine");
		return NULL;
	}
	machine->env = *env;
	machine->host.loop = env->loop;
	machine->host.threads = env->threads;
	machine->host.log = env->log;
	machine->kvm = (struct kvm)KVM_INIT;
	pthread_mutex_init(&machine->lock, NULL);
	if (incoming) {
		machine->layout = incoming->layout;
		machine->disks_unlocked = incoming->disks_unlocked;
		machine->host.kept = incoming->kept;
	}
	if (assemble(machine, config, incoming, err)) {
		/* What was handed in is the caller's again. */
		if (incoming && machine->host.memory == incoming->memory)
			machine->memory_lent = true;
		machine_free(machine);
		return NULL;
	}
	machine->layout = NULL;
	machine_keep_generation_id(machine);
	machine->disks_unlocked = false;
	return machine;
}

void machine_free(struct machine *machine)
{
	if (!machine)
		return;
	for (unsigned int i = 0; i < machine->vcpu_count; i++)
		if (machine->vcpus[i])
			vcpu_request_pause(machine->vcpus[i]);
	machine_free_migration(machine);
	for (unsigned int i = 0; i < machine->vcpu_count; i++) {
		vcpu_free(machine->vcpus[i]);
		free(machine->states[i].cpuid);
	}
	machine_free_devices(machine);
	vmgenid_free(machine->vmgenid);
	acpi_ged_free(machine->ged);
	debug_port_free(machine->debug_port);
	pvpanic_free(machine->pvpanic);
	i8042_free(machine->i8042);
	rtc_free(machine->rtc);
	if (machine->serial)
		loop_call(machine->env.loop, free_serial, machine);
	kvm_interrupts_free(machine->interrupts);
	bus_free(machine->host.pio);
	bus_free(machine->host.mmio);
	kvm_close(&machine->kvm);
	if (!machine->memory_lent)
		guest_memory_free(machine->host.memory);
	pthread_mutex_destroy(&machine->lock);
	json_decref(machine->counted);
	free(machine->supported);
	free(machine);
}

/* The guest's clocks go on: where they stopped, or, after a load, by the time that has
 * passed since. */
static int resume_clocks(struct machine *machine, struct error *err)
{
	struct x86_time times[VM_CPUS_MAX];
	int fds[VM_CPUS_MAX], r;
	uint64_t elapsed;

	if (!machine->clock_loaded)
		return kvm_clock_continue(&machine->kvm, &machine->clock, err);
	for (unsigned int i = 0; i < machine->vcpu_count; i++) {
		fds[i] = vcpu_fd(machine->vcpus[i]);
		times[i] = machine->states[i].time;
	}
	r = kvm_clock_advance(&machine->kvm, &machine->clock, &elapsed, err);
	if (!r)
		r = x86_time_set(fds, times, machine->vcpu_count, elapsed, err);
	return r;
}

int machine_resume(struct machine *machine, struct error *err)
{
	if (machine->running)
		return 0;
	if (machine->clock_valid) {
		int r = resume_clocks(machine, err);

		if (r)
			return r;
		machine->clock_valid = machine->clock_loaded = false;
		for (unsigned int i = 0; i < machine->vcpu_count; i++)
			kvm_kvmclock_ctrl(vcpu_fd(machine->vcpus[i]));
	}
	machine_own(machine);
	/* A device that it needs at once goes on then (virtio_pci_resume). */
	for (unsigned int i = 0; i < machine->vcpu_count; i++)
		vcpu_resume(machine->vcpus[i]);
	machine_resume_devices(machine);
	machine->running = true;
	return 0;
}

static int read_clocks(struct machine *machine, struct error *err)
{
	int r = kvm_clock_read(&machine->kvm, &machine->clock, err);

	for (unsigned int i = 0; !r && i < machine->vcpu_count; i++)
		r = x86_time_read(vcpu_fd(machine->vcpus[i]), &machine->states[i].time, err);
	return r;
}

int machine_pause(struct machine *machine, struct error *err)
{
	int r;

	if (!machine->running)
		return 0;
	for (unsigned int i = 0; i < machine->vcpu_count; i++)
		vcpu_request_pause(machine->vcpus[i]);
	for (unsigned int i = 0; i < machine->vcpu_count; i++)
		vcpu_wait_paused(machine->vcpus[i]);
	machine_pause_devices(machine);
	machine->running = false;
	r = read_clocks(machine, err);
	machine->clock_valid = !r;
	if (r)
		machine_resume(machine, NULL);
	return r;
}

void machine_power_button(struct machine *machine)
{
	acpi_ged_raise(machine->ged, ACPI_EVENT_POWER_BUTTON);
}

void machine_keep_generation_id(struct machine *machine)
{
	if (machine->env.generation_id)
		vmgenid_get(machine->vmgenid, machine->env.generation_id);
}

int machine_renew_generation_id(struct machine *machine, struct error *err)
{
	int r = vmgenid_renew(machine->vmgenid, err);

	if (!r)
		machine_keep_generation_id(machine);
	return r;
}

int machine_nmi(struct machine *machine, struct error *err)
{
	for (unsigned int i = 0; i < machine->vcpu_count; i++) {
		int r = vcpu_inject_nmi(machine->vcpus[i], err);

		if (r)
			return r;
	}
	return 0;
}

uint64_t machine_memory_actual(struct machine *machine)
{
	uint64_t size = guest_memory_size(machine->host.memory);
	uint64_t balloon = machine->balloon ? virtio_balloon_actual(machine->balloon) : 0;

	return balloon < size ? size - balloon : 0;
}
