/*
 * A flush fails, and its process dies before it could say so (I6, I7): the pages count as written and are not, and who opens
 * the file afterwards is not told.  What that one shows must survive a power loss all the same.
 */
#include "core_bed.h"

#include <db.h>
#include <errno.h>
#include <setjmp.h>
#include <shared_map.h>

static jmp_buf dead;

static void die_before_the_slot(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	(void)arg;
	(void)mem;
	if (event->op == ENV_MEM_FAULT && strcmp(event->path, "commit.slot") == 0)
		longjmp(dead, 1);
}

/* What the kernel does for a dead process. */
static void bury(struct bts *db)
{
	struct bts_file *data = db->file, *lock = db->shared->lock;

	lock->env->ops->file_close(lock);
	data->env->ops->file_close(data);
}

/* The flush that nobody lives to hear of: everything counts as clean, the disk keeps what it had. */
static void drop_pages(struct bed *bed)
{
	struct bts_env *env = env_mem_env(bed->mem);
	struct bts_file *file;

	assert_int_equal(env->ops->file_open(env, bed->path, BTS_FILE_WRITE, &file), 0);
	env_mem_fail(bed->mem, ENV_MEM_SYNC, 1, EIO, ENV_MEM_DROP);
	assert_int_equal(env->ops->file_sync(file), EIO);
	env_mem_fail_clear(bed->mem);
	env->ops->file_close(file);
}

static void shown_then_lost(void **state)
{
	struct bed bed, after;
	struct bts *volatile reader, *heir;
	struct bts_options options;

	(void)state;
	bed_init_memory(&bed);
	put_one(bed.db, 0, "1");
	bts_options_init(&options);
	options.flags = BTS_OPEN_READ_ONLY;
	options.map_bytes = ENV_MEM_RESERVE_DEFAULT;
	options.env = env_mem_env(bed.mem);
	assert_int_equal(bts_open(bed.path, &options, (struct bts **)&reader, &bed.error), BTS_OK); /* keeps the tip known */
	env_mem_set_hook(bed.mem, die_before_the_slot, NULL);
	if (setjmp(dead) == 0) {
		put_one(bed.db, 0, "2");
		fail_msg("nobody died");
	}
	env_mem_set_hook(bed.mem, NULL, NULL);
	bury(bed.db);
	drop_pages(&bed);
	open_one(&bed, 0, &heir);
	bed.db = heir;
	bed_holds(&bed, "b", "k", "2"); /* built, and flushed by the heir */
	memset(&after, 0, sizeof(after));
	after.mem = env_mem_crash(bed.mem, env_mem_choose_durable, NULL);
	strcpy(after.path, bed.path);
	bed_open(&after);
	bed_holds(&after, "b", "k", "2");
	bed_fini(&after);
	bts_close(heir);
	bts_close(reader);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shown_then_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
