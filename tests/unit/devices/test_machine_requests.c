/* SPDX-License-Identifier: Apache-2.0 */
/* The devices by which a guest asks the machine for something: i8042, pvpanic, debug
 * port, ACPI events. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/legacy/legacy.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/run_suite.h"

#define GED 0xe2000000
#define GED_IRQ 9
#define DEBUG_CONSOLE 0xe9

static struct fake_host h;
static struct requests {
	unsigned int resets, shutdowns, panics, panic_event, debugs;
	uint8_t debug;
} asked;

static struct i8042 *i8042;
static struct pvpanic *pvpanic;
static struct debug_port *debug_port;
static struct acpi_ged *ged;
static int console[2];

static void on_reset(void *opaque)
{
	((struct requests *)opaque)->resets++;
}

static void on_shutdown(void *opaque)
{
	((struct requests *)opaque)->shutdowns++;
}

static void on_panic(void *opaque, unsigned int event)
{
	((struct requests *)opaque)->panics++;
	((struct requests *)opaque)->panic_event = event;
}

static void on_debug(void *opaque, uint8_t value)
{
	((struct requests *)opaque)->debugs++;
	((struct requests *)opaque)->debug = value;
}

static const struct machine_requests requests = {
	.reset = on_reset,
	.shutdown = on_shutdown,
	.panicked = on_panic,
	.debug = on_debug,
	.opaque = &asked,
};

static void setup(void)
{
	struct irq_line line = { .gsi = GED_IRQ };

	ck_assert_int_eq(fake_host_init(&h), 0);
	ck_assert_int_eq(pipe2(console, O_CLOEXEC | O_NONBLOCK), 0);
	line.interrupts = &h.host.interrupts;
	i8042 = i8042_new(&h.host, &requests, NULL);
	pvpanic = pvpanic_new(&h.host, &requests, NULL);
	debug_port = debug_port_new(&h.host, &requests, DEBUG_CONSOLE, console[1], NULL);
	ged = acpi_ged_new(&h.host, GED, line, &requests, NULL);
	ck_assert(i8042 && pvpanic && debug_port && ged);
}

static void teardown(void)
{
	uint8_t byte;

	acpi_ged_free(ged);
	debug_port_free(debug_port);
	pvpanic_free(pvpanic);
	i8042_free(i8042);
	/* They took themselves off. */
	for (unsigned int port = 0; port < 0x600; port++)
		if (bus_read(h.host.pio, port, &byte, 1))
			ck_abort_msg("port 0x%x", port);
	close(console[0]);
	close(console[1]);
	fake_host_destroy(&h);
}

static uint8_t in(uint16_t port)
{
	uint8_t value;

	ck_assert(bus_read(h.host.pio, port, &value, 1));
	return value;
}

static void out(uint16_t port, uint8_t value)
{
	bus_write(h.host.pio, port, &value, 1);
}

static uint32_t ged_get(unsigned int offset, unsigned int len)
{
	uint8_t data[8] = { 0 };

	ck_assert(bus_read(h.host.mmio, GED + offset, data, len));
	return load_le32(data);
}

static void ged_put(unsigned int offset, uint32_t value, unsigned int len)
{
	uint8_t data[8] = { 0 };

	store_le32(data, value);
	bus_write(h.host.mmio, GED + offset, data, len);
}

START_TEST(keyboard_controller_resets_the_machine)
{
	out(0x64, 0xff);
	out(0x64, 0xad);
	ck_assert_uint_eq(asked.resets, 0);
	out(0x64, 0xfe);
	ck_assert_uint_eq(asked.resets, 1);
	/* Through its output port, too. */
	out(0x64, 0xd1);
	out(0x60, 0x03);
	ck_assert_uint_eq(asked.resets, 1);
	out(0x64, 0xd1);
	out(0x60, 0x02);
	ck_assert_uint_eq(asked.resets, 2);
}
END_TEST

START_TEST(keyboard_controller_passes_its_self_test)
{
	ck_assert_uint_eq(in(0x64) & 0x01, 0);
	out(0x64, 0xaa);
	ck_assert_uint_eq(in(0x64) & 0x05, 0x05);
	ck_assert_uint_eq(in(0x60), 0x55);
	ck_assert_uint_eq(in(0x64) & 0x01, 0);
	out(0x64, 0xab);
	ck_assert_uint_eq(in(0x60), 0x00);
	out(0x64, 0x60);
	out(0x60, 0x41);
	out(0x64, 0x20);
	ck_assert_uint_eq(in(0x60), 0x41);
	ck_assert_uint_eq(asked.resets, 0);
}
END_TEST

START_TEST(absent_keyboard_answers_with_a_timeout_at_once)
{
	out(0x60, 0xf2);
	ck_assert_uint_eq(in(0x64) & 0x41, 0x41);
	ck_assert_uint_eq(in(0x60), 0xfe);
	ck_assert_uint_eq(in(0x64) & 0x41, 0);
	ck_assert_uint_eq(asked.resets, 0);
}
END_TEST

START_TEST(panic_is_reported_with_its_events)
{
	ck_assert_uint_eq(in(0x505), 3);
	out(0x505, 0);
	out(0x505, 0xfc);
	ck_assert_uint_eq(asked.panics, 0);
	out(0x505, 0xff);
	ck_assert_uint_eq(asked.panics, 1);
	ck_assert_uint_eq(asked.panic_event, 3);
	out(0x505, 2);
	ck_assert_uint_eq(asked.panic_event, 2);
}
END_TEST

START_TEST(milestones_are_passed_on)
{
	out(0x80, 0x42);
	ck_assert_uint_eq(asked.debugs, 1);
	ck_assert_uint_eq(asked.debug, 0x42);
	ck_assert_uint_eq(in(0x80), 0x42);
}
END_TEST

START_TEST(debug_console_writes_and_never_blocks)
{
	char text[3] = "";

	ck_assert_uint_eq(in(DEBUG_CONSOLE), 0xe9);
	out(DEBUG_CONSOLE, 'h');
	out(DEBUG_CONSOLE, 'i');
	ck_assert_int_eq(read(console[0], text, 2), 2);
	ck_assert_str_eq(text, "hi");
	for (unsigned int i = 0; i < 100000; i++)
		out(DEBUG_CONSOLE, 'x');
}
END_TEST

START_TEST(debug_console_is_optional)
{
	debug_port_free(debug_port);
	debug_port = debug_port_new(&h.host, &requests, 0, -1, NULL);
	ck_assert_ptr_nonnull(debug_port);
	ck_assert(!bus_read(h.host.pio, DEBUG_CONSOLE, &(uint8_t){ 0 }, 1));
}
END_TEST

START_TEST(events_are_pending_until_read)
{
	acpi_ged_raise(ged, ACPI_EVENT_POWER_BUTTON);
	acpi_ged_raise(ged, ACPI_EVENT_PCI_HOTPLUG);
	ck_assert_uint_eq(h.fake.rises[GED_IRQ], 2);
	ck_assert(!h.fake.level[GED_IRQ]);
	ck_assert_uint_eq(ged_get(0, 4), ACPI_EVENT_POWER_BUTTON | ACPI_EVENT_PCI_HOTPLUG);
	ck_assert_uint_eq(ged_get(0, 4), 0);
}
END_TEST

START_TEST(other_accesses_leave_events_alone)
{
	acpi_ged_raise(ged, ACPI_EVENT_VMGENID);
	ged_get(0, 1);
	ged_get(0, 2);
	ged_get(0, 8);
	ged_get(2, 4);
	ged_put(0, 0xffffffff, 4);
	ck_assert_uint_eq(ged_get(ACPI_GED_SIZE - 4, 4), 0);
	ck_assert_uint_eq(ged_get(0, 4), ACPI_EVENT_VMGENID);
}
END_TEST

START_TEST(only_s5_with_enable_shuts_down)
{
	for (unsigned int value = 0; value < 256; value++) {
		unsigned int before = asked.shutdowns;
		bool s5 = (value & 0x20) && (value >> 2 & 7) == 5;

		ged_put(4, value, 1);
		ck_assert_uint_eq(asked.shutdowns - before, s5);
	}
	/* Registers are bytes. */
	ged_put(4, 0x34, 4);
	ck_assert_uint_eq(asked.shutdowns, 16);
	ck_assert_uint_eq(ged_get(5, 1), 0);
}
END_TEST

START_TEST(reset_register_takes_one_only)
{
	ged_put(6, 0, 1);
	ged_put(6, 2, 1);
	ged_put(6, 1, 2);
	ged_put(7, 1, 1);
	ck_assert_uint_eq(asked.resets, 0);
	ged_put(6, 1, 1);
	ck_assert_uint_eq(asked.resets, 1);
}
END_TEST

START_TEST(taken_ports_are_refused)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(i8042_new(&h.host, &requests, &err));
	ck_assert_int_eq(err.code, -EEXIST);
	ck_assert_ptr_null(pvpanic_new(&h.host, &requests, &err));
	ck_assert_ptr_null(debug_port_new(&h.host, &requests, 0, -1, &err));
	ck_assert_ptr_null(
		acpi_ged_new(&h.host, GED, (struct irq_line){ .gsi = 1 }, &requests, &err));
	/* What a failed one had taken it gave back. */
	debug_port_free(debug_port);
	debug_port = NULL;
	ck_assert_ptr_null(debug_port_new(&h.host, &requests, 0x505, -1, &err));
	ck_assert(!bus_read(h.host.pio, 0x80, &(uint8_t){ 0 }, 1));
}
END_TEST

static atomic_bool stop;

static void *take_events(void *opaque)
{
	uint32_t *seen = opaque;
	bool last;

	do {
		uint8_t data[4];

		last = atomic_load(&stop);
		bus_read(h.host.mmio, GED, data, 4);
		*seen |= load_le32(data);
	} while (!last);
	return NULL;
}

START_TEST(no_event_is_lost_between_raise_and_read)
{
	uint32_t seen = 0;
	pthread_t reader;

	pthread_create(&reader, NULL, take_events, &seen);
	for (unsigned int i = 0; i < 32; i++)
		acpi_ged_raise(ged, 1u << i);
	atomic_store(&stop, true);
	pthread_join(reader, NULL);
	ck_assert_uint_eq(seen, 0xffffffff);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("machine_requests");
	TCase *t = tcase_create("machine_requests");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 30);
	tcase_add_test(t, keyboard_controller_resets_the_machine);
	tcase_add_test(t, keyboard_controller_passes_its_self_test);
	tcase_add_test(t, absent_keyboard_answers_with_a_timeout_at_once);
	tcase_add_test(t, panic_is_reported_with_its_events);
	tcase_add_test(t, milestones_are_passed_on);
	tcase_add_test(t, debug_console_writes_and_never_blocks);
	tcase_add_test(t, debug_console_is_optional);
	tcase_add_test(t, events_are_pending_until_read);
	tcase_add_test(t, other_accesses_leave_events_alone);
	tcase_add_test(t, only_s5_with_enable_shuts_down);
	tcase_add_test(t, reset_register_takes_one_only);
	tcase_add_test(t, taken_ports_are_refused);
	tcase_add_test(t, no_event_is_lost_between_raise_and_read);
	suite_add_tcase(s, t);
	return run_suite(s);
}
