/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of a 16550A UART (National Semiconductor PC16550D data sheet). A
 * byte is sent the moment it is written: the transmitter is always empty. Where
 * bytes come from and go to: serial_io.c.
 */
#include "devices/legacy/legacy.h"

#include <errno.h>
#include <linux/serial_reg.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "devices/legacy/serial_internal.h"

#define PORTS 8
#define LCR_8N1 UART_LCR_WLEN8
#define MCR_WRITABLE 0x1f
#define IER_WRITABLE 0x0f
#define IIR_FIFO_ENABLED 0xc0
#define IIR_TIMEOUT 0x0c
#define MSR_LINES 0xf0
#define MSR_CONNECTED (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

unsigned int serial_fifo_size(const struct serial *s)
{
	return s->fcr & UART_FCR_ENABLE_FIFO ? SERIAL_FIFO : 1;
}

unsigned int serial_rx_room_locked(const struct serial *s)
{
	/* In loopback the receiver hears the transmitter alone. */
	if (s->mcr & UART_MCR_LOOP)
		return 0;
	return s->rx_count < serial_fifo_size(s) ? serial_fifo_size(s) - s->rx_count : 0;
}

static unsigned int rx_trigger(const struct serial *s)
{
	static const uint8_t levels[] = { 1, 4, 8, 14 };

	return s->fcr & UART_FCR_ENABLE_FIFO ? levels[s->fcr >> 6] : 1;
}

/* The pending interrupt of the highest priority, as IIR names it. */
static uint8_t interrupt_id(const struct serial *s)
{
	if ((s->ier & UART_IER_RLSI) && (s->lsr_errors & UART_LSR_OE))
		return UART_IIR_RLSI;
	if ((s->ier & UART_IER_RDI) && s->rx_count >= rx_trigger(s))
		return UART_IIR_RDI;
	/* Below the trigger the timeout is up at once: there is no line speed. */
	if ((s->ier & UART_IER_RDI) && s->rx_count)
		return IIR_TIMEOUT;
	if ((s->ier & UART_IER_THRI) && s->thre_pending)
		return UART_IIR_THRI;
	if ((s->ier & UART_IER_MSI) && (s->msr & UART_MSR_ANY_DELTA))
		return UART_IIR_MSI;
	return UART_IIR_NO_INT;
}

void serial_update_irq_locked(struct serial *s)
{
	bool level = interrupt_id(s) != UART_IIR_NO_INT;

	if (level != s->irq_level) {
		s->irq_level = level;
		irq_line_set(&s->irq, level);
	}
}

void serial_rx_push_locked(struct serial *s, uint8_t byte)
{
	if (s->rx_count >= serial_fifo_size(s)) {
		s->lsr_errors |= UART_LSR_OE;
		return;
	}
	s->rx[(s->rx_first + s->rx_count++) % SERIAL_FIFO] = byte;
}

static void rx_clear_locked(struct serial *s)
{
	s->rx_first = 0;
	s->rx_count = 0;
}

static uint8_t rx_pop_locked(struct serial *s)
{
	uint8_t byte;

	if (!s->rx_count)
		return 0;
	byte = s->rx[s->rx_first];
	s->rx_first = (s->rx_first + 1) % SERIAL_FIFO;
	s->rx_count--;
	return byte;
}

/* The modem lines: fixed, or in loopback what the modem control register says. */
static void update_msr_locked(struct serial *s)
{
	uint8_t lines = MSR_CONNECTED, changed;

	if (s->mcr & UART_MCR_LOOP)
		lines = (uint8_t)((s->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
				  (s->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) |
				  (s->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) |
				  (s->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0));
	changed = (s->msr ^ lines) & MSR_LINES;
	/* The ring indicator's change counts at its trailing edge only. */
	if (lines & UART_MSR_RI)
		changed &= (uint8_t)~UART_MSR_RI;
	/* A delta bit lies four below its line. */
	s->msr = (uint8_t)(lines | (s->msr & UART_MSR_ANY_DELTA) | changed >> 4);
}

static void write_thr_locked(struct serial *s, uint8_t byte)
{
	/* Full and empty again: a driver waiting for the edge must see one. */
	s->thre_pending = false;
	serial_update_irq_locked(s);
	if (s->mcr & UART_MCR_LOOP)
		serial_rx_push_locked(s, byte);
	else
		serial_tx_locked(s, byte);
	s->thre_pending = true;
}

static void write_fcr_locked(struct serial *s, uint8_t value)
{
	bool switched = (s->fcr ^ value) & UART_FCR_ENABLE_FIFO;

	if (switched || (value & UART_FCR_CLEAR_RCVR))
		rx_clear_locked(s);
	/* Without the enable bit the others are not written. */
	s->fcr = value & UART_FCR_ENABLE_FIFO ? value & (UART_FCR_ENABLE_FIFO | 0xc0) : 0;
}

static void write_ier_locked(struct serial *s, uint8_t value)
{
	/* Enabling it with the transmitter empty is an interrupt of its own. */
	if (!(s->ier & UART_IER_THRI) && (value & UART_IER_THRI))
		s->thre_pending = true;
	s->ier = value & IER_WRITABLE;
}

static void write_register_locked(struct serial *s, uint64_t offset, uint8_t value)
{
	bool dlab = s->lcr & UART_LCR_DLAB;

	switch (offset) {
	case UART_TX:
		if (dlab)
			s->divisor = (uint16_t)((s->divisor & 0xff00) | value);
		else
			write_thr_locked(s, value);
		break;
	case UART_IER:
		if (dlab)
			s->divisor = (uint16_t)((s->divisor & 0x00ff) | value << 8);
		else
			write_ier_locked(s, value);
		break;
	case UART_FCR: write_fcr_locked(s, value); break;
	case UART_LCR: s->lcr = value; break;
	case UART_MCR:
		s->mcr = value & MCR_WRITABLE;
		update_msr_locked(s);
		break;
	case UART_SCR: s->scr = value; break;
	default: /* line and modem status are read-only */ break;
	}
}

static uint8_t read_iir_locked(struct serial *s)
{
	uint8_t id = interrupt_id(s);

	/* Reading it acknowledges this one interrupt, where it is the one named. */
	if (id == UART_IIR_THRI)
		s->thre_pending = false;
	return id | (s->fcr & UART_FCR_ENABLE_FIFO ? IIR_FIFO_ENABLED : 0);
}

static uint8_t read_lsr_locked(struct serial *s)
{
	uint8_t lsr = UART_LSR_THRE | UART_LSR_TEMT | s->lsr_errors;

	s->lsr_errors = 0;
	return lsr | (s->rx_count ? UART_LSR_DR : 0);
}

static uint8_t read_msr_locked(struct serial *s)
{
	uint8_t msr = s->msr;

	s->msr &= (uint8_t)~UART_MSR_ANY_DELTA;
	return msr;
}

static uint8_t read_register_locked(struct serial *s, uint64_t offset)
{
	bool dlab = s->lcr & UART_LCR_DLAB;

	switch (offset) {
	case UART_RX: return dlab ? (uint8_t)s->divisor : rx_pop_locked(s);
	case UART_IER: return dlab ? (uint8_t)(s->divisor >> 8) : s->ier;
	case UART_IIR: return read_iir_locked(s);
	case UART_LCR: return s->lcr;
	case UART_MCR: return s->mcr;
	case UART_LSR: return read_lsr_locked(s);
	case UART_MSR: return read_msr_locked(s);
	default: return s->scr;
	}
}

/* The ports are a byte wide: a wider access is as many of them in a row. */
static void ports_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct serial *s = opaque;
	uint8_t *out = data;

	pthread_mutex_lock(&s->lock);
	for (unsigned int i = 0; i < len; i++)
		out[i] = read_register_locked(s, offset + i);
	serial_update_irq_locked(s);
	serial_rx_wake_locked(s);
	pthread_mutex_unlock(&s->lock);
}

static void ports_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct serial *s = opaque;
	const uint8_t *in = data;

	pthread_mutex_lock(&s->lock);
	for (unsigned int i = 0; i < len; i++)
		write_register_locked(s, offset + i, in[i]);
	serial_update_irq_locked(s);
	serial_rx_wake_locked(s);
	pthread_mutex_unlock(&s->lock);
}

static const struct bus_ops port_ops = { .read = ports_read, .write = ports_write };

static void reset_locked(struct serial *s)
{
	rx_clear_locked(s);
	s->ier = 0;
	s->fcr = 0;
	s->lcr = LCR_8N1;
	s->mcr = UART_MCR_OUT2;
	s->scr = 0;
	s->divisor = 12; /* 9600 baud */
	s->msr = MSR_CONNECTED;
	s->lsr_errors = 0;
	s->thre_pending = false;
}

void serial_reset(struct serial *s)
{
	pthread_mutex_lock(&s->lock);
	reset_locked(s);
	serial_update_irq_locked(s);
	serial_rx_wake_locked(s);
	pthread_mutex_unlock(&s->lock);
}

struct serial *serial_new(struct device_host *host, uint16_t port, struct irq_line irq, int in_fd,
			  int out_fd, struct error *err)
{
	struct serial *s = calloc(1, sizeof(*s));

	if (!s) {
		error_set_errno(err, ENOMEM, "create serial port");
		return NULL;
	}
	s->host = host;
	s->port = port;
	s->irq = irq;
	pthread_mutex_init(&s->lock, NULL);
	reset_locked(s);
	s->held = host->kept;
	if (serial_io_init(s, err))
		goto fail;
	serial_set_fds(s, in_fd, out_fd);
	if (bus_add(host->pio, port, PORTS, "serial port", &port_ops, s, err)) {
		serial_io_destroy(s);
		goto fail;
	}
	return s;
fail:
	pthread_mutex_destroy(&s->lock);
	free(s);
	return NULL;
}

void serial_free(struct serial *s)
{
	if (!s)
		return;
	bus_remove(s->host->pio, s->port);
	serial_io_destroy(s);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
