/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kinds of nodes in a machine's state tree, and the newest version of each that this
 * Ferry writes and reads: what a live update compares before anything is paused. A test
 * compares the table with what machines really save.
 */
#ifndef VMM_STATE_KINDS_H
#define VMM_STATE_KINDS_H

#include <stdbool.h>

#include <jansson.h>

#include "base/error.h"

struct state_kind {
	const char *name; /* NULL: the end */
	unsigned int version;
	unsigned int device; /* only with a virtio device of that type; 0: always */
	bool vfio;	     /* only with an assigned device */
};

extern const struct state_kind state_kinds[];

/* { kind: version } against the table: 0, or -EPROTONOSUPPORT naming the first that is
 * newer, or not known. */
int state_kinds_check(const json_t *kinds, struct error *err);

#endif
