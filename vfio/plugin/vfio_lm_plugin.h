/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interface of plugins that move the state of a device out of band: for functions of a
 * DPU or IPU whose state an agent on the card has, not the device's driver. It is the one
 * proposed for QEMU in 2022 ("vfio/migration: add a plugin layer to support out-of-band live
 * migration"), version 0, to the byte: a shared object built for that loads here unchanged,
 * and one built with this header loads there. docs/plugins.md says how to write one.
 *
 * A plugin exports two functions:
 *
 *	int vfio_lm_get_plugin_version(void);                   VFIO_LM_PLUGIN_API_VERSION
 *	VFIOMigrationPluginOps *vfio_lm_get_plugin_ops(void);   lives as long as the plugin
 *
 * Everything is called in one thread of a process that has this plugin for this device and
 * nothing else. int results: 0, or not 0 for a failure.
 *
 * When Ferry opens the device: init, cleanup; a NULL of init makes the device one that cannot
 * be migrated. Then, in a new process for every migration:
 *
 *	the source                              the destination
 *	init                                    init
 *	get_state, set_state RUNNING | SAVING   get_state, set_state RESUMING
 *	update_pending, save ...                load ...
 *	    (the VM runs on)                        (as they are saved)
 *	get_state, set_state SAVING
 *	    (the VM stands)
 *	update_pending, save ...
 *	    until update_pending says 0
 *	get_state, set_state 0                  get_state, set_state RUNNING
 *	cleanup                                 cleanup
 *
 * A migration that fails: get_state, set_state RUNNING at the source, cleanup.
 */
#ifndef VFIO_LM_PLUGIN_H
#define VFIO_LM_PLUGIN_H

#include <stdint.h>

#define VFIO_LM_PLUGIN_API_VERSION 0

/* States: those of the first protocol of device migration (linux/vfio.h). None of them: the
 * device stands. SAVING | RESUMING: it has failed. */
#define VFIO_LM_STATE_STOP 0U
#define VFIO_LM_STATE_RUNNING 1U
#define VFIO_LM_STATE_SAVING 2U
#define VFIO_LM_STATE_RESUMING 4U

typedef struct VFIOMigrationPluginOps {
	/* devid: the function's address, as "0000:01:10.0". arg: the device's plugin_arg, NULL
	 * where it has none. Both are there until cleanup. What is returned is handed to all
	 * others; NULL: failure. */
	void *(*init)(char *devid, char *arg);
	/* The next len bytes of the state; all of them. At most what update_pending said, and
	 * at most 1 MiB. */
	int (*save)(void *handle, uint8_t *state, uint64_t len);
	/* The next len bytes of the state, cut as save was asked for them. */
	int (*load)(void *handle, uint8_t *state, uint64_t len);
	/* Bytes that are still to be saved, for now. */
	int (*update_pending)(void *handle, uint64_t *pending_bytes);
	int (*set_state)(void *handle, uint32_t value);
	int (*get_state)(void *handle, uint32_t *value);
	int (*cleanup)(void *handle); /* NULL is allowed */
} VFIOMigrationPluginOps;

typedef int (*VFIOLMPluginGetVersion)(void);
typedef VFIOMigrationPluginOps *(*VFIOLMPluginGetOps)(void);

#endif
