/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source and a destination in one process, each in a thread, over a socket in the
 * abstract namespace or TCP; a test sets options and hooks between setup and run.
 */
#ifndef TESTS_UNIT_MIGRATION_MIGRATION_FIXTURE_H
#define TESTS_UNIT_MIGRATION_MIGRATION_FIXTURE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "migration/receive.h"
#include "migration/send.h"
#include "tests/unit/migration/fake_machine.h"

struct fixture {
	struct fake_world world;
	struct fake_machine source, target;
	struct send_options send_options;
	struct receive_options receive_options;
	struct sockaddr_storage address;
	socklen_t address_len;
	struct migration_send *send;
	struct migration_receive *receive;
	struct error send_error, receive_error;
	int send_result, receive_result;
	pthread_t receive_thread;
};

static inline int connect_to(const struct sockaddr_storage *address, socklen_t len)
{
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)address, len)) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static inline int dial_fixture(void *opaque, int timeout_ms, int cancel_fd, struct error *err)
{
	struct fixture *f = opaque;
	int fd = connect_to(&f->address, f->address_len);

	return fd < 0 ? error_set_errno(err, fd, "connect") : fd;
}

/* Listens where the kernel likes. */
static inline int listen_somewhere(bool tcp, struct sockaddr_storage *address, socklen_t *len)
{
	int fd = socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*address = (struct sockaddr_storage){ .ss_family = tcp ? AF_INET : AF_UNIX };
	*len = sizeof(sa_family_t); /* autobind */
	if (tcp) {
		((struct sockaddr_in *)address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		*len = sizeof(struct sockaddr_in);
	}
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)address, *len), 0);
	ck_assert_int_eq(listen(fd, 256), 0);
	*len = sizeof(*address);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)address, len), 0);
	return fd;
}

static inline void fixture_init(struct fixture *f, bool tcp, uint64_t ram_size,
				unsigned int writes_per_ms)
{
	memset(f, 0, sizeof(*f));
	fake_init_running(&f->source, &f->world, ram_size, writes_per_ms);
	fake_init(&f->target, &f->world, ram_size);
	send_options_init(&f->send_options);
	receive_options_init(&f->receive_options);
	f->receive_options.listener = listen_somewhere(tcp, &f->address, &f->address_len);
	f->receive_options.linger_ms = 3000;
	f->send_options.inquiry_ms = 1500;
	f->send_options.stall_ms = f->receive_options.stall_ms = 5000;
	f->send_options.dialer = (struct send_dialer){ dial_fixture, f };
}

static inline void *run_receive(void *opaque)
{
	struct fixture *f = opaque;

	f->receive_result = migration_receive_run(f->receive, &f->receive_error);
	return NULL;
}

static inline void fixture_start(struct fixture *f)
{
	struct migration_vm vm = fake_vm(&f->source);
	struct migration_target target = fake_target(&f->target);

	f->send = migration_send_new(&vm, &f->send_options, NULL);
	f->receive = migration_receive_new(&target, &f->receive_options, NULL);
	ck_assert_ptr_nonnull(f->send);
	ck_assert_ptr_nonnull(f->receive);
	ck_assert_int_eq(pthread_create(&f->receive_thread, NULL, run_receive, f), 0);
}

static inline void *fixture_send(void *opaque)
{
	struct fixture *f = opaque;

	f->send_result = migration_send_run(f->send, &f->send_error);
	return NULL;
}

static inline void fixture_run(struct fixture *f)
{
	fixture_start(f);
	fixture_send(f);
	/* It may never have been met. */
	for (int i = 0; f->send_result && i < 100; i++) {
		if (migration_receive_outcome(f->receive) != TRANSFER_UNDECIDED)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
		if (i == 99)
			migration_receive_cancel(f->receive);
	}
	pthread_join(f->receive_thread, NULL);
}

static inline void fixture_free(struct fixture *f)
{
	migration_send_free(f->send);
	migration_receive_free(f->receive);
	fake_free(&f->source);
	fake_free(&f->target);
	close(f->receive_options.listener);
}

static inline void assert_moved(struct fixture *f)
{
	ck_assert_msg(!f->send_result, "send: %s; receive: %s", f->send_error.message,
		      f->receive_error.message);
	ck_assert_msg(!f->receive_result, "receive: %s", f->receive_error.message);
	ck_assert_int_eq(migration_send_outcome(f->send), TRANSFER_MOVED);
	ck_assert_int_eq(migration_receive_outcome(f->receive), TRANSFER_MOVED);
	ck_assert(!fake_running(&f->source));
	ck_assert(!f->source.logging);
	ck_assert_int_eq(f->source.throttle, 0);
	ck_assert_int_eq(f->world.most, 1);
	ck_assert(!f->source.locked && f->target.locked);
	ck_assert_uint_eq(f->target.counter, 4711);
	ck_assert_int_eq(f->target.announced, 1);
	ck_assert_uint_eq(fake_crc(&f->target), f->world.crc);
}

/* The VM is where it was, as it was. */
static inline void assert_stayed(struct fixture *f)
{
	ck_assert_int_lt(f->send_result, 0);
	ck_assert_int_lt(f->receive_result, 0);
	ck_assert_int_eq(migration_send_outcome(f->send), TRANSFER_STAYED);
	ck_assert_int_eq(migration_receive_outcome(f->receive), TRANSFER_STAYED);
	ck_assert(fake_running(&f->source));
	ck_assert(!f->source.logging);
	ck_assert_int_eq(f->source.throttle, 0);
	ck_assert_int_eq(f->world.most, 1);
	ck_assert(f->source.locked && !f->target.locked);
	ck_assert_int_eq(f->target.created, f->target.destroyed);
	ck_assert_ptr_null(f->target.memory);
	ck_assert(!f->world.wrong_state);
}

#endif
