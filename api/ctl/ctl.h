/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ferryctl: one command per call of ferry's API.
 *
 *     argv --ctl_main--> a row of ctl_commands --build--> struct ctl_call
 *          --http_client_call--> struct http_reply --render--> out
 *
 * What ferry answers is not trusted more than any other peer: replies are bounded,
 * and nothing of them reaches a terminal with control characters in it.
 */
#ifndef API_CTL_CTL_H
#define API_CTL_CTL_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

#include "base/error.h"
#include "base/fd.h"

enum { CTL_OK = 0, CTL_FAILED = 1, CTL_USAGE = 2 };

#define CTL_BODY_MAX (512 * 1024) /* what ferry takes */

/* What a command sends besides its method and path. */
struct ctl_call {
	char *body;	      /* JSON, owned; NULL: none */
	int fds[FD_PASS_MAX]; /* go with the request, owned */
	unsigned int fd_count;
	bool no_wait, watch; /* of those that take long */
};

void ctl_call_free(struct ctl_call *call);

/* Where a command is carried out. */
struct ctl {
	FILE *out, *err;
	const char *socket;
	bool json, help, version;
	/* the command and its arguments, without the options of ferryctl itself */
	int argc;
	char **argv;
};

struct ctl_command;
struct http_reply;

/* Says "ferryctl: ..." on ctl->err and returns status. */
int ctl_complain(const struct ctl *ctl, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Prints what ferry answered, or why it refused. Returns the exit status. */
int ctl_report(const struct ctl *ctl, const struct ctl_command *command,
	       const struct http_reply *reply);

struct ctl_command {
	const char *name, *arguments, *summary;
	const char *help; /* arguments explained, and examples */
	const char *method, *path;
	bool quick; /* ferry answers at once: a reply that stays out is a failure */
	bool text;  /* the reply is text, not JSON */
	/* Does all of the command here, without a ferry; NULL: what is below. argv and errors
	 * as with build. */
	int (*local)(FILE *out, int argc, char *const argv[], struct error *err);
	/* Fills call from the command's arguments (argv[0] is its name); NULL: it has none.
	 * ERROR_BAD_REQUEST: wrong usage. */
	int (*build)(struct ctl_call *call, int argc, char *const argv[], struct error *err);
	/* Sends the call and reports, in its own way; NULL: one call, one answer. Returns the
	 * exit status. */
	int (*perform)(const struct ctl *ctl, const struct ctl_command *command,
		       const struct ctl_call *call);
	/* Prints a success; body is NULL where there is none. NULL: nothing to print. */
	void (*render)(FILE *out, int status, const json_t *body);
};

/* Ends with a row whose name is NULL. */
extern const struct ctl_command ctl_commands[];

/* The program. Reads FERRY_API_SOCKET from the environment. Returns its exit status. */
int ctl_main(int argc, char *const argv[], FILE *out, FILE *errout);

/* --- arguments of commands --- */

/* --name VALUE or --name=VALUE; a flag takes no value and becomes "". */
struct ctl_argument {
	const char *name;
	const char **value;
	bool flag;
};

/* Fills the values; one argument that is no option goes to *rest (NULL: none allowed). */
int ctl_take_arguments(const struct ctl_argument *arguments, size_t count, const char **rest,
		       int argc, char *const argv[], struct error *err);
/* Takes the reference; NULL is "out of memory". */
int ctl_set_body(struct ctl_call *call, json_t *json, struct error *err);
/* The option parsers speak of "--disk: ..."; here the command is the option. */
int ctl_drop_option(int r, const char *option, struct error *err);

/* --- commands of their own files --- */

int ctl_build_snapshot(struct ctl_call *call, int argc, char *const argv[], struct error *err);
int ctl_build_restore(struct ctl_call *call, int argc, char *const argv[], struct error *err);
int ctl_build_send(struct ctl_call *call, int argc, char *const argv[], struct error *err);
int ctl_build_receive(struct ctl_call *call, int argc, char *const argv[], struct error *err);
int ctl_build_live_update(struct ctl_call *call, int argc, char *const argv[], struct error *err);
int ctl_build_migration(struct ctl_call *call, int argc, char *const argv[], struct error *err);
/* Show progress while they wait. */
int ctl_perform_move(const struct ctl *ctl, const struct ctl_command *command,
		     const struct ctl_call *call);
int ctl_perform_migration(const struct ctl *ctl, const struct ctl_command *command,
			  const struct ctl_call *call);

int ctl_state(FILE *out, int argc, char *const argv[], struct error *err);

/* Prints text from ferry; what could command a terminal becomes "?". */
void ctl_print_text(FILE *out, const char *text);
void ctl_render_ping(FILE *out, int status, const json_t *body);
void ctl_render_info(FILE *out, int status, const json_t *body);
void ctl_render_counters(FILE *out, int status, const json_t *body);
void ctl_render_place(FILE *out, int status, const json_t *body);
void ctl_render_live_update(FILE *out, int status, const json_t *body);
void ctl_render_migration(FILE *out, int status, const json_t *body);
/* What it came to, in one sentence: vm.migration when it is over. */
void ctl_render_summary(FILE *out, const json_t *progress);
/* One line of at most `width` columns, without its end. */
void ctl_render_bar(FILE *out, const json_t *progress, unsigned int width);

#endif
