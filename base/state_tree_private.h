/* SPDX-License-Identifier: Apache-2.0 */
/* What writer, reader and printer of the state tree share. */
#ifndef BASE_STATE_TREE_PRIVATE_H
#define BASE_STATE_TREE_PRIVATE_H

#include "base/state_tree.h"

#define STATE_NAME_MAX 63 /* bytes, of nodes, kinds and properties */

/* The properties each node has, which the writer puts there itself. */
#define STATE_COMPATIBLE "compatible"
#define STATE_VERSION "version"
#define STATE_REQUIRED "required"
#define STATE_VENDOR "ferry,"

#define STATE_ROOT_KIND "state-tree"
#define STATE_ROOT_VERSION 1

/* Nodes and properties together: what checking a hostile tree may cost. */
#define STATE_ENTRIES_MAX (1u << 18)

/* A name of a node or property: 1 to STATE_NAME_MAX of [a-zA-Z0-9,._+@-]. */
bool state_name_is_valid(const char *name);

#endif
