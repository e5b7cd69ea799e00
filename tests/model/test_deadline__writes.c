/*
 * Writers held to a deadline (BTS_OPEN_DEADLINE): every way to write is refused past it and goes on when it is renewed; a commit
 * that it overtakes is told of as unknown, whether its slot was written or not; other processes obey; it ends with the last of them.
 * The clock is the environment's, moved at the very call that matters.
 */
#include "bed.h"

#include <btree_store/ship.h>
#include <sys/wait.h>
#include <time.h>

#define FAR UINT64_C(1000000)

/* What happens at an event of the environment. */
struct trap {
	struct bed *bed;
	enum env_mem_op op;
	const char *path; /* of a fault point: its name */
	bool again;	  /* given up and set anew, rather than passed */
	bool done;
};

static uint64_t now_ms(struct bed *bed)
{
	return env_mem_env(bed->mem)->ops->clock_ms(env_mem_env(bed->mem));
}

static void set(struct bed *bed, uint64_t ms)
{
	if (bts_deadline_set(bed->db, ms, &bed->error))
		fail_msg("set: %s", bed->error.text);
}

static void renew(struct bed *bed)
{
	set(bed, now_ms(bed) + FAR);
	assert_int_equal(bts_deadline(bed->db, NULL, NULL), BTS_OK);
}

static void pass(struct bed *bed)
{
	env_mem_advance(bed->mem, 2 * FAR);
	assert_int_equal(bts_deadline(bed->db, NULL, NULL), BTS_FENCED);
}

static void trap_hook(void *arg, struct env_mem *m, const struct env_mem_event *event)
{
	struct trap *trap = arg;

	if (trap->done || event->op != trap->op || strcmp(event->path, trap->path))
		return;
	trap->done = true;
	if (trap->again) {
		set(trap->bed, 0);
		set(trap->bed, now_ms(trap->bed) + FAR);
	} else {
		env_mem_advance(m, 2 * FAR);
	}
}

static void start(struct bed *bed)
{
	memset(bed, 0, sizeof(*bed));
	bed->mem = env_mem_new(0);
	strcpy(bed->path, "/db");
	assert_int_equal(bed_try_open(bed, BTS_OPEN_DEADLINE, &bed->db), BTS_OK);
}

static struct bts_txn *changed(struct bed *bed, unsigned flags, const char *key)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE | flags);

	bed_put(txn, "b", key, "v");
	return txn;
}

static void test_words(void **state)
{
	struct bts *second;
	struct bed bed;
	uint64_t ms = 7, left = 7;

	(void)state;
	bed_init_memory(&bed);
	assert_int_equal(bts_deadline(bed.db, &ms, &left), BTS_NOT_FOUND);
	assert_int_equal(ms, 7);
	assert_int_equal(bts_deadline_set(bed.db, 5, &bed.error), BTS_INVALID);
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_READ_ONLY | BTS_OPEN_DEADLINE, &second), BTS_INVALID);
	bed_set(&bed, "b", "k", "1");
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_DEADLINE, &second), BTS_OK);
	assert_int_equal(bts_deadline(bed.db, &ms, &left), BTS_FENCED);
	assert_int_equal(ms, 0);
	assert_int_equal(left, 0);
	set(&bed, now_ms(&bed) + 100);
	assert_int_equal(bts_deadline(second, &ms, &left), BTS_OK);
	assert_int_equal(ms, now_ms(&bed) + 100);
	assert_int_equal(left, 100);
	set(&bed, now_ms(&bed) + 50); /* never earlier */
	assert_int_equal(bts_deadline(second, NULL, &left), BTS_OK);
	assert_int_equal(left, 100);
	env_mem_advance(bed.mem, 99);
	assert_int_equal(bts_deadline(second, NULL, &left), BTS_OK);
	env_mem_advance(bed.mem, 1);
	assert_int_equal(bts_deadline(second, &ms, &left), BTS_FENCED);
	assert_int_equal(left, 0);
	assert_true(ms != 0);
	set(&bed, 0);
	assert_int_equal(bts_deadline(second, &ms, &left), BTS_FENCED);
	assert_int_equal(ms, 0);
	assert_int_equal(bts_deadline_set(bed.db, UINT64_MAX, &bed.error), BTS_INVALID);
	bts_close(second);
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_READ_ONLY, &second), BTS_OK);
	assert_int_equal(bts_deadline_set(second, FAR, &bed.error), BTS_READ_ONLY);
	assert_int_equal(bts_deadline(second, NULL, NULL), BTS_FENCED);
	bts_close(second);
	bed_fini(&bed);
}

static enum bts_err group_of(struct bed *bed, unsigned count, bool late)
{
	struct bts_group *group;
	struct bts_txn *txn;

	if (bts_group_begin(bed->db, &group, &bed->error))
		return bed->error.code;
	for (unsigned i = 0; i < count; i++) {
		char key[16];

		snprintf(key, sizeof(key), "group%u", i);
		assert_int_equal(bts_group_txn(group, &txn, &bed->error), BTS_OK);
		bed_put(txn, "b", key, "v");
		bed_commit(bed, txn);
	}
	if (late)
		pass(bed);
	return bts_group_commit(group, &bed->error);
}

static enum bts_err load_of(struct bed *bed, bool late)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	struct bts_load *load;

	assert_int_equal(bts_load_begin(txn, bed_bucket(txn, "loaded"), 0, &load, &bed->error), BTS_OK);
	for (unsigned i = 0; i < 500; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%04u", i);
		assert_int_equal(bts_load_add(load, bed_text(key), bed_text("v")), BTS_OK);
	}
	assert_int_equal(bts_load_end(load, &bed->error), BTS_OK);
	if (late)
		pass(bed);
	return bts_commit(txn, &bed->error);
}

/* A value of 2 MiB: its place is asked for (a lease, which may raise the mark) before or behind the deadline. */
static enum bts_err stream_of(struct bed *bed, bool late_lease, bool late)
{
	static const uint8_t bytes[1 << 20];
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);
	struct bts_bucket *bucket = bed_bucket(txn, "b");
	struct bts_stream *stream;

	if (late_lease)
		pass(bed);
	assert_int_equal(
		bts_put_begin(txn, bucket, bed_text("large"), 2 * sizeof(bytes), 0, &stream, &bed->error),
		BTS_OK);
	for (int i = 0; i < 2; i++)
		assert_int_equal(bts_put_write(stream, (struct bts_slice){bytes, sizeof(bytes)}), BTS_OK);
	assert_int_equal(bts_put_end(stream, &bed->error), BTS_OK);
	if (late)
		pass(bed);
	return bts_commit(txn, &bed->error);
}

static enum bts_err snapshot_of(struct bed *bed, bool late)
{
	struct bts_txn *txn = bed_begin(bed, BTS_WRITE);

	assert_int_equal(bts_snapshot_create(txn, bed_text("snap"), &bed->error), BTS_OK);
	if (late)
		pass(bed);
	return bts_commit(txn, &bed->error);
}

/* The ways to begin. */
static void refuses_all(struct bed *bed)
{
	struct bts_compact_info info = {.size = sizeof(info)};
	struct bts_group *group;
	struct bts_txn *txn;
	uint64_t before = env_mem_hash(bed->mem);

	assert_int_equal(bts_begin(bed->db, BTS_WRITE, &txn, &bed->error), BTS_FENCED);
	assert_non_null(strstr(bed->error.text, "deadline"));
	assert_int_equal(bts_begin(bed->db, BTS_WRITE | BTS_EXCLUSIVE, &txn, &bed->error), BTS_FENCED);
	assert_int_equal(bts_begin(bed->db, BTS_WRITE | BTS_ASYNC, &txn, &bed->error), BTS_FENCED);
	assert_int_equal(bts_group_begin(bed->db, &group, &bed->error), BTS_FENCED);
	assert_int_equal(bts_compact_step(bed->db, 100, &info, &bed->error), BTS_FENCED);
	assert_int_equal(bts_sync(bed->db, &bed->error), BTS_UNKNOWN);
	assert_true(before == env_mem_hash(bed->mem));
}

static void test_each_way(void **state)
{
	struct bts_txn *txn, *exclusive;
	uint64_t before;
	struct bed bed;

	(void)state;
	start(&bed);
	refuses_all(&bed); /* none was given */
	renew(&bed);
	bed_commit(&bed, changed(&bed, 0, "k"));
	assert_int_equal(bts_sync(bed.db, &bed.error), BTS_OK);

	/* Begun in time, ended too late: nothing happened. */
	before = env_mem_hash(bed.mem);
	txn = changed(&bed, 0, "late");
	pass(&bed);
	refuses_all(&bed);
	assert_int_equal(bts_commit(txn, &bed.error), BTS_FENCED);
	renew(&bed);
	exclusive = changed(&bed, BTS_EXCLUSIVE, "late");
	pass(&bed);
	assert_int_equal(bts_commit(exclusive, &bed.error), BTS_FENCED);
	renew(&bed);
	txn = changed(&bed, BTS_ASYNC, "late");
	pass(&bed);
	assert_int_equal(bts_commit(txn, &bed.error), BTS_FENCED);
	renew(&bed);
	assert_int_equal(group_of(&bed, 3, true), BTS_FENCED);
	renew(&bed);
	assert_int_equal(load_of(&bed, true), BTS_FENCED);
	renew(&bed);
	assert_int_equal(snapshot_of(&bed, true), BTS_FENCED);
	renew(&bed);
	assert_int_equal(stream_of(&bed, true, false), BTS_FENCED);
	bed_holds(&bed, "b", "k", "v");
	bed_holds(&bed, "b", "late", NULL);
	bed_holds(&bed, "b", "group0", NULL);
	assert_true(before == env_mem_hash(bed.mem));
	renew(&bed);
	assert_int_equal(stream_of(&bed, false, true),
		BTS_FENCED); /* wrote to a free place, and raised the mark perhaps */
	bed_holds(&bed, "b", "large", NULL);

	renew(&bed);
	bed_commit(&bed, changed(&bed, 0, "late"));
	assert_int_equal(group_of(&bed, 3, false), BTS_OK);
	assert_int_equal(load_of(&bed, false), BTS_OK);
	assert_int_equal(stream_of(&bed, false, false), BTS_OK);
	assert_int_equal(snapshot_of(&bed, false), BTS_OK);
	bed_holds(&bed, "b", "late", "v");
	bed_holds(&bed, "b", "group2", "v");
	bed_fini(&bed);
}

static enum bts_err single(struct bed *bed)
{
	return bts_commit(changed(bed, 0, "k"), &bed->error);
}

static enum bts_err exclusive_one(struct bed *bed)
{
	return bts_commit(changed(bed, BTS_EXCLUSIVE, "k"), &bed->error);
}

static enum bts_err group_three(struct bed *bed)
{
	return group_of(bed, 3, false);
}

static enum bts_err load_all(struct bed *bed)
{
	return load_of(bed, false);
}

static const struct way {
	const char *name, *key;
	enum bts_err (*run)(struct bed *);
} ways[] = {{"single", "k", single}, {"exclusive", "k", exclusive_one}, {"group", "group2", group_three},
	{"load", NULL, load_all}};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

/* Between the slot and the end of the flush: durable, shown, and not acknowledged. */
static void test_at_the_flush(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * WAYS; i++) {
		const struct way *way = &ways[i / 2];
		struct trap trap = {.op = ENV_MEM_FAULT, .path = "commit.flushed", .again = i % 2};
		struct bts_position before, after;
		struct env_mem *image;
		struct bed bed, other;

		start(&bed);
		trap.bed = &bed;
		renew(&bed);
		assert_int_equal(bts_ship_position(bed.db, &before, NULL), BTS_OK);
		env_mem_set_hook(bed.mem, trap_hook, &trap);
		assert_int_equal(way->run(&bed), BTS_UNKNOWN);
		assert_true(trap.done);
		env_mem_set_hook(bed.mem, NULL, NULL);
		assert_int_equal(bts_ship_position(bed.db, &after, NULL), BTS_OK);
		assert_true(after.txid > before.txid);
		assert_int_equal(bts_sync(bed.db, &bed.error), trap.again ? BTS_OK : BTS_UNKNOWN);
		if (way->key)
			bed_holds(&bed, "b", way->key, "v");
		image = env_mem_crash(bed.mem, env_mem_choose_durable, NULL);
		other = bed;
		other.mem = image;
		bed_open(&other);
		if (way->key)
			bed_holds(&other, "b", way->key, "v");
		bed_fini(&other);
		bed_fini(&bed);
	}
}

/* Before the slot is written: it is not, and what was built waits for a later deadline, or goes. */
static void test_before_the_slot(void **state)
{
	static const char *const points[] = {"commit.pages", "commit.built"};

	(void)state;
	for (size_t i = 0; i < 2 * 2 * WAYS; i++) {
		const struct way *way = &ways[i / 4];
		struct trap trap = {.op = ENV_MEM_FAULT, .path = points[i / 2 % 2]};
		bool goes = i % 2;
		struct bts_position before, after;
		struct bed bed;

		start(&bed);
		trap.bed = &bed;
		renew(&bed);
		bed_commit(&bed, changed(&bed, 0, "before"));
		assert_int_equal(bts_ship_position(bed.db, &before, NULL), BTS_OK);
		env_mem_set_hook(bed.mem, trap_hook, &trap);
		assert_int_equal(way->run(&bed), BTS_UNKNOWN);
		assert_true(trap.done);
		env_mem_set_hook(bed.mem, NULL, NULL);
		refuses_all(&bed);
		assert_int_equal(bts_ship_position(bed.db, &after, NULL), BTS_OK);
		assert_int_equal(after.txid, before.txid);
		if (way->key)
			bed_holds(&bed, "b", way->key, NULL);
		if (goes) {
			bed_reopen(&bed); /* by one who needs no deadline */
			if (way->key)
				bed_holds(&bed, "b", way->key, NULL);
			assert_int_equal(bed_stat(&bed).clean_open, 0);
		} else {
			renew(&bed);
			bed_commit(&bed, changed(&bed, 0, "after"));
			if (way->key)
				bed_holds(&bed, "b", way->key, "v");
		}
		bed_holds(&bed, "b", "before", "v");
		bed_fini(&bed);
	}
}

/* BTS_ASYNC waits for no flush: what is shown behind the deadline is not told of as done either. */
static void test_shown(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * 2; i++) {
		unsigned flags = BTS_ASYNC | (i / 2 ? BTS_EXCLUSIVE : 0);
		struct trap trap = {.op = ENV_MEM_FAULT, .path = "commit.built", .again = i % 2};
		struct bts_options options;
		struct bed bed;

		start(&bed);
		bts_close(bed.db);
		bts_options_init(&options);
		options.env = env_mem_env(bed.mem);
		options.map_bytes = ENV_MEM_RESERVE_DEFAULT;
		options.flags = BTS_OPEN_DEADLINE;
		options.async_delay_ms = 3600000; /* only this thread acts */
		assert_int_equal(bts_open(bed.path, &options, &bed.db, &bed.error), BTS_OK);
		trap.bed = &bed;
		renew(&bed);
		bed_commit(&bed, changed(&bed, 0, "seal")); /* the first one ends the seal, and is flushed */
		bed_commit(&bed, changed(&bed, flags, "in time"));
		assert_true(bed_stat(&bed).durable_txid < bed_stat(&bed).txid);
		env_mem_set_hook(bed.mem, trap_hook, &trap);
		assert_int_equal(bts_commit(changed(&bed, flags, "late"), &bed.error), BTS_UNKNOWN);
		assert_true(trap.done);
		env_mem_set_hook(bed.mem, NULL, NULL);
		renew(&bed);
		bed_commit(&bed, changed(&bed, flags, "after"));
		bed_holds(&bed, "b", "late", "v");
		assert_int_equal(bts_sync(bed.db, &bed.error), BTS_OK);
		bed_fini(&bed);
	}
}

static void test_several_processes(void **state)
{
	struct bts *second, *third;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	start(&bed);
	renew(&bed);
	bed_commit(&bed, changed(&bed, 0, "k"));
	assert_int_equal(bed_try_open(&bed, 0, &second), BTS_OK);
	assert_int_equal(bts_begin(second, BTS_WRITE, &txn, &bed.error), BTS_OK);
	bed_put(txn, "b", "k", "2");
	assert_int_equal(bts_commit(txn, &bed.error), BTS_OK);
	pass(&bed);
	assert_int_equal(bts_begin(second, BTS_WRITE, &txn, &bed.error), BTS_FENCED);
	bts_close(bed.db); /* who asked for it */
	assert_int_equal(bts_begin(second, BTS_WRITE, &txn, &bed.error), BTS_FENCED);
	assert_int_equal(bed_try_open(&bed, 0, &third), BTS_OK);
	bts_close(second);
	assert_int_equal(bts_begin(third, BTS_WRITE, &txn, &bed.error), BTS_FENCED);
	assert_int_equal(bts_deadline_set(third, now_ms(&bed) + FAR, &bed.error), BTS_OK);
	assert_int_equal(bts_begin(third, BTS_WRITE, &txn, &bed.error), BTS_OK);
	bts_abort(txn);
	bts_close(third);
	bed_open(&bed); /* and nobody asks any more */
	assert_int_equal(bts_deadline(bed.db, NULL, NULL), BTS_NOT_FOUND);
	bed_set(&bed, "b", "k", "3");
	bed_fini(&bed);
}

/* After a crash nothing is written until a deadline is set, the opening commit (I4) neither. */
static void test_unclean(void **state)
{
	struct bts_position before, after;
	struct bed bed, other;
	uint64_t hash;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "1");
	assert_int_equal(bts_ship_position(bed.db, &before, NULL), BTS_OK);
	other = bed;
	other.mem = env_mem_crash(bed.mem, env_mem_choose_durable, NULL);
	for (unsigned i = 0; i < 2; i++) { /* twice: it is owed as long as nobody writes */
		hash = env_mem_hash(other.mem);
		assert_int_equal(bed_try_open(&other, BTS_OPEN_DEADLINE, &other.db), BTS_OK);
		refuses_all(&other);
		bed_holds(&other, "b", "k", "1");
		assert_int_equal(bed_stat(&other).clean_open, 0);
		if (i == 0)
			bts_close(other.db);
		assert_true(hash == env_mem_hash(other.mem));
	}
	renew(&other);
	bed_commit(&other, changed(&other, 0, "k"));
	assert_int_equal(bts_ship_position(other.db, &after, NULL), BTS_OK);
	assert_true(after.txid > before.txid + (1 << 20));
	assert_int_equal(after.epoch, before.epoch);
	bed_reopen(&other);
	assert_int_equal(bed_stat(&other).clean_open, 1);
	bed_fini(&other);
	bed_fini(&bed);
}

/* A copy (R3) begins its epoch with the first write, whichever handle does it, once. */
static void test_copy(void **state)
{
	struct bts_position before, after;
	struct bts *second;
	struct bts_txn *txn;
	struct bed bed;
	const uint8_t *bytes;
	uint64_t size;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "1");
	assert_int_equal(bts_ship_position(bed.db, &before, NULL), BTS_OK);
	bts_close(bed.db);
	bytes = env_mem_bytes(bed.mem, "/db", &size);
	env_mem_put_file(bed.mem, "/copy", bytes, size);
	strcpy(bed.path, "/copy");
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_DEADLINE, &bed.db), BTS_OK);
	bts_close(bed.db); /* its seal hides nothing */
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_DEADLINE, &bed.db), BTS_OK);
	assert_int_equal(bed_try_open(&bed, 0, &second), BTS_OK);
	assert_int_equal(bts_ship_position(bed.db, &after, NULL), BTS_OK);
	assert_int_equal(after.epoch, before.epoch);
	renew(&bed);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(bts_begin(i % 2 ? bed.db : second, BTS_WRITE, &txn, NULL), BTS_OK);
		bed_put(txn, "b", "k", "2");
		bed_commit(&bed, txn);
		assert_int_equal(bts_ship_position(bed.db, &after, NULL), BTS_OK);
		assert_int_equal(after.epoch, before.epoch + 1);
	}
	bts_close(second);
	bed_reopen(&bed);
	bed_set(&bed, "b", "k", "3");
	assert_int_equal(bts_ship_position(bed.db, &after, NULL), BTS_OK);
	assert_int_equal(after.epoch, before.epoch + 1);
	bed_fini(&bed);
}

/* Fencing needs none, and takes what was built along; promoting does, and what it makes a primary obeys. */
static void test_roles(void **state)
{
	struct trap trap = {.op = ENV_MEM_FAULT, .path = "commit.built"};
	struct bts_role role = {.size = sizeof(role)};
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	start(&bed);
	trap.bed = &bed;
	renew(&bed);
	bed_commit(&bed, changed(&bed, 0, "k"));
	env_mem_set_hook(bed.mem, trap_hook, &trap);
	assert_int_equal(bts_commit(changed(&bed, 0, "built"), &bed.error), BTS_UNKNOWN);
	env_mem_set_hook(bed.mem, NULL, NULL);
	assert_int_equal(bts_demote(bed.db, &role, &bed.error), BTS_OK);
	assert_int_equal(role.role, BTS_ROLE_FENCED);
	bed_holds(&bed, "b", "built", "v");
	bts_close(bed.db);
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_FOLLOWER | BTS_OPEN_DEADLINE, &bed.db), BTS_OK);
	assert_int_equal(bts_promise(bed.db, role.position.epoch + 5, 77, &bed.error), BTS_OK);
	assert_int_equal(bts_promote(bed.db, NULL, &role, &bed.error), BTS_FENCED);
	assert_non_null(strstr(bed.error.text, "deadline"));
	renew(&bed);
	assert_int_equal(bts_promote(bed.db, NULL, &role, &bed.error), BTS_OK);
	bed_commit(&bed, changed(&bed, 0, "k2"));
	pass(&bed);
	assert_int_equal(bts_begin(bed.db, BTS_WRITE, &txn, &bed.error), BTS_FENCED);
	assert_int_equal(bts_promise(bed.db, role.position.epoch + 5, 78, &bed.error), BTS_OK);
	assert_int_equal(bts_role(bed.db, &role, NULL), BTS_OK);
	assert_int_equal(role.role, BTS_ROLE_FENCED);
	bed_fini(&bed);
}

/* false: the first write needed fewer calls than that */
static bool fails_once(enum env_mem_op kind, uint64_t nth)
{
	struct bed bed, other;
	struct bts_txn *txn;
	enum bts_err err;
	bool any;

	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "1");
	other = bed;
	other.mem = env_mem_crash(bed.mem, env_mem_choose_durable, NULL);
	bed_fini(&bed);
	assert_int_equal(bed_try_open(&other, BTS_OPEN_DEADLINE, &other.db), BTS_OK);
	renew(&other);
	if (kind == ENV_MEM_OPS)
		env_mem_fail_memory(other.mem, nth, 0);
	else
		env_mem_fail(other.mem, kind, nth, 5, 0);
	err = bts_begin(other.db, BTS_WRITE, &txn, &other.error);
	if (err == BTS_OK) {
		struct bts_bucket *bucket;

		err = bts_bucket(txn, bed_text("b"), 0, &bucket, NULL);
		if (err == BTS_OK)
			err = bts_put(txn, bucket, bed_text("k"), bed_text("2"), 0);
		if (err)
			bts_abort(txn);
		else
			err = bts_commit(txn, &other.error);
	}
	any = env_mem_failed(other.mem) > 0;
	env_mem_fail_clear(other.mem);
	assert_true(any || err == BTS_OK);
	if (err && bts_sync(other.db, &other.error) == BTS_OK)
		bed_commit(&other, changed(&other, 0, "k"));
	bts_close(other.db);
	bed_open(&other);
	bed_set(&other, "b", "k", "3");
	bed_fini(&other);
	return any;
}

static void test_failing_calls(void **state)
{
	static const enum env_mem_op kinds[] = {ENV_MEM_READ, ENV_MEM_WRITE, ENV_MEM_SYNC, ENV_MEM_IDENTITY,
		ENV_MEM_FAULT, ENV_MEM_LOCK, ENV_MEM_OPS};

	(void)state;
	for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
		for (uint64_t nth = 1; fails_once(kinds[k], nth) && nth < 100; nth++)
			;
}

static uint64_t boottime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static enum bts_err child_writes(const struct bed *bed)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct bts_options options;
		struct bts_txn *txn;
		struct bts *db;
		enum bts_err err;

		bts_options_init(&options);
		options.map_bytes = UINT64_C(1) << 34;
		err = bts_open(bed->path, &options, &db, NULL);
		if (err)
			_exit(100);
		err = bts_begin(db, BTS_WRITE, &txn, NULL);
		if (err == BTS_OK) {
			struct bts_bucket *bucket;

			err = bts_bucket(txn, (struct bts_slice){"b", 1}, BTS_CREATE, &bucket, NULL);
			if (err)
				_exit(101);
			err = bts_put(
				txn, bucket, (struct bts_slice){"child", 5}, (struct bts_slice){"v", 1}, 0);
			if (err)
				_exit(102);
			err = bts_commit(txn, NULL);
		}
		bts_close(db);
		_exit((int)err);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return (enum bts_err)WEXITSTATUS(status);
}

/* The real clock, real processes; and the thread that flushes what BTS_ASYNC has shown. */
static void test_real(void **state)
{
	struct bts_options options;
	struct bts_position before, after;
	bts_txid head;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	bts_close(bed.db);
	bts_options_init(&options);
	options.flags = BTS_OPEN_DEADLINE;
	options.map_bytes = UINT64_C(1) << 34;
	options.async_delay_ms = 20;
	assert_int_equal(bts_open(bed.path, &options, &bed.db, &bed.error), BTS_OK);
	assert_int_equal(child_writes(&bed), BTS_FENCED);
	set(&bed, boottime_ms() + 3600000);
	assert_int_equal(child_writes(&bed), BTS_OK);
	bed_holds(&bed, "b", "child", "v");
	assert_int_equal(bts_ship_position(bed.db, &before, NULL), BTS_OK);
	bed_commit(&bed, changed(&bed, BTS_ASYNC, "async"));
	set(&bed, 0);
	/* Flushed before the deadline was given up, or not until another is set. */
	assert_int_equal(bts_sync(bed.db, &bed.error), BTS_UNKNOWN);
	assert_int_equal(child_writes(&bed), BTS_FENCED);
	bed_holds(&bed, "b", "async", "v");
	set(&bed, boottime_ms() + 3600000);
	assert_int_equal(bts_ship_wait(bed.db, before.txid, 60000, &head), BTS_OK);
	assert_int_equal(bts_sync(bed.db, &bed.error), BTS_OK);
	assert_int_equal(bts_ship_position(bed.db, &after, NULL), BTS_OK);
	assert_true(after.txid > before.txid);
	set(&bed, 1); /* is not later */
	assert_int_equal(child_writes(&bed), BTS_OK);
	bed_commit(&bed, changed(&bed, BTS_ASYNC, "async2"));
	set(&bed, 0);
	bed_reopen(&bed); /* closing waits for no deadline */
	bed_fini(&bed);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_each_way),
		cmocka_unit_test(test_at_the_flush),
		cmocka_unit_test(test_before_the_slot),
		cmocka_unit_test(test_shown),
		cmocka_unit_test(test_several_processes),
		cmocka_unit_test(test_unclean),
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_roles),
		cmocka_unit_test(test_failing_calls),
		cmocka_unit_test(test_real),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
