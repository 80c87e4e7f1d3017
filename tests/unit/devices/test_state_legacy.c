/* SPDX-License-Identifier: Apache-2.0 */
/* The devices of a PC beside PCI: saved and loaded. */
#include <fcntl.h>
#include <linux/serial_reg.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/legacy/legacy.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/helpers/state_case.h"

#define PORT 0x3f8
#define GSI 4
#define GED_BASE 0xfed00000ULL
#define GED_GSI 9

/* A device, and all of a machine it needs. */
struct fixture {
	struct fake_host h;
	int in[2], out[2]; /* pipes; out's is full */
	void *device;
};

static const struct machine_requests requests;

static struct fixture *fixture_new(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fake_host_init(&f->h), 0);
	ck_assert_int_eq(pipe2(f->in, O_CLOEXEC | O_NONBLOCK), 0);
	ck_assert_int_eq(pipe2(f->out, O_CLOEXEC | O_NONBLOCK), 0);
	while (write(f->out[1], "full of something", 17) > 0)
		;
	return f;
}

static void fixture_free(struct fixture *f)
{
	ck_assert_uint_eq(f->h.fake.misuses, 0);
	fake_host_destroy(&f->h);
	for (int i = 0; i < 2; i++) {
		close(f->in[i]);
		close(f->out[i]);
	}
	free(f);
}

static void out(struct fixture *f, uint16_t port, uint8_t value)
{
	ck_assert(bus_write(f->h.host.pio, port, &value, 1));
}

static uint8_t in(struct fixture *f, uint16_t port)
{
	uint8_t value = 0;

	ck_assert(bus_read(f->h.host.pio, port, &value, 1));
	return value;
}

/* Serial port. */

static void *serial_make(void)
{
	struct fixture *f = fixture_new();
	struct irq_line irq = { .interrupts = &f->h.host.interrupts, .gsi = GSI };

	f->device = serial_new(&f->h.host, PORT, irq, -1, f->out[1], NULL);
	ck_assert_ptr_nonnull(f->device);
	return f;
}

/* Received bytes come by loopback, which goes round the FIFO once. */
static void serial_prepare(void *opaque)
{
	struct fixture *f = opaque;

	out(f, PORT + UART_LCR, UART_LCR_DLAB);
	out(f, PORT + UART_TX, 3);
	out(f, PORT + UART_IER, 1);
	out(f, PORT + UART_LCR, UART_LCR_WLEN8 | UART_LCR_EPAR);
	out(f, PORT + UART_SCR, 0x5a);
	out(f, PORT + UART_FCR, UART_FCR_ENABLE_FIFO | 0x40);
	for (unsigned int i = 0; i < 9; i++)
		out(f, PORT + UART_TX, (uint8_t)('a' + i));
	out(f, PORT + UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2);
	for (unsigned int i = 0; i < 12; i++)
		out(f, PORT + UART_TX, 'x');
	for (unsigned int i = 0; i < 12; i++)
		in(f, PORT + UART_RX);
	for (unsigned int i = 0; i < 17; i++)
		out(f, PORT + UART_TX, (uint8_t)('A' + i));
	out(f, PORT + UART_MCR, UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2);
	out(f, PORT + UART_IER, UART_IER_RDI | UART_IER_THRI);
}

static int serial_store(void *opaque, struct state_writer *writer, struct error *err)
{
	serial_save(((struct fixture *)opaque)->device, writer, "serial");
	return 0;
}

static int serial_restore(void *opaque, const struct state_node *node, struct error *err)
{
	return serial_load(((struct fixture *)opaque)->device, node, err);
}

static void serial_destroy(void *opaque)
{
	struct fixture *f = opaque;

	serial_free(f->device);
	fixture_free(f);
}

/* Real-time clock. */

static void *rtc_make(void)
{
	struct fixture *f = fixture_new();

	f->device = rtc_new(&f->h.host, 512 * MIB, 0, NULL);
	ck_assert_ptr_nonnull(f->device);
	return f;
}

static void rtc_prepare(void *opaque)
{
	out(opaque, 0x70, 11);
	out(opaque, 0x71, 0x06); /* binary, 24 hours */
	for (uint8_t i = 14; i < 128; i++) {
		out(opaque, 0x70, i);
		out(opaque, 0x71, (uint8_t)(i * 3));
	}
	out(opaque, 0x70, 0x41);
}

static int rtc_store(void *opaque, struct state_writer *writer, struct error *err)
{
	rtc_save(((struct fixture *)opaque)->device, writer, "rtc");
	return 0;
}

static int rtc_restore(void *opaque, const struct state_node *node, struct error *err)
{
	return rtc_load(((struct fixture *)opaque)->device, node, err);
}

static void rtc_destroy(void *opaque)
{
	struct fixture *f = opaque;

	rtc_free(f->device);
	fixture_free(f);
}

/* Keyboard controller. */

static void *i8042_make(void)
{
	struct fixture *f = fixture_new();

	f->device = i8042_new(&f->h.host, &requests, NULL);
	ck_assert_ptr_nonnull(f->device);
	return f;
}

static void i8042_prepare(void *opaque)
{
	out(opaque, 0x64, 0x60);
	out(opaque, 0x60, 0x47);
	out(opaque, 0x64, 0xaa);
	out(opaque, 0x64, 0xd1);
}

static int i8042_store(void *opaque, struct state_writer *writer, struct error *err)
{
	i8042_save(((struct fixture *)opaque)->device, writer, "i8042");
	return 0;
}

static int i8042_restore(void *opaque, const struct state_node *node, struct error *err)
{
	return i8042_load(((struct fixture *)opaque)->device, node, err);
}

static void i8042_destroy(void *opaque)
{
	struct fixture *f = opaque;

	i8042_free(f->device);
	fixture_free(f);
}

/* pvpanic, debug port. */

static void nothing(void *opaque)
{
}

static void *pvpanic_make(void)
{
	struct fixture *f = fixture_new();

	f->device = pvpanic_new(&f->h.host, &requests, NULL);
	ck_assert_ptr_nonnull(f->device);
	return f;
}

static int pvpanic_store(void *opaque, struct state_writer *writer, struct error *err)
{
	pvpanic_save(((struct fixture *)opaque)->device, writer, "pvpanic");
	return 0;
}

static int pvpanic_restore(void *opaque, const struct state_node *node, struct error *err)
{
	return pvpanic_load(((struct fixture *)opaque)->device, node, err);
}

static void pvpanic_destroy(void *opaque)
{
	struct fixture *f = opaque;

	pvpanic_free(f->device);
	fixture_free(f);
}

static void *debug_port_make(void)
{
	struct fixture *f = fixture_new();

	f->device = debug_port_new(&f->h.host, &requests, 0xe9, -1, NULL);
	ck_assert_ptr_nonnull(f->device);
	return f;
}

static void debug_port_prepare(void *opaque)
{
	out(opaque, 0x80, 0x41);
}

static int debug_port_store(void *opaque, struct state_writer *writer, struct error *err)
{
	debug_port_save(((struct fixture *)opaque)->device, writer, "debug-port");
	return 0;
}

static int debug_port_restore(void *opaque, const struct state_node *node, struct error *err)
{
	return debug_port_load(((struct fixture *)opaque)->device, node, err);
}

static void debug_port_destroy(void *opaque)
{
	struct fixture *f = opaque;

	debug_port_free(f->device);
	fixture_free(f);
}

/* ACPI events. */

static void *ged_make(void)
{
	struct fixture *f = fixture_new();
	struct irq_line irq = { .interrupts = &f->h.host.interrupts, .gsi = GED_GSI };

	f->device = acpi_ged_new(&f->h.host, GED_BASE, irq, &requests, NULL);
	ck_assert_ptr_nonnull(f->device);
	return f;
}

static void ged_prepare(void *opaque)
{
	acpi_ged_raise(((struct fixture *)opaque)->device,
		       ACPI_EVENT_POWER_BUTTON | ACPI_EVENT_VMGENID);
}

static int ged_store(void *opaque, struct state_writer *writer, struct error *err)
{
	acpi_ged_save(((struct fixture *)opaque)->device, writer, "acpi-ged");
	return 0;
}

static int ged_restore(void *opaque, const struct state_node *node, struct error *err)
{
	return acpi_ged_load(((struct fixture *)opaque)->device, node, err);
}

static void ged_destroy(void *opaque)
{
	struct fixture *f = opaque;

	acpi_ged_free(f->device);
	fixture_free(f);
}

static const char *const serial_any_size[] = { "received", "unsent", NULL };
static const char *const serial_any_value[] = { "received", "unsent", NULL };

enum { SERIAL, RTC, I8042, PVPANIC, DEBUG_PORT, GED, CASES };

static const struct state_case cases[CASES] = {
	[SERIAL] = { "serial-16550a-v1", serial_make, serial_prepare, serial_store, serial_restore,
		     serial_destroy, serial_any_value, serial_any_size },
	[RTC] = { "rtc-v1", rtc_make, rtc_prepare, rtc_store, rtc_restore, rtc_destroy, NULL,
		  NULL },
	[I8042] = { "i8042-v1", i8042_make, i8042_prepare, i8042_store, i8042_restore,
		    i8042_destroy, NULL, NULL },
	[PVPANIC] = { "pvpanic-v1", pvpanic_make, nothing, pvpanic_store, pvpanic_restore,
		      pvpanic_destroy, NULL, NULL },
	[DEBUG_PORT] = { "debug-port-v1", debug_port_make, debug_port_prepare, debug_port_store,
			 debug_port_restore, debug_port_destroy, NULL, NULL },
	[GED] = { "acpi-ged-v1", ged_make, ged_prepare, ged_store, ged_restore, ged_destroy, NULL,
		  NULL },
};

START_TEST(what_a_fresh_device_loads_it_saves_again)
{
	state_case_round_trip(&cases[_i]);
}
END_TEST

START_TEST(the_first_version_loads)
{
	state_case_golden(&cases[_i]);
}
END_TEST

START_TEST(what_is_missing_or_wrong_is_refused_by_name)
{
	state_case_refusals(&cases[_i]);
}
END_TEST

static struct fixture *moved(unsigned int i)
{
	struct state_blob blob = state_case_prepared(&cases[i]);
	struct error err = ERROR_INIT;
	struct fixture *f = cases[i].make();

	ck_assert_msg(!state_case_load(&cases[i], f, blob.data, blob.len, &err), "%s", err.message);
	free(blob.data);
	return f;
}

START_TEST(a_serial_port_goes_on_where_it_was)
{
	struct fixture *f = moved(SERIAL);

	ck_assert(f->h.fake.level[GSI]); /* bytes are there to be read */
	ck_assert_uint_eq(in(f, PORT + UART_LSR) & UART_LSR_OE, UART_LSR_OE);
	for (unsigned int i = 0; i < 16; i++)
		ck_assert_uint_eq(in(f, PORT + UART_RX), 'A' + i);
	ck_assert_uint_eq(in(f, PORT + UART_LSR) & (UART_LSR_DR | UART_LSR_OE), 0);
	ck_assert_uint_eq(in(f, PORT + UART_IIR) & 0xf, UART_IIR_THRI);
	ck_assert_uint_eq(in(f, PORT + UART_SCR), 0x5a);
	out(f, PORT + UART_LCR, UART_LCR_DLAB);
	ck_assert_uint_eq(in(f, PORT + UART_TX), 3);
	serial_destroy(f);
}
END_TEST

static void stop_loop(void *opaque)
{
	loop_stop(opaque);
}

START_TEST(a_serial_ports_output_that_waited_is_sent_when_its_reader_reads)
{
	struct fixture *f = moved(SERIAL);
	struct loop_source *timer = loop_timer_new(f->h.host.loop, stop_loop, f->h.host.loop, NULL);
	char got[65536];
	ssize_t n;

	while (read(f->out[0], got, sizeof(got)) > 0)
		;
	loop_timer_set(timer, 50000000);
	loop_run(f->h.host.loop);
	loop_remove(timer);
	n = read(f->out[0], got, sizeof(got));
	ck_assert_int_eq(n, 9);
	ck_assert_mem_eq(got, "abcdefghi", 9);
	serial_destroy(f);
}
END_TEST

/* Typed before the state came: it is for the guest all the same. */
START_TEST(a_serial_ports_early_input_comes_behind_what_was_saved)
{
	struct state_blob blob = state_case_prepared(&cases[SERIAL]);
	struct fixture *f = fixture_new();
	struct irq_line irq = { .interrupts = &f->h.host.interrupts, .gsi = GSI };
	struct state_node root, node = { .offset = -1 };
	void *copy;
	int at = state_case_copy(blob, "/serial", &copy);

	ck_assert_int_eq(fdt_setprop(copy, at, "received", "ab", 2), 0);
	f->device = serial_new(&f->h.host, PORT, irq, -1, -1, NULL);
	out(f, PORT + UART_MCR, UART_MCR_LOOP);
	out(f, PORT + UART_TX, 'c');
	ck_assert_int_eq(state_tree_open(copy, fdt_totalsize(copy), &root, NULL), 0);
	ck_assert(state_next_child(&root, &node));
	ck_assert_int_eq(serial_load(f->device, &node, NULL), 0);
	for (unsigned int i = 0; i < 3; i++)
		ck_assert_uint_eq(in(f, PORT + UART_RX), 'a' + i);
	ck_assert_uint_eq(in(f, PORT + UART_LSR) & UART_LSR_DR, 0);
	free(copy);
	free(blob.data);
	serial_destroy(f);
}
END_TEST

START_TEST(pending_acpi_events_interrupt_and_are_read)
{
	struct fixture *f = moved(GED);
	uint8_t events[4];

	ck_assert_uint_eq(f->h.fake.rises[GED_GSI], 1);
	ck_assert(bus_read(f->h.host.mmio, GED_BASE, events, 4));
	ck_assert_uint_eq(load_le32(events), ACPI_EVENT_POWER_BUTTON | ACPI_EVENT_VMGENID);
	ged_destroy(f);
}
END_TEST

START_TEST(a_keyboard_controller_still_waits_for_its_commands_parameter)
{
	struct fixture *f = moved(I8042);

	ck_assert_uint_eq(in(f, 0x64) & 1, 1);
	ck_assert_uint_eq(in(f, 0x60), 0x55);
	out(f, 0x60, 0x03); /* the output port's, not the keyboard's: no answer */
	ck_assert_uint_eq(in(f, 0x64) & 1, 0);
	i8042_destroy(f);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("state of legacy devices");
	TCase *t = tcase_create("state");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, what_a_fresh_device_loads_it_saves_again, 0, CASES);
	tcase_add_loop_test(t, the_first_version_loads, 0, CASES);
	tcase_add_loop_test(t, what_is_missing_or_wrong_is_refused_by_name, 0, CASES);
	tcase_add_test(t, a_serial_port_goes_on_where_it_was);
	tcase_add_test(t, a_serial_ports_output_that_waited_is_sent_when_its_reader_reads);
	tcase_add_test(t, a_serial_ports_early_input_comes_behind_what_was_saved);
	tcase_add_test(t, pending_acpi_events_interrupt_and_are_read);
	tcase_add_test(t, a_keyboard_controller_still_waits_for_its_commands_parameter);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run_suite(suite());
}
