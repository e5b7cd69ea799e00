/*
 * How long does it take to change random entries of a store, an entry?  Updates and deletes in durable
 * transactions of 1, 100, 1000 and 10,000.  A slice deletes a tenth of the entries at most and puts them back
 * outside the clock, so that every slice meets a full store; work that a store leaves to its own threads has
 * ended before the next slice.
 */
#include "bench.h"
#include <stdlib.h>

#define CHANGE_PUT_BACK 1000u
#define CHANGE_VERIFY 1000u

struct change {
	struct bench *bench;
	struct bench_lane *lane;
	void *writer;
	struct bench_batch batch;
	uint64_t size; /* of a batch */
	bool deletes;
	uint64_t done; /* changes */
	double seconds;
};

/* Of this round, the same for all stores: what is deleted, from the front; what is updated, computed. */
static struct {
	uint32_t *order;
	uint64_t seed;
} change_plan;

static int change_prepare(struct bench *bench)
{
	if (change_plan.order && change_plan.seed == bench->round_seed)
		return 0;
	free(change_plan.order);
	change_plan.order = bench_order(bench);
	change_plan.seed = bench->round_seed;
	return change_plan.order ? 0 : -1;
}

static uint64_t change_update_index(const struct change *c, uint64_t *random)
{
	return bench_random(random) % c->bench->set.entries;
}

static int change_timed(struct change *c)
{
	const struct bench_set *set = &c->bench->set;
	uint64_t random = change_plan.seed + c->size, most = UINT64_MAX;
	double start = bench_clock();
	int err;

	if (c->deletes)
		most = set->entries / 10 > c->size ? set->entries / 10 : c->size;
	do {
		for (c->batch.count = 0; c->batch.count < c->size && c->done < most; c->done++) {
			if (c->deletes)
				bench_batch_del(&c->batch, set, change_plan.order[c->done]);
			else
				bench_batch_put(
					&c->batch, set, change_update_index(c, &random), c->lane->version);
		}
		err = c->lane->store->write(c->writer, c->batch.ops, c->batch.count);
		c->seconds = bench_clock() - start;
	} while (!err && c->seconds < c->bench->options.seconds && c->done < most);
	return err;
}

/* None of what was deleted is there: looked at here and there. */
static int change_gone(struct change *c)
{
	const struct bench_store *store = c->lane->store;
	uint64_t step = c->done / 100 + 1;
	uint8_t key[BENCH_KEY_MAX];
	void *reader = store->reader(c->lane->handle);
	int err = reader ? store->begin(reader, false) : -1;

	if (!err) {
		for (uint64_t i = 0; i < c->done && !err; i += step) {
			struct bench_slice value;
			int found;

			bench_key(&c->bench->set, change_plan.order[i], false, key);
			found = store->get(reader, key, &value);
			err = found > 0 ? bench_fail("%s did not delete an entry", c->lane->name) : found;
		}
		store->end(reader);
	}
	if (reader)
		store->reader_close(reader);
	return err;
}

/* Outside the clock: note what was updated, or put back what was deleted. */
static int change_after(struct change *c)
{
	struct bench_lane *lane = c->lane;
	uint64_t random = change_plan.seed + c->size, put = 0;
	int err = c->deletes ? change_gone(c) : 0;

	for (uint64_t i = 0; i < c->done; i++)
		lane->versions[c->deletes ? change_plan.order[i] : change_update_index(c, &random)] =
			lane->version;
	while (!err && c->deletes && put < c->done) {
		for (c->batch.count = 0; c->batch.count < CHANGE_PUT_BACK && put < c->done; put++)
			bench_batch_put(&c->batch, &c->bench->set, change_plan.order[put], lane->version);
		err = lane->store->write(c->writer, c->batch.ops, c->batch.count);
	}
	if (!err && lane->store->quiet)
		err = lane->store->quiet(lane->handle);
	return err ? err : bench_verify(c->bench, lane, CHANGE_VERIFY);
}

/* a: size of a batch; b: deletes */
static int change_slice(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	struct change c = {.bench = bench, .lane = lane, .size = (uint64_t)work->a, .deletes = work->b};
	int err = change_prepare(bench);

	if (err)
		return err;
	if (c.size > bench->set.entries)
		c.size = bench->set.entries;
	lane->version++;
	err = bench_batch_init(&c.batch, &bench->set, c.size > CHANGE_PUT_BACK ? c.size : CHANGE_PUT_BACK);
	if (!err) {
		c.writer = lane->store->writer(lane->handle);
		err = c.writer ? change_timed(&c) : -1;
	}
	if (!err)
		err = change_after(&c);
	if (c.writer)
		lane->store->writer_close(c.writer);
	bench_batch_fini(&c.batch);
	*sample = c.seconds / (double)c.done * 1e6;
	return err;
}

#define CHANGE(text, size, del)                                                                              \
	{                                                                                                    \
		.name = text, .unit = "us", .slice = change_slice, .a = size, .b = del                       \
	}

static const struct bench_work works[] = {
	CHANGE("random update, batches of 1", 1, 0),
	CHANGE("random update, batches of 100", 100, 0),
	CHANGE("random update, batches of 1000", 1000, 0),
	CHANGE("random update, batches of 10000", 10000, 0),
	CHANGE("random delete, batches of 1", 1, 1),
	CHANGE("random delete, batches of 100", 100, 1),
	CHANGE("random delete, batches of 1000", 1000, 1),
	CHANGE("random delete, batches of 10000", 10000, 1),
};

int main(int argc, char **argv)
{
	static const struct bench_program program = {
		.question = "change", .about = "How long do updates and deletes take?"};
	static struct bench bench;
	int err = bench_init(&bench, argc, argv, &program);

	if (!err)
		err = bench_fill(&bench);
	if (!err)
		err = bench_run(&bench, works, BENCH_COUNT(works));
	free(change_plan.order);
	return bench_end(&bench, err);
}
