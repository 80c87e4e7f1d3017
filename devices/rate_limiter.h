/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token buckets for bytes and operations. One thread at a time per limiter.
 */
#ifndef DEVICES_RATE_LIMITER_H
#define DEVICES_RATE_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/state_tree.h"

struct token_bucket_options {
	uint64_t size;		 /* tokens; 0: unlimited */
	uint64_t one_time_burst; /* extra tokens, once */
	uint64_t refill_ms;	 /* time in which `size` tokens come back */
};

struct rate_limiter_options {
	struct token_bucket_options bandwidth; /* bytes */
	struct token_bucket_options ops;
};

struct token_bucket {
	struct token_bucket_options options;
	uint64_t tokens, burst;
	uint64_t updated_ns;
	bool indebted; /* a request larger than the bucket went through: wait it out */
	uint64_t debt;
};

struct rate_limiter {
	struct token_bucket bandwidth, ops;
};

void rate_limiter_init(struct rate_limiter *limiter, const struct rate_limiter_options *options,
		       uint64_t now_ns);
bool rate_limiter_unlimited(const struct rate_limiter *limiter);
/* Takes one operation of `bytes`: 0 where it may go now, else the nanoseconds
 * until it is worth asking again (nothing taken). */
uint64_t rate_limiter_take(struct rate_limiter *limiter, uint64_t bytes, uint64_t now_ns);

/* The node of that name: what is left in the buckets. Time between save and load fills
 * none. */
void rate_limiter_save(const struct rate_limiter *limiter, struct state_writer *writer,
		       const char *name);
/* Reads it below parent, into a limiter of the same options. */
int rate_limiter_load(struct rate_limiter *limiter, const struct state_node *parent,
		      const char *name, uint64_t now_ns, struct error *err);

#endif
