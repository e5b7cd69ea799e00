/*
 * Makes the golden files: golden_make FOLDER writes each scenario's file and expected.txt, a line for each.
 *
 * Everything happens in memory with a clock and random numbers of its own, so one build makes the same bytes again.  A later
 * build may place pages elsewhere: then the bytes differ, what reading them gives does not.  Files are cut at their
 * high-water mark, behind which nothing means anything.
 */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "golden.h"

#define PATH "/db"
#define SOURCE "/source"

struct make {
	const char *folder;
	FILE *expected;
	struct env_mem *mem;
	struct bts *db;
	struct bts_error error;
	struct env_mem *crashed; /* what the hook kept */
	const char *point;	 /* where it keeps it; NULL: at the next flush */
	uint8_t bytes[1 << 20];	 /* of values */
};

static void make_open(struct make *m, unsigned flags, uint32_t page_size)
{
	golden_must(golden_open(env_mem_env(m->mem), PATH, flags, page_size, &m->db, &m->error), &m->error,
		"open");
}

static void make_begin(struct make *m, uint32_t page_size)
{
	m->mem = env_mem_new(GOLDEN_MAP);
	env_mem_seed(m->mem, 7);
	if (page_size)
		make_open(m, 0, page_size);
}

static void make_close(struct make *m)
{
	bts_close(m->db);
	m->db = NULL;
}

/* The process dies and the machine goes on; what it held open is left to the old environment. */
static void make_kill(struct make *m)
{
	struct env_mem *after = env_mem_clone(m->mem);

	bts_close(m->db);
	m->db = NULL;
	env_mem_free(m->mem);
	m->mem = after;
}

static struct bts_txn *make_txn(struct make *m)
{
	struct bts_txn *txn;

	env_mem_advance(m->mem, 1000);
	golden_must(bts_begin(m->db, BTS_WRITE, &txn, &m->error), &m->error, "begin");
	return txn;
}

static void make_commit(struct make *m, struct bts_txn *txn)
{
	golden_must(bts_commit(txn, &m->error), &m->error, "commit");
}

static struct bts_slice make_name(const char *text)
{
	return (struct bts_slice){text, strlen(text)};
}

static struct bts_bucket *make_bucket(struct make *m, struct bts_txn *txn, const char *name)
{
	struct bts_bucket *bucket;

	golden_must(bts_bucket(txn, make_name(name), BTS_CREATE, &bucket, &m->error), &m->error, name);
	return bucket;
}

/* A value of that size; what is in it depends on seed. */
static void make_put(struct make *m, struct bts_txn *txn, const char *bucket, struct bts_slice key,
	size_t size, unsigned seed)
{
	struct bts_slice value = {m->bytes, size};

	for (size_t i = 0; i < size; i++)
		m->bytes[i] = (uint8_t)(seed * 31 + i % 251 + i / 4096);
	golden_must(bts_put(txn, make_bucket(m, txn, bucket), key, value, 0), bts_txn_error(txn), "put");
}

/* The key "NNNN" behind `prefix` letters, so that separators are as long. */
static struct bts_slice make_key(unsigned number, size_t prefix, char text[BTS_KEY_MAX])
{
	memset(text, 'p', prefix);
	snprintf(text + prefix, 8, "%04u", number % 10000);
	return (struct bts_slice){text, prefix + 4};
}

static void make_put_number(
	struct make *m, struct bts_txn *txn, const char *bucket, unsigned number, size_t prefix, size_t size)
{
	char text[BTS_KEY_MAX];

	make_put(m, txn, bucket, make_key(number, prefix, text), size, number);
}

static void make_one(struct make *m, unsigned number, size_t size)
{
	struct bts_txn *txn = make_txn(m);

	make_put_number(m, txn, "numbers", number, 0, size);
	make_commit(m, txn);
}

static void make_del_number(
	struct make *m, struct bts_txn *txn, const char *bucket, unsigned number, size_t prefix)
{
	char text[BTS_KEY_MAX];

	golden_must(bts_del(txn, make_bucket(m, txn, bucket), make_key(number, prefix, text)),
		bts_txn_error(txn), "delete");
}

static void make_write(
	struct make *m, const char *name, const char *suffix, const uint8_t *bytes, size_t size)
{
	char path[600];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s%s", m->folder, name, suffix);
	file = fopen(path, "wb");
	if (!file || fwrite(bytes, 1, size, file) != size || fclose(file)) {
		perror(path);
		exit(1);
	}
}

/* What reading it gives. */
static void make_expect(struct make *m, const char *name)
{
	char line[GOLDEN_LINE];

	make_open(m, BTS_OPEN_READ_ONLY, 0);
	golden_line(m->db, line);
	golden_must(bts_check(m->db, NULL, &m->error), &m->error, name);
	make_close(m);
	fprintf(m->expected, "%s %s\n", name, line);
}

/* Nothing has it open any more. */
static void make_end(struct make *m, const char *name)
{
	uint64_t size, pending = 0;
	const uint8_t *bytes = env_mem_bytes(m->mem, PATH, &size);
	const uint8_t *log = env_mem_bytes(m->mem, PATH ".pending", &pending);
	struct env_mem *copy = env_mem_clone(m->mem), *original = m->mem;
	struct bts_stat stat = {.size = sizeof(stat)};

	/* Asked of a copy: opening may recover. */
	m->mem = copy;
	make_open(m, BTS_OPEN_READ_ONLY, 0);
	golden_must(bts_stat(m->db, &stat, &m->error), &m->error, "stat");
	make_close(m);
	env_mem_free(copy);
	m->mem = original;
	if (size > stat.pages * stat.page_size)
		size = stat.pages * stat.page_size;
	make_write(m, name, "", bytes, size);
	if (pending)
		make_write(m, name, ".pending", log, pending);
	make_expect(m, name);
	env_mem_free(m->mem);
	m->mem = NULL;
}

static void make_empty(struct make *m)
{
	make_begin(m, 4096);
	make_close(m);
	make_end(m, "empty.bts");
}

/* Names, notes, keys and values of all sizes, a bucket without entries and one that has lost them. */
static void make_buckets(struct make *m)
{
	static const size_t sizes[] = {0, 1, 100, 1000, 1024, 1025, 3000, 8192, 65536, 70000};
	char long_name[256], text[BTS_KEY_MAX];
	struct bts_txn *txn;

	make_begin(m, 4096);
	memset(long_name, 'n', 255);
	long_name[255] = 0;
	txn = make_txn(m);
	golden_must(bts_bucket_set_meta(
			    txn, make_bucket(m, txn, "notes"), make_name("text/plain; what a note is")),
		bts_txn_error(txn), "note");
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		make_put_number(m, txn, "notes", i, 0, sizes[i]);
	make_bucket(m, txn, "empty");
	make_put_number(m, txn, "emptied", 1, 0, 10);
	make_put(m, txn, long_name, (struct bts_slice){"\0", 1}, 5, 1);
	make_put(m, txn, long_name, (struct bts_slice){"\0\0", 2}, 6, 2);
	make_put_number(m, txn, long_name, 7, BTS_KEY_MAX - 8, 700);
	make_put_number(m, txn, long_name, 8, BTS_KEY_MAX - 8, 1500);
	make_commit(m, txn);
	txn = make_txn(m);
	make_del_number(m, txn, "emptied", 1, 0);
	make_put(m, txn, "notes", make_key(3, 0, text), 9000, 99);
	make_commit(m, txn);
	make_close(m);
	make_end(m, "buckets.bts");
}

/* Five levels, and leaves that keys were deleted from. */
static void make_deep(struct make *m)
{
	struct bts_txn *txn;

	make_begin(m, 4096);
	txn = make_txn(m);
	for (unsigned i = 0; i < 64; i++)
		make_put_number(m, txn, "deep", i * 3, 1000, 20);
	make_commit(m, txn);
	txn = make_txn(m);
	for (unsigned i = 20; i < 40; i += 2)
		make_del_number(m, txn, "deep", i * 3, 1000);
	make_commit(m, txn);
	make_close(m);
	make_end(m, "deep.bts");
}

static void make_snapshots(struct make *m)
{
	struct bts_txn *txn;

	make_begin(m, 4096);
	for (unsigned round = 0; round < 4; round++) {
		txn = make_txn(m);
		for (unsigned i = 0; i < 12; i++)
			make_put_number(m, txn, round == 2 ? "later" : "numbers", 100 * round / 2 + 5 * i, 0,
				300 + 40 * round);
		if (round == 1)
			make_put_number(m, txn, "numbers", 999, 0, 5000);
		if (round < 3)
			golden_must(bts_snapshot_create(txn,
					    make_name(round == 0   ? "first"
						      : round == 1 ? "second"
								   : "a"),
					    &m->error),
				&m->error, "snapshot");
		if (round == 1)
			golden_must(bts_snapshot_create(txn, make_name("second again"), &m->error), &m->error,
				"snapshot");
		if (round == 3)
			golden_must(bts_bucket_drop(txn, make_name("later"), &m->error), &m->error, "drop");
		make_commit(m, txn);
	}
	txn = make_txn(m);
	golden_must(bts_snapshot_delete(txn, make_name("first"), &m->error), &m->error, "delete");
	make_commit(m, txn);
	make_close(m);
	make_end(m, "snapshots.bts");
}

/* So many commits that positions went to the history tree and entries of the free log to pages. */
static void make_freelog(struct make *m)
{
	make_begin(m, 4096);
	for (unsigned i = 0; i < 100; i++)
		make_one(m, i * 37, 60);
	make_close(m);
	make_end(m, "freelog.bts");
}

/* Another file of the same bytes: who writes to it begins a new epoch. */
static void make_copied(struct make *m)
{
	uint64_t size;
	const uint8_t *bytes = env_mem_bytes(m->mem, PATH, &size);
	uint8_t *copy = malloc(size);

	if (!copy)
		exit(1);
	memcpy(copy, bytes, size);
	env_mem_put_file(m->mem, PATH, copy, size);
	free(copy);
}

/* Deaths and a copy: gaps in the numbers, segments inline and in the tree, a second epoch. */
static void make_history(struct make *m)
{
	make_begin(m, 4096);
	for (unsigned i = 0; i < 60; i++) {
		make_one(m, i, 30);
		if (i % 8 != 5)
			continue;
		make_kill(m);
		make_open(m, 0, 0);
	}
	make_close(m);
	make_copied(m);
	make_open(m, 0, 0);
	make_one(m, 1000, 30);
	make_close(m);
	make_end(m, "history.bts");
}

/* Ends of the file that were cut off; what the log says of them means nothing. */
static void make_compacted(struct make *m)
{
	struct bts_compact_info info = {.size = sizeof(info), .more = 1};
	struct bts_txn *txn;

	make_begin(m, 4096);
	txn = make_txn(m);
	for (unsigned i = 0; i < 120; i++)
		make_put_number(m, txn, "numbers", i, 0, 900);
	make_put_number(m, txn, "large", 1, 0, 30000);
	make_commit(m, txn);
	txn = make_txn(m);
	for (unsigned i = 0; i < 100; i++)
		make_del_number(m, txn, "numbers", i, 0);
	make_commit(m, txn);
	while (info.more)
		golden_must(bts_compact_step(m->db, 8, &info, &m->error), &m->error, "compact");
	make_close(m);
	make_end(m, "compacted.bts");
}

/* Killed after a commit of one flush: the newest slot has a manifest. */
static void make_killed(struct make *m)
{
	make_begin(m, 4096);
	for (unsigned i = 0; i < 3; i++)
		make_one(m, i, i == 2 ? 6000 : 50);
	make_kill(m);
	make_end(m, "killed.bts");
}

/* Killed after the opening commit that follows such a death: two flushes. */
static void make_reopened(struct make *m)
{
	make_begin(m, 4096);
	make_one(m, 1, 50);
	make_kill(m);
	make_open(m, 0, 0);
	make_kill(m);
	make_end(m, "reopened.bts");
}

static struct env_mem_choice make_choose(void *arg, size_t index, const struct env_mem_unit *unit)
{
	bool slot = unit->offset < 4096 || (unit->offset >= 32768 && unit->offset < 36864);

	if (unit->kind == ENV_MEM_UNIT_SECTOR && !slot)
		return env_mem_choose_durable(arg, index, unit);
	return env_mem_choose_newest(arg, index, unit);
}

static void make_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	struct make *m = arg;

	if (m->crashed)
		return;
	if (m->point && event->op == ENV_MEM_FAULT && !strcmp(event->path, m->point))
		m->crashed = env_mem_clone(mem);
	if (!m->point && event->op == ENV_MEM_SYNC && !strcmp(event->path, PATH))
		m->crashed = env_mem_crash(mem, make_choose, NULL);
}

static void make_take_crashed(struct make *m)
{
	if (!m->crashed) {
		fprintf(stderr, "%s was never reached\n", m->point ? m->point : "a flush");
		exit(1);
	}
	env_mem_set_hook(m->mem, NULL, NULL);
	make_close(m);
	env_mem_free(m->mem);
	m->mem = m->crashed;
	m->crashed = NULL;
}

/* Power loss that kept the newest slot and lost its pages: the other slot is the state. */
static void make_torn(struct make *m)
{
	make_begin(m, 4096);
	make_one(m, 1, 50);
	make_one(m, 2, 50);
	m->point = NULL;
	env_mem_set_hook(m->mem, make_hook, m);
	make_one(m, 3, 50);
	make_take_crashed(m);
	make_end(m, "torn.bts");
}

static void make_pages(struct make *m, uint32_t page_size, const char *name)
{
	struct bts_txn *txn;

	make_begin(m, page_size);
	txn = make_txn(m);
	for (unsigned i = 0; i < 20; i++)
		make_put_number(m, txn, "numbers", i, i % 2, 40 * i);
	make_put_number(m, txn, "numbers", 100, 0, page_size / 4 + 1);
	make_commit(m, txn);
	make_close(m);
	make_end(m, name);
}

static void make_pages_8k(struct make *m)
{
	make_pages(m, 8192, "pages8k.bts");
}

static void make_pages_64k(struct make *m)
{
	make_pages(m, 65536, "pages64k.bts");
}

static void make_ship(struct make *m, struct bts *source)
{
	struct bts_position base;
	struct bts_apply *apply;
	struct bts_page_id id;
	struct bts_slice bytes;
	struct bts_walk *walk;
	enum bts_err err;

	golden_must(bts_ship_position(m->db, &base, &m->error), &m->error, "position");
	golden_must(bts_walk_open(source, base.txid, &walk, &m->error), &m->error, "walk");
	golden_must(bts_apply_begin(m->db, &base, bts_walk_position(walk), &apply, &m->error), &m->error,
		"apply");
	while ((err = bts_walk_next(walk, &id, &bytes, &m->error)) == BTS_OK)
		golden_must(bts_apply_piece(apply, &id, 0, bytes, &m->error), &m->error, "piece");
	golden_must(err == BTS_NOT_FOUND ? BTS_OK : err, &m->error, "walk");
	golden_must(bts_apply_finish(apply, bts_walk_record(walk), &m->error), &m->error, "finish");
	bts_walk_close(walk);
}

static void make_source_commit(struct make *m, struct bts *source, unsigned number, size_t size)
{
	struct bts *follower = m->db;

	m->db = source;
	make_one(m, number, size);
	m->db = follower;
}

static void make_frame_unit(FILE *file, struct frame_encoder *encoder, const struct bts_page_id *id,
	struct bts_slice bytes, uint32_t page_size)
{
	uint8_t out[FRAME_INDEX_MAX];
	struct frame_piece piece = {.id = *id};

	/* Two pages a chunk, so that large values come in pieces. */
	for (; piece.first < id->count; piece.first += piece.pages) {
		const uint8_t *data = (const uint8_t *)bytes.data + (size_t)piece.first * page_size;
		size_t size;

		piece.pages = id->count - piece.first < 2 ? id->count - piece.first : 2;
		fwrite(out, 1, frame_encode_index(encoder, &piece, 1, out), file);
		size = (size_t)piece.pages * page_size;
		frame_encode_payload(encoder, data, size);
		fwrite(data, 1, size, file);
		fwrite(out, 1, frame_encode_chunk_end(encoder, out), file);
	}
}

/* All of the database as it would go to an empty follower. */
static void make_frame(struct make *m, const char *name)
{
	struct frame_encoder encoder;
	struct frame_header header;
	uint8_t out[FRAME_TRAILER_MAX];
	struct bts_page_id id;
	struct bts_slice bytes;
	struct bts_walk *walk;
	char path[600];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", m->folder, name);
	file = fopen(path, "wb");
	if (!file) {
		perror(path);
		exit(1);
	}
	golden_must(bts_walk_open(m->db, 0, &walk, &m->error), &m->error, "walk");
	header = (struct frame_header){
		.target = *bts_walk_position(walk), .page_size = bts_walk_page_size(walk)};
	fwrite(out, 1, frame_encode_header(&encoder, &header, out), file);
	while (bts_walk_next(walk, &id, &bytes, &m->error) == BTS_OK)
		make_frame_unit(file, &encoder, &id, bytes, header.page_size);
	fwrite(out, 1, frame_encode_trailer(&encoder, bts_walk_record(walk), out), file);
	bts_walk_close(walk);
	if (ferror(file) || fclose(file)) {
		perror(path);
		exit(1);
	}
}

/* A follower; then one that was killed with pages of a frame in path.pending that its newest slot needs. */
static void make_follower(struct make *m, bool killed)
{
	struct bts_position position;
	struct bts_options options;
	struct bts *source;

	make_begin(m, 0);
	golden_must(
		golden_open(env_mem_env(m->mem), SOURCE, 0, 4096, &source, &m->error), &m->error, "source");
	make_source_commit(m, source, 1, 100);
	golden_must(bts_ship_position(source, &position, &m->error), &m->error, "position");
	bts_options_init(&options);
	options.env = env_mem_env(m->mem);
	golden_must(bts_ship_create(PATH, &options, &position, 4096, &m->error), &m->error, "create");
	make_open(m, BTS_OPEN_FOLLOWER, 0);
	make_ship(m, source);
	for (unsigned i = 2; i < 6; i++)
		make_source_commit(m, source, i, i == 3 ? 5000 : 100);
	make_ship(m, source);
	if (!killed)
		make_frame(m, "follower.frame");
	m->point = "apply.publish";
	if (killed) {
		env_mem_set_hook(m->mem, make_hook, m);
		for (unsigned i = 6; i < 12; i++)
			make_source_commit(m, source, i, 100);
		make_ship(m, source);
	}
	bts_close(source);
	if (killed)
		make_take_crashed(m);
	else
		make_close(m);
	make_end(m, killed ? "pending2.bts" : "follower.bts");
}

int main(int argc, char **argv)
{
	static void (*const scenarios[])(struct make *) = {make_empty, make_buckets, make_deep,
		make_snapshots, make_freelog, make_history, make_compacted, make_killed, make_reopened,
		make_torn, make_pages_8k, make_pages_64k};
	static struct make m;
	char path[600];

	if (argc != 2) {
		fprintf(stderr, "usage: golden_make FOLDER\n");
		return 2;
	}
	m.folder = argv[1];
	snprintf(path, sizeof(path), "%s/expected.txt", m.folder);
	m.expected = fopen(path, "w");
	if (!m.expected) {
		perror(path);
		return 1;
	}
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
		scenarios[i](&m);
	make_follower(&m, false);
	make_follower(&m, true);
	if (fclose(m.expected)) {
		perror(path);
		return 1;
	}
	return 0;
}
