/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands that take long: the call is sent, and until it is answered vm.migration is
 * asked now and then how far it is. On a terminal that is a line which is drawn over.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "api/ctl/ctl.h"
#include "api/ctl/http_client.h"
#include "base/bytes.h"
#include "base/cleanup.h"

#define POLL_MS 250
#define PROGRESS_TIMEOUT 10 /* s */
#define WIDTH_DEFAULT 80

struct bar {
	FILE *out; /* NULL: nobody looks on */
	bool drawn;
};

static struct bar bar_on(const struct ctl *ctl)
{
	return (struct bar){ .out = !ctl->json && isatty(fileno(ctl->err)) ? ctl->err : NULL };
}

static void bar_draw(struct bar *bar, const json_t *progress)
{
	struct winsize size;
	unsigned int width = WIDTH_DEFAULT;

	if (!bar->out)
		return;
	if (!ioctl(fileno(bar->out), TIOCGWINSZ, &size) && size.ws_col)
		width = size.ws_col;
	putc('\r', bar->out);
	ctl_render_bar(bar->out, progress, width - 1);
	fputs("\033[K", bar->out);
	fflush(bar->out);
	bar->drawn = true;
}

static void bar_clear(struct bar *bar)
{
	if (bar->drawn) {
		fputs("\r\033[K", bar->out);
		fflush(bar->out);
	}
	bar->drawn = false;
}

static int ask_progress(const struct ctl *ctl, struct http_reply *reply, struct error *err)
{
	const struct http_request request = {
		.method = "GET",
		.path = "/api/v1/vm.migration",
		.timeout = PROGRESS_TIMEOUT,
	};

	return http_client_call(ctl->socket, &request, reply, err);
}

/* A new reference; NULL where ferry does not say. */
static json_t *progress_of(const struct http_reply *reply)
{
	if (reply->status != 200 || !reply->body.len)
		return NULL;
	return json_loadb(reply->body.data, reply->body.len, 0, NULL);
}

static json_t *get_progress(const struct ctl *ctl)
{
	struct http_reply reply;
	json_t *progress = NULL;

	if (!ask_progress(ctl, &reply, NULL))
		progress = progress_of(&reply);
	http_reply_free(&reply);
	return progress;
}

static bool phase_is(const json_t *progress, const char *phase)
{
	const char *text = json_string_value(json_object_get(progress, "phase"));

	return text && !strcmp(text, phase);
}

static bool is_over(const json_t *progress)
{
	static const char *const over[] = { "none", "completed", "failed", "cancelled" };

	for (size_t i = 0; i < ARRAY_SIZE(over); i++)
		if (phase_is(progress, over[i]))
			return true;
	return !progress;
}

/* --- the call that takes long --------------------------------------------------------- */

/* "send" is what vm.send-migration does. */
static bool is_of(const json_t *progress, const struct ctl_command *command)
{
	const char *direction = json_string_value(json_object_get(progress, "direction"));
	const char *name = strrchr(command->path, '.') + 1;

	return direction && !strncmp(name, direction, strlen(direction));
}

/* Until the answer begins; with no_wait, also until it goes on. Returns whether it does. */
static bool wait_for(const struct ctl *ctl, const struct ctl_command *command, int fd, bool no_wait)
{
	struct bar bar = bar_on(ctl);
	int timeout = bar.out || no_wait ? POLL_MS : -1;
	bool going = false;

	while (!going) {
		struct pollfd answer = { .fd = fd, .events = POLLIN };
		int n = poll(&answer, 1, timeout);
		json_t *progress;

		if (n > 0 || (n < 0 && errno != EINTR))
			break;
		progress = get_progress(ctl);
		if (!is_over(progress) && is_of(progress, command)) {
			bar_draw(&bar, progress);
			going = no_wait;
		}
		json_decref(progress);
	}
	bar_clear(&bar);
	return going;
}

/* The answer has no body; what there is to say, vm.migration knows. A ferry that has
 * gone with its VM does not say it. */
static void print_summary(const struct ctl *ctl)
{
	json_t *progress = get_progress(ctl);

	if (progress && ctl->json) {
		json_dumpf(progress, ctl->out,
			   JSON_INDENT(2) | (isatty(fileno(ctl->out)) ? JSON_ENSURE_ASCII : 0));
		putc('\n', ctl->out);
	} else if (progress) {
		ctl_render_summary(ctl->out, progress);
	}
	json_decref(progress);
}

int ctl_perform_move(const struct ctl *ctl, const struct ctl_command *command,
		     const struct ctl_call *call)
{
	const struct http_request request = {
		.method = command->method,
		.path = command->path,
		.body = call->body,
		.fds = call->fds,
		.fd_count = call->fd_count,
	};
	struct error err = ERROR_INIT;
	_cleanup_close_ int fd = http_client_send(ctl->socket, &request, &err);
	struct http_reply reply;
	int status;

	if (fd < 0)
		return ctl_complain(ctl, CTL_FAILED, "%s: %s", command->name, err.message);
	if (wait_for(ctl, command, fd, call->no_wait))
		return CTL_OK;
	if (http_client_receive(fd, ctl->socket, &request, &reply, &err))
		status = ctl_complain(ctl, CTL_FAILED, "%s: %s", command->name, err.message);
	else
		status = ctl_report(ctl, command, &reply);
	http_reply_free(&reply);
	if (status == CTL_OK)
		print_summary(ctl);
	return status;
}

/* --- migration ------------------------------------------------------------------------ */

static int watch(const struct ctl *ctl, const struct ctl_command *command)
{
	struct bar bar = bar_on(ctl);
	struct error err = ERROR_INIT;

	for (;;) {
		struct http_reply reply;
		json_t *progress = NULL;
		int status = CTL_OK, r = ask_progress(ctl, &reply, &err);

		if (!r)
			progress = progress_of(&reply);
		if (!is_over(progress)) {
			bar_draw(&bar, progress);
			json_decref(progress);
			http_reply_free(&reply);
			poll(NULL, 0, POLL_MS);
			continue;
		}
		bar_clear(&bar);
		status = r ? ctl_complain(ctl, CTL_FAILED, "%s: %s", command->name, err.message)
			   : ctl_report(ctl, command, &reply);
		if (phase_is(progress, "failed") || phase_is(progress, "cancelled"))
			status = CTL_FAILED;
		json_decref(progress);
		http_reply_free(&reply);
		return status;
	}
}

int ctl_perform_migration(const struct ctl *ctl, const struct ctl_command *command,
			  const struct ctl_call *call)
{
	struct error err = ERROR_INIT;
	struct http_reply reply;
	int status;

	if (call->watch)
		return watch(ctl, command);
	if (ask_progress(ctl, &reply, &err))
		status = ctl_complain(ctl, CTL_FAILED, "%s: %s", command->name, err.message);
	else
		status = ctl_report(ctl, command, &reply);
	http_reply_free(&reply);
	return status;
}
