/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling the service manager: datagrams to the socket that NOTIFY_SOCKET names, as
 * sd_notify(3) has them. Main thread, or one thread at a time.
 */
#ifndef BASE_NOTIFY_H
#define BASE_NOTIFY_H

struct notify;

/* Connects; NULL where nobody wants to know, or it cannot be reached. To be called before
 * paths are out of reach. */
struct notify *notify_new(void);
void notify_free(struct notify *notify); /* NULL is allowed */
/* "READY=1", lines separated by newlines. Best effort; never waits. */
void notify_send(struct notify *notify, const char *text);

#endif
