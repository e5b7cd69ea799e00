/* Backups: what they hold, while others write, through a pipe, damaged, restored. */
#include "bed.h"
#include "oracle.h"
#include "rng.h"
#include <btree_store/ship.h>

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define KEYS 400u

static uint64_t seed;

struct world {
	struct bed bed;
	struct rng rng;
	struct oracle now;
	uint8_t bytes[150000];
};

static void world_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	bed_init_memory(&w->bed);
	rng_init(&w->rng, seed++);
}

static void world_write(struct world *w, unsigned changes)
{
	struct bts_txn *txn = bed_begin(&w->bed, BTS_WRITE);
	struct bts_bucket *bucket = bed_bucket(txn, "b");
	struct oracle_bucket *mine = oracle_bucket(&w->now, bed_text("b"));
	bts_txid version = bts_txn_id(txn) + 1;

	if (mine == NULL)
		mine = oracle_create(&w->now, bed_text("b"), 0, 1);
	while (changes-- > 0) {
		size_t size = rng_below(&w->rng, rng_one_in(&w->rng, 20) ? sizeof(w->bytes) : 300);
		char key[32];

		snprintf(key, sizeof(key), "key %u", (unsigned)rng_below(&w->rng, KEYS));
		if (rng_one_in(&w->rng, 3)) {
			if (oracle_del(mine, bed_text(key)))
				assert_int_equal(bts_del(txn, bucket, bed_text(key)), BTS_OK);
			continue;
		}
		for (size_t i = 0; i < size; i += 16)
			w->bytes[i] = (uint8_t)rng_next(&w->rng);
		assert_int_equal(
			bts_put(txn, bucket, bed_text(key), (struct bts_slice){w->bytes, size}, 0), BTS_OK);
		oracle_put(mine, bed_text(key), (struct bts_slice){w->bytes, size}, version);
	}
	bed_commit(&w->bed, txn);
	w->now.txid = version;
}

static void world_fini(struct world *w)
{
	bed_fini(&w->bed);
	oracle_fini(&w->now);
}

static int scratch(void)
{
	int fd = memfd_create("backup", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* The image as a file of another environment in memory. */
static void image_open(int fd, struct bed *bed, unsigned flags)
{
	off_t size = lseek(fd, 0, SEEK_END);
	void *bytes = malloc((size_t)size);

	assert_non_null(bytes);
	assert_int_equal(pread(fd, bytes, (size_t)size, 0), size);
	memset(bed, 0, sizeof(*bed));
	bed->mem = env_mem_new(0);
	strcpy(bed->path, "/copy");
	env_mem_put_file(bed->mem, "/copy", bytes, (size_t)size);
	free(bytes);
	if (bed_try_open(bed, flags, &bed->db))
		fail_msg("the image does not open: %s", bed->error.text);
}

static void image_expect(struct bed *bed, const struct oracle *then)
{
	struct bts_txn *txn = bed_begin(bed, BTS_READ);

	oracle_verify(txn, then);
	bts_abort(txn);
	bed_check(bed);
}

static void an_image_is_a_database(void **state)
{
	struct world w;
	struct bed copy;
	struct bts_stat before, after;
	int fd = scratch();

	(void)state;
	world_init(&w);
	for (int i = 0; i < 10; i++)
		world_write(&w, 60);
	assert_int_equal(bts_backup(w.bed.db, fd, NULL, &w.bed.error), BTS_OK);
	before = bed_stat(&w.bed);
	image_open(fd, &copy, BTS_OPEN_READ_ONLY);
	image_expect(&copy, &w.now);
	after = bed_stat(&copy);
	assert_true(after.clean_open);
	assert_int_equal(after.txid, before.txid);
	assert_memory_equal(after.root_digest, before.root_digest, sizeof(after.root_digest));
	bts_close(copy.db);
	/* A copy that is written to begins an epoch of its own (R3). */
	bed_open(&copy);
	bed_set(&copy, "new", "k", "v");
	assert_int_equal(bed_stat(&copy).epoch, before.epoch + 1);
	assert_memory_equal(bed_stat(&copy).database, before.database, sizeof(before.database));
	bed_fini(&copy);
	close(fd);
	world_fini(&w);
}

static void an_empty_database(void **state)
{
	struct world w;
	struct bed copy;
	int fd = scratch();

	(void)state;
	world_init(&w);
	assert_int_equal(bts_backup(w.bed.db, fd, NULL, &w.bed.error), BTS_OK);
	image_open(fd, &copy, 0);
	image_expect(&copy, &w.now);
	bed_fini(&copy);
	close(fd);
	world_fini(&w);
}

/* Named snapshots are part of it. */
static void named_snapshots_too(void **state)
{
	struct world w;
	struct bed copy;
	struct bts_txn *txn;
	struct bts_snapshot_info info = {.txid = 0};
	int fd = scratch();

	(void)state;
	world_init(&w);
	for (unsigned i = 0; i < 3; i++) {
		char name[8] = {'s', (char)('0' + i), 0};

		for (int k = 0; k < 4; k++)
			world_write(&w, 60);
		txn = bed_begin(&w.bed, BTS_WRITE);
		assert_int_equal(bts_snapshot_create(txn, bed_text(name), NULL), BTS_OK);
		bed_commit(&w.bed, txn);
	}
	world_write(&w, 100);
	if (bts_backup(w.bed.db, fd, NULL, &w.bed.error))
		fail_msg("%s", w.bed.error.text);
	image_open(fd, &copy, 0);
	image_expect(&copy, &w.now);
	txn = bed_begin(&copy, BTS_READ);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(bts_snapshot_next(txn, info.name, &info), BTS_OK);
	assert_int_equal(bts_snapshot_next(txn, info.name, &info), BTS_NOT_FOUND);
	bts_abort(txn);
	bed_fini(&copy);
	close(fd);
	world_fini(&w);
}

/* Commits while it runs: the image is of when it began. */
struct writing {
	struct world *w;
	unsigned calls, commits;
};

static void writing_progress(void *arg, uint64_t done, uint64_t total)
{
	struct writing *writing = arg;

	assert_true(done <= total);
	if (writing->calls++ % 2 == 0 && writing->commits < 30) {
		writing->commits++;
		world_write(writing->w, 20);
	}
}

static void beside_a_writer(void **state)
{
	struct world w;
	struct writing writing = {.w = &w};
	struct bts_backup_options options = {
		.size = sizeof(options), .progress = writing_progress, .arg = &writing};
	struct oracle then;
	struct bed copy;
	int fd = scratch();

	(void)state;
	world_init(&w);
	for (int i = 0; i < 10; i++)
		world_write(&w, 80);
	oracle_copy(&then, &w.now);
	assert_int_equal(bts_backup(w.bed.db, fd, &options, &w.bed.error), BTS_OK);
	assert_true(writing.commits > 5);
	image_open(fd, &copy, 0);
	image_expect(&copy, &then);
	bed_fini(&copy);
	oracle_fini(&then);
	close(fd);
	world_fini(&w);
}

struct piped {
	int from, to;
};

static void *piped_copy(void *arg)
{
	struct piped *piped = arg;
	char bytes[3000];
	ssize_t got;

	while ((got = read(piped->from, bytes, sizeof(bytes))) > 0)
		if (write(piped->to, bytes, (size_t)got) != got)
			break;
	return NULL;
}

static void through_a_pipe(void **state)
{
	struct world w;
	struct piped piped;
	struct bed copy;
	pthread_t thread;
	int ends[2], fd = scratch(), direct = scratch();
	char a[4096], b[4096];
	off_t at = 0;
	ssize_t got;

	(void)state;
	world_init(&w);
	for (int i = 0; i < 8; i++)
		world_write(&w, 60);
	assert_int_equal(pipe(ends), 0);
	piped = (struct piped){ends[0], fd};
	assert_int_equal(pthread_create(&thread, NULL, piped_copy, &piped), 0);
	assert_int_equal(bts_backup(w.bed.db, ends[1], NULL, &w.bed.error), BTS_OK);
	close(ends[1]);
	pthread_join(thread, NULL);
	close(ends[0]);
	image_open(fd, &copy, 0);
	image_expect(&copy, &w.now);
	bed_fini(&copy);
	/* The same bytes as with holes, but for the random node id in the slots. */
	assert_int_equal(bts_backup(w.bed.db, direct, NULL, &w.bed.error), BTS_OK);
	assert_int_equal(lseek(fd, 0, SEEK_END), lseek(direct, 0, SEEK_END));
	for (at = 65536; (got = pread(fd, a, sizeof(a), at)) > 0; at += got) {
		assert_int_equal(pread(direct, b, sizeof(b), at), got);
		assert_memory_equal(a, b, (size_t)got);
	}
	close(fd);
	close(direct);
	world_fini(&w);
}

/* A descriptor in the middle of older bytes: what is free is zero there too. */
static void over_old_bytes(void **state)
{
	struct world w;
	struct bed copy;
	char junk[4096];
	int fd = scratch();

	(void)state;
	world_init(&w);
	for (int i = 0; i < 8; i++)
		world_write(&w, 60);
	memset(junk, 0x5a, sizeof(junk));
	for (uint64_t at = 0; at < bed_stat(&w.bed).pages * 4096 / 2; at += sizeof(junk))
		assert_int_equal(write(fd, junk, sizeof(junk)), sizeof(junk));
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(bts_backup(w.bed.db, fd, NULL, &w.bed.error), BTS_OK);
	image_open(fd, &copy, 0);
	image_expect(&copy, &w.now);
	bed_fini(&copy);
	close(fd);
	world_fini(&w);
}

/* A flipped bit anywhere in use is found, and the page named. */
static void damage_is_named(void **state)
{
	struct world w;
	unsigned found = 0, tries = 0;

	(void)state;
	world_init(&w);
	for (int i = 0; i < 6; i++)
		world_write(&w, 60);
	bed_reopen(&w.bed);
	while (tries++ < 200) {
		uint64_t pages = bed_stat(&w.bed).pages, page = 16 + rng_below(&w.rng, pages - 16);
		uint64_t at = page * 4096 + rng_below(&w.rng, 4096);
		unsigned bit = 1u << rng_below(&w.rng, 8);
		char name[32];
		int fd = scratch();
		enum bts_err err;

		env_mem_flip(w.bed.mem, w.bed.path, at, (uint8_t)bit);
		err = bts_backup(w.bed.db, fd, NULL, &w.bed.error);
		if (err) {
			snprintf(name, sizeof(name), "page %llu:", (unsigned long long)page);
			assert_int_equal(err, BTS_CORRUPT);
			if (strstr(w.bed.error.text, "page ") == NULL)
				fail_msg("damage in %s %s", name, w.bed.error.text);
			found++;
		} else { /* a free page, or zeros behind the end of a value: not copied */
			struct bed copy;

			image_open(fd, &copy, 0);
			image_expect(&copy, &w.now);
			bed_fini(&copy);
		}
		env_mem_flip(w.bed.mem, w.bed.path, at, (uint8_t)bit);
		close(fd);
	}
	assert_true(found > 50);
	world_fini(&w);
}

/* No room for it: the error says so, and the database does not mind. */
static void a_full_disk(void **state)
{
	struct world w;
	int full = open("/dev/full", O_WRONLY);

	(void)state;
	world_init(&w);
	world_write(&w, 60);
	assert_int_equal(bts_backup(w.bed.db, full, NULL, &w.bed.error), BTS_FULL);
	close(full);
	world_write(&w, 10);
	world_fini(&w);
}

static enum bts_err restore(int fd, struct bed *bed, unsigned flags)
{
	struct bts_restore_options options = {.size = sizeof(options),
		.flags = flags,
		.map_bytes = ENV_MEM_RESERVE_DEFAULT,
		.env = env_mem_env(bed->mem)};

	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return bts_restore(fd, bed->path, &options, &bed->error);
}

static void image_new(struct bed *bed)
{
	memset(bed, 0, sizeof(*bed));
	bed->mem = env_mem_new(0);
	env_mem_seed(bed->mem, ++seed); /* other ids than those of the source */
	strcpy(bed->path, "/copy");
}

static void restored(void **state)
{
	struct world w;
	struct bts_stat before, after;
	int fd = scratch();

	(void)state;
	world_init(&w);
	for (int i = 0; i < 8; i++)
		world_write(&w, 60);
	assert_int_equal(bts_backup(w.bed.db, fd, NULL, &w.bed.error), BTS_OK);
	before = bed_stat(&w.bed);
	for (unsigned same = 0; same < 2; same++) {
		struct bed copy;

		image_new(&copy);
		assert_int_equal(restore(fd, &copy, same ? BTS_RESTORE_SAME_ID : 0), BTS_OK);
		assert_int_equal(restore(fd, &copy, 0), BTS_EXISTS);
		bed_open(&copy);
		after = bed_stat(&copy);
		assert_int_equal(memcmp(after.database, before.database, 16) == 0, same);
		image_expect(&copy, &w.now);
		bed_set(&copy, "new", "k", "v");
		assert_int_equal(bed_stat(&copy).epoch, before.epoch + 1);
		bed_reopen(&copy);
		bed_holds(&copy, "new", "k", "v");
		bed_fini(&copy);
	}
	close(fd);
	world_fini(&w);
}

/* Cut short, flipped, no database: refused, and nothing appears under the name. */
static void bad_images_are_refused(void **state)
{
	struct world w;
	struct bed copy;
	int fd = scratch();
	off_t size;

	(void)state;
	world_init(&w);
	for (int i = 0; i < 6; i++)
		world_write(&w, 60);
	assert_int_equal(bts_backup(w.bed.db, fd, NULL, &w.bed.error), BTS_OK);
	size = lseek(fd, 0, SEEK_END);
	image_new(&copy);
	for (int i = 0; i < 30; i++) {
		off_t at = (off_t)rng_below(&w.rng, (uint64_t)size);
		char byte, bad;
		enum bts_err err;

		assert_int_equal(pread(fd, &byte, 1, at), 1);
		bad = (char)(byte ^ 4);
		assert_int_equal(pwrite(fd, &bad, 1, at), 1);
		err = restore(fd, &copy, 0);
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		if (err == BTS_OK) { /* of a free page */
			env_mem_free(copy.mem);
			image_new(&copy);
			continue;
		}
		assert_int_equal(bed_try_open(&copy, BTS_OPEN_EXISTING, &copy.db), BTS_NOT_FOUND);
	}
	assert_int_equal(ftruncate(fd, size - 1), 0);
	assert_int_equal(restore(fd, &copy, 0), BTS_CORRUPT);
	assert_int_equal(ftruncate(fd, 100), 0);
	assert_int_not_equal(restore(fd, &copy, 0), BTS_OK);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(restore(fd, &copy, 0), BTS_INVALID);
	assert_int_equal(write(fd, "something else", 14), 14);
	assert_int_equal(restore(fd, &copy, 0), BTS_INVALID);
	assert_int_equal(bed_try_open(&copy, BTS_OPEN_EXISTING, &copy.db), BTS_NOT_FOUND);
	assert_int_equal(env_mem_counters(copy.mem)->live_blocks, 0);
	env_mem_free(copy.mem);
	close(fd);
	world_fini(&w);
}

/* A follower that has received nothing: what was made of it as a new database, with BTS_OK, did not open. */
static void nothing_makes_no_database(void **state)
{
	struct bts_position source;
	struct bed bed, copy;
	int fd = scratch();

	(void)state;
	bed_init_memory(&bed);
	assert_int_equal(bts_ship_position(bed.db, &source, &bed.error), BTS_OK);
	bts_close(bed.db);
	strcpy(bed.path, "/empty");
	assert_int_equal(bts_ship_create(bed.path, &(struct bts_options){.size = sizeof(struct bts_options), .env = env_mem_env(bed.mem)},
				 &source, 4096, &bed.error),
		BTS_OK);
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_FOLLOWER, &bed.db), BTS_OK);
	assert_int_equal(bts_backup(bed.db, fd, NULL, &bed.error), BTS_OK);
	image_new(&copy);
	assert_int_equal(restore(fd, &copy, 0), BTS_INVALID);
	assert_int_equal(bed_try_open(&copy, BTS_OPEN_EXISTING, &copy.db), BTS_NOT_FOUND);
	assert_int_equal(restore(fd, &copy, BTS_RESTORE_SAME_ID), BTS_OK);
	assert_int_equal(bed_try_open(&copy, BTS_OPEN_FOLLOWER, &copy.db), BTS_OK);
	bed_fini(&copy);
	bed_fini(&bed);
	close(fd);
}

static enum bts_err restore_file(struct bed *bed, unsigned flags)
{
	struct bts_restore_options options = {.size = sizeof(options),
		.flags = flags,
		.map_bytes = ENV_MEM_RESERVE_DEFAULT,
		.env = env_mem_env(bed->mem)};

	return bts_restore_file("/copy", "/there", &options, &bed->error);
}

/* A file in place: under its new name alone, with ids of its own or not; of a damaged one that name never appears. */
static void a_file_is_renamed(void **state)
{
	struct world w;
	struct bts_stat before;
	int fd = scratch();

	(void)state;
	world_init(&w);
	for (int i = 0; i < 8; i++)
		world_write(&w, 60);
	assert_int_equal(bts_backup(w.bed.db, fd, NULL, &w.bed.error), BTS_OK);
	before = bed_stat(&w.bed);
	for (unsigned round = 0; round < 30; round++) {
		bool same = round & 1, flip = round > 1;
		struct bed copy;
		enum bts_err err;

		image_new(&copy);
		assert_int_equal(restore_file(&copy, 0), BTS_IO);
		assert_int_equal(restore(fd, &copy, BTS_RESTORE_SAME_ID), BTS_OK);
		if (flip)
			env_mem_flip(copy.mem, "/copy", rng_below(&w.rng, (uint64_t)lseek(fd, 0, SEEK_END)), 2);
		err = restore_file(&copy, same ? BTS_RESTORE_SAME_ID : 0);
		assert_true(err == BTS_OK || flip);
		strcpy(copy.path, err ? "/there" : "/copy");
		assert_int_equal(bed_try_open(&copy, BTS_OPEN_EXISTING, &copy.db), BTS_NOT_FOUND);
		if (err) {
			env_mem_free(copy.mem);
			continue;
		}
		strcpy(copy.path, "/there");
		bed_open(&copy);
		assert_int_equal(memcmp(bed_stat(&copy).database, before.database, 16) == 0, same);
		image_expect(&copy, &w.now);
		bed_set(&copy, "new", "k", "v");
		assert_int_equal(bed_stat(&copy).epoch, before.epoch + 1);
		bed_fini(&copy);
	}
	close(fd);
	world_fini(&w);
}

/*
 * A file that somebody has open is not taken from him: its slots used to be written anew and its lock file removed, under the
 * handles that wrote it.  Nor is a stranger's file a damaged one.
 */
static void a_file_in_use_is_left_alone(void **state)
{
	struct bts_restore_options options = {.size = sizeof(options), .map_bytes = ENV_MEM_RESERVE_DEFAULT};
	static const char junk[100000] = "something else";
	struct bed bed;
	struct bts *reader;

	(void)state;
	bed_init_memory(&bed);
	bed_set(&bed, "b", "k", "v");
	options.env = env_mem_env(bed.mem);
	assert_int_equal(bts_restore_file("/db", "/there", &options, &bed.error), BTS_BUSY);
	assert_non_null(strstr(bed.error.text, "/db"));
	bed_set(&bed, "b", "k", "w");
	assert_int_equal(bed_try_open(&bed, BTS_OPEN_READ_ONLY, &reader), BTS_OK);
	bts_close(bed.db);
	assert_int_equal(bts_restore_file("/db", "/there", &options, &bed.error), BTS_BUSY);
	bts_close(reader);
	env_mem_put_file(bed.mem, "/junk", junk, sizeof(junk));
	assert_int_equal(bts_restore_file("/junk", "/there", &options, &bed.error), BTS_INVALID);
	assert_int_equal(bts_restore_file("/db", "/there", &options, &bed.error), BTS_OK);
	strcpy(bed.path, "/there");
	bed_open(&bed);
	bed_holds(&bed, "b", "k", "w");
	bed_fini(&bed);
}

/* Whose name another restore takes while this one checks it. */
static struct stolen {
	struct bts_env env;
	struct bts_env_ops ops;
	struct bed *bed;
	char taken[sizeof(((struct bed *)0)->path) + 8];
	unsigned opened;
} stolen;

static void stolen_copy(const char *from, const char *to)
{
	char line[3 * PATH_MAX];

	snprintf(line, sizeof(line), "cp '%s' '%s'", from, to);
	assert_int_equal(system(line), 0);
}

static int stolen_open(struct bts_env *env, const char *path, unsigned flags, struct bts_file **file)
{
	struct bts_env *inner = bts_env_posix();

	(void)env;
	if (strcmp(path, stolen.bed->path) == 0 && ++stolen.opened == 2) {
		assert_int_equal(rename(path, stolen.taken), 0);
		stolen_copy(stolen.taken, path);
	}
	return inner->ops->file_open(inner, path, flags, file);
}

static void a_file_whose_name_is_taken(void **state)
{
	struct bts_restore_options options = {.size = sizeof(options), .env = &stolen.env};
	struct bts_stat before, after;
	struct bed bed, taken;
	char there[sizeof(bed.path) + 8];

	(void)state;
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "v");
	before = bed_stat(&bed);
	bts_close(bed.db);
	stolen = (struct stolen){.env = *bts_env_posix(), .ops = *bts_env_posix()->ops, .bed = &bed};
	snprintf(stolen.taken, sizeof(stolen.taken), "%s.taken", bed.path);
	snprintf(there, sizeof(there), "%s.there", bed.path);
	stolen.ops.file_open = stolen_open;
	stolen.env.ops = &stolen.ops;
	assert_int_equal(bts_restore_file(bed.path, there, &options, &bed.error), BTS_BUSY);
	assert_true(stolen.opened > 2);
	snprintf(there, sizeof(there), "%s-lock", bed.path); /* of who has the name now */
	assert_int_equal(access(there, F_OK), 0);
	taken = bed;
	strcpy(taken.path, stolen.taken);
	bed_open(&taken);
	after = bed_stat(&taken);
	assert_memory_equal(before.database, after.database, sizeof(before.database));
	bed_holds(&taken, "b", "k", "v");
	bts_close(taken.db);
	bed_remove(&taken);
	bed_open(&bed);
	bed_fini(&bed);
}

/* A child that the program forks meanwhile holds nothing of it, however long it lives. */
static void fork_once(void *arg, uint64_t bytes)
{
	pid_t *child = arg;

	(void)bytes;
	if (*child)
		return;
	*child = fork();
	assert_true(*child >= 0);
	if (*child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
}

static void a_child_meanwhile(void **state)
{
	struct bts_restore_options options = {.size = sizeof(options), .progress = fork_once};
	struct bed bed, copy;
	pid_t child = 0;
	int fd = scratch();

	(void)state;
	bed_init_file(&bed);
	bed_set(&bed, "b", "k", "v");
	assert_int_equal(bts_backup(bed.db, fd, NULL, &bed.error), BTS_OK);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	copy = bed;
	strcat(copy.path, ".copy");
	options.arg = &child;
	assert_int_equal(bts_restore(fd, copy.path, &options, &bed.error), BTS_OK);
	assert_true(child > 0);
	alarm(60); /* the end of the test where it waits for the child */
	bed_open(&copy);
	alarm(0);
	bed_holds(&copy, "b", "k", "v");
	bts_close(copy.db);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	bed_remove(&copy);
	bed_fini(&bed);
	close(fd);
}

/* ---- the image in any order ---- */

static void image_whole(struct bts_image *image, uint8_t *bytes, struct bed *bed)
{
	if (bts_image_read(image, 0, bytes, bts_image_size(image), &bed->error))
		fail_msg("%s", bed->error.text);
}

/* Pieces from anywhere, of any size, while others commit, are those of the whole, which is the state when it was opened. */
static void an_image_in_pieces(void **state)
{
	struct world w;
	struct oracle then;
	struct bts_image *image;
	struct bed copy;
	uint8_t *whole, *piece, digest[16];
	uint64_t size;
	int fd = scratch();

	(void)state;
	world_init(&w);
	for (int i = 0; i < 8; i++)
		world_write(&w, 80);
	oracle_copy(&then, &w.now);
	if (bts_image_open(w.bed.db, NULL, &image, &w.bed.error))
		fail_msg("%s", w.bed.error.text);
	bts_image_digest(image, digest);
	assert_memory_equal(digest, bed_stat(&w.bed).root_digest, sizeof(digest));
	assert_int_equal(bts_image_position(image)->txid, then.txid);
	size = bts_image_size(image);
	whole = malloc(size);
	piece = malloc(size);
	assert_true(whole != NULL && piece != NULL);
	image_whole(image, whole, &w.bed);
	for (int i = 0; i < 2000; i++) {
		uint64_t at = rng_below(&w.rng, size), most = rng_one_in(&w.rng, 10) ? size - at : 5000, n;

		n = rng_below(&w.rng, (most < size - at ? most : size - at) + 1);
		assert_int_equal(bts_image_read(image, at, piece, n, &w.bed.error), BTS_OK);
		assert_memory_equal(piece, whole + at, n);
		if (i % 100 == 0)
			world_write(&w, 20);
	}
	assert_int_equal(bts_image_read(image, size, piece, 0, NULL), BTS_OK);
	assert_int_equal(bts_image_read(image, size, piece, 1, NULL), BTS_INVALID);
	assert_int_equal(bts_image_read(image, 1, piece, size, NULL), BTS_INVALID);
	bts_image_close(image);
	assert_int_equal(write(fd, whole, size), size);
	image_open(fd, &copy, 0);
	image_expect(&copy, &then);
	bed_fini(&copy);
	close(fd);
	free(whole);
	free(piece);
	oracle_fini(&then);
	world_fini(&w);
}

/* Whatever is damaged after it was opened: the bytes that are given are right ones. */
static void a_damaged_image_gives_nothing_wrong(void **state)
{
	struct world w;
	struct bts_image *image;
	uint8_t *whole, *piece;
	unsigned found = 0;
	uint64_t size;

	(void)state;
	world_init(&w);
	for (int i = 0; i < 6; i++)
		world_write(&w, 60);
	assert_int_equal(bts_image_open(w.bed.db, NULL, &image, &w.bed.error), BTS_OK);
	size = bts_image_size(image);
	whole = malloc(size);
	piece = malloc(size);
	assert_true(whole != NULL && piece != NULL);
	image_whole(image, whole, &w.bed);
	for (int i = 0; i < 200; i++) {
		uint64_t flip = 65536 + rng_below(&w.rng, size - 65536), begin = 0, at, n;
		uint8_t bit = (uint8_t)(1u << rng_below(&w.rng, 8));

		env_mem_flip(w.bed.mem, w.bed.path, flip, bit);
		begin = flip > 100000 ? flip - rng_below(&w.rng, 100000) : 0;
		for (at = begin; at < size && at < flip + 100000; at += n) {
			enum bts_err err;

			n = size - at < 7000 ? size - at : 7000;
			err = bts_image_read(image, at, piece, n, &w.bed.error);
			if (err) {
				assert_int_equal(err, BTS_CORRUPT);
				assert_non_null(strstr(w.bed.error.text, "page "));
				found++;
				break;
			}
			assert_memory_equal(piece, whole + at, n);
		}
		env_mem_flip(w.bed.mem, w.bed.path, flip, bit);
	}
	assert_true(found > 50);
	bts_image_close(image);
	free(whole);
	free(piece);
	world_fini(&w);
}

static int image_no(void *arg)
{
	return ++*(int *)arg;
}

static void opening_can_be_given_up(void **state)
{
	int asked = 0;
	struct bts_image_options options = {sizeof(options), image_no, &asked};
	struct bts_image *image;
	struct world w;

	(void)state;
	world_init(&w);
	for (int i = 0; i < 40; i++)
		world_write(&w, 400);
	assert_int_equal(bts_image_open(w.bed.db, &options, &image, &w.bed.error), BTS_TIMEOUT);
	assert_int_equal(asked, 1);
	assert_int_equal(bed_stat(&w.bed).readers, 0);
	world_fini(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_image_is_a_database),
		cmocka_unit_test(an_image_in_pieces),
		cmocka_unit_test(a_damaged_image_gives_nothing_wrong),
		cmocka_unit_test(opening_can_be_given_up),
		cmocka_unit_test(an_empty_database),
		cmocka_unit_test(named_snapshots_too),
		cmocka_unit_test(beside_a_writer),
		cmocka_unit_test(through_a_pipe),
		cmocka_unit_test(over_old_bytes),
		cmocka_unit_test(damage_is_named),
		cmocka_unit_test(a_full_disk),
		cmocka_unit_test(restored),
		cmocka_unit_test(bad_images_are_refused),
		cmocka_unit_test(nothing_makes_no_database),
		cmocka_unit_test(a_file_is_renamed),
		cmocka_unit_test(a_file_in_use_is_left_alone),
		cmocka_unit_test(a_file_whose_name_is_taken),
		cmocka_unit_test(a_child_meanwhile),
	};

	seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	print_message("seed %llu\n", (unsigned long long)seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
