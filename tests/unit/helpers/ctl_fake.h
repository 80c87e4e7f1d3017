/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the program ferryctl, built beside the tests, against a server of one
 * connection in a thread. For tests in tests/unit/api.
 */
#ifndef TESTS_UNIT_HELPERS_CTL_FAKE_H
#define TESTS_UNIT_HELPERS_CTL_FAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

enum { CTL_OK = 0, CTL_FAILED = 1, CTL_USAGE = 2 };

struct ctl_fake {
	char dir[32], path[64];
	int listener;
	pthread_t thread;
	/* what it answers, then it closes */
	const char *reply;
	size_t reply_len, repeat; /* the reply's last byte again so often */
	bool read_nothing;
	const char *out_to; /* where ferryctl's output goes; NULL: it is kept */
	/* what it was asked */
	char request[8192];
	size_t len;
	int fds[8];
	unsigned int fd_count;
};

struct ctl_outcome {
	int status;
	char *out, *err;
};

/* Listens in a new directory and names the socket in FERRY_API_SOCKET. */
void ctl_fake_listen(struct ctl_fake *fake);
/* Serves one connection in fake->thread, to be joined. */
void ctl_fake_start(struct ctl_fake *fake);
void ctl_fake_remove(struct ctl_fake *fake);

/* Runs ferryctl with the words, which are separated by '|'. */
struct ctl_outcome ctl_run(const char *words);
/* The same against a server that answers `reply`. */
struct ctl_outcome ctl_call(struct ctl_fake *fake, const char *words, const char *reply);
void ctl_outcome_free(struct ctl_outcome *outcome);

#endif
