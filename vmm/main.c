/* SPDX-License-Identifier: Apache-2.0 */
/* ferry: one process, one VM. */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "api/event_monitor.h"
#include "api/options.h"
#include "api/server.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "vfio/plugin_host.h"
#include "vmm/sandbox.h"
#include "vmm/spawner.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"
#include "vmm/vm_update.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* The sandbox's policy, with the main loop as the starter of threads. */
struct policy {
	struct thread_policy base;
	const struct thread_policy *sandbox;
	struct loop *loop;
};

struct ferry {
	struct policy policy;
	struct ferry_options options;
	struct log *log;
	struct loop *loop;
	struct event_monitor *events;
	struct plugin_host *plugins;
	struct vm *vm;
	struct api_server *server;
	struct spawner *spawner;
	const char **allowed; /* plugins: of the options, but for the array */
	unsigned int allowed_count;
	struct notify *notify;
	int adopt_fd;
	int signal_fd;
	struct loop_source *signal_source;
	atomic_int exit_code;
};

static void finished(void *opaque, int exit_code)
{
	struct ferry *ferry = opaque;

	atomic_store(&ferry->exit_code, exit_code);
	loop_stop(ferry->loop);
}

static int enter_sandbox(const struct thread_policy *base, enum thread_kind kind, struct error *err)
{
	const struct policy *policy = container_of(base, struct policy, base);

	return policy->sandbox->enter(policy->sandbox, kind, err);
}

static void start_in_main(const struct thread_policy *base, void (*fn)(void *arg), void *arg)
{
	loop_call(container_of(base, struct policy, base)->loop, fn, arg);
}

/* The VM is stopped while the loop still runs: its threads may need it to the last. */
static int stop_vm(void *opaque, struct error *err)
{
	struct ferry *ferry = opaque;
	enum vm_state state;

	if (!vm_operations()->state(ferry->vm, &state))
		return vm_operations()->delete (ferry->vm, err);
	return 0;
}

static void vm_stopped(void *opaque, int result, const struct error *err)
{
	finished(opaque, EXIT_OK);
}

static void on_signal(void *opaque, int fd, uint32_t events)
{
	struct ferry *ferry = opaque;
	struct signalfd_siginfo info;

	if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	log_info(ferry->log, "signal %u: stopping", info.ssi_signo);
	/* The stop waits in line behind what runs: a migration, a snapshot. */
	vm_operations()->cancel_migration(ferry->vm, NULL);
	if (api_server_work(ferry->server, stop_vm, vm_stopped, ferry))
		finished(ferry, EXIT_OK);
}

static int watch_signals(struct ferry *ferry, struct error *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	ferry->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (ferry->signal_fd < 0)
		return error_set_errno(err, errno, "watch signals");
	ferry->signal_source =
		loop_add(ferry->loop, ferry->signal_fd, EPOLLIN, on_signal, ferry, err);
	return ferry->signal_source ? vcpu_signals_init(err) : err->code;
}

/* The VM named on the command line: created and booted in the worker, like any. */
static int create_and_boot(void *opaque, struct error *err)
{
	struct ferry *ferry = opaque;
	const struct vm_ops *ops = vm_operations();
	int r = ops->create(ferry->vm, &ferry->options.config, err);

	return r ? r : ops->boot(ferry->vm, err);
}

/* The same of a VM that comes from a snapshot. */
static int restore(void *opaque, struct error *err)
{
	struct ferry *ferry = opaque;

	return vm_operations()->restore(ferry->vm, &ferry->options.restore, err);
}

/* And of one that another process hands over. */
static int adopt(void *opaque, struct error *err)
{
	struct ferry *ferry = opaque;
	int r = vm_adopt(ferry->vm, ferry->adopt_fd, err);

	close(take_fd(&ferry->adopt_fd));
	return r;
}

static void booted(void *opaque, int result, const struct error *err)
{
	struct ferry *ferry = opaque;

	if (!result) {
		/* Who adopts a VM has said so with its own number. */
		if (!ferry->options.adopt_given)
			notify_send(ferry->notify, "READY=1");
		return;
	}
	fprintf(stderr, "ferry: %s\n", err->message);
	finished(ferry, EXIT_FAILED);
}

static unsigned int add_plugin(const char **allowed, unsigned int count, const char *path)
{
	if (path)
		allowed[count++] = path;
	return count;
}

/* Those that --plugins allows, and those that devices of the command line have. */
static int find_plugins(struct ferry *ferry, struct error *err)
{
	const struct ferry_options *o = &ferry->options;
	const struct vm_config *c = &o->config;
	unsigned int n = 0;

	ferry->allowed = calloc(o->plugin_count + c->device_count + c->user_device_count + 1,
				sizeof(*ferry->allowed));
	if (!ferry->allowed)
		return error_set_errno(err, ENOMEM, "start plugins");
	for (unsigned int i = 0; i < o->plugin_count; i++)
		n = add_plugin(ferry->allowed, n, o->plugins[i]);
	for (unsigned int i = 0; i < c->device_count; i++)
		n = add_plugin(ferry->allowed, n, c->devices[i].migration.plugin_path);
	for (unsigned int i = 0; i < c->user_device_count; i++)
		n = add_plugin(ferry->allowed, n, c->user_devices[i].migration.plugin_path);
	ferry->allowed_count = n;
	return 0;
}

/* The process that starts plugins, where any may be loaded. */
static int start_plugins(struct ferry *ferry, struct error *err)
{
	const struct ferry_options *o = &ferry->options;
	struct plugin_host_options plugins = { .allowed = ferry->allowed };

	if (!ferry->allowed_count)
		return 0;
	plugins.allowed_count = ferry->allowed_count;
	if (o->jail.dir) {
		plugins.uid = o->jail.uid;
		plugins.gid = o->jail.gid;
	}
	ferry->plugins = plugin_host_new(&plugins, err);
	return ferry->plugins ? 0 : err->code;
}

static const char *seccomp_word(enum seccomp_mode mode)
{
	static const char *const words[] = { "true", "log", "false" };

	return words[mode];
}

/* What a live update starts, unless another was named: now, before it is replaced. */
static int find_program(struct ferry_options *o, struct error *err)
{
	char self[PATH_MAX];
	ssize_t n;

	if (o->live_update.off || o->live_update.binary)
		return 0;
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n < 0) {
		o->live_update.off = true;
		return 0;
	}
	self[n] = '\0';
	o->live_update.binary = strdup(self);
	return o->live_update.binary ? 0 : error_set_errno(err, ENOMEM, "start");
}

/* Or why there is none, in *why. */
static int make_spawner(struct ferry *ferry, const char **why, struct error *err)
{
	const struct ferry_options *o = &ferry->options;
	struct spawner_options spawner = {
		.program = o->live_update.binary,
		.any = o->seccomp == SECCOMP_OFF,
		.confined = o->config.landlock_enable || o->adopt.confined,
		.seccomp = seccomp_word(o->seccomp),
		.verbose = o->log_level - LOG_LEVEL_WARNING,
		.plugins = ferry->allowed,
		.plugin_count = ferry->allowed_count,
	};
	if (o->live_update.off || (!o->api_socket && o->api_socket_fd < 0 && !o->adopt_given)) {
		*why = o->live_update.off ? "--live-update off" : "it has no API socket";
		return 0;
	}
	/* It is the first of its process namespace: all others end with it. */
	if (o->jail.dir) {
		*why = "it is in a jail";
		return 0;
	}
	ferry->spawner = spawner_new(&spawner, err);
	return ferry->spawner ? 0 : err->code;
}

static int start(struct ferry *ferry, struct error *err)
{
	const struct ferry_options *options = &ferry->options;
	const struct thread_policy *policy = NULL;
	struct vm_options vm = {
		.finished = finished,
		.opaque = ferry,
	};
	struct api_server_options api = {
		.path = options->api_socket,
		.listen_fd = options->api_socket_fd,
		.ops = vm_operations(),
		.version = FERRY_VERSION_STRING,
	};
	/* Before the jail and all filters: it stays outside of them. */
	int r = find_plugins(ferry, err);

	if (!r)
		r = start_plugins(ferry, err);
	if (r)
		return r;
	/* Its path is out of reach in a jail. */
	ferry->notify = notify_new();
	r = find_program(&ferry->options, err);
	if (r)
		return r;
	if (options->jail.dir) {
		r = sandbox_jail(options, err);
		if (r)
			return r;
	}
	ferry->log = log_new(options->log_file, options->log_level, err);
	if (!ferry->log)
		return err->code;
	ferry->loop = loop_new(err);
	if (!ferry->loop)
		return err->code;
	ferry->policy = (struct policy){
		.base = { .enter = enter_sandbox, .start_in = start_in_main },
		.sandbox = sandbox_policy(options->seccomp),
		.loop = ferry->loop,
	};
	if (ferry->policy.sandbox)
		policy = &ferry->policy.base;
	vm.threads = api.threads = policy;
	r = watch_signals(ferry, err);
	if (r)
		return r;
	ferry->events =
		event_monitor_new(options->event_monitor_path, options->event_monitor_fd, err);
	if (!ferry->events && (options->event_monitor_path || options->event_monitor_fd >= 0))
		return err->code;
	if (!ferry->events && options->adopt_given)
		ferry->events = event_monitor_new_silent(err);
	if (!ferry->events && options->adopt_given)
		return err->code;
	vm.loop = ferry->loop;
	vm.log = ferry->log;
	vm.events = ferry->events;
	vm.landlocked = options->config.landlock_enable || options->adopt.confined;
	vm.jailed = options->jail.dir;
	vm.plugins = ferry->plugins;
	if (options->adopt_given) {
		r = ferry->adopt_fd = options->adopt.path
					      ? vm_adopt_listen(options->adopt.path, NULL, err)
					      : options->adopt.fd;
		if (r < 0)
			return r;
	}
	if (options->config.landlock_enable) {
		r = sandbox_landlock(options, err);
		if (r)
			return r;
	}
	/* Within what confines this process, but for the filters. */
	r = make_spawner(ferry, &vm.no_spawner, err);
	if (r)
		return r;
	vm.spawner = ferry->spawner;
	vm.notify = ferry->notify;
	ferry->vm = vm_new(&vm, err);
	if (!ferry->vm)
		return err->code;
	r = policy ? policy->enter(policy, THREAD_MAIN, err) : 0;
	if (r)
		return r;
	api.vm = ferry->vm;
	api.loop = ferry->loop;
	api.log = ferry->log;
	ferry->server = api_server_new(&api, err);
	if (!ferry->server)
		return err->code;
	vm_set_server(ferry->vm, ferry->server);
	if (options->adopt_given)
		return api_server_work(ferry->server, adopt, booted, ferry);
	event_monitor_emit(ferry->events, "vmm", "starting", NULL);
	if (options->restore_given)
		return api_server_work(ferry->server, restore, booted, ferry);
	if (options->vm_given)
		return api_server_work(ferry->server, create_and_boot, booted, ferry);
	notify_send(ferry->notify, "READY=1");
	return 0;
}

static void stop(struct ferry *ferry)
{
	bool handed_over = ferry->vm && vm_handed_over(ferry->vm);

	if (handed_over)
		api_server_forget(ferry->server);
	api_server_free(ferry->server);
	/* Sockets, terminals and devices are another process's: closed by the kernel, and not
	 * put away. */
	if (handed_over)
		_exit(EXIT_OK);
	vm_free(ferry->vm);
	plugin_host_free(ferry->plugins);
	event_monitor_free(ferry->events);
	loop_free(ferry->loop);
	if (ferry->signal_fd >= 0)
		close(ferry->signal_fd);
	if (ferry->adopt_fd >= 0)
		close(ferry->adopt_fd);
	spawner_free(ferry->spawner);
	free(ferry->allowed);
	notify_free(ferry->notify);
	log_free(ferry->log);
	ferry_options_destroy(&ferry->options);
}

int main(int argc, char *argv[])
{
	struct ferry ferry = { .signal_fd = -1, .adopt_fd = -1 };
	struct error err = ERROR_INIT;

	/* One heap for all threads: theirs would cost more memory than they save time. */
	mallopt(M_ARENA_MAX, 1);
	if (ferry_options_parse(&ferry.options, argc, argv, &err)) {
		fprintf(stderr, "ferry: %s\nSee 'ferry --help'.\n", err.message);
		return EXIT_USAGE;
	}
	switch (ferry.options.action) {
	case FERRY_HELP:
		fputs(ferry_options_help(), stdout);
		ferry_options_destroy(&ferry.options);
		return EXIT_OK;
	case FERRY_VERSION:
		printf("ferry v%s\n", FERRY_VERSION_STRING);
		ferry_options_destroy(&ferry.options);
		return EXIT_OK;
	case FERRY_RUN: break;
	}
	if (start(&ferry, &err)) {
		fprintf(stderr, "ferry: %s\n", err.message);
		atomic_store(&ferry.exit_code, EXIT_FAILED);
	} else {
		loop_run(ferry.loop);
	}
	stop(&ferry);
	return atomic_load(&ferry.exit_code);
}
