/* SPDX-License-Identifier: Apache-2.0 */
/* A UART's registers (serial.c), its ends (serial_io.c), its state (serial_state.c). */
#ifndef DEVICES_LEGACY_SERIAL_INTERNAL_H
#define DEVICES_LEGACY_SERIAL_INTERNAL_H

#include <pthread.h>

#include "devices/legacy/legacy.h"

#define SERIAL_FIFO 16
#define SERIAL_TX_MAX (64u << 10)

struct serial {
	struct device_host *host;
	struct irq_line irq;
	uint16_t port;
	pthread_mutex_t lock; /* guards all below but the loop's sources */

	uint8_t ier, fcr, lcr, mcr, msr, scr;
	uint8_t lsr_errors; /* until LSR is read */
	uint16_t divisor;
	bool thre_pending; /* the transmitter became empty, and nobody has noticed */
	bool irq_level;
	uint8_t rx[SERIAL_FIFO];
	unsigned int rx_first, rx_count;

	int in_fd, out_fd;
	bool rx_stalled;	   /* the loop stopped reading: no room in the FIFO */
	bool tx_watched;	   /* the loop was asked to wait for room in out_fd */
	uint8_t tx[SERIAL_TX_MAX]; /* a ring: what out_fd did not take yet */
	unsigned int tx_first, tx_count;
	uint64_t dropped;

	/* The loop's thread only. */
	int wake_fd;	     /* eventfd: a vCPU asks the loop to look again */
	int watch_fd;	     /* a duplicate of out_fd: in_fd may be the same one */
	bool in_unwatchable; /* a regular file: always readable */
	bool held;	     /* under lock, too */
	struct loop_source *wake, *input, *output;
};

/* serial.c */
unsigned int serial_fifo_size(const struct serial *s);
unsigned int serial_rx_room_locked(const struct serial *s);
void serial_rx_push_locked(struct serial *s, uint8_t byte);
void serial_update_irq_locked(struct serial *s);

/* serial_io.c */
int serial_io_init(struct serial *s, struct error *err);
void serial_io_destroy(struct serial *s);
void serial_tx_locked(struct serial *s, uint8_t byte);
/* There is output to be written: by the loop. */
void serial_tx_wake_locked(struct serial *s);
/* After a register access: reading goes on where it had stalled. */
void serial_rx_wake_locked(struct serial *s);

#endif
