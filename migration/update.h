/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live update: one process hands its VM to another of the same host, RAM and open
 * descriptors and all. It is the local migration of protocol.h with the capability UPDATE,
 * so who owns the VM is settled by the same COMMIT and the same witness.
 *
 *   old (source)                                new (destination)
 *     |  HELLO local, update ------------------->|
 *     |  <--------------------------- HELLO_REPLY|
 *     |  ASK version, kinds of state ----------->|  can it take this VM? The guest runs
 *     |  <------------------- AGREED, or FAILED  |
 *     |  CPU, MEMORY memfds -------------------->|
 *     |  KEPT disks, taps, consoles, listeners ->|  copies: the old one's stay open
 *     |  <------------------------------- AGREED |  (each KEPT is acknowledged)
 *     |  CONFIG -------------------------------->|  a machine around them; touches nothing
 *     |  <------------------------------ CREATED |
 *  pause|  vCPUs, devices                         |
 *  stops|  accepting clients, reading consoles; irqfds come off
 *     |  KEPT what there is only now ----------->|  (interrupts' eventfds, connections)
 *     |  STATE --------------------------------->|  loads it
 *     |  <------------------------------- AGREED |  (to the last KEPT, read only now)
 *     |  <-------------------------------- READY |
 *     |  COMMIT -------------------------------->|  attaches interrupts, runs, takes up
 *     |                                          |  consoles and clients; MAINPID
 *     |  <------------------------------ RUNNING |
 *     |  DONE, answers its client, exits         |
 *
 * Before COMMIT the new process only holds copies: it reads no console, accepts nobody,
 * talks to no device and no server, sets nothing of a tap or a device. So the old one can
 * go on at any moment, and a new one that dies leaves nothing behind. Disk locks are those
 * of open file descriptions, which both have: they are never given up. What a device
 * signals in the gap stays in its eventfd, and is delivered when the new one attaches it.
 *
 * Who dies when, and who has the VM then:
 *
 *   step                              old ends                new ends, or fails
 *   asked, created; the guest runs    nobody: it ends (1)     old, never paused
 *   paused, up to COMMIT              nobody: it ends (1)     old, resumed
 *   COMMIT sent, VM not started       new (2)                 old, resumed (3)
 *   started, RUNNING not read         new                     held (4)
 *   RUNNING read                      new                     nobody: it ends (1)
 *
 *   (1) it was that process's VM. Everything is released by the kernel.
 *   (2) COMMIT was sent: the new one reads it from the socket even when the old is gone.
 *   (3) by the witness: it ended and had not said "starting".
 *   (4) it ran over there for a moment, and its devices may have been used: paused in the
 *       old one, which says so; vm.resume takes it up.
 */
#ifndef MIGRATION_UPDATE_H
#define MIGRATION_UPDATE_H

#include "base/kept.h"
#include "migration/protocol.h"

/* The descriptors and facts of one KEPT, from an entry of kept on. Returns how many
 * entries went in (0: none left); fds: FD_PASS_MAX, stay kept's. */
unsigned int kept_encode(const struct kept *kept, unsigned int first, uint8_t buf[FRAME_META_MAX],
			 size_t *len, int *fds, unsigned int *fd_count);
/*
 * Adds what came. Takes over all fds, also on failure. -EBADMSG what makes no sense: names
 * that are none, a number of descriptors that is another; -EEXIST a name twice.
 */
int kept_decode(struct kept *kept, const uint8_t *buf, size_t len, const int *fds,
		unsigned int fd_count, struct error *err);

struct migration_send;
struct migration_receive;

/* What send.c and receive.c do besides, with that capability; without, they return 0. */
int send_update_ask(struct migration_send *send, struct error *err);
int send_update_kept(struct migration_send *send, bool paused, struct error *err);
/* After STATE: the last answer to what was kept at the pause. */
int send_update_agreed(struct migration_send *send, struct error *err);
int receive_update_asked(struct migration_receive *receive, struct error *err);
int receive_update_kept(struct migration_receive *receive, bool paused, struct error *err);

#endif
