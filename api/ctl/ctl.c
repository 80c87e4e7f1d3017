/* SPDX-License-Identifier: Apache-2.0 */
#include "api/ctl/ctl.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/ctl/http_client.h"
#include "api/options_keys.h"
#include "base/bytes.h"

#define QUICK_TIMEOUT 10 /* s */

#ifndef FERRY_VERSION_STRING
#define FERRY_VERSION_STRING "0.1.0"
#endif

int ctl_complain(const struct ctl *ctl, int status, const char *format, ...)
{
	char text[ERROR_MESSAGE_MAX + 256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fputs("ferryctl: ", ctl->err);
	ctl_print_text(ctl->err, text);
	putc('\n', ctl->err);
	return status;
}

static void print_help(FILE *out)
{
	fputs("Usage: ferryctl [--api-socket PATH] [--json] COMMAND [ARGUMENT]...\n"
	      "\n"
	      "Drive a running ferry through its API socket.\n"
	      "\n"
	      "Commands (ferryctl COMMAND --help says more of one):\n",
	      out);
	for (const struct ctl_command *c = ctl_commands; c->name; c++)
		fprintf(out, "  %-18s %s\n", c->name, c->summary);
	fputs("\n"
	      "Options:\n"
	      "  --api-socket PATH  the socket that ferry was started with; else the environment\n"
	      "                     variable FERRY_API_SOCKET says it\n"
	      "  --json             print ferry's answer as the JSON it is\n"
	      "  -V, --version      print the version\n"
	      "  -h, --help         print this help\n"
	      "\n"
	      "Examples:\n"
	      "  ferry --api-socket /run/ferry.sock --kernel vmlinux --serial null &\n"
	      "  export FERRY_API_SOCKET=/run/ferry.sock\n"
	      "  ferryctl info\n"
	      "  ferryctl add-disk path=/vm/data.img\n"
	      "  ferryctl power-button\n"
	      "\n"
	      "Exit status: 0 done, 1 failed, 2 wrong usage.\n",
	      out);
}

static void print_command_help(FILE *out, const struct ctl_command *c)
{
	fprintf(out, "Usage: ferryctl %s%s%s%s\n\n",
		c->local ? "" : "[--api-socket PATH] [--json] ", c->name, c->arguments ? " " : "",
		c->arguments ? c->arguments : "");
	fprintf(out, "%c%s.\n\n%s", toupper((unsigned char)c->summary[0]), c->summary + 1, c->help);
}

/*
 * Takes ferryctl's own options out of argv, wherever they stand. What is left is the
 * command with its arguments.
 */
static int take_options(struct ctl *ctl, int argc, char *const argv[])
{
	static const char socket_option[] = "--api-socket";
	const size_t len = sizeof(socket_option) - 1;

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];

		if (!strcmp(arg, "--json")) {
			ctl->json = true;
		} else if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
			ctl->help = true;
		} else if (!strcmp(arg, "--version") || !strcmp(arg, "-V")) {
			ctl->version = true;
		} else if (!strcmp(arg, socket_option)) {
			if (++i == argc)
				return ctl_complain(ctl, CTL_USAGE, "--api-socket needs a value");
			ctl->socket = argv[i];
		} else if (!strncmp(arg, socket_option, len) && arg[len] == '=') {
			ctl->socket = arg + len + 1;
		} else if (arg[0] == '-' && arg[1] && !ctl->argc) {
			return ctl_complain(ctl, CTL_USAGE,
					    "unknown option %.60s (see ferryctl --help)", arg);
		} else {
			ctl->argv[ctl->argc++] = (char *)arg;
		}
	}
	/* As ferry's own option takes it. */
	if (ctl->socket && !strncmp(ctl->socket, "path=", 5))
		ctl->socket += 5;
	return CTL_OK;
}

static const struct ctl_command *find_command(const struct ctl *ctl)
{
	struct suggestion near = SUGGESTION_INIT(ctl->argv[0]);
	char hint[80];

	for (const struct ctl_command *c = ctl_commands; c->name; c++) {
		if (!strcmp(c->name, ctl->argv[0]))
			return c;
		suggestion_consider(&near, c->name);
	}
	ctl_complain(ctl, CTL_USAGE, "unknown command %.60s%s", ctl->argv[0],
		     near.best ? suggestion_text(&near, hint, sizeof(hint))
			       : " (see ferryctl --help)");
	return NULL;
}

static void append_message(struct strbuf *text, const json_t *value)
{
	const json_t *item;
	size_t i;

	if (json_is_string(value)) {
		strbuf_printf(text, "%s%s", text->len ? ": " : "", json_string_value(value));
		return;
	}
	json_array_foreach(value, i, item) if (json_is_string(item)) append_message(text, item);
}

/* An error's body is a list of causes, an object with one, or plain text. */
static void error_message(struct strbuf *text, const struct http_reply *reply)
{
	json_t *json = NULL;

	if (reply->body.len)
		json = json_loadb(reply->body.data, reply->body.len, JSON_DECODE_ANY, NULL);
	append_message(text, json);
	append_message(text, json_object_get(json, "error"));
	append_message(text, json_object_get(json, "message"));
	if (!json && reply->body.len && !memchr(reply->body.data, '\0', reply->body.len))
		strbuf_puts(text, reply->body.data);
	json_decref(json);
	while (text->len && !text->failed && strchr("\r\n ", text->data[text->len - 1]))
		text->data[--text->len] = '\0';
}

static int report_failure(const struct ctl *ctl, const struct ctl_command *command,
			  const struct http_reply *reply)
{
	_cleanup_strbuf_ struct strbuf text = { .max = 4096 };

	error_message(&text, reply);
	if (text.len && !text.failed)
		return ctl_complain(ctl, CTL_FAILED, "%s: %s", command->name, text.data);
	if (reply->status == 404)
		return ctl_complain(ctl, CTL_FAILED,
				    "%s: ferry has no %s (HTTP 404): is it of another "
				    "version than ferryctl?",
				    command->name, command->path);
	return ctl_complain(ctl, CTL_FAILED, "%s: HTTP status %d", command->name, reply->status);
}

static int print_reply(const struct ctl *ctl, const struct ctl_command *command,
		       const struct http_reply *reply)
{
	/* A terminal gets nothing but ASCII from --json: it may hold anything. */
	size_t flags = JSON_INDENT(2) | JSON_ENCODE_ANY |
		       (isatty(fileno(ctl->out)) ? JSON_ENSURE_ASCII : 0);
	json_error_t where;
	json_t *body = NULL;

	if (command->text) {
		if (reply->body.len)
			ctl_print_text(ctl->out, reply->body.data);
		return CTL_OK;
	}
	if (reply->body.len) {
		body = json_loadb(reply->body.data, reply->body.len,
				  JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where);
		if (!body)
			return ctl_complain(ctl, CTL_FAILED, "%s: the reply is not JSON: %s",
					    command->name, where.text);
	}
	if (ctl->json) {
		if (body) {
			json_dumpf(body, ctl->out, flags);
			putc('\n', ctl->out);
		}
	} else if (command->render) {
		command->render(ctl->out, reply->status, body);
	}
	json_decref(body);
	return CTL_OK;
}

int ctl_report(const struct ctl *ctl, const struct ctl_command *command,
	       const struct http_reply *reply)
{
	if (reply->status >= 200 && reply->status < 300)
		return print_reply(ctl, command, reply);
	return report_failure(ctl, command, reply);
}

static int perform(const struct ctl *ctl, const struct ctl_command *command,
		   const struct ctl_call *call)
{
	const struct http_request request = {
		.method = command->method,
		.path = command->path,
		.body = call->body,
		.fds = call->fds,
		.fd_count = call->fd_count,
		.timeout = command->quick ? QUICK_TIMEOUT : 0,
	};
	struct error err = ERROR_INIT;
	struct http_reply reply;
	int status;

	if (http_client_call(ctl->socket, &request, &reply, &err))
		status = ctl_complain(ctl, CTL_FAILED, "%s: %s", command->name, err.message);
	else
		status = ctl_report(ctl, command, &reply);
	http_reply_free(&reply);
	return status;
}

/* What was printed is there, or it has failed. */
static int flush(const struct ctl *ctl, const struct ctl_command *command, int status)
{
	if (status == CTL_OK && (fflush(ctl->out) || ferror(ctl->out)))
		status = ctl_complain(ctl, CTL_FAILED, "%s: write the answer: %s", command->name,
				      strerror(errno));
	return status;
}

static int report_build(const struct ctl *ctl, const struct ctl_command *command,
			const struct error *err)
{
	if (err->kind != ERROR_BAD_REQUEST)
		return ctl_complain(ctl, CTL_FAILED, "%s: %s", command->name, err->message);
	/* Who was told the right word needs no more advice. */
	if (strstr(err->message, "(did you mean"))
		return ctl_complain(ctl, CTL_USAGE, "%s: %s", command->name, err->message);
	return ctl_complain(ctl, CTL_USAGE, "%s: %s (see ferryctl %s --help)", command->name,
			    err->message, command->name);
}

/* A command that needs no ferry. */
static int run_local(const struct ctl *ctl, const struct ctl_command *command)
{
	struct error err = ERROR_INIT;

	if (ctl->json)
		option_error(&err, "there is no --json of this");
	else
		command->local(ctl->out, ctl->argc, ctl->argv, &err);
	if (err.code)
		return report_build(ctl, command, &err);
	if (fflush(ctl->out) || ferror(ctl->out))
		return ctl_complain(ctl, CTL_FAILED, "%s: write the answer: %s", command->name,
				    strerror(errno));
	return CTL_OK;
}

static int run_command(struct ctl *ctl)
{
	const struct ctl_command *command = find_command(ctl);
	struct error err = ERROR_INIT;
	struct ctl_call call = { 0 };
	int status;

	if (!command)
		return CTL_USAGE;
	if (ctl->help) {
		print_command_help(ctl->out, command);
		return CTL_OK;
	}
	if (command->local)
		return run_local(ctl, command);
	if (!command->build && ctl->argc > 1)
		option_error(&err, "unexpected argument \"%.60s\"", ctl->argv[1]);
	else if (command->build)
		command->build(&call, ctl->argc, ctl->argv, &err);
	if (err.code) {
		status = report_build(ctl, command, &err);
	} else if (!ctl->socket || !*ctl->socket) {
		status = ctl_complain(ctl, CTL_USAGE,
				      "no API socket is named: give --api-socket PATH, or "
				      "set FERRY_API_SOCKET");
	} else {
		status = command->perform ? command->perform(ctl, command, &call)
					  : perform(ctl, command, &call);
		status = flush(ctl, command, status);
	}
	ctl_call_free(&call);
	return status;
}

int ctl_main(int argc, char *const argv[], FILE *out, FILE *errout)
{
	struct ctl ctl = { .out = out, .err = errout, .socket = getenv("FERRY_API_SOCKET") };
	int status;

	ctl.argv = calloc((size_t)argc + 1, sizeof(*ctl.argv));
	if (!ctl.argv)
		return ctl_complain(&ctl, CTL_FAILED, "out of memory");
	status = take_options(&ctl, argc, argv);
	if (status == CTL_OK && ctl.version) {
		fputs("ferryctl v" FERRY_VERSION_STRING "\n", out);
	} else if (status == CTL_OK && ctl.argc) {
		status = run_command(&ctl);
	} else if (status == CTL_OK && ctl.help) {
		print_help(out);
	} else if (status == CTL_OK) {
		print_help(errout);
		status = CTL_USAGE;
	}
	free(ctl.argv);
	return status;
}
