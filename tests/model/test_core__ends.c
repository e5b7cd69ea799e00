/*
 * Ends: of the numbers a process may give (I4), of a process that is not the last (I10), of an opening commit that fails (I7), of
 * what the child of a fork inherited (M4).
 */
#include "core_bed.h"

#include <db.h>
#include <errno.h>
#include <sys/wait.h>
#include <txn.h>

/* --- numbers --- */

/* All that a group may number lies below what an opening commit after a crash would take (I4). */
static void a_group_is_full(void **state)
{
	struct bts_group *group;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	put_one(bed.db, 0, "1");
	shared_assign(bed.db->shared, shared_tip_txid(bed.db->shared) + META_JUMP / 2 - 1);
	assert_int_equal(bts_group_begin(bed.db, &group, &bed.error), BTS_OK);
	group->count += META_JUMP / 2 - 2; /* as many transactions were kept */
	group->last += META_JUMP / 2 - 2;
	assert_int_equal(bts_group_txn(group, &txn, &bed.error), BTS_OK);
	bed_put(txn, "b", "k", "2");
	assert_true(bts_txn_id(txn) < shared_durable_txid(bed.db->shared) + META_JUMP);
	bed_commit(&bed, txn);
	assert_int_equal(bts_group_txn(group, &txn, &bed.error), BTS_LIMIT);
	assert_int_equal(bts_group_commit(group, &bed.error), BTS_OK);
	bed_holds(&bed, "b", "k", "2");
	bed_fini(&bed);
}

static bts_txid commit_numbered(struct bts *db, unsigned flags, const char *value)
{
	struct bts_error error;
	struct bts_txn *txn;
	bts_txid txid;

	assert_int_equal(bts_begin(db, BTS_WRITE | flags, &txn, &error), BTS_OK);
	bed_put(txn, "b", "k", value);
	assert_int_equal(bts_commit_id(txn, &txid, &error), BTS_OK);
	return txid;
}

/* The first commit after a clean exit, not waited for and lost with the power: its number names nothing else later (I4). */
static void a_told_number_is_not_reused(void **state)
{
	struct bed bed, after = {.path = "/db"};
	bts_txid told;

	(void)state;
	bed_init_memory(&bed);
	put_one(bed.db, 0, "1");
	bts_close(bed.db);
	open_one(&bed, 0, &bed.db);
	assert_int_equal(bed_stat(&bed).clean_open, 1);
	told = commit_numbered(bed.db, BTS_ASYNC, "lost");
	after.mem = env_mem_crash(bed.mem, env_mem_choose_durable, NULL);
	bed_open(&after);
	assert_true(commit_numbered(after.db, 0, "other") > told);
	bed_fini(&after);
	bed_fini(&bed);
}

/* An opening commit in the middle of an environment whose flush fails (I7). */
static void a_jump_fails(void **state)
{
	struct bts *other;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	put_one(bed.db, 0, "1");
	open_one(&bed, 0, &other);
	shared_assign(bed.db->shared, shared_tip_txid(bed.db->shared) + META_JUMP / 2);
	txn = bed_begin(&bed, BTS_WRITE);
	bed_put(txn, "b", "k", "2");
	env_mem_fail(bed.mem, ENV_MEM_SYNC, 1, EIO, ENV_MEM_DROP);
	assert_int_equal(bts_commit(txn, &bed.error), BTS_IO);
	assert_int_equal(bts_begin(other, BTS_WRITE, &txn, &bed.error), BTS_POISONED);
	bts_close(other);
	bts_close(bed.db);
	bed_open(&bed);
	bed_holds(&bed, "b", "k", "1");
	bed_fini(&bed);
}

/* --- leaving --- */

/* A writer that built what nobody waits for leaves before a reader: the exit is clean (I10). */
static void a_reader_leaves_last(void **state)
{
	static uint8_t piece[65536];
	struct bts_options options;
	struct bts_stream *stream;
	struct bts *writer, *reader;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "1");
	bts_close(bed.db);
	bts_options_init(&options);
	options.map_bytes = ENV_MEM_RESERVE_DEFAULT;
	options.env = env_mem_env(bed.mem);
	options.txn_memory = UINT64_C(1) << 20;
	assert_int_equal(bts_open(bed.path, &options, &writer, &bed.error), BTS_OK);
	options.flags = BTS_OPEN_READ_ONLY;
	assert_int_equal(bts_open(bed.path, &options, &reader, &bed.error), BTS_OK);
	put_one(writer, 0, "2");
	/* Given up when room for it was made at the end of the file. */
	assert_int_equal(bts_begin(writer, BTS_WRITE, &txn, &bed.error), BTS_OK);
	assert_int_equal(bts_put_begin(txn, bed_bucket(txn, "b"), bed_text("large"), UINT64_C(4) << 20, 0,
				 &stream, &bed.error),
		BTS_OK);
	assert_int_equal(bts_put_write(stream, (struct bts_slice){piece, sizeof(piece)}), BTS_OK);
	bts_abort(txn);
	assert_true(shared_tip_txid(writer->shared) > shared_durable_txid(writer->shared));
	bts_close(writer);
	bts_close(reader);
	bed_open(&bed);
	assert_int_equal(bed_stat(&bed).clean_open, 1);
	bed_fini(&bed);
}

/* --- the child of a fork --- */

static bool build_held(const struct bed *bed)
{
	uint64_t since;
	uint32_t pid;

	return shared_lock_owner(bed->db->shared, SHARED_LOCK_BUILD, &pid, &since);
}

static void in_a_child(void (*let_go)(void *what), void *what)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		alarm(20);
		let_go(what);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void let_go_txn(void *what)
{
	bts_abort(what);
}

static void let_go_commit(void *what)
{
	if (bts_commit(what, NULL) != BTS_INVALID)
		_exit(1);
}

static void let_go_group(void *what)
{
	if (bts_group_commit(what, NULL) != BTS_INVALID)
		_exit(1);
}

static void let_go_sync(void *what)
{
	if (bts_sync(what, NULL) != BTS_INVALID)
		_exit(1);
}

/* What it inherited it may end, and that is nothing to the parent: not its locks, not its file. */
static void a_child_lets_go(void **state)
{
	struct bts_group *group;
	struct bts_txn *txn;
	struct bed bed;

	(void)state;
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "1");
	in_a_child(let_go_sync, bed.db);
	txn = bed_begin(&bed, BTS_WRITE | BTS_EXCLUSIVE);
	bed_put(txn, "b", "k", "2");
	in_a_child(let_go_txn, txn);
	assert_true(build_held(&bed));
	in_a_child(let_go_commit, txn);
	assert_true(build_held(&bed));
	bed_commit(&bed, txn);
	txn = bed_begin(&bed, BTS_WRITE);
	bed_put(txn, "b", "k", "3");
	in_a_child(let_go_commit, txn);
	bed_commit(&bed, txn);
	assert_int_equal(bts_group_begin(bed.db, &group, &bed.error), BTS_OK);
	assert_int_equal(bts_group_txn(group, &txn, &bed.error), BTS_OK);
	bed_put(txn, "b", "k", "4");
	bed_commit(&bed, txn);
	in_a_child(let_go_group, group);
	assert_true(build_held(&bed));
	assert_int_equal(bts_group_commit(group, &bed.error), BTS_OK);
	bed_holds(&bed, "b", "k", "4");
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_group_is_full),
		cmocka_unit_test(a_told_number_is_not_reused),
		cmocka_unit_test(a_jump_fails),
		cmocka_unit_test(a_reader_leaves_last),
		cmocka_unit_test(a_child_lets_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
