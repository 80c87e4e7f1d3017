/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/vcpu.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"

#define KICK_SIGNAL SIGUSR1
#define DELIVERY_RETRIES 1000 /* in a second */

enum run_state { RUN_PAUSED, RUN_RUNNING, RUN_FAILED };

struct vcpu {
	struct vcpu_options options;
	int fd;
	struct kvm_run *run;
	struct kvm_dirty_gfn *ring;
	pthread_t thread;
	bool started;
	struct vcpu_exits exits;
	unsigned int delivery_retries;
	uint64_t delivery_second; /* in which they were */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool want_pause, want_hold, want_exit; /* asked, under lock */
	atomic_bool attention;		       /* any of them: looked at without the lock */
	bool want_nmi;
	enum run_state state;
};

static void on_kick(int signal)
{
	(void)signal; /* only there to make KVM_RUN return */
}

int vcpu_signals_init(struct error *err)
{
	struct sigaction action = { .sa_handler = on_kick };

	if (sigaction(KICK_SIGNAL, &action, NULL))
		return error_set_errno(err, errno, "install vCPU signal");
	return 0;
}

struct vcpu *vcpu_new(const struct vcpu_options *options, struct error *err)
{
	struct vcpu *vcpu = calloc(1, sizeof(*vcpu));

	if (!vcpu) {
		error_set_errno(err, ENOMEM, "create vCPU %u", options->index);
		return NULL;
	}
	vcpu->options = *options;
	vcpu->run = MAP_FAILED;
	vcpu->want_pause = true;
	vcpu->attention = true;
	pthread_mutex_init(&vcpu->lock, NULL);
	pthread_cond_init(&vcpu->changed, NULL);
	vcpu->fd = kvm_create_vcpu(options->kvm, options->id, err);
	if (vcpu->fd < 0)
		goto fail;
	vcpu->run =
		mmap(NULL, options->kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED) {
		error_set_errno(err, errno, "map the run area of vCPU %u", options->index);
		goto fail;
	}
	if (options->kvm->dirty_ring_bytes) {
		vcpu->ring = mmap(NULL, options->kvm->dirty_ring_bytes, PROT_READ | PROT_WRITE,
				  MAP_SHARED, vcpu->fd,
				  KVM_DIRTY_LOG_PAGE_OFFSET * sysconf(_SC_PAGESIZE));
		if (vcpu->ring == MAP_FAILED) {
			vcpu->ring = NULL;
			error_set_errno(err, errno, "map the dirty ring of vCPU %u",
					options->index);
			goto fail;
		}
	}
	return vcpu;
fail:
	vcpu_free(vcpu);
	return NULL;
}

void vcpu_free(struct vcpu *vcpu)
{
	if (!vcpu)
		return;
	if (vcpu->started) {
		pthread_mutex_lock(&vcpu->lock);
		vcpu->want_exit = true;
		vcpu->run->immediate_exit = 1;
		atomic_store(&vcpu->attention, true);
		pthread_cond_broadcast(&vcpu->changed);
		pthread_mutex_unlock(&vcpu->lock);
		pthread_kill(vcpu->thread, KICK_SIGNAL);
		pthread_join(vcpu->thread, NULL);
	}
	if (vcpu->ring)
		munmap(vcpu->ring, vcpu->options.kvm->dirty_ring_bytes);
	if (vcpu->run != MAP_FAILED)
		munmap(vcpu->run, vcpu->options.kvm->run_size);
	if (vcpu->fd >= 0)
		close(vcpu->fd);
	pthread_cond_destroy(&vcpu->changed);
	pthread_mutex_destroy(&vcpu->lock);
	free(vcpu);
}

int vcpu_fd(const struct vcpu *vcpu)
{
	return vcpu->fd;
}

static void count(atomic_ullong *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void handle_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	count(&vcpu->exits.pio);
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			bus_write(vcpu->options.pio, run->io.port, data, run->io.size);
		else
			bus_read(vcpu->options.pio, run->io.port, data, run->io.size);
	}
}

/* KVM splits guest accesses at page borders, not at powers of two. */
static void handle_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint64_t addr = run->mmio.phys_addr;
	uint8_t *data = run->mmio.data;
	unsigned int left = run->mmio.len <= sizeof(run->mmio.data) ? run->mmio.len : 0;

	count(&vcpu->exits.mmio);
	while (left) {
		unsigned int len = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;

		if (run->mmio.is_write)
			bus_write(vcpu->options.mmio, addr, data, len);
		else
			bus_read(vcpu->options.mmio, addr, data, len);
		addr += len;
		data += len;
		left -= len;
	}
}

static void fail(struct vcpu *vcpu, const char *reason)
{
	pthread_mutex_lock(&vcpu->lock);
	vcpu->state = RUN_FAILED;
	pthread_cond_broadcast(&vcpu->changed);
	pthread_mutex_unlock(&vcpu->lock);
	vcpu->options.callbacks.failed(vcpu->options.callbacks.opaque, vcpu->options.index, reason);
}

/*
 * "The guest's access could not be emulated while an event was being delivered." KVM has
 * queued the event again and the instruction has not run, so entering again is right, and
 * cures it where KVM was misled: QEMU's emulated SVM leaves the type of the last event in
 * EXITINTINFO, without its valid bit, and KVM looks at the type alone. A guest whose stack
 * or IDT really is in a device's registers comes back here at once and fails soon. (Other
 * exits are no measure: one that kicks its queues by ioeventfd may see none for long.)
 */
static bool retry_delivery(struct vcpu *vcpu)
{
	uint64_t second = clock_ms() / 1000;

	if (vcpu->run->internal.suberror != KVM_INTERNAL_ERROR_DELIVERY_EV)
		return false;
	if (second != vcpu->delivery_second)
		vcpu->delivery_retries = 0;
	if (vcpu->delivery_retries == DELIVERY_RETRIES)
		return false;
	vcpu->delivery_second = second;
	vcpu->delivery_retries++;
	log_debug(vcpu->options.log, "event delivery failed, entering the guest again");
	return true;
}

static void fail_internal(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	char reason[192];
	int n;

	n = snprintf(reason, sizeof(reason), "KVM internal error, suberror %u",
		     run->internal.suberror);
	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run->internal.ndata >= 4 &&
	    (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
		const uint8_t *bytes = run->emulation_failure.insn_bytes;

		n += snprintf(reason + n, sizeof(reason) - (size_t)n,
			      " (instruction not emulated:");
		for (unsigned int i = 0; i < run->emulation_failure.insn_size && i < 15; i++)
			n += snprintf(reason + n, sizeof(reason) - (size_t)n, " %02x", bytes[i]);
		snprintf(reason + n, sizeof(reason) - (size_t)n,
			 "); this host's KVM cannot run this guest");
	} else {
		for (unsigned int i = 0; i < run->internal.ndata && i < 6; i++)
			n += snprintf(reason + n, sizeof(reason) - (size_t)n, "%s 0x%llx",
				      i ? "," : ", data",
				      (unsigned long long)run->internal.data[i]);
	}
	fail(vcpu, reason);
}

/* Returns false where the vCPU must stop for good. */
static bool handle_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	const struct vcpu_callbacks *callbacks = &vcpu->options.callbacks;
	char reason[96];

	switch (run->exit_reason) {
	case KVM_EXIT_IO: handle_io(vcpu); return true;
	case KVM_EXIT_MMIO: handle_mmio(vcpu); return true;
	case KVM_EXIT_INTR: count(&vcpu->exits.interrupted); return true;
	case KVM_EXIT_HLT: count(&vcpu->exits.halt); return true;
	case KVM_EXIT_DIRTY_RING_FULL:
		count(&vcpu->exits.other);
		callbacks->dirty_ring_full(callbacks->opaque, vcpu->options.index);
		return true;
	case KVM_EXIT_SHUTDOWN:
		count(&vcpu->exits.other);
		callbacks->shutdown(callbacks->opaque, vcpu->options.index);
		/* Nothing to run until the machine is reset: wait to be freed. */
		pthread_mutex_lock(&vcpu->lock);
		vcpu->state = RUN_FAILED;
		pthread_cond_broadcast(&vcpu->changed);
		pthread_mutex_unlock(&vcpu->lock);
		return false;
	case KVM_EXIT_INTERNAL_ERROR:
		count(&vcpu->exits.other);
		if (retry_delivery(vcpu))
			return true;
		fail_internal(vcpu);
		return false;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(reason, sizeof(reason),
			 "KVM could not enter the guest, hardware reason 0x%llx",
			 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		fail(vcpu, reason);
		return false;
	default:
		snprintf(reason, sizeof(reason), "unexpected KVM exit %u", run->exit_reason);
		fail(vcpu, reason);
		return false;
	}
}

/* Serves what was asked of the vCPU; returns false where its thread shall end. */
static bool attend(struct vcpu *vcpu)
{
	bool go_on;

	pthread_mutex_lock(&vcpu->lock);
	/* Before a pause: what was sent to the guest is in its state when that is saved. */
	if (vcpu->want_nmi && !vcpu->want_exit) {
		vcpu->want_nmi = false;
		kvm_nmi(vcpu->fd, NULL);
	}
	while (!vcpu->want_exit &&
	       (vcpu->want_pause || vcpu->want_hold || vcpu->state == RUN_FAILED)) {
		if (vcpu->state == RUN_RUNNING) {
			vcpu->state = RUN_PAUSED;
			pthread_cond_broadcast(&vcpu->changed);
		}
		pthread_cond_wait(&vcpu->changed, &vcpu->lock);
	}
	go_on = !vcpu->want_exit;
	if (go_on) {
		vcpu->state = RUN_RUNNING;
		vcpu->run->immediate_exit = 0;
		atomic_store(&vcpu->attention, false);
		/* It came while this slept. */
		if (vcpu->want_nmi) {
			vcpu->want_nmi = false;
			kvm_nmi(vcpu->fd, NULL);
		}
	}
	pthread_mutex_unlock(&vcpu->lock);
	return go_on;
}

static void *vcpu_main(void *opaque)
{
	struct vcpu *vcpu = opaque;
	bool runnable = true;
	sigset_t kick;

	sigemptyset(&kick);
	sigaddset(&kick, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	for (;;) {
		int r;

		/* KVM_RUN has returned with immediate_exit set, so the last exit is
		 * complete and the state is consistent. */
		if ((atomic_load(&vcpu->attention) || !runnable) && !attend(vcpu))
			return NULL;
		r = kvm_run(vcpu->fd);
		while (r == 0) {
			runnable = handle_exit(vcpu);
			if (!runnable)
				break;
			r = kvm_run(vcpu->fd);
		}
		if (r && r != -EINTR && r != -EAGAIN) {
			char reason[64], text[40];

			snprintf(reason, sizeof(reason), "KVM_RUN: %s",
				 strerror_r(-r, text, sizeof(text)));
			fail(vcpu, reason);
			runnable = false;
		}
	}
}

int vcpu_start(struct vcpu *vcpu, struct error *err)
{
	char name[16];
	int r;

	snprintf(name, sizeof(name), "vcpu%u", vcpu->options.index);
	r = thread_start(&vcpu->thread, vcpu->options.threads, THREAD_VCPU, name, vcpu_main, vcpu,
			 err);
	vcpu->started = !r;
	return r;
}

static void ask_out(struct vcpu *vcpu, bool *why)
{
	pthread_mutex_lock(&vcpu->lock);
	*why = true;
	vcpu->run->immediate_exit = 1;
	atomic_store(&vcpu->attention, true);
	pthread_mutex_unlock(&vcpu->lock);
	if (vcpu->started)
		pthread_kill(vcpu->thread, KICK_SIGNAL);
}

static void let_in(struct vcpu *vcpu, bool *why)
{
	pthread_mutex_lock(&vcpu->lock);
	*why = false;
	pthread_cond_broadcast(&vcpu->changed);
	pthread_mutex_unlock(&vcpu->lock);
}

void vcpu_request_pause(struct vcpu *vcpu)
{
	ask_out(vcpu, &vcpu->want_pause);
}

void vcpu_wait_paused(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	while (vcpu->started && vcpu->state == RUN_RUNNING)
		pthread_cond_wait(&vcpu->changed, &vcpu->lock);
	pthread_mutex_unlock(&vcpu->lock);
}

void vcpu_resume(struct vcpu *vcpu)
{
	let_in(vcpu, &vcpu->want_pause);
}

void vcpu_hold(struct vcpu *vcpu, bool hold)
{
	if (hold)
		ask_out(vcpu, &vcpu->want_hold);
	else
		let_in(vcpu, &vcpu->want_hold);
}

bool vcpu_has_failed(struct vcpu *vcpu)
{
	bool failed;

	pthread_mutex_lock(&vcpu->lock);
	failed = vcpu->state == RUN_FAILED;
	pthread_mutex_unlock(&vcpu->lock);
	return failed;
}

int vcpu_inject_nmi(struct vcpu *vcpu, struct error *err)
{
	/* KVM_NMI takes the vCPU's own lock, so it waits while KVM_RUN runs: hand it
	 * to the thread. */
	pthread_mutex_lock(&vcpu->lock);
	vcpu->want_nmi = true;
	vcpu->run->immediate_exit = 1;
	atomic_store(&vcpu->attention, true);
	pthread_mutex_unlock(&vcpu->lock);
	if (!vcpu->started)
		return error_set(err, EINVAL, "NMI: vCPU %u does not run", vcpu->options.index);
	pthread_kill(vcpu->thread, KICK_SIGNAL);
	return 0;
}

const struct vcpu_exits *vcpu_exit_counts(const struct vcpu *vcpu)
{
	return &vcpu->exits;
}

struct kvm_dirty_gfn *vcpu_dirty_ring(const struct vcpu *vcpu, uint32_t *entries)
{
	*entries = vcpu->options.kvm->dirty_ring_bytes / sizeof(struct kvm_dirty_gfn);
	return vcpu->ring;
}
