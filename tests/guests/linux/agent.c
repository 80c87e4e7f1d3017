/*
 * agent.c - init and test agent of the Linux guests (L2)
 *
 * As /init it prints FERRY-INIT-REACHED before anything else (boot times are
 * measured by that line), mounts proc, sys, dev and tmpfs, loads the modules
 * that /modules.load names, does what ferry.test= on the kernel command line
 * says, and serves commands on the channels of ferry.agent=. As PID 1 it also
 * reaps orphans and powers off when the ACPI power button is pressed.
 *
 * Kernel command line:
 *   ferry.agent=CHANNEL[,CHANNEL...]  a device name (ttyS0, hvc0, vport0p1),
 *                     vsock:PORT, or none. Default: the console, or ttyS0
 *                     where no console= is given.
 *   ferry.test=ACTION[:ARGUMENT]  poweroff, reboot, halt, panic, or any
 *                     action below, run in the background
 *
 * Line protocol of a channel (the guest speaks first):
 *   guest: FERRY-AGENT-READY 1
 *   host:  run SHELL COMMAND        one line, at most 64 KiB
 *   guest: FERRY-BEGIN N            N counts the commands of this channel
 *          ... standard output and error of the command ...
 *          FERRY-END N STATUS       on a line of its own (a newline is put
 *                                   before it where the output lacks one);
 *                                   128 + signal if a signal ended it
 *   host:  ping TEXT                guest: FERRY-PONG TEXT
 * A line that is neither is answered by FERRY-UNKNOWN LINE.
 *
 * Actions, as `agent ACTION ARGUMENT...` in a guest's shell:
 *   dirty MIB [MIB_PER_S]  writes MIB of memory round after round, checks in
 *                     each round what the last one wrote; FERRY-DIRTY ROUND ok
 *   gaps MS           prints FERRY-GAP MS for every stretch of monotonic time,
 *                     at least MS long, in which it did not run
 *   clock             prints realtime and monotonic clock, in ns
 *   vsock-echo PORT   sends back what it gets on one vsock connection
 *   vsock-send CID PORT TEXT  connects, sends TEXT, prints the answer
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 64 * 1024, BUTTONS_MAX = 8 };

static int64_t now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

__attribute__((format(printf, 2, 3))) static int say(int fd, const char *format, ...)
{
	char text[512];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (len >= (int)sizeof(text))
		len = sizeof(text) - 1;
	return write_all(fd, text, (size_t)len);
}

/* --- actions ----------------------------------------------------------- */

static int action_dirty(int argc, char **argv)
{
	size_t page = 4096;
	size_t pages = (argc > 0 ? strtoul(argv[0], NULL, 0) : 16) * 256;
	unsigned long limit = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
	uint64_t *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED) {
		say(1, "FERRY-DIRTY error: mmap: %s\n", strerror(errno));
		return 1;
	}
	for (uint64_t round = 1;; round++) {
		int64_t start = now_ns(CLOCK_MONOTONIC);

		for (size_t i = 0; i < pages; i++) {
			uint64_t *word = memory + i * (page / sizeof(*memory));
			uint64_t want = round == 1 ? 0 : (round - 1) << 32 | i;

			if (word[0] != want || word[511] != want) {
				say(1,
				    "FERRY-DIRTY error: page %zu round %llu has %llx and %llx, not "
				    "%llx\n",
				    i, (unsigned long long)round, (unsigned long long)word[0],
				    (unsigned long long)word[511], (unsigned long long)want);
				return 1;
			}
			word[0] = word[511] = round << 32 | i;
			if (limit != 0 && i % 256 == 255) {
				int64_t due = start +
					      (int64_t)(i / 256 + 1) * 1000000000 / (int64_t)limit;
				int64_t wait = due - now_ns(CLOCK_MONOTONIC);

				if (wait > 0)
					usleep((useconds_t)(wait / 1000));
			}
		}
		say(1, "FERRY-DIRTY %llu ok\n", (unsigned long long)round);
	}
}

static int action_gaps(int argc, char **argv)
{
	int64_t limit = (argc > 0 ? strtol(argv[0], NULL, 0) : 50) * 1000000;
	int64_t last = now_ns(CLOCK_MONOTONIC);

	while (usleep(1000) == 0 || errno == EINTR) {
		int64_t now = now_ns(CLOCK_MONOTONIC);

		if (now - last >= limit)
			say(1, "FERRY-GAP %lld\n", (long long)((now - last) / 1000000));
		last = now;
	}
	return 1;
}

static int action_clock(int argc, char **argv)
{
	(void)argc, (void)argv;
	say(1, "realtime %lld\nmonotonic %lld\n", (long long)now_ns(CLOCK_REALTIME),
	    (long long)now_ns(CLOCK_MONOTONIC));
	return 0;
}

static int vsock_listen(unsigned int port)
{
	struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_ANY,
		.svm_port = port,
	};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1) < 0) {
		int error = -errno;

		close(fd);
		return error;
	}
	return fd;
}

static int action_vsock_echo(int argc, char **argv)
{
	char data[4096];
	ssize_t n;
	int fd, server = vsock_listen(argc > 0 ? (unsigned int)strtoul(argv[0], NULL, 0) : 0);

	if (server < 0 || (fd = accept(server, NULL, NULL)) < 0) {
		say(1, "vsock: %s\n", strerror(server < 0 ? -server : errno));
		return 1;
	}
	while ((n = read(fd, data, sizeof(data))) > 0)
		if (write_all(fd, data, (size_t)n) < 0)
			return 1;
	return n < 0;
}

static int action_vsock_send(int argc, char **argv)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK };
	char data[4096];
	ssize_t n;
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (argc < 3) {
		say(1, "usage: vsock-send CID PORT TEXT\n");
		return 2;
	}
	address.svm_cid = (unsigned int)strtoul(argv[0], NULL, 0);
	address.svm_port = (unsigned int)strtoul(argv[1], NULL, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    write_all(fd, argv[2], strlen(argv[2])) < 0 || shutdown(fd, SHUT_WR) < 0) {
		say(1, "vsock: %s\n", strerror(errno));
		return 1;
	}
	while ((n = read(fd, data, sizeof(data))) > 0)
		write_all(1, data, (size_t)n);
	return n < 0;
}

static int machine_stop(int how)
{
	sync();
	reboot(how);
	say(2, "reboot: %s\n", strerror(errno));
	return 1;
}

static int action_poweroff(int argc, char **argv)
{
	(void)argc, (void)argv;
	return machine_stop(RB_POWER_OFF);
}

static int action_reboot(int argc, char **argv)
{
	(void)argc, (void)argv;
	return machine_stop(RB_AUTOBOOT);
}

static int action_halt(int argc, char **argv)
{
	(void)argc, (void)argv;
	return machine_stop(RB_HALT_SYSTEM);
}

static int action_panic(int argc, char **argv)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

	(void)argc, (void)argv;
	return fd < 0 ? 1 : write_all(fd, "c", 1) != 0;
}

static const struct action {
	const char *name;
	int (*run)(int argc, char **argv);
} actions[] = {
	{ "dirty", action_dirty },	     { "gaps", action_gaps },
	{ "clock", action_clock },	     { "vsock-echo", action_vsock_echo },
	{ "vsock-send", action_vsock_send }, { "poweroff", action_poweroff },
	{ "reboot", action_reboot },	     { "halt", action_halt },
	{ "panic", action_panic },
};

static const struct action *action_find(const char *name)
{
	for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
		if (strcmp(actions[i].name, name) == 0)
			return &actions[i];
	return NULL;
}

/* --- a channel: commands from the host ---------------------------------- */

/* Runs `command` with its output copied to `fd`; returns its status and says
 * whether the output ended in the middle of a line. */
static int run_command(int fd, const char *command, bool *midline)
{
	char data[4096];
	int pipefd[2], status;
	ssize_t n;
	pid_t pid;

	*midline = false;
	if (pipe2(pipefd, O_CLOEXEC) < 0 || (pid = fork()) < 0)
		return 126;
	if (pid == 0) {
		int null = open("/dev/null", O_RDONLY);

		setsid();
		dup2(null, 0);
		dup2(pipefd[1], 1);
		dup2(pipefd[1], 2);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	close(pipefd[1]);
	/* What the command leaves in the background may keep the pipe: once the
	 * command is gone, only what is already in the pipe counts. */
	for (bool ended = false;;) {
		struct pollfd ready = { .fd = pipefd[0], .events = POLLIN };
		int events = poll(&ready, 1, ended ? 0 : 20);

		if (events > 0) {
			n = read(pipefd[0], data, sizeof(data));
			if (n <= 0)
				break;
			*midline = data[n - 1] != '\n';
			if (write_all(fd, data, (size_t)n) < 0)
				break;
		} else if (ended) {
			break;
		} else if (waitpid(pid, &status, WNOHANG) == pid) {
			ended = true;
			pid = -1;
		}
	}
	close(pipefd[0]);
	if (pid > 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void serve_line(int fd, char *line, unsigned long *count)
{
	bool midline;
	int status;

	if (strncmp(line, "run ", 4) == 0) {
		say(fd, "FERRY-BEGIN %lu\n", ++*count);
		status = run_command(fd, line + 4, &midline);
		say(fd, "%sFERRY-END %lu %d\n", midline ? "\n" : "", *count, status);
	} else if (strncmp(line, "ping ", 5) == 0) {
		say(fd, "FERRY-PONG %s\n", line + 5);
	} else if (*line != '\0') {
		say(fd, "FERRY-UNKNOWN %s\n", line);
	}
}

static void serve(int fd)
{
	static char line[LINE_MAX_BYTES];
	unsigned long count = 0;
	size_t used = 0;

	if (say(fd, "FERRY-AGENT-READY 1\n") < 0)
		return;
	for (;;) {
		ssize_t n = read(fd, line + used, sizeof(line) - 1 - used);
		char *end;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		used += (size_t)n;
		while ((end = memchr(line, '\n', used)) != NULL) {
			size_t len = (size_t)(end - line) + 1;

			*end = '\0';
			if (end > line && end[-1] == '\r')
				end[-1] = '\0';
			serve_line(fd, line, &count);
			memmove(line, line + len, used - len);
			used -= len;
		}
		if (used == sizeof(line) - 1)
			used = 0;
	}
}

static void set_raw(int fd)
{
	struct termios settings;

	if (tcgetattr(fd, &settings) < 0)
		return;
	cfmakeraw(&settings);
	tcsetattr(fd, TCSANOW, &settings);
}

/* Serves `channel` for ever; only in a process of its own. */
static void channel_run(const char *channel)
{
	if (strncmp(channel, "vsock:", 6) == 0) {
		int server = vsock_listen((unsigned int)strtoul(channel + 6, NULL, 0));

		if (server < 0)
			say(2, "FERRY-AGENT error: %s: %s\n", channel, strerror(-server));
		while (server >= 0) {
			int fd = accept4(server, NULL, NULL, SOCK_CLOEXEC);

			if (fd < 0)
				continue;
			serve(fd);
			close(fd);
		}
	} else {
		char path[64];

		snprintf(path, sizeof(path), "/dev/%s", channel);
		for (;;) {
			int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);

			if (fd < 0) {
				say(2, "FERRY-AGENT error: %s: %s\n", path, strerror(errno));
				break;
			}
			set_raw(fd);
			serve(fd);
			close(fd);
			usleep(100000); /* nobody at the other end */
		}
	}
	_exit(1);
}

/* --- init ---------------------------------------------------------------- */

/* The value of `name` on the kernel command line, or NULL; caller frees. */
static char *cmdline_value(const char *cmdline, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = cmdline; (p = strstr(p, name)) != NULL; p += len)
		if ((p == cmdline || isspace((unsigned char)p[-1])) && p[len] == '=')
			return strndup(p + len + 1, strcspn(p + len + 1, " \t\n"));
	return NULL;
}

static void load_modules(void)
{
	char path[256];
	FILE *list = fopen("/modules.load", "re");

	while (list != NULL && fgets(path, sizeof(path), list) != NULL) {
		int fd;

		path[strcspn(path, "\n")] = '\0';
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
			say(1, "FERRY-INIT warning: module %s: %s\n", path, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	if (list != NULL)
		fclose(list);
}

static void start_action(char *test)
{
	char *argument = strchr(test, ':');
	const struct action *action;

	if (argument != NULL)
		*argument++ = '\0';
	action = action_find(test);
	if (action == NULL) {
		say(1, "FERRY-TEST error: no action '%s'\n", test);
	} else if (fork() == 0) {
		int status = action->run(argument != NULL, &argument);

		say(1, "FERRY-TEST %s ended with %d\n", test, status);
		_exit(status);
	}
}

static void start_channels(char *channels)
{
	char *rest = channels, *channel;

	while ((channel = strsep(&rest, ",")) != NULL) {
		if (strcmp(channel, "none") == 0 || *channel == '\0')
			continue;
		if (fork() == 0)
			channel_run(channel);
	}
}

static size_t open_buttons(struct pollfd *buttons)
{
	size_t count = 0;

	for (int i = 0; i < BUTTONS_MAX; i++) {
		char path[32];
		int fd;

		snprintf(path, sizeof(path), "/dev/input/event%d", i);
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0)
			buttons[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	return count;
}

static void watch(void)
{
	struct pollfd buttons[BUTTONS_MAX];
	size_t count = open_buttons(buttons);

	for (;;) {
		struct input_event event;

		/* A second's timeout reaps orphans that no signal announced. */
		poll(buttons, count, 1000);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		for (size_t i = 0; i < count; i++) {
			while (read(buttons[i].fd, &event, sizeof(event)) == sizeof(event)) {
				if (event.type != EV_KEY || event.code != KEY_POWER || !event.value)
					continue;
				say(1, "FERRY-POWER-BUTTON\n");
				machine_stop(RB_POWER_OFF);
			}
		}
	}
}

static void on_child(int signal)
{
	(void)signal; /* interrupts poll() */
}

static int init(void)
{
	static char cmdline[4096];
	struct sigaction action = { .sa_handler = on_child };
	char *test, *channels;
	ssize_t n;
	int fd;

	say(1, "FERRY-INIT-REACHED\n");
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	mount("tmp", "/tmp", "tmpfs", 0, NULL);
	mkdir("/dev/pts", 0755);
	mount("devpts", "/dev/pts", "devpts", 0, NULL);
	load_modules();
	sigaction(SIGCHLD, &action, NULL);
	setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin", 1);
	setenv("HOME", "/", 1);

	fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, cmdline, sizeof(cmdline) - 1);
	cmdline[n < 0 ? 0 : n] = '\0';
	if (fd >= 0)
		close(fd);

	test = cmdline_value(cmdline, "ferry.test");
	if (test != NULL)
		start_action(test);
	channels = cmdline_value(cmdline, "ferry.agent");
	if (channels == NULL)
		channels = strdup(strstr(cmdline, "console=") != NULL ? "console" : "ttyS0");
	start_channels(channels);
	watch();
	return 0;
}

int main(int argc, char **argv)
{
	const struct action *action;

	if (getpid() == 1)
		return init();
	action = argc > 1 ? action_find(argv[1]) : NULL;
	if (action == NULL) {
		say(2, "usage: agent ACTION [ARGUMENT...]; actions:");
		for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
			say(2, " %s", actions[i].name);
		say(2, "\n");
		return 2;
	}
	return action->run(argc - 2, argv + 2);
}
