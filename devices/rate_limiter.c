/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/rate_limiter.h"

#include "base/bytes.h"
#include "devices/device_state.h"

#define NS_PER_MS 1000000ULL

__extension__ typedef unsigned __int128 u128;

static bool unlimited(const struct token_bucket *bucket)
{
	return !bucket->options.size || !bucket->options.refill_ms;
}

static void bucket_init(struct token_bucket *bucket, const struct token_bucket_options *options,
			uint64_t now_ns)
{
	*bucket = (struct token_bucket){
		.options = *options,
		.tokens = options->size,
		.burst = options->one_time_burst,
		.updated_ns = now_ns,
	};
}

static u128 period_ns(const struct token_bucket *bucket)
{
	return (u128)bucket->options.refill_ms * NS_PER_MS;
}

static void pay(struct token_bucket *bucket, uint64_t tokens)
{
	uint64_t debt = MIN(bucket->debt, tokens);

	bucket->debt -= debt;
	tokens -= debt;
	bucket->indebted = bucket->debt != 0;
	if (tokens >= bucket->options.size - bucket->tokens)
		bucket->tokens = bucket->options.size;
	else
		bucket->tokens += tokens;
}

static void refill(struct token_bucket *bucket, uint64_t now_ns)
{
	uint64_t size = bucket->options.size;
	u128 period = period_ns(bucket), tokens;

	if (now_ns <= bucket->updated_ns)
		return;
	tokens = (u128)(now_ns - bucket->updated_ns) * size / period;
	if (tokens > UINT64_MAX)
		tokens = UINT64_MAX;
	if (!tokens)
		return;
	pay(bucket, (uint64_t)tokens);
	/* What did not make a whole token counts next time. */
	if (bucket->tokens == size)
		bucket->updated_ns = now_ns;
	else
		bucket->updated_ns += (uint64_t)(tokens * period / size);
}

/* Nanoseconds until `cost` can be taken; 0: now. */
static uint64_t wait_for(const struct token_bucket *bucket, uint64_t cost, uint64_t now_ns)
{
	uint64_t size = bucket->options.size, missing;
	u128 ns;

	if (!bucket->indebted && (cost <= bucket->tokens || cost - bucket->tokens <= bucket->burst))
		return 0;
	/* More than the bucket ever holds: it goes when the bucket is full. */
	if (!bucket->indebted && cost > size && bucket->tokens == size)
		return 0;
	missing = MIN(cost, size) - MIN(bucket->tokens, MIN(cost, size));
	ns = ((u128)missing + bucket->debt) * period_ns(bucket);
	ns = (ns + size - 1) / size;
	/* Part of the next token is there already. */
	ns -= MIN(ns, (u128)(now_ns - MIN(now_ns, bucket->updated_ns)));
	return ns > UINT64_MAX / 2 ? UINT64_MAX / 2 : MAX((uint64_t)ns, (uint64_t)1);
}

static void take(struct token_bucket *bucket, uint64_t cost)
{
	uint64_t part = MIN(cost, bucket->burst);

	bucket->burst -= part;
	cost -= part;
	part = MIN(cost, bucket->tokens);
	bucket->tokens -= part;
	bucket->debt = cost - part;
	bucket->indebted = bucket->debt != 0;
}

void rate_limiter_init(struct rate_limiter *limiter, const struct rate_limiter_options *options,
		       uint64_t now_ns)
{
	bucket_init(&limiter->bandwidth, &options->bandwidth, now_ns);
	bucket_init(&limiter->ops, &options->ops, now_ns);
}

bool rate_limiter_unlimited(const struct rate_limiter *limiter)
{
	return unlimited(&limiter->bandwidth) && unlimited(&limiter->ops);
}

uint64_t rate_limiter_take(struct rate_limiter *limiter, uint64_t bytes, uint64_t now_ns)
{
	struct {
		struct token_bucket *bucket;
		uint64_t cost;
	} costs[] = { { &limiter->bandwidth, bytes }, { &limiter->ops, 1 } };
	uint64_t wait = 0;

	for (size_t i = 0; i < ARRAY_SIZE(costs); i++) {
		if (unlimited(costs[i].bucket) || !costs[i].cost)
			continue;
		refill(costs[i].bucket, now_ns);
		wait = MAX(wait, wait_for(costs[i].bucket, costs[i].cost, now_ns));
	}
	if (wait)
		return wait;
	for (size_t i = 0; i < ARRAY_SIZE(costs); i++)
		if (!unlimited(costs[i].bucket))
			take(costs[i].bucket, costs[i].cost);
	return 0;
}

#define STATE_KIND "rate-limiter"
#define STATE_VERSION 1
/* No request is longer, so nobody owes more. */
#define DEBT_MAX (1ULL << 32)

void rate_limiter_save(const struct rate_limiter *limiter, struct state_writer *writer,
		       const char *name)
{
	state_begin(writer, name, STATE_KIND, STATE_VERSION);
	state_put_u64(writer, "bandwidth-tokens", limiter->bandwidth.tokens);
	state_put_u64(writer, "bandwidth-burst", limiter->bandwidth.burst);
	state_put_u64(writer, "bandwidth-debt", limiter->bandwidth.debt);
	state_put_u64(writer, "ops-tokens", limiter->ops.tokens);
	state_put_u64(writer, "ops-burst", limiter->ops.burst);
	state_put_u64(writer, "ops-debt", limiter->ops.debt);
	state_end(writer);
}

static int load_bucket(struct token_bucket *bucket, const struct state_node *node,
		       const char *const names[3], uint64_t now_ns, struct error *err)
{
	const struct state_field fields[] = {
		STATE_FIELD(struct token_bucket, tokens, names[0], bucket->options.size),
		STATE_FIELD(struct token_bucket, burst, names[1], bucket->options.one_time_burst),
		STATE_FIELD(struct token_bucket, debt, names[2], DEBT_MAX),
	};
	int r = state_fields_load(node, fields, ARRAY_SIZE(fields), bucket, err);

	bucket->indebted = bucket->debt != 0;
	bucket->updated_ns = now_ns;
	return r;
}

int rate_limiter_load(struct rate_limiter *limiter, const struct state_node *parent,
		      const char *name, uint64_t now_ns, struct error *err)
{
	static const char *const bandwidth[] = { "bandwidth-tokens", "bandwidth-burst",
						 "bandwidth-debt" };
	static const char *const ops[] = { "ops-tokens", "ops-burst", "ops-debt" };
	struct state_node node;
	int r = state_expect_child(parent, name, STATE_KIND, STATE_VERSION, &node, err);

	if (!r)
		r = load_bucket(&limiter->bandwidth, &node, bandwidth, now_ns, err);
	if (!r)
		r = load_bucket(&limiter->ops, &node, ops, now_ns, err);
	return r;
}
