/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few devices of a PC that a Linux guest expects beside PCI. Each is made with
 * the ranges and the interrupt line it gets; it puts itself on the bus and takes
 * itself off in its free function. Register accesses come from vCPU threads.
 *
 * Saving and loading: as devices/device_state.h says.
 */
#ifndef DEVICES_LEGACY_LEGACY_H
#define DEVICES_LEGACY_LEGACY_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/device_host.h"
#include "devices/device_state.h"

/*
 * 16550A UART, 8 ports at `port`. Reads in_fd through the main loop (-1: no input)
 * and writes out_fd (-1: dropped); both stay the caller's. Never blocks a vCPU: what
 * a slow reader does not take within a bounded buffer (64 KiB) is dropped and counted.
 * serial_new, serial_set_fds, serial_hold and serial_free: in the main loop's thread, or before it
 * runs.
 */
struct serial;
struct serial *serial_new(struct device_host *host, uint16_t port, struct irq_line irq, int in_fd,
			  int out_fd, struct error *err);
/* New ends for input and output (socket clients that come and go); -1: none. */
void serial_set_fds(struct serial *serial, int in_fd, int out_fd);
/* Held: it neither reads nor writes, for another process has the ends; what the guest has
 * sent stays where it is saved. A port made with host->kept is held from the start. */
void serial_hold(struct serial *serial, bool hold);
void serial_reset(struct serial *serial);
/* Bytes of output dropped so far. Any thread. */
uint64_t serial_dropped(struct serial *serial);
/* With output that its reader has not taken yet. What came in here before the load
 * comes behind what had come there, as far as there is room. */
void serial_save(struct serial *serial, struct state_writer *writer, const char *name);
int serial_load(struct serial *serial, const struct state_node *node, struct error *err);
void serial_free(struct serial *serial);

/* CMOS RTC, MC146818, ports 0x70/0x71, UTC; memory sizes in their usual bytes. */
struct rtc;
struct rtc *rtc_new(struct device_host *host, uint64_t low_memory, uint64_t high_memory,
		    struct error *err);
/* Without the time: that is the host's. */
void rtc_save(struct rtc *rtc, struct state_writer *writer, const char *name);
int rtc_load(struct rtc *rtc, const struct state_node *node, struct error *err);
void rtc_free(struct rtc *rtc);

/* What the guest asked the machine to do; called from a vCPU thread, must only
 * post the request and return. */
struct machine_requests {
	void (*reset)(void *opaque);	/* i8042 0xfe, port 0xcf9, triple fault */
	void (*shutdown)(void *opaque); /* ACPI S5 */
	void (*panicked)(void *opaque, unsigned int event); /* pvpanic */
	/* A byte to the debug port (0x80): boot milestones. */
	void (*debug)(void *opaque, uint8_t value);
	void *opaque;
};

/* (Port 0xcf9 lies within PCI's config ports: pci_root_callbacks.reset.)
 *
 * i8042 as far as "reset by 0xfe" and a keyboard-less self test go; ports 0x60, 0x64. */
struct i8042;
struct i8042 *i8042_new(struct device_host *host, const struct machine_requests *requests,
			struct error *err);
void i8042_save(struct i8042 *i8042, struct state_writer *writer, const char *name);
int i8042_load(struct i8042 *i8042, const struct state_node *node, struct error *err);
void i8042_free(struct i8042 *i8042);

/* pvpanic, port 0x505 (ISA form: QEMU docs/specs/pvpanic): bits PANICKED, CRASH_LOADED. */
struct pvpanic;
struct pvpanic *pvpanic_new(struct device_host *host, const struct machine_requests *requests,
			    struct error *err);
/* It has no state; that it is there is what is saved. */
void pvpanic_save(struct pvpanic *pvpanic, struct state_writer *writer, const char *name);
int pvpanic_load(struct pvpanic *pvpanic, const struct state_node *node, struct error *err);
void pvpanic_free(struct pvpanic *pvpanic);

/* Debug port 0x80 (one byte, to requests->debug) and the debug console at `port`
 * (bytes to out_fd; port 0: none). */
struct debug_port;
struct debug_port *debug_port_new(struct device_host *host, const struct machine_requests *requests,
				  uint16_t port, int out_fd, struct error *err);
void debug_port_save(struct debug_port *debug_port, struct state_writer *writer, const char *name);
int debug_port_load(struct debug_port *debug_port, const struct state_node *node,
		    struct error *err);
void debug_port_free(struct debug_port *debug_port);

/*
 * ACPI for a hardware-reduced platform: the Generic Event Device's registers
 * (MMIO, 4 KiB at base) and the sleep/reset registers. Layout, little-endian:
 *   +0x00 u32 EVENTS  read: pending bits, clears them: bit 0 power button,
 *                     bit 1 PCI hot-plug, bit 2 VM generation id
 *   +0x04 u8  SLEEP_CONTROL (ACPI 4.8.3.7): SLP_TYP 5 with SLP_EN = shutdown
 *   +0x05 u8  SLEEP_STATUS
 *   +0x06 u8  RESET: writing 1 resets the machine
 */
#define ACPI_EVENT_POWER_BUTTON 0x1
#define ACPI_EVENT_PCI_HOTPLUG 0x2
#define ACPI_EVENT_VMGENID 0x4
#define ACPI_GED_SIZE 0x1000
struct acpi_ged;
struct acpi_ged *acpi_ged_new(struct device_host *host, uint64_t base, struct irq_line irq,
			      const struct machine_requests *requests, struct error *err);
/* Sets pending bits and pulses the line. Any thread. */
void acpi_ged_raise(struct acpi_ged *ged, uint32_t events);
void acpi_ged_save(struct acpi_ged *ged, struct state_writer *writer, const char *name);
/* Pulses the line where events are pending. */
int acpi_ged_load(struct acpi_ged *ged, const struct state_node *node, struct error *err);
void acpi_ged_free(struct acpi_ged *ged);

#endif
