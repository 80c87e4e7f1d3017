/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plugin for tests: a device in memory, and everything a plugin can do wrong. Its argument
 * is words that are separated by commas:
 *
 *	crash:F exit:F hang:F fail:F nonsense:F flood:F    in the function F (init, save ...)
 *	size=N          bytes of state
 *	endless         update_pending never gets less
 *	huge            update_pending says 2^63
 *	state=N         get_state says N
 *	late            init takes the state that is loaded, but set_state RUNNING fails
 *	escape          update_pending tells how much of the sandbox is open
 *
 * What is built with -DVARIANT_... is wrong from the start.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfio/plugin/protocol.h"
#include "vfio/plugin/vfio_lm_plugin.h"

struct device {
	char *arg;
	uint64_t size, at;
	uint32_t state;
	bool wrong; /* what was loaded is not what is saved */
};

static struct device device;

static bool has(const char *what, const char *function)
{
	char word[64];
	const char *at;

	snprintf(word, sizeof(word), "%s%s", what, function);
	at = device.arg ? strstr(device.arg, word) : NULL;
	return at && (at[strlen(word)] == '\0' || at[strlen(word)] == ',');
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *at = device.arg ? strstr(device.arg, name) : NULL;

	return at ? strtoull(at + strlen(name), NULL, 0) : otherwise;
}

/* Replies of the process that it never made. */
static void lie(bool flood)
{
	struct plugin_message m = { .magic = PLUGIN_MAGIC, .type = PLUGIN_SAVE, .len = 1U << 31 };

	if (!flood) {
		send(PLUGIN_CONTROL_FD, &m, sizeof(m) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		return;
	}
	for (;;)
		send(PLUGIN_CONTROL_FD, &m, sizeof(m), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int misbehave(const char *function)
{
	volatile uintptr_t nowhere = 8;

	if (has("crash:", function))
		*(volatile int *)nowhere = 1;
	if (has("exit:", function))
		exit(3);
	if (has("nonsense:", function))
		lie(false);
	if (has("flood:", function))
		lie(true);
	while (has("hang:", function))
		pause();
	return has("fail:", function) ? -7 : 0;
}

static uint8_t byte_at(uint64_t at)
{
	return (uint8_t)(at * 7 + at / 253);
}

static void *bad_init(char *devid, char *arg)
{
	device = (struct device){ .arg = arg, .state = VFIO_LM_STATE_RUNNING };
	device.size = number("size=", 3000000);
	return misbehave("init") || strcmp(devid, "0000:01:10.0") != 0 ? NULL : &device;
}

static int bad_save(void *handle, uint8_t *state, uint64_t len)
{
	if (handle != &device || !(device.state & VFIO_LM_STATE_SAVING))
		return -1;
	for (uint64_t i = 0; i < len; i++)
		state[i] = byte_at(device.at++);
	return misbehave("save");
}

static int bad_load(void *handle, uint8_t *state, uint64_t len)
{
	if (handle != &device || device.state != VFIO_LM_STATE_RESUMING)
		return -1;
	for (uint64_t i = 0; i < len; i++)
		device.wrong |= state[i] != byte_at(device.at++);
	return misbehave("load");
}

static void *thread(void *opaque)
{
	*(bool *)opaque = true;
	return NULL;
}

/* A bit for each thing that it could do and should not; the highest for those it should. */
static uint64_t escape(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	struct sockaddr_un unix_any = { .sun_family = AF_UNIX };
	int tcp = socket(AF_INET, SOCK_STREAM, 0);
	int dummy[2];
	bool ran = false;
	pthread_t t;
	uint64_t open_ways = 0;

	if (!pthread_create(&t, NULL, thread, &ran))
		pthread_join(t, NULL);
	if (tcp < 0 || !ran)
		return 1ULL << 63;
	open_ways |= !bind(tcp, (struct sockaddr *)&any, sizeof(any)) ? 1 : 0;
	open_ways |= !listen(tcp, 1) ? 2 : 0;
	open_ways |= socket(AF_UNIX, SOCK_STREAM, 0) >= 0 ? 4 : 0;
	open_ways |= socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) >= 0 ? 8 : 0;
	open_ways |= socketpair(AF_UNIX, SOCK_DGRAM, 0, dummy) == 0 ? 16 : 0;
	open_ways |= open("/tmp/ferry-plugin-escape", O_CREAT | O_WRONLY, 0600) >= 0 ? 32 : 0;
	open_ways |= open("/dev/null", O_WRONLY) >= 0 ? 64 : 0;
	open_ways |= open("/proc/self/maps", O_RDONLY) >= 0 ? 128 : 0;
	open_ways |= open("/etc/passwd", O_RDONLY) >= 0 ? 256 : 0;
	open_ways |= !kill(getppid(), 0) || errno != EPERM ? 512 : 0;
	open_ways |= fcntl(tcp, F_SETOWN, getppid()) == 0 ? 1024 : 0;
	open_ways |= ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) == 0 ? 2048 : 0;
	open_ways |= execl("/bin/true", "true", NULL) != -1 || errno != EPERM ? 4096 : 0;
	open_ways |= memfd_create("x", 0) >= 0 ? 8192 : 0;
	open_ways |= connect(tcp, (struct sockaddr *)&unix_any, sizeof(unix_any)) == 0 ? 16384 : 0;
	open_ways |= fork() >= 0 ? 32768 : 0;
	return open_ways;
}

static int bad_update_pending(void *handle, uint64_t *pending_bytes)
{
	*pending_bytes = device.at < device.size ? device.size - device.at : 0;
	if (has("endless", ""))
		*pending_bytes = 4096;
	if (has("huge", ""))
		*pending_bytes = 1ULL << 63;
	if (has("escape", ""))
		*pending_bytes = escape();
	return misbehave("update_pending");
}

static int bad_set_state(void *handle, uint32_t value)
{
	int r = misbehave("set_state");

	if (device.state == VFIO_LM_STATE_RESUMING && value == VFIO_LM_STATE_RUNNING &&
	    (device.wrong || device.at != device.size || has("late", "")))
		return -2;
	/* Every stream begins anew. */
	if (value == (VFIO_LM_STATE_RUNNING | VFIO_LM_STATE_SAVING) ||
	    value == VFIO_LM_STATE_RESUMING)
		device.at = 0;
	device.state = value;
	return r;
}

static int bad_get_state(void *handle, uint32_t *value)
{
	*value = (uint32_t)number("state=", device.state);
	return misbehave("get_state");
}

static int bad_cleanup(void *handle)
{
	return misbehave("cleanup");
}

#ifdef VARIANT_VERSION
#define VERSION 1
#else
#define VERSION VFIO_LM_PLUGIN_API_VERSION
#endif

int vfio_lm_get_plugin_version(void);
int vfio_lm_get_plugin_version(void)
{
	return VERSION;
}

#ifndef VARIANT_SYMBOL
VFIOMigrationPluginOps *vfio_lm_get_plugin_ops(void);
VFIOMigrationPluginOps *vfio_lm_get_plugin_ops(void)
{
	static VFIOMigrationPluginOps ops = {
		.init = bad_init,
		.save = bad_save,
		.load = bad_load,
		.update_pending = bad_update_pending,
		.set_state = bad_set_state,
		.get_state = bad_get_state,
		.cleanup = bad_cleanup,
	};

#ifdef VARIANT_FUNCTION
	ops.load = NULL;
#endif
#ifdef VARIANT_NULL
	return NULL;
#endif
	return &ops;
}
#else
/* So that nothing is unused. */
extern VFIOMigrationPluginOps other_ops;
VFIOMigrationPluginOps other_ops = { bad_init,	    bad_save,	   bad_load,   bad_update_pending,
				     bad_set_state, bad_get_state, bad_cleanup };
#endif

#ifdef VARIANT_CONSTRUCTOR
__attribute__((constructor)) static void leave_at_once(void)
{
	exit(5);
}
#endif
