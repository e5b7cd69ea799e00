/*
 * Transaction numbers that were given and not committed (I4): when they have run as far ahead of D as half an opening commit
 * jumps, one is made, so that after a crash no number is given twice.
 */
#include "bed.h"

#include <db.h>

static void numbers_run_ahead(void **state)
{
	struct bed bed, after;
	bts_txid before;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "1");
	before = bed_stat(&bed).txid;
	/* As by so many batches that found no space. */
	shared_assign(bed.db->shared, before + META_JUMP / 2 - 10);
	bed_set(&bed, "b", "k", "2");
	assert_int_equal(bed_stat(&bed).txid, before + META_JUMP / 2 - 9);
	before = bed_stat(&bed).txid;
	shared_assign(bed.db->shared, before + META_JUMP / 2);
	bed_set(&bed, "b", "k", "3");
	assert_int_equal(bed_stat(&bed).txid, before + META_JUMP / 2 + META_JUMP + 1);
	bed_holds(&bed, "b", "k", "3");
	bed_check(&bed);
	/* A crash: the jump lies above every number that was given. */
	memset(&after, 0, sizeof(after));
	after.mem = env_mem_crash(bed.mem, env_mem_choose_newest, NULL);
	strcpy(after.path, bed.path);
	before = bed_stat(&bed).txid;
	bed_open(&after);
	assert_int_equal(bed_stat(&after).txid, before + META_JUMP);
	bed_holds(&after, "b", "k", "3");
	bed_fini(&after);
	bed_fini(&bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_run_ahead),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
