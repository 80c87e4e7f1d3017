/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin's process: loads it when it is told to, and calls what it is told to call. Only
 * Ferry speaks to it; what it is told is checked none the less. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfio/plugin/host.h"
#include "vfio/plugin/protocol.h"
#include "vfio/plugin/vfio_lm_plugin.h"

struct plugin {
	const char *path;
	uint8_t *window;
	bool landlock;
	char *devid, *arg; /* the plugin's until cleanup */
	const VFIOMigrationPluginOps *ops;
	void *handle;
};

static void *symbol(void *object, const char *path, const char *name, struct reason *why)
{
	void *found = dlsym(object, name);

	if (!found)
		reason_set(why, "%s does not export %s: it is no migration plugin", path, name);
	return found;
}

/* NULL: *why says what is wrong with the object. */
static const VFIOMigrationPluginOps *load(struct plugin *p, struct reason *why)
{
	const VFIOMigrationPluginOps *ops;
	VFIOLMPluginGetVersion get_version;
	VFIOLMPluginGetOps get_ops;
	void *object = dlopen(p->path, RTLD_NOW | RTLD_LOCAL);
	int version;

	if (!object) {
		reason_set(why, "it cannot be loaded: %s", dlerror());
		return NULL;
	}
	/* Data and functions are one kind of pointer to dlsym. */
	*(void **)&get_version = symbol(object, p->path, "vfio_lm_get_plugin_version", why);
	*(void **)&get_ops = symbol(object, p->path, "vfio_lm_get_plugin_ops", why);
	if (!get_version || !get_ops)
		return NULL;
	version = get_version();
	if (version != VFIO_LM_PLUGIN_API_VERSION) {
		reason_set(why, "it is a plugin of version %d, where %d is needed", version,
			   VFIO_LM_PLUGIN_API_VERSION);
		return NULL;
	}
	ops = get_ops();
	if (!ops) {
		reason_set(why, "its vfio_lm_get_plugin_ops() returned NULL");
		return NULL;
	}
	if (!ops->init || !ops->save || !ops->load || !ops->update_pending || !ops->set_state ||
	    !ops->get_state) {
		reason_set(why, "it lacks one of its functions");
		return NULL;
	}
	return ops;
}

static int call_init(struct plugin *p, struct plugin_message *m, struct reason *why)
{
	const char *text = (const char *)p->window;
	size_t first = strnlen(text, m->len), second = 0;

	if (m->value && first < m->len)
		second = strnlen(text + first + 1, m->len - first - 1);
	if (p->ops || first >= m->len || (m->value && first + 1 + second >= m->len))
		return reason_set(why, "INIT makes no sense");
	p->devid = strndup(text, first);
	p->arg = m->value ? strndup(text + first + 1, second) : NULL;
	if (!p->devid || (m->value && !p->arg))
		return reason_set(why, "out of memory");
	m->flags = p->landlock ? 0 : PLUGIN_NO_LANDLOCK;
	p->ops = load(p, why);
	if (!p->ops)
		return -1;
	p->handle = p->ops->init(p->devid, p->arg);
	if (!p->handle)
		return reason_set(why, "its init() failed");
	return 0;
}

static int call_cleanup(struct plugin *p)
{
	void *handle = p->handle;

	p->handle = NULL;
	return p->ops->cleanup ? p->ops->cleanup(handle) : 0;
}

/* The reply is in m. */
static int call(struct plugin *p, struct plugin_message *m, struct reason *why)
{
	uint32_t value = 0;

	if (m->type == PLUGIN_INIT)
		return call_init(p, m, why);
	if (!p->handle)
		return reason_set(why, "it is not initialised");
	switch (m->type) {
	case PLUGIN_SAVE: m->result = p->ops->save(p->handle, p->window, m->len); break;
	case PLUGIN_LOAD: m->result = p->ops->load(p->handle, p->window, m->len); break;
	case PLUGIN_PENDING:
		m->value = 0;
		m->result = p->ops->update_pending(p->handle, &m->value);
		break;
	case PLUGIN_SET_STATE: m->result = p->ops->set_state(p->handle, (uint32_t)m->value); break;
	case PLUGIN_GET_STATE:
		m->result = p->ops->get_state(p->handle, &value);
		m->value = value;
		break;
	case PLUGIN_CLEANUP: m->result = call_cleanup(p); break;
	default: return reason_set(why, "call %u is unknown", m->type);
	}
	return 0;
}

static void answer(int sock, struct plugin *p, struct plugin_message *m, const struct reason *why)
{
	if (why->text[0]) {
		m->flags |= PLUGIN_FAILED;
		m->result = -1;
		m->len = (uint32_t)strlen(why->text);
		memcpy(p->window, why->text, m->len);
	}
	if (send(sock, m, sizeof(*m), MSG_NOSIGNAL) != (ssize_t)sizeof(*m))
		_exit(0);
}

_Noreturn void run_plugin(int sock, uint8_t *window, const char *plugin)
{
	struct plugin p = { .path = plugin, .window = window };
	struct reason confined = { "" };

	/* A plugin that prints does so where Ferry's messages go. */
	dup2(STDERR_FILENO, STDOUT_FILENO);
	confine(plugin, &p.landlock, &confined);
	for (;;) {
		struct plugin_message m;
		struct reason why = confined;
		ssize_t n;

		do
			n = recv(sock, &m, sizeof(m), 0);
		while (n < 0 && errno == EINTR);
		if (n != (ssize_t)sizeof(m) || m.magic != PLUGIN_MAGIC ||
		    m.len > PLUGIN_WINDOW_SIZE)
			_exit(0);
		m.flags = 0;
		m.result = 0;
		/* Unconfined, nothing of a plugin is run. */
		if (!why.text[0] && call(&p, &m, &why) && !why.text[0])
			reason_set(&why, "it failed");
		answer(sock, &p, &m, &why);
	}
}
