/*
 * Threads and another process read the follower without pause while frames over many commits are applied,
 * most of them through path.pending.  Whatever snapshot a reader gets, it holds what the primary held at that
 * transaction, at its beginning and at its end.
 */
#include "apply_bed.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define FRAMES 40u
#define READERS 2u

struct known {
	_Atomic bts_txid txid;
	uint8_t digest[16];
};

struct scene { /* in memory that the processes share */
	struct known known[FRAMES + 1];
	_Atomic unsigned count;
	_Atomic bool done;
	_Atomic unsigned reads;
};

struct reader {
	struct scene *scene;
	struct bts *db;
};

static uint64_t seed;
static char directory[64];

static bool is_known(struct scene *scene, bts_txid txid, const uint8_t digest[16])
{
	for (unsigned i = 0; i < atomic_load(&scene->count); i++)
		if (atomic_load(&scene->known[i].txid) == txid)
			return !memcmp(scene->known[i].digest, digest, 16);
	return false;
}

static void *read_on(void *arg)
{
	struct reader *reader = arg;

	while (!atomic_load(&reader->scene->done)) {
		uint8_t first[16], last[16];
		struct bts_error error;
		struct bts_txn *txn;

		if (bts_begin(reader->db, BTS_READ, &txn, &error)) {
			fprintf(stderr, "begin: %s\n", error.text);
			abort();
		}
		bed_digest(txn, first);
		bed_digest(txn, last);
		if (memcmp(first, last, 16) || !is_known(reader->scene, bts_txn_id(txn), first))
			abort();
		bts_abort(txn);
		atomic_fetch_add(&reader->scene->reads, 1);
	}
	return NULL;
}

static void learn(struct scene *scene, struct bts *primary)
{
	unsigned count = atomic_load(&scene->count);
	struct bts_txn *txn;

	assert_int_equal(bts_begin(primary, BTS_READ, &txn, NULL), BTS_OK);
	bed_digest(txn, scene->known[count].digest);
	atomic_store(&scene->known[count].txid, bts_txn_id(txn));
	atomic_store(&scene->count, count + 1);
	bts_abort(txn);
}

static void test_readers_meanwhile(void **state)
{
	struct scene *scene =
		mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct bts_env *env = bts_env_posix();
	char source[96], path[96];
	struct bts *primary, *follower;
	struct reader reader = {.scene = scene};
	struct bts_apply_stat stat;
	pthread_t threads[READERS];
	struct rng rng;
	int status;
	pid_t pid;

	(void)state;
	rng_init(&rng, seed);
	snprintf(source, sizeof(source), "%s/primary", directory);
	snprintf(path, sizeof(path), "%s/follower", directory);
	primary = bed_open(env, source, 0, 4096);
	bed_create(env, path, primary, 4096);
	bed_commit(primary, &rng);
	learn(scene, primary);
	follower = bed_open(env, path, BTS_OPEN_FOLLOWER, 0);
	bed_ship(primary, follower, &rng);
	pid = fork();
	if (pid == 0) {
		read_on(&(struct reader){scene, bed_open(env, path, BTS_OPEN_READ_ONLY, 0)});
		_exit(0);
	}
	reader.db = follower;
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_on, &reader), 0);
	for (unsigned i = 0; i < FRAMES - 1; i++) {
		for (unsigned commits = 1 + (unsigned)rng_below(&rng, 8); commits--;)
			bed_commit(primary, &rng);
		learn(scene, primary);
		bed_ship(primary, follower, &rng);
	}
	while (atomic_load(&scene->reads) < 100)
		sched_yield();
	atomic_store(&scene->done, true);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	bts_apply_stat(follower, &stat);
	printf("%u reads beside %u frames, %llu of %llu pages redirected\n", atomic_load(&scene->reads),
		FRAMES, (unsigned long long)stat.redirected_pages, (unsigned long long)stat.pages);
	assert_true(stat.redirected_pages > 0);
	bed_assert_same(primary, follower);
	bts_close(follower);
	bts_close(primary);
	munmap(scene, sizeof(*scene));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readers_meanwhile),
	};
	char command[128];
	int failed;

	seed = rng_seed_from(argc, argv, 1);
	snprintf(directory, sizeof(directory), "/tmp/test_apply__threads.XXXXXX");
	if (!mkdtemp(directory))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -r %s", directory);
	return system(command) || failed;
}
