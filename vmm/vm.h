/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM as the API sees it: its configuration, its state, and the machine while it
 * has one. Implements struct vm_ops.
 *
 *   (none) --create--> CREATED --boot--> RUNNING <--pause/resume--> PAUSED
 *                                  RUNNING, PAUSED --shutdown--> SHUTDOWN --boot--> RUNNING
 *   any --delete--> (none)
 *
 * A guest that powers off ends the process (exit code 0), as does a vCPU that cannot
 * go on (exit code 1); a guest that resets, or triple-faults, gets a new machine.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include "api/event_monitor.h"
#include "api/server.h"
#include "api/vm_ops.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/notify.h"
#include "vfio/plugin_host.h"

struct vm;
struct spawner;

#ifndef FERRY_VERSION_STRING
#define FERRY_VERSION_STRING "0.1.0"
#endif

struct vm_options {
	struct loop *loop;
	const struct thread_policy *threads;
	struct log *log;
	struct event_monitor *events; /* NULL: none */
	bool landlocked;	      /* the process is confined: a VM may ask for it */
	bool jailed;		      /* it has a root of its own */
	struct plugin_host *plugins;  /* where migration plugins run; NULL: none is allowed */
	/* Live updates: who starts the new process, or (NULL) why nobody can; whom to tell. */
	struct spawner *spawner;
	const char *no_spawner;
	struct notify *notify;
	/* The process shall end. Main loop or worker. */
	void (*finished)(void *opaque, int exit_code);
	void *opaque;
};

struct vm *vm_new(const struct vm_options *options, struct error *err);
/* The guest's requests are carried out in the server's worker, in order with the
 * API's. Before the first boot. */
void vm_set_server(struct vm *vm, struct api_server *server);
void vm_free(struct vm *vm);

const struct vm_ops *vm_operations(void);

#endif
