/*
 * Moments of the commit core that a scheduler seldom gives: a flusher that is overtaken while it reads the ring (I3), the death
 * of whoever makes an opening commit while others build (I4, R3), a reader that comes too late beside an allocator that is
 * built anew (G1, G5), a flush that takes longer than somebody wants to wait.
 *
 * Several handles stand for several processes; the dead free nothing.
 */
#include "core_bed.h"

#include <db.h>
#include <setjmp.h>
#include <shared_map.h>

#define VALUE 1500u /* not in its leaf: two pages, a run of its own */

/* Every step-th of count large values, in one commit; NULL data: deleted. */
static void put_many(struct bts *db, unsigned flags, unsigned count, unsigned step, const void *data)
{
	struct bts_bucket *bucket;
	struct bts_error error;
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_WRITE | flags, &txn, &error), BTS_OK);
	assert_int_equal(bts_bucket(txn, bed_text("large"), BTS_CREATE, &bucket, &error), BTS_OK);
	for (unsigned i = 0; i < count; i += step) {
		struct bts_slice key = {&i, sizeof(i)};

		if (data != NULL)
			assert_int_equal(
				bts_put(txn, bucket, key, (struct bts_slice){data, VALUE}, 0), BTS_OK);
		else
			assert_int_equal(bts_del(txn, bucket, key), BTS_OK);
	}
	if (bts_commit(txn, &error))
		fail_msg("commit of many: %s", error.text);
}

/* --- a flusher that is overtaken --- */

static struct {
	struct bts_env env;
	struct bts_env_ops ops;
	struct bts *flusher, *builder;
	bool watched, named, overtakes;
	struct space_run taken[64]; /* by what is to be flushed */
	size_t count;
} overtaken;

/* The first allocation of a flush lies between its look at the tip and its reading of the ring. */
static void *overtaken_memory(struct bts_env *env, void *old, size_t size)
{
	static const uint8_t value[VALUE];

	if (overtaken.overtakes && old == NULL && size > 0) {
		overtaken.overtakes = false;
		for (unsigned i = 0; i < 3; i++) /* more would wait for this flush */
			put_many(overtaken.builder, BTS_ASYNC, 2800, 1, value);
	}
	return bts_env_posix()->ops->memory(env, old, size);
}

static bool overtaken_names(const struct meta_slot *slot, bts_pgno pgno)
{
	for (uint32_t i = 0; i < slot->manifest_count; i++)
		if (pgno >= slot->manifest[i].pgno && pgno - slot->manifest[i].pgno < slot->manifest[i].count)
			return true;
	return false;
}

/* The slot is about to be written: does it vouch for what it reaches, or for something else? */
static int overtaken_fault(struct bts_env *env, const char *point)
{
	const struct meta_slot *slot = overtaken.flusher == NULL ? NULL : overtaken.flusher->envelope;
	uint64_t pages = 0, named = 0;

	(void)env;
	if (!overtaken.watched || strcmp(point, "commit.slot") != 0)
		return 0;
	overtaken.watched = false;
	overtaken.named = slot->mode == META_ONE_FLUSH;
	if (overtaken.named)
		assert_true(slot->manifest_count > 0);
	for (uint32_t i = 0; i < slot->manifest_count; i++)
		pages += slot->manifest[i].count;
	for (size_t i = 0; i < overtaken.count; i++)
		for (uint64_t k = 0; k < overtaken.taken[i].count; k++)
			named += overtaken_names(slot, overtaken.taken[i].pgno + k);
	assert_int_equal(named, pages); /* some were retired again, and are not named */
	return 0;
}

static void overtaken_open(const struct bed *bed, struct bts **db)
{
	struct bts_options options;

	bts_options_init(&options);
	options.map_bytes = UINT64_C(1) << 34;
	options.env = &overtaken.env;
	options.async_delay_ms = NEVER_MS;
	assert_int_equal(bts_open(bed->path, &options, db, NULL), BTS_OK);
}

/* Two commits upon D; what they took. */
static void overtaken_prepare(struct bts *flusher)
{
	struct shared_durable durable;
	uint64_t end;

	put_one(flusher, BTS_ASYNC, "second");
	put_one(flusher, BTS_ASYNC, "third");
	shared_durable(flusher->shared, NULL, &durable);
	shared_tip(flusher->shared, NULL, &end);
	overtaken.count = 0;
	for (uint64_t at = durable.ring; at < end; at++) {
		struct shared_change change;

		shared_ring_get(flusher->shared, at, &change);
		if (change.kind == SHARED_TAKE)
			overtaken.taken[overtaken.count++] = (struct space_run){change.pgno, change.count};
		assert_true(overtaken.count < 64);
	}
	assert_true(overtaken.count > 0);
	overtaken.watched = true;
}

static void a_flusher_is_overtaken(void **state)
{
	static const uint8_t value[VALUE];
	struct bed bed;

	(void)state;
	memset(&overtaken, 0, sizeof(overtaken));
	overtaken.ops = *bts_env_posix()->ops;
	overtaken.ops.memory = overtaken_memory;
	overtaken.ops.fault = overtaken_fault;
	overtaken.env.ops = &overtaken.ops;
	bed_init_file(&bed);
	overtaken_open(&bed, &overtaken.flusher);
	overtaken_open(&bed, &overtaken.builder);
	put_many(overtaken.builder, 0, 2800, 1, value);
	put_one(overtaken.flusher, 0, "first");
	for (int round = 0; round < 2; round++) {
		overtaken_prepare(overtaken.flusher);
		overtaken.overtakes = round > 0;
		assert_int_equal(bts_sync(overtaken.flusher, &bed.error), BTS_OK);
		assert_false(overtaken.overtakes || overtaken.watched);
		assert_int_equal(overtaken.named, round == 0);
	}
	bts_close(overtaken.builder);
	bts_close(overtaken.flusher);
	bed_fini(&bed);
}

/* --- the death of whoever makes an opening commit --- */

static struct {
	jmp_buf out;
	unsigned left;
} death;

static void death_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	(void)arg;
	(void)mem;
	(void)event;
	if (--death.left == 0)
		longjmp(death.out, 1);
}

/* What the kernel does for a dead process. */
static void bury(struct bts *db)
{
	struct bts_file *data = db->file, *lock = db->shared->lock;

	lock->env->ops->file_close(lock);
	data->env->ops->file_close(data);
}

/* At its left-th operation; false: it lived. */
static bool dies_in_a_jump(struct bed *bed, struct bts *dying, unsigned left)
{
	death.left = left;
	shared_assign(dying->shared, shared_tip_txid(dying->shared) + META_JUMP / 2);
	if (setjmp(death.out) == 0) {
		env_mem_set_hook(bed->mem, death_hook, NULL);
		put_one(dying, 0, "dying");
		env_mem_set_hook(bed->mem, NULL, NULL);
		return false;
	}
	env_mem_set_hook(bed->mem, NULL, NULL);
	bury(dying);
	return true;
}

static void an_opening_commit_is_orphaned(void **state)
{
	bool died = true;

	(void)state;
	for (unsigned left = 1; died; left++) {
		struct bts *dying;
		struct bed bed, after = {.path = "/db"};

		bed_init_memory(&bed);
		put_one(bed.db, 0, "before");
		open_one(&bed, 0, &dying);
		put_one(dying, 0, "also before");
		died = dies_in_a_jump(&bed, dying, left);
		put_one(bed.db, 0, "after");
		assert_true(shared_tip_txid(bed.db->shared) >= shared_durable_txid(bed.db->shared));
		bed_holds(&bed, "b", "k", "after");
		bed_check(&bed);
		after.mem = env_mem_crash(bed.mem, env_mem_choose_durable, NULL);
		bed_open(&after);
		bed_holds(&after, "b", "k", "after");
		bed_fini(&after);
		if (!died)
			bts_close(dying);
		bts_close(bed.db);
		bed_open(&bed);
		bed_holds(&bed, "b", "k", "after");
		bed_check(&bed);
		bts_close(bed.db);
		env_mem_free(bed.mem);
	}
}

static void done_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	(void)arg;
	(void)mem;
	if (event->op == ENV_MEM_FAULT && strcmp(event->path, "recover.envelope.done") == 0)
		longjmp(death.out, 1);
}

/* D moves to what stands in the newest slot, as in the middle of shared_publish. */
static bts_txid publish_half(struct bed *bed, struct bts *dying)
{
	static struct meta_slot slots[2];
	struct shared_durable durable;
	uint64_t size;
	const uint8_t *bytes = env_mem_bytes(bed->mem, bed->path, &size);
	unsigned newest;

	assert_int_equal(meta_slot_decode(bytes, &slots[0], NULL), BTS_OK);
	assert_int_equal(meta_slot_decode(bytes + LAYOUT_META_B_OFFSET, &slots[1], NULL), BTS_OK);
	newest = slots[1].sequence > slots[0].sequence;
	shared_assign(dying->shared, slots[newest].record.txid);
	shared_durable(dying->shared, NULL, &durable);
	durable = (struct shared_durable){newest, slots[newest].sequence, durable.ring};
	shared_publish_durable(dying->shared, &slots[newest].record, &durable);
	return slots[newest].record.txid;
}

/* Whoever builds next builds upon it, not beside it: the history and the epoch of a new file would be lost (R3). */
static void an_opening_commit_is_half_published(void **state)
{
	static struct commit_record tip;
	bts_txid opening;
	struct bts *dying;
	struct bed bed;
	uint64_t ring;

	(void)state;
	bed_init_memory(&bed);
	put_one(bed.db, 0, "before");
	open_one(&bed, 0, &dying);
	put_one(dying, 0, "also before");
	shared_assign(dying->shared, shared_tip_txid(dying->shared) + META_JUMP / 2);
	if (setjmp(death.out) == 0) {
		env_mem_set_hook(bed.mem, done_hook, NULL);
		put_one(dying, 0, "dying");
		fail_msg("no opening commit");
	}
	env_mem_set_hook(bed.mem, NULL, NULL);
	opening = publish_half(&bed, dying);
	assert_true(opening > shared_tip_txid(dying->shared));
	bury(dying);
	put_one(bed.db, 0, "after");
	shared_tip(bed.db->shared, &tip, &ring);
	assert_true(tip.recent_count > 1);
	assert_int_equal(tip.recent[tip.recent_count - 2].txid, opening);
	bed_holds(&bed, "b", "k", "after");
	bed_check(&bed);
	bts_close(bed.db);
	env_mem_free(bed.mem);
}

/* --- a reader that comes too late --- */

static void a_reader_comes_too_late(void **state)
{
	static struct commit_record stale, now;
	static uint8_t value[VALUE];
	struct bts *reader, *fresh;
	struct shared_reader place;
	struct shared_chunk *chunk;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	put_many(bed.db, 0, 3000, 1, value);
	put_many(bed.db, 0, 3000, 2, NULL);
	shared_head(bed.db->shared, &stale);
	assert_true(stale.free.pages > 0);
	for (unsigned i = 0; i < 20; i++)
		put_many(bed.db, 0, 3000, 3 + i % 3, value);
	open_one(&bed, 0, &reader);
	assert_int_equal(shared_reader_enter(reader->shared, &place, &now, &bed.error), BTS_OK);
	/* As it is between taking the head and looking at it again. */
	chunk = &reader->shared->map->chunks[place.slot / SHARED_SLOTS_STEP];
	atomic_store(&chunk->slots[place.slot % SHARED_SLOTS_STEP].settled, 0);
	shared_record_store_reader(chunk->records[place.slot % SHARED_SLOTS_STEP], &stale);
	atomic_store(&chunk->slots[place.slot % SHARED_SLOTS_STEP].txid, stale.txid + 1);
	open_one(&bed, 0, &fresh);
	put_one(fresh, 0, "beside it");
	bed_holds(&bed, "b", "k", "beside it");
	assert_int_equal(bed_stat(&bed).readers, 1);
	shared_reader_leave(reader->shared, &place);
	bts_close(reader);
	bts_close(fresh);
	bed_fini(&bed);
}

/* --- a flush that takes long --- */

static struct {
	struct bts *impatient;
	unsigned asked;
} slow;

static void slow_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	struct bts_group *group;
	struct bts_error error;
	struct bts_txn *txn;

	(void)arg;
	(void)mem;
	if (event->op != ENV_MEM_SYNC || slow.asked++)
		return;
	assert_int_equal(bts_begin(slow.impatient, BTS_WRITE | BTS_EXCLUSIVE, &txn, &error), BTS_BUSY);
	assert_int_equal(bts_group_begin(slow.impatient, &group, &error), BTS_BUSY);
	assert_int_equal(bts_begin(slow.impatient, BTS_WRITE, &txn, &error), BTS_OK);
	bed_put(txn, "b", "other", "1");
	assert_int_equal(bts_commit(txn, &error), BTS_BUSY); /* its allocator waits for that flush */
}

static void a_flush_takes_long(void **state)
{
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	put_one(bed.db, 0, "1");
	slow.asked = 0;
	open_one(&bed, 50, &slow.impatient);
	env_mem_set_hook(bed.mem, slow_hook, NULL);
	put_one(bed.db, 0, "2");
	env_mem_set_hook(bed.mem, NULL, NULL);
	assert_true(slow.asked > 0);
	bed_holds(&bed, "b", "other", NULL);
	put_one(slow.impatient, 0, "3");
	bts_close(slow.impatient);
	bed_holds(&bed, "b", "k", "3");
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_flusher_is_overtaken),
		cmocka_unit_test(an_opening_commit_is_orphaned),
		cmocka_unit_test(an_opening_commit_is_half_published),
		cmocka_unit_test(a_reader_comes_too_late),
		cmocka_unit_test(a_flush_takes_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
