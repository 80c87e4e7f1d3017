/* SPDX-License-Identifier: Apache-2.0 */
/* A UART's state: its registers, what it received, what it could not send yet. */
#include <linux/serial_reg.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/legacy/serial_internal.h"

#define KIND "serial-16550a"
#define VERSION 1

static const struct state_field fields[] = {
	STATE_FIELD(struct serial, ier, "ier", 0x0f),
	STATE_FIELD(struct serial, fcr, "fcr", UINT8_MAX),
	STATE_FIELD(struct serial, lcr, "lcr", UINT8_MAX),
	STATE_FIELD(struct serial, mcr, "mcr", 0x1f),
	STATE_FIELD(struct serial, msr, "msr", UINT8_MAX),
	STATE_FIELD(struct serial, scr, "scr", UINT8_MAX),
	STATE_FIELD(struct serial, lsr_errors, "line-errors", UART_LSR_OE),
	STATE_FIELD(struct serial, divisor, "divisor", UINT16_MAX),
	STATE_FIELD(struct serial, thre_pending, "transmitter-empty-pending", 1),
};

/* A ring's bytes in their order, which takes two pieces at most. */
static void unroll(uint8_t *to, const uint8_t *ring, unsigned int size, unsigned int first,
		   unsigned int count)
{
	unsigned int run = MIN(count, size - first);

	memcpy(to, ring + first, run);
	memcpy(to + run, ring, count - run);
}

static void reverse(uint8_t *bytes, unsigned int count)
{
	for (unsigned int i = 0; i < count / 2; i++) {
		uint8_t byte = bytes[i];

		bytes[i] = bytes[count - 1 - i];
		bytes[count - 1 - i] = byte;
	}
}

/* Turns the ring, which is too large for a copy, so that it starts where it begins. */
static void straighten_tx_locked(struct serial *s)
{
	reverse(s->tx, s->tx_first);
	reverse(s->tx + s->tx_first, SERIAL_TX_MAX - s->tx_first);
	reverse(s->tx, SERIAL_TX_MAX);
	s->tx_first = 0;
}

void serial_save(struct serial *s, struct state_writer *writer, const char *name)
{
	uint8_t rx[SERIAL_FIFO];

	state_begin(writer, name, KIND, VERSION);
	pthread_mutex_lock(&s->lock);
	state_fields_save(writer, fields, ARRAY_SIZE(fields), s);
	unroll(rx, s->rx, SERIAL_FIFO, s->rx_first, s->rx_count);
	state_put_bytes(writer, "received", rx, s->rx_count);
	if (s->tx_first)
		straighten_tx_locked(s);
	state_put_bytes(writer, "unsent", s->tx, s->tx_count);
	pthread_mutex_unlock(&s->lock);
	state_end(writer);
}

static int load_received(struct serial *s, const struct state_node *node, struct error *err)
{
	uint8_t early[SERIAL_FIFO];
	unsigned int count = s->rx_count;
	const void *data;
	size_t len;
	int r = state_get_blob(node, "received", &data, &len, err);

	if (r)
		return r;
	if (len > serial_fifo_size(s))
		return state_refuse(node, "received", err, "has %zu bytes, the FIFO takes %u", len,
				    serial_fifo_size(s));
	unroll(early, s->rx, SERIAL_FIFO, s->rx_first, count);
	memcpy(s->rx, data, len);
	s->rx_first = 0;
	s->rx_count = (unsigned int)len;
	for (unsigned int i = 0; i < count && serial_rx_room_locked(s); i++)
		serial_rx_push_locked(s, early[i]);
	return 0;
}

static int load_unsent(struct serial *s, const struct state_node *node, struct error *err)
{
	const void *data;
	size_t len;
	int r = state_get_blob(node, "unsent", &data, &len, err);

	if (r)
		return r;
	if (len > SERIAL_TX_MAX)
		return state_refuse(node, "unsent", err, "has %zu bytes, not up to %u", len,
				    SERIAL_TX_MAX);
	/* The other port's output went where this one's goes, or nowhere. */
	if (s->out_fd < 0) {
		s->dropped += len;
		len = 0;
	}
	memcpy(s->tx, data, len);
	s->tx_first = 0;
	s->tx_count = (unsigned int)len;
	serial_tx_wake_locked(s);
	return 0;
}

static int load_locked(struct serial *s, const struct state_node *node, struct error *err)
{
	int r = state_fields_load(node, fields, ARRAY_SIZE(fields), s, err);
	uint8_t fcr = s->fcr;

	if (r)
		return r;
	if (fcr & ~(UART_FCR_ENABLE_FIFO | 0xc0) || (fcr && !(fcr & UART_FCR_ENABLE_FIFO))) {
		s->fcr = 0;
		return state_refuse(node, "fcr", err, "is 0x%02x, which no driver can set", fcr);
	}
	if (s->lsr_errors & ~UART_LSR_OE) {
		s->lsr_errors = 0;
		return state_refuse(node, "line-errors", err, "has errors other than an overrun");
	}
	r = load_received(s, node, err);
	return r ? r : load_unsent(s, node, err);
}

int serial_load(struct serial *s, const struct state_node *node, struct error *err)
{
	int r = state_expect(node, KIND, VERSION, NULL, NULL, err);

	if (r)
		return r;
	pthread_mutex_lock(&s->lock);
	r = load_locked(s, node, err);
	if (!r) {
		serial_update_irq_locked(s);
		serial_rx_wake_locked(s);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}
