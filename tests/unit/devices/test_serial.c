/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/serial_reg.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/legacy/legacy.h"
#include "tests/unit/helpers/fake_host.h"
#include "tests/unit/helpers/run_suite.h"

#define PORT 0x3f8
#define IRQ 4
#define NO_INT 0x01
#define FIFO 0xc0

static struct fake_host h;
static struct serial *serial;
static int input[2], output[2]; /* pipes: we write input[1] and read output[0] */

static void setup(void)
{
	struct irq_line line = { .gsi = IRQ };

	signal(SIGPIPE, SIG_IGN); /* as the program does */
	ck_assert_int_eq(fake_host_init(&h), 0);
	ck_assert_int_eq(pipe2(input, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(output, O_CLOEXEC), 0);
	line.interrupts = &h.host.interrupts;
	serial = serial_new(&h.host, PORT, line, input[0], output[1], NULL);
	ck_assert_ptr_nonnull(serial);
}

static void teardown(void)
{
	serial_free(serial);
	for (unsigned int i = 0; i < 2; i++) {
		close(input[i]);
		close(output[i]);
	}
	fake_host_destroy(&h);
}

static uint8_t get(unsigned int reg)
{
	uint8_t value;

	ck_assert(bus_read(h.host.pio, PORT + reg, &value, 1));
	return value;
}

static void put(unsigned int reg, uint8_t value)
{
	bus_write(h.host.pio, PORT + reg, &value, 1);
}

static bool irq(void)
{
	return h.fake.level[IRQ];
}

static void stop(void *opaque)
{
	loop_stop(h.host.loop);
}

static void stop_again(void *opaque)
{
	loop_post(h.host.loop, stop, NULL);
}

/* Runs the loop until what is ready now, and what that makes ready, is done. */
static void run_loop(void)
{
	for (unsigned int i = 0; i < 3; i++) {
		loop_post(h.host.loop, stop_again, NULL);
		loop_run(h.host.loop);
	}
}

static void type(const char *text)
{
	ck_assert_int_eq(fd_write_full(input[1], text, strlen(text)), 0);
	run_loop();
}

START_TEST(registers_start_as_after_reset)
{
	ck_assert_uint_eq(get(UART_IER), 0);
	ck_assert_uint_eq(get(UART_IIR), NO_INT);
	ck_assert_uint_eq(get(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	ck_assert_uint_eq(get(UART_MSR), UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
	ck_assert(!irq());
}
END_TEST

START_TEST(bytes_written_come_out)
{
	char text[6] = "";

	for (const char *c = "hello"; *c; c++)
		put(UART_TX, (uint8_t)*c);
	ck_assert_int_eq(read(output[0], text, 5), 5);
	ck_assert_str_eq(text, "hello");
}
END_TEST

START_TEST(driver_finds_a_16550a)
{
	put(UART_SCR, 0x5a);
	ck_assert_uint_eq(get(UART_SCR), 0x5a);
	put(UART_IER, 0xff);
	ck_assert_uint_eq(get(UART_IER), 0x0f);
	put(UART_IER, 0);
	put(UART_FCR, UART_FCR_ENABLE_FIFO);
	ck_assert_uint_eq(get(UART_IIR), FIFO | NO_INT);
	/* No 64-byte FIFO, no autoflow: not a 16750. */
	put(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
	ck_assert_uint_eq(get(UART_IIR), FIFO | NO_INT);
	put(UART_MCR, 0xff);
	ck_assert_uint_eq(get(UART_MCR), 0x1f);
	put(UART_FCR, 0);
	ck_assert_uint_eq(get(UART_IIR) & FIFO, 0);
}
END_TEST

START_TEST(loopback_wires_modem_lines_and_data_back)
{
	char byte;

	put(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	ck_assert_uint_eq(get(UART_MSR) & 0xf0, UART_MSR_DCD | UART_MSR_CTS);
	put(UART_TX, 'x');
	ck_assert(get(UART_LSR) & UART_LSR_DR);
	ck_assert_uint_eq(get(UART_RX), 'x');
	ck_assert(!(get(UART_LSR) & UART_LSR_DR));
	put(UART_MCR, 0);
	fd_set_nonblocking(output[0], true);
	ck_assert_int_eq(read(output[0], &byte, 1), -1);
}
END_TEST

START_TEST(modem_line_changes_set_delta_bits_and_interrupt)
{
	put(UART_IER, UART_IER_MSI);
	put(UART_MCR, UART_MCR_LOOP);
	ck_assert(irq());
	ck_assert_uint_eq(get(UART_IIR), UART_IIR_MSI);
	ck_assert_uint_eq(get(UART_MSR), UART_MSR_DDCD | UART_MSR_DDSR | UART_MSR_DCTS);
	ck_assert(!irq());
	ck_assert_uint_eq(get(UART_IIR), NO_INT);
	/* The ring indicator tells its trailing edge only. */
	put(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT1);
	ck_assert_uint_eq(get(UART_MSR), UART_MSR_RI);
	put(UART_MCR, UART_MCR_LOOP);
	ck_assert_uint_eq(get(UART_MSR), UART_MSR_TERI);
}
END_TEST

START_TEST(divisor_hides_behind_dlab)
{
	put(UART_IER, UART_IER_RDI);
	put(UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
	put(UART_DLL, 0x34);
	put(UART_DLM, 0x12);
	ck_assert_uint_eq(get(UART_DLL), 0x34);
	ck_assert_uint_eq(get(UART_DLM), 0x12);
	put(UART_LCR, UART_LCR_WLEN8);
	ck_assert_uint_eq(get(UART_LCR), UART_LCR_WLEN8);
	ck_assert_uint_eq(get(UART_IER), UART_IER_RDI);
}
END_TEST

START_TEST(empty_transmitter_interrupts_when_enabled_and_after_each_byte)
{
	put(UART_IER, UART_IER_THRI);
	ck_assert(irq());
	ck_assert_uint_eq(get(UART_IIR), UART_IIR_THRI);
	/* Reading IIR acknowledged it. */
	ck_assert(!irq());
	ck_assert_uint_eq(get(UART_IIR), NO_INT);
	put(UART_TX, 'a');
	ck_assert(irq());
	/* A byte sent without looking makes a new edge. */
	ck_assert_uint_eq(h.fake.rises[IRQ], 2);
	put(UART_TX, 'b');
	ck_assert_uint_eq(h.fake.rises[IRQ], 3);
	put(UART_IER, 0);
	ck_assert(!irq());
	/* Enabling it again with the transmitter empty interrupts again. */
	get(UART_IIR);
	put(UART_IER, UART_IER_THRI);
	ck_assert(irq());
}
END_TEST

START_TEST(input_interrupts_and_is_read)
{
	put(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
	put(UART_IER, UART_IER_RDI);
	type("abc");
	ck_assert(irq());
	/* Below the trigger level it is the timeout. */
	ck_assert_uint_eq(get(UART_IIR), FIFO | 0x0c);
	type("defgh");
	ck_assert_uint_eq(get(UART_IIR), FIFO | UART_IIR_RDI);
	for (const char *c = "abcdefgh"; *c; c++) {
		ck_assert(get(UART_LSR) & UART_LSR_DR);
		ck_assert(irq());
		ck_assert_uint_eq(get(UART_RX), *c);
	}
	ck_assert(!(get(UART_LSR) & UART_LSR_DR));
	ck_assert(!irq());
	ck_assert_uint_eq(get(UART_RX), 0);
}
END_TEST

START_TEST(received_data_comes_before_an_empty_transmitter)
{
	put(UART_IER, UART_IER_RDI | UART_IER_THRI);
	type("a");
	ck_assert_uint_eq(get(UART_IIR), UART_IIR_RDI);
	get(UART_RX);
	/* It was not the one named: still pending. */
	ck_assert_uint_eq(get(UART_IIR), UART_IIR_THRI);
	ck_assert_uint_eq(get(UART_IIR), NO_INT);
}
END_TEST

START_TEST(full_fifo_stops_reading_and_nothing_is_lost)
{
	char text[301], got[301] = "";
	unsigned int n = 0;

	for (unsigned int i = 0; i < 300; i++)
		text[i] = (char)('a' + i % 26);
	text[300] = '\0';
	put(UART_FCR, UART_FCR_ENABLE_FIFO);
	type(text);
	for (unsigned int turn = 0; turn < 100 && n < 300; turn++) {
		while (get(UART_LSR) & UART_LSR_DR)
			got[n++] = (char)get(UART_RX);
		run_loop();
	}
	ck_assert_str_eq(got, text);
	ck_assert(!(get(UART_LSR) & UART_LSR_OE));
}
END_TEST

START_TEST(without_fifo_one_byte_at_a_time)
{
	type("xy");
	ck_assert_uint_eq(get(UART_RX), 'x');
	ck_assert(!(get(UART_LSR) & UART_LSR_DR));
	run_loop();
	ck_assert_uint_eq(get(UART_RX), 'y');
}
END_TEST

START_TEST(overrun_in_loopback_is_reported_once)
{
	put(UART_IER, UART_IER_RLSI);
	put(UART_MCR, UART_MCR_LOOP);
	put(UART_TX, '1');
	put(UART_TX, '2');
	ck_assert_uint_eq(get(UART_IIR), UART_IIR_RLSI);
	ck_assert(get(UART_LSR) & UART_LSR_OE);
	ck_assert(!(get(UART_LSR) & UART_LSR_OE));
	ck_assert_uint_eq(get(UART_IIR), NO_INT);
	ck_assert_uint_eq(get(UART_RX), '1');
}
END_TEST

START_TEST(fifo_reset_drops_what_was_received)
{
	put(UART_FCR, UART_FCR_ENABLE_FIFO);
	type("abc");
	put(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	ck_assert(!(get(UART_LSR) & UART_LSR_DR));
	/* So does switching the FIFOs off. */
	type("d");
	put(UART_FCR, 0);
	ck_assert(!(get(UART_LSR) & UART_LSR_DR));
}
END_TEST

START_TEST(end_of_input_is_not_an_error)
{
	close(input[1]);
	input[1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
	run_loop();
	ck_assert(!(get(UART_LSR) & UART_LSR_DR));
	put(UART_TX, 'z');
	ck_assert_int_eq(read(output[0], &(char){ 0 }, 1), 1);
}
END_TEST

START_TEST(regular_file_is_input_too)
{
	char path[] = "/tmp/ferry-test-serial-XXXXXX";
	int fd = mkstemp(path);
	unsigned int n = 0;

	ck_assert_int_ge(fd, 0);
	unlink(path);
	ck_assert_int_eq(fd_write_full(fd, "0123456789abcdefXYZ", 19), 0);
	lseek(fd, 0, SEEK_SET);
	put(UART_FCR, UART_FCR_ENABLE_FIFO);
	serial_set_fds(serial, fd, -1);
	for (unsigned int turn = 0; turn < 5; turn++) {
		while (get(UART_LSR) & UART_LSR_DR)
			ck_assert_uint_eq(get(UART_RX), "0123456789abcdefXYZ"[n++]);
		run_loop();
	}
	ck_assert_uint_eq(n, 19);
	close(fd);
}
END_TEST

static size_t drain_output(char *into, size_t room)
{
	size_t n = 0;
	ssize_t r;

	fd_set_nonblocking(output[0], true);
	while ((r = read(output[0], into + n, room - n)) > 0)
		n += (size_t)r;
	return n;
}

START_TEST(slow_reader_blocks_nobody_and_gets_what_was_kept)
{
	static char got[256 * 1024];
	size_t n, total = 0;

	/* A pipe of 64 KiB and a buffer of 64 KiB: both overflow. */
	ck_assert_int_gt(fcntl(output[1], F_SETPIPE_SZ, 65536), 0);
	for (unsigned int i = 0; i < 160 * 1024; i++) {
		uint8_t byte = (uint8_t)(i % 251);

		bus_write(h.host.pio, PORT, &byte, 1);
	}
	ck_assert_uint_gt(serial_dropped(serial), 0);
	for (unsigned int turn = 0; turn < 200; turn++) {
		n = drain_output(got + total, sizeof(got) - total);
		total += n;
		run_loop();
	}
	ck_assert_uint_eq(total + serial_dropped(serial), 160 * 1024);
	for (unsigned int i = 0; i < 64 * 1024; i++)
		if ((uint8_t)got[i] != i % 251)
			ck_abort_msg("byte %u", i);
	/* And it goes on as before. */
	put(UART_TX, 'q');
	ck_assert_uint_eq(drain_output(got, sizeof(got)), 1);
	ck_assert_int_eq(got[0], 'q');
}
END_TEST

START_TEST(reader_that_left_costs_nothing)
{
	close(output[0]);
	output[0] = -1;
	put(UART_TX, 'a');
	put(UART_TX, 'b');
	ck_assert(get(UART_LSR) & UART_LSR_THRE);
}
END_TEST

START_TEST(one_socket_is_both_ends_and_can_be_exchanged)
{
	int a[2], b[2];
	char byte;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b), 0);
	serial_set_fds(serial, a[0], a[0]);
	put(UART_TX, '1');
	ck_assert_int_eq(read(a[1], &byte, 1), 1);
	ck_assert_int_eq(write(a[1], "2", 1), 1);
	run_loop();
	ck_assert_uint_eq(get(UART_RX), '2');
	/* Full in both directions, then the client goes. */
	for (unsigned int i = 0; i < 400 * 1024; i++)
		bus_write(h.host.pio, PORT, "x", 1);
	close(a[1]);
	run_loop();
	serial_set_fds(serial, b[0], b[0]);
	close(a[0]);
	put(UART_TX, '3');
	ck_assert_int_eq(read(b[1], &byte, 1), 1);
	ck_assert_int_eq(byte, '3');
	serial_set_fds(serial, -1, -1);
	put(UART_TX, '4');
	run_loop();
	close(b[0]);
	close(b[1]);
}
END_TEST

START_TEST(reset_forgets_the_driver)
{
	put(UART_IER, 0x0f);
	put(UART_LCR, UART_LCR_DLAB);
	ck_assert(irq());
	serial_reset(serial);
	ck_assert(!irq());
	ck_assert_uint_eq(get(UART_IER), 0);
	ck_assert_uint_eq(get(UART_LCR) & UART_LCR_DLAB, 0);
}
END_TEST

START_TEST(wide_accesses_are_bytes_in_a_row)
{
	uint32_t value = 0;

	put(UART_SCR, 0x77);
	ck_assert(bus_read(h.host.pio, PORT + 4, &value, 4));
	ck_assert_uint_eq(value >> 24, 0x77);
	ck_assert(!bus_read(h.host.pio, PORT + 6, &value, 4));
	value = 0x66000000;
	ck_assert(bus_write(h.host.pio, PORT + 4, &value, 4));
	ck_assert_uint_eq(get(UART_SCR), 0x66);
}
END_TEST

static void *echo(void *opaque)
{
	unsigned int *n = opaque;

	while (*n < 2000)
		if (get(UART_LSR) & UART_LSR_DR) {
			put(UART_TX, get(UART_RX));
			(*n)++;
		}
	loop_post(h.host.loop, stop, NULL);
	return NULL;
}

static void *feed(void *opaque)
{
	char text[100];

	memset(text, 'e', sizeof(text));
	for (unsigned int i = 0; i < 20; i++)
		fd_write_full(input[1], text, sizeof(text));
	return NULL;
}

START_TEST(vcpu_and_loop_run_beside_each_other)
{
	pthread_t vcpu, feeder;
	unsigned int n = 0;
	char got[2000];

	put(UART_FCR, UART_FCR_ENABLE_FIFO);
	put(UART_IER, UART_IER_RDI | UART_IER_THRI);
	pthread_create(&vcpu, NULL, echo, &n);
	pthread_create(&feeder, NULL, feed, NULL);
	loop_run(h.host.loop);
	pthread_join(vcpu, NULL);
	pthread_join(feeder, NULL);
	ck_assert_int_eq(fd_read_full(output[0], got, sizeof(got)), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("serial");
	TCase *t = tcase_create("serial");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, registers_start_as_after_reset);
	tcase_add_test(t, bytes_written_come_out);
	tcase_add_test(t, driver_finds_a_16550a);
	tcase_add_test(t, loopback_wires_modem_lines_and_data_back);
	tcase_add_test(t, modem_line_changes_set_delta_bits_and_interrupt);
	tcase_add_test(t, divisor_hides_behind_dlab);
	tcase_add_test(t, empty_transmitter_interrupts_when_enabled_and_after_each_byte);
	tcase_add_test(t, input_interrupts_and_is_read);
	tcase_add_test(t, received_data_comes_before_an_empty_transmitter);
	tcase_add_test(t, full_fifo_stops_reading_and_nothing_is_lost);
	tcase_add_test(t, without_fifo_one_byte_at_a_time);
	tcase_add_test(t, overrun_in_loopback_is_reported_once);
	tcase_add_test(t, fifo_reset_drops_what_was_received);
	tcase_add_test(t, end_of_input_is_not_an_error);
	tcase_add_test(t, regular_file_is_input_too);
	tcase_add_test(t, slow_reader_blocks_nobody_and_gets_what_was_kept);
	tcase_add_test(t, reader_that_left_costs_nothing);
	tcase_add_test(t, one_socket_is_both_ends_and_can_be_exchanged);
	tcase_add_test(t, reset_forgets_the_driver);
	tcase_add_test(t, wide_accesses_are_bytes_in_a_row);
	tcase_add_test(t, vcpu_and_loop_run_beside_each_other);
	suite_add_tcase(s, t);
	return run_suite(s);
}
