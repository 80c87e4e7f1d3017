/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage for the hand-over: source and destination are processes, a proxy between them
 * does its mischief at a frame of the protocol, before or after it is forwarded. In the
 * end it is seen who runs the VM.
 */
#ifndef TESTS_UNIT_MIGRATION_HANDOVER_STAGE_H
#define TESTS_UNIT_MIGRATION_HANDOVER_STAGE_H

#include <check.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/migration/frame_proxy.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 3
#define PARTS 2
#else
#define SLOW 1
#define PARTS 4
#endif
#ifndef STAGE_STALL_MS
#define STAGE_STALL_MS 400
#endif
#define STALL_MS (STAGE_STALL_MS * SLOW * play.patience)
#define INQUIRY_MS (5 * STALL_MS) /* longer than a destination waits for COMMIT */
#define LINGER_MS (10 * STALL_MS)
#define RECOVERY_MS (5 * STALL_MS)
#define RAM (3 * MIB)

struct side {
	atomic_bool over;
	atomic_int outcome, running;
	char message[ERROR_MESSAGE_MAX];
};

/* Shared by the processes. */
struct stage {
	struct fake_world world;
	struct side source, target;
};

struct play {
	struct stage *stage;
	struct fake_machine machine; /* of the process that it is in */
	struct sockaddr_storage to_proxy;
	socklen_t to_proxy_len;
	int listener; /* the target's */
	bool witness, postcopy;
	int patience; /* times STAGE_STALL_MS */
	int (*target_hook)(struct fake_machine *machine, enum fake_step step);
	struct proxy proxy;
	pid_t source, target;
};

static struct play play = { .patience = 1 };

static inline int dial_proxy(void *opaque, int timeout_ms, int cancel_fd, struct error *err)
{
	int fd = connect_to(&play.to_proxy, play.to_proxy_len);

	return fd < 0 ? error_set_errno(err, fd, "connect") : fd;
}

/* The process of a VM lives on when the migration is over. */
static inline void report(struct side *side, enum transfer_outcome outcome,
			  const struct error *error)
{
	memcpy(side->message, error->message, sizeof(side->message));
	atomic_store(&side->outcome, outcome);
	atomic_store(&side->running, fake_running(&play.machine));
	atomic_store(&side->over, true);
	for (;;)
		pause();
}

/* The guest at the destination: touches all of its memory. */
static inline void *touch_all(void *opaque)
{
	struct fake_machine *m = &play.machine;

	for (unsigned int i = 0; i < guest_memory_region_count(m->memory); i++) {
		const struct guest_memory_region *r = guest_memory_region(m->memory, i);

		for (uint64_t at = 0; at < r->size && !atomic_load(&m->lost); at += GUEST_PAGE_SIZE)
			(void)*(volatile uint8_t *)(r->hva + at);
	}
	return NULL;
}

static pthread_t guest;

static inline void end_guest(void)
{
	if (guest)
		pthread_join(guest, NULL);
	guest = 0;
}

static inline int run_guest(struct fake_machine *m, enum fake_step step)
{
	if (step == FAKE_RESUMED)
		ck_assert_int_eq(pthread_create(&guest, NULL, touch_all, NULL), 0);
	else if (step == FAKE_DESTROY)
		end_guest(); /* before its memory goes */
	return 0;
}

/* So that all pages are to follow, whatever the writer got done before. */
static inline int write_all(struct fake_machine *m, enum fake_step step)
{
	if (step != FAKE_PAUSE)
		return 0;
	for (unsigned int i = 0; i < guest_memory_region_count(m->memory); i++)
		for (uint64_t page = 0; page < m->dirty[i].pages; page++)
			fake_write(m, i, page, page + 4711);
	return 0;
}

static inline void be_source(void)
{
	struct error error = ERROR_INIT;
	struct send_options options;
	struct migration_send *send;
	struct migration_vm vm;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(play.listener);
	close(play.proxy.listener);
	fake_init_running(&play.machine, &play.stage->world, RAM, 3);
	play.machine.hook = play.postcopy ? write_all : NULL;
	vm = fake_vm(&play.machine);
	send_options_init(&options);
	options.dialer.connect = dial_proxy;
	options.connections = 2;
	options.stall_ms = STALL_MS;
	options.inquiry_ms = INQUIRY_MS;
	options.no_witness = !play.witness;
	options.recovery_ms = RECOVERY_MS;
	options.postcopy = play.postcopy;
	/* So that pages are on their way for a while. */
	options.bandwidth = play.postcopy ? 2 * MIB : 0;
	send = migration_send_new(&vm, &options, &error);
	migration_send_run(send, &error);
	report(&play.stage->source, migration_send_outcome(send), &error);
}

static inline void be_target(void)
{
	struct error error = ERROR_INIT;
	struct receive_options options;
	struct migration_receive *receive;
	struct migration_target target;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(play.proxy.listener);
	fake_init(&play.machine, &play.stage->world, RAM);
	play.machine.hook = play.postcopy ? run_guest : play.target_hook;
	target = fake_target(&play.machine);
	receive_options_init(&options);
	options.listener = play.listener;
	options.stall_ms = STALL_MS;
	options.linger_ms = LINGER_MS;
	options.recovery_ms = RECOVERY_MS * 3 / 2;
	options.wait_ms = 4 * STALL_MS;
	receive = migration_receive_new(&target, &options, &error);
	migration_receive_run(receive, &error);
	end_guest();
	if (play.postcopy && play.machine.memory)
		atomic_store(&play.stage->world.arrived, fake_crc(&play.machine));
	report(&play.stage->target, migration_receive_outcome(receive), &error);
}

static inline pid_t start(void (*be)(void))
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid)
		be();
	return pid;
}

static inline bool ended(pid_t pid)
{
	siginfo_t info = { .si_pid = 0 };

	return !waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid == pid;
}

/* The kernel takes the locks of a process with it. */
static inline void release_locks_of(pid_t pid)
{
	int holder = pid;

	if (ended(pid))
		atomic_compare_exchange_strong(&play.stage->world.locked, &holder, 0);
}

static inline void set_stage(bool tcp, bool witness)
{
	play.stage = mmap(NULL, sizeof(*play.stage), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(play.stage, MAP_FAILED);
	play.witness = witness;
	play.listener = listen_somewhere(tcp, &play.proxy.target, &play.proxy.target_len);
	play.proxy.listener = listen_somewhere(tcp, &play.to_proxy, &play.to_proxy_len);
	play.proxy.type = UINT16_MAX;
}

static inline bool over(void)
{
	release_locks_of(play.source);
	release_locks_of(play.target);
	return (atomic_load(&play.stage->source.over) || ended(play.source)) &&
	       (atomic_load(&play.stage->target.over) || ended(play.target));
}

static inline bool mischief_done(void)
{
	return play.proxy.type == UINT16_MAX || atomic_load(&play.proxy.done);
}

static inline bool wait_until(bool (*is)(void), int ms)
{
	for (; ms > 0 && !is(); ms -= 5)
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	return is();
}

/* Returns when both sides have ended, or have come to a conclusion. */
static inline void perform(void)
{
	play.target = play.proxy.target_pid = start(be_target);
	play.source = play.proxy.source = start(be_source);
	close(play.listener);
	proxy_start(&play.proxy);
	ck_assert(wait_until(over, 40000 * SLOW * play.patience));
	/* The mischief at the last frame may come when both sides are done with it. */
	wait_until(mischief_done, 2000 * SLOW);
}

static inline bool source_runs(void)
{
	return !ended(play.source) && play.stage->source.running;
}

static inline bool target_runs(void)
{
	return !ended(play.target) && play.stage->target.running;
}

static inline void leave_stage(void)
{
	kill(play.source, SIGKILL);
	kill(play.target, SIGKILL);
	waitpid(play.source, NULL, 0);
	waitpid(play.target, NULL, 0);
	proxy_stop(&play.proxy);
}

/*
 * Mischief at a frame of the protocol, which has to come for this. On a machine that has
 * no time for us the migration may be given up before it, as one that stalls: then the
 * same once more, with more patience.
 */
static inline void perform_mischief(bool tcp, bool witness, enum mischief mischief, uint16_t type,
				    bool after)
{
	struct play as_set = play;

	for (;; as_set.patience *= 4) {
		play = as_set;
		set_stage(tcp, witness);
		play.proxy.mischief = mischief;
		play.proxy.type = type;
		play.proxy.after = after;
		perform();
		if (play.proxy.done)
			return;
		ck_assert_msg(strstr(play.stage->source.message, "nothing moved for") &&
				      play.patience < 16,
			      "there was no frame %u; source: %s; target: %s", type,
			      play.stage->source.message, play.stage->target.message);
		leave_stage();
	}
}

/* Who runs the VM in the end; several where it is a race between processes. */
enum {
	SOURCE = 1,
	TARGET = 2,
	NONE = 4,	  /* the side that had it is dead */
	HELD = 8,	  /* by the source, none runs */
	HELD_TARGET = 16, /* by the source, and the target runs */
};

static inline int who(void)
{
	bool held = !ended(play.source) && play.stage->source.outcome == TRANSFER_HELD;

	ck_assert(!(source_runs() && target_runs()));
	if (source_runs())
		return SOURCE;
	if (target_runs())
		return held ? HELD_TARGET : TARGET;
	return held ? HELD : NONE;
}

/*
 * Plays mostly wait, so there is a process for each part of each play. But a few at once
 * only: all of them together would keep each other from what has to be done within
 * STALL_MS. The last parts are the longest and begin.
 */
#define AT_ONCE 16

/* Of a play's steps from first on, the part of so many. */
static inline Suite *part_suite(const char *name, const TTest *test, int first, int steps, int part,
				int parts)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create(test->name);

	tcase_set_timeout(tcase, 60 * SLOW);
	tcase_add_loop_test(tcase, test, first + steps * part / parts,
			    first + steps * (part + 1) / parts);
	suite_add_tcase(suite, tcase);
	return suite;
}

static inline int run_parts(size_t parts, Suite *(*suite_of)(size_t part))
{
	int result = EXIT_SUCCESS, status;

	fflush(stdout);
	for (size_t begun = 0, over = 0; over < parts;) {
		if (begun < parts && begun - over < AT_ONCE) {
			pid_t pid = fork();

			if (pid < 0)
				return EXIT_FAILURE;
			if (!pid)
				exit(run_suite(suite_of(parts - 1 - begun)));
			begun++;
		} else if (wait(&status) > 0) {
			over++;
			if (status)
				result = EXIT_FAILURE;
		}
	}
	return result;
}

#endif
