/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ferry-plugin's parts. A program of its own, dynamically linked, since it loads shared
 * objects, which Ferry cannot and shall not.
 *
 *   main.c         starts and ends a process per plugin, on Ferry's word
 *   process.c      one such process: loads the plugin, calls it
 *   confine.c      what it may do: limits, Landlock, seccomp
 *   gen_filter.c   the seccomp filter, compiled at build time
 */
#ifndef VFIO_PLUGIN_HOST_H
#define VFIO_PLUGIN_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where a plugin's process says why it cannot go on. */
struct reason {
	char text[256];
};

/* Fills it; returns -1. */
int reason_set(struct reason *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* For good: before anything of the plugin is run. *landlock: whether the kernel has it. */
int confine(const char *plugin, bool *landlock, struct reason *why);

/* Serves sock until its end. */
_Noreturn void run_plugin(int sock, uint8_t *window, const char *plugin);

#endif
