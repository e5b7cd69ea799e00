/* See apply_pair.h. */
#include "apply_pair.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

char pair_directory[64];
static uint64_t seed;

bool pair_begin(int argc, char **argv)
{
	seed = rng_seed_from(argc, argv, 1);
	snprintf(pair_directory, sizeof(pair_directory), "/tmp/test_apply.XXXXXX");
	return mkdtemp(pair_directory) == NULL;
}

bool pair_end(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", pair_directory);
	return system(command) != 0;
}

void pair_must(enum bts_err err, const struct bts_error *error)
{
	if (err)
		fail_msg("%s", error->text);
}

/* Every key anew, one in forty of them large. */
void pair_overwrite(struct pair *p, unsigned round, unsigned changes)
{
	static uint8_t value[200000];
	struct bts_bucket *bucket;
	struct bts_error error;
	struct bts_txn *txn;

	pair_must(bts_begin(p->primary, BTS_WRITE, &txn, &error), &error);
	pair_must(bts_bucket(txn, (struct bts_slice){"b", 1}, BTS_CREATE, &bucket, &error), &error);
	for (unsigned i = 0; i < changes; i++) {
		uint32_t key = changes == PAIR_KEYS ? i : (uint32_t)rng_below(&p->rng, PAIR_KEYS);
		size_t size = key % 40 == 0 ? 20000 + rng_below(&p->rng, 100000) : 200;

		memset(value, (int)(round + key), size);
		memcpy(value, &round, sizeof(round));
		if (bts_put(txn, bucket, (struct bts_slice){&key, sizeof(key)}, (struct bts_slice){value, size}, 0))
			fail_msg("put: %s", bts_txn_error(txn)->text);
	}
	pair_must(bts_commit(txn, &error), &error);
}

void pair_open(struct pair *p, struct bts_env *env, const char *name, uint64_t limit)
{
	struct bts_options options;
	struct bts_error error;

	rng_init(&p->rng, seed);
	snprintf(p->source, sizeof(p->source), "%s/%s-primary", pair_directory, name);
	snprintf(p->path, sizeof(p->path), "%s/%s-follower", pair_directory, name);
	p->primary = bed_open(bts_env_posix(), p->source, 0, 4096);
	bed_create(bts_env_posix(), p->path, p->primary, 4096);
	bts_options_init(&options);
	options.env = env;
	options.flags = BTS_OPEN_FOLLOWER;
	options.map_bytes = UINT64_C(256) << 20;
	options.pending_limit = limit;
	pair_must(bts_open(p->path, &options, &p->follower, &error), &error);
	pair_overwrite(p, 0, PAIR_KEYS);
	bed_ship(p->primary, p->follower, NULL);
}

void pair_close(struct pair *p)
{
	bts_close(p->follower);
	bts_close(p->primary);
}

uint64_t pair_log_bytes(const struct pair *p)
{
	uint64_t bytes = 0;
	char path[128];
	struct stat st;

	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s.pending%s", p->path, i ? "2" : "");
		if (!stat(path, &st))
			bytes += (uint64_t)st.st_size;
	}
	return bytes;
}

void pair_digest(struct bts *db, uint8_t digest[16])
{
	struct bts_error error;
	struct bts_txn *txn;

	pair_must(bts_begin(db, BTS_READ, &txn, &error), &error);
	bed_digest(txn, digest);
	bts_abort(txn);
}

void pair_assert_newest(struct pair *p, struct bts *db)
{
	uint8_t theirs[16], ours[16];

	pair_digest(p->primary, theirs);
	pair_digest(db, ours);
	assert_memory_equal(ours, theirs, 16);
}

void pair_flip(const char *path, uint64_t at)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}
