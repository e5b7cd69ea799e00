/*
 * Two transactions of one snapshot, theirs commits first: does mine?  A row for each pair of operations,
 * tried at snapshot isolation and serializable (C1, C2, C3).  At the start the buckets b and o have the even
 * keys 0000 to 3998 in many leaves.  Theirs: operations separated by ';', a commit each; mine: all in one
 * transaction.
 *
 *	put BUCKET KEY | del BUCKET KEY | range BUCKET FROM TO ("-": open) | wipe BUCKET (key by key)
 *	make BUCKET | drop BUCKET | name BUCKET NEW | note BUCKET
 *	get BUCKET KEY | scan BUCKET FROM COUNT | back BUCKET FROM COUNT | open BUCKET | info BUCKET | list
 */
#include "bed.h"

#define KEYS 4000u

enum outcome { FINE, CLASH, EITHER }; /* EITHER: told from neighbours, so a conflict is allowed */

struct row {
	const char *theirs, *mine;
	enum outcome plain, serial;
};

static const struct row rows[] = {
	/* keys that are there */
	{"put b 0100", "put b 0100", CLASH, CLASH},
	{"put b 0100", "put b 0102", FINE, FINE},
	{"put b 0100", "put b 3000", FINE, FINE},
	{"put b 0100", "put o 0100", FINE, FINE},
	{"put b 0100", "del b 0100", CLASH, CLASH},
	{"put b 0100", "del b 0102", FINE, CLASH}, /* a deletion tells whether the key was there */
	{"put b 0100", "del b 3000", FINE, FINE},
	{"put b 0100", "del o 0100", FINE, FINE},
	{"del b 0100", "put b 0100", CLASH, CLASH},
	{"del b 0100", "put b 0102", FINE, FINE},
	{"del b 0100", "put b 3000", FINE, FINE},
	{"del b 0100", "del b 0100", CLASH, CLASH},
	{"del b 0100", "del b 0102", FINE, CLASH},
	{"put b 0100; put b 0100", "put b 0100", CLASH, CLASH}, /* A, B, A */
	{"del b 0100; put b 0100", "put b 0100", CLASH, CLASH},
	/* keys that are not */
	{"put b 0101", "put b 0101", CLASH, CLASH},
	{"put b 0101", "put b 0103", FINE, FINE},
	{"put b 0101", "put b 3001", FINE, FINE},
	{"put b 0101", "put o 0101", FINE, FINE},
	{"del b 0100", "put b 0101", EITHER, EITHER},
	{"del b 0100", "put b 3001", FINE, FINE},
	{"put b 0101; del b 0101", "put b 0101", CLASH, CLASH},
	{"put b 0101; del b 0101", "put b 3001", FINE, FINE},
	{"put b 0101; del b 0101", "put b 0101; del b 0101", CLASH, CLASH},
	{"put b 0101; del b 0101; put b 0099; put b 0103; put b 0105", "put b 0101", CLASH, CLASH},
	/* their leaf has gone: merged, its tree collapsed, emptied, cut */
	{"put b 0101; del b 0101; range b 0050 0101", "put b 0101", CLASH, CLASH},
	{"put b 0101; range b 0050 0150", "put b 0101", CLASH, CLASH},
	{"put b 0101; range b - 3000", "put b 0101", CLASH, CLASH},
	{"put b 0101; range b 0050 -", "put b 0101", CLASH, CLASH},
	{"put b 0101; range b - -", "put b 0101", CLASH, CLASH},
	{"put b 0101; wipe b", "put b 0101", CLASH, CLASH},
	{"put b 0101; range b - -; put b 0101; del b 0101", "put b 0101", CLASH, CLASH},
	{"range b - -; put b 0000", "put b 0101", EITHER, EITHER},
	{"put b 0101; range b 0050 3900; range b 3900 -; range b - 0050", "put b 0101", CLASH, CLASH},
	/* ranges */
	{"range b 0100 0200", "put b 0101", CLASH, CLASH},
	{"range b 0100 0200", "put b 0100", CLASH, CLASH},
	{"range b 0100 0200", "del b 0150", CLASH, CLASH},
	{"range b 0100 3000", "put b 2001", CLASH, CLASH},
	{"range b 0100 3000", "put b 2999", CLASH, CLASH},
	{"range b 0100 0200", "put b 3000", FINE, FINE},
	{"range b 0100 0200", "put b 3001", FINE, FINE},
	{"range b 0100 0200", "put o 0101", FINE, FINE},
	{"range b 0101 0102", "put b 0101", FINE, FINE}, /* nothing was there, nothing was done */
	{"put b 0101", "range b 0100 0200", CLASH, CLASH},
	{"put b 0100", "range b 0100 0200", CLASH, CLASH},
	{"put b 0198", "range b 0100 0200", CLASH, CLASH},
	{"put b 0200", "range b 0100 0200", FINE, CLASH}, /* the leaf that says where it ends */
	{"put b 0098", "range b 0100 0200", FINE, CLASH},
	{"put b 3000", "range b 0100 0200", FINE, FINE},
	{"put b 2001", "range b 0100 3000", CLASH, CLASH},
	{"del b 2000", "range b 0100 3000", CLASH, CLASH},
	{"put b 2001; del b 2001", "range b 0100 3000", CLASH, CLASH},
	{"put b 3999", "range b 0100 -", CLASH, CLASH},
	{"put b 0001", "range b - 0100", CLASH, CLASH},
	{"put o 0101", "range b - -", FINE, FINE},
	{"range b 0100 0300", "range b 0200 0400", CLASH, CLASH},
	{"range b 0100 0300", "range b 2000 2400", FINE, FINE},
	{"range b - -", "range b - -", CLASH, CLASH},
	/* buckets */
	{"make c", "make c", CLASH, CLASH},
	{"make c", "make d", FINE, FINE},
	{"put c k", "put c l", CLASH, CLASH}, /* both made it */
	{"drop b", "put b 0100", CLASH, CLASH},
	{"drop b", "put o 0100", FINE, FINE},
	{"drop b", "range b 0100 0200", CLASH, CLASH},
	{"drop b; put b 0100", "put b 0102", CLASH, CLASH},
	{"drop b", "drop b", CLASH, CLASH},
	{"drop b", "note b", CLASH, CLASH},
	{"drop b", "name b c", CLASH, CLASH},
	{"put b 0100", "drop b", CLASH, CLASH},
	{"put b 0101; del b 0101", "drop b", CLASH, CLASH},
	{"note b", "drop b", CLASH, CLASH},
	{"put o 0100", "drop b", FINE, FINE},
	{"put b 0100", "drop b; put b 0100", CLASH, CLASH},
	{"put o 0100", "drop b; put b 0100", FINE, FINE},
	{"note b", "note b", CLASH, CLASH},
	{"note b", "put b 0100", FINE, CLASH}, /* it had opened the bucket */
	{"put b 0100", "note b", FINE, FINE},
	{"note o", "note b", FINE, FINE},
	/* names */
	{"name b c", "put b 0100", CLASH, CLASH},
	{"name b c", "range b 0100 0200", CLASH, CLASH},
	{"name b c", "put o 0100", FINE, FINE},
	{"name b c", "drop b", CLASH, CLASH},
	{"name b c", "note b", CLASH, CLASH},
	{"name b c", "name b c", CLASH, CLASH},
	{"name b c", "name b d", CLASH, CLASH},
	{"name b c", "name o c", CLASH, CLASH},
	{"name b c", "name o d", FINE, FINE},
	{"name b c", "make c", CLASH, CLASH},
	{"name b c; put b 0100", "put b 0100", CLASH, CLASH},
	{"name b c; name c b", "put b 0100", FINE, CLASH},
	{"name b c; name o b; name c o", "put b 0100", CLASH, CLASH}, /* exchanged */
	{"make c", "name b c", CLASH, CLASH},
	{"note b", "name b c", CLASH, CLASH},
	{"put b 0100", "name b c", FINE, FINE}, /* goes with it */
	{"put b 0100", "name b c; put c 0102", FINE, FINE},
	{"put b 0100", "name b c; put c 0100", CLASH, CLASH},
	{"put b 0100", "name b c; range c 0050 0150", CLASH, CLASH},
	{"put b 0100", "name b c; drop c", CLASH, CLASH},
	{"put o 0100", "name b c; put b new; name c d; put d 0100", FINE, FINE},
	{"put b 0100", "name b c; name o b; put b 0100", FINE, FINE},
	{"put o 0100", "name b c; name o b; put b 0100", CLASH, CLASH},
	/* reads */
	{"put b 0100", "get b 0100; put o 0100", FINE, CLASH}, /* write skew */
	{"put b 0100", "get b 0102; put o 0100", FINE, CLASH}, /* the same leaf */
	{"put b 0100", "get b 3000; put o 0100", FINE, FINE},
	{"put b 0101", "get b 0101; put o 0100", FINE, CLASH},
	{"del b 0100", "get b 0100; put o 0100", FINE, CLASH},
	{"range b 0050 0150", "get b 0100; put o 0100", FINE, CLASH},
	{"range b - -", "get b 3001; put o 0100", FINE, CLASH},
	{"put b 0100", "get o 0100; put o 3000", FINE, FINE},
	{"put o 0100", "get b 0100; put o 3000", FINE, FINE},
	{"put b 0100", "put b 0102; get b 0104; put o 0100", FINE,
		CLASH}, /* through an own write in that leaf */
	{"put b 0100", "put b 0102; get b 0102; put o 0100", FINE, CLASH},
	{"put b 3000", "put b 0102; get b 0102; get b 0104; put o 0100", FINE, FINE},
	{"put b 2000", "scan b 0100 20; put o 0100", FINE, FINE},
	{"put b 0121", "scan b 0100 20; put o 0100", FINE, CLASH},
	{"put b 2001", "scan b 0100 1900; put o 0100", FINE, CLASH}, /* across leaves */
	{"put b 3999", "scan b 3900 1000; put o 0100", FINE, CLASH}, /* up to the end */
	{"put b 2001", "range b 1500 2500; scan b 1400 100; put o 0100", CLASH, CLASH},
	{"put b 2001", "back b 3000 1000; put o 0100", FINE, CLASH},
	{"put b 2001", "back b 1000 100; put o 0100", FINE, FINE},
	{"put b 3997", "back b - 10; put o 0100", FINE, CLASH},
	{"put b 0001", "scan b - 10; put o 0100", FINE, CLASH},
	{"make c", "open c; put o 0100", FINE, CLASH},
	{"make c", "open d; put o 0100", FINE, FINE},
	{"make c; drop c", "open c; put o 0100", FINE, FINE},
	{"drop b", "open b; put o 0100", FINE, CLASH},
	{"name b c", "open b; put o 0100", FINE, CLASH},
	{"name b c", "open c; put o 0100", FINE, CLASH},
	{"name b c; name c b", "get b 0100; put o 0100", FINE, CLASH},
	{"put b 0100", "open b; put o 0100", FINE, FINE},
	{"put b 0100", "info b; put o 0100", FINE, CLASH},
	{"put o 0100", "info b; put o 3000", FINE, FINE},
	{"make c", "list; put o 0100", FINE, CLASH},
	{"make z", "list; put o 0100", FINE, CLASH},
	{"put b 0100", "list; put o 0100", FINE, CLASH}, /* a listing has figures */
	{"put b 0100", "name b c; get c 0102; put o 0100", FINE, CLASH},
	{"put b 0100", "name b c; get c 3000; put o 0100", FINE, FINE},
	{"put b 0100", "put b 3000", FINE, FINE},
};

/* With BTS_CONFLICT_STATE: an absent key that was absent is as it was. */
static const struct row states[] = {
	{"del b 0100", "put b 0101", FINE, FINE},
	{"range b 0050 0150", "put b 0101", FINE, FINE},
	{"wipe b", "put b 0101", FINE, FINE},
	{"range b - -; put b 0000", "put b 0101", FINE, FINE},
	{"put b 0101; del b 0101", "put b 0101", FINE, FINE},
	{"put b 0101; range b 0050 0150", "put b 0101; put b 3001", FINE, FINE},
	{"put b 0101", "put b 0101", CLASH, CLASH},
	{"put b 0101; del b 0101; put b 0101", "put b 0101", CLASH, CLASH},
	{"put b 0100", "put b 0100", CLASH, CLASH},
	{"del b 0100", "put b 0100", CLASH, CLASH},
	{"del b 0100; put b 0100", "put b 0100", CLASH, CLASH},
	{"range b 0050 0150", "put b 0100", CLASH, CLASH},
	{"wipe b", "put b 0100", CLASH, CLASH},
	{"wipe b", "del b 0100", CLASH, CLASH},
	{"drop b; put b 0000; del b 0000", "put b 0101", CLASH, CLASH},
	{"name b c; name o b; del b 0100", "put b 0101", CLASH, CLASH},
	{"del b 0100", "name b c; put c 0101", FINE, FINE},
	{"del o 0100", "name b c; name o b; put b 0101", FINE, FINE},
	{"del o 0100", "name b c; name o b; put b 0100", CLASH, CLASH},
	{"range b 0100 0200", "range b 0150 0250", CLASH, CLASH},
};

static struct bed bed;
static struct env_mem *base; /* a closed database with the two buckets */
static unsigned notes;

static struct bts_slice word(const char *text)
{
	return strcmp(text, "-") == 0 ? (struct bts_slice){0} : bed_text(text);
}

static void must(enum bts_err err, enum bts_err also, const char *op)
{
	if (err && err != also)
		fail_msg("%s: %s", op, bts_err_name(err));
}

static void wipe(struct bts_txn *txn, struct bts_bucket *bucket)
{
	struct bts_cursor *cursor;
	struct bts_slice key;
	uint8_t copy[16];

	assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
	while (bts_cursor_first(cursor, &key, NULL) == BTS_OK) {
		memcpy(copy, key.data, key.size);
		assert_int_equal(bts_del(txn, bucket, (struct bts_slice){copy, key.size}), BTS_OK);
	}
	bts_cursor_close(cursor);
}

static void walk(struct bts_txn *txn, struct bts_bucket *bucket, bool back, const char *from, unsigned count)
{
	struct bts_cursor *cursor;
	struct bts_slice key;
	enum bts_err err;

	assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
	if (word(from).size > 0)
		err = bts_cursor_seek(cursor, word(from), &key, NULL);
	else
		err = back ? bts_cursor_last(cursor, &key, NULL) : bts_cursor_first(cursor, &key, NULL);
	while (err == BTS_OK && --count > 0)
		err = back ? bts_cursor_prev(cursor, &key, NULL) : bts_cursor_next(cursor, &key, NULL);
	must(err, BTS_NOT_FOUND, "cursor");
	bts_cursor_close(cursor);
}

static void list(struct bts_txn *txn)
{
	struct bts_slice after = {0};
	struct bts_bucket_info info;

	while (bts_bucket_next(txn, after, &info) == BTS_OK)
		after = info.name;
}

static void do_op(struct bts_txn *txn, const char *op)
{
	char verb[8] = "", name[16] = "", a[16] = "", b[16] = "";
	struct bts_bucket *bucket = NULL;
	struct bts_bucket_info info;
	struct bts_slice value;

	assert_true(sscanf(op, "%7s %15s %15s %15s", verb, name, a, b) >= 1);
	if (strcmp(verb, "list") == 0) {
		list(txn);
	} else if (strcmp(verb, "drop") == 0) {
		must(bts_bucket_drop(txn, word(name), NULL), BTS_OK, op);
	} else if (strcmp(verb, "name") == 0) {
		must(bts_bucket_rename(txn, word(name), word(a), NULL), BTS_OK, op);
	} else if (strcmp(verb, "open") == 0) {
		must(bts_bucket(txn, word(name), 0, &bucket, NULL), BTS_NOT_FOUND, op);
	} else {
		must(bts_bucket(txn, word(name), BTS_CREATE, &bucket, NULL), BTS_OK, op);
		if (strcmp(verb, "put") == 0)
			must(bts_put(txn, bucket, word(a), bed_text("some value of a few bytes"), 0), BTS_OK,
				op);
		else if (strcmp(verb, "del") == 0)
			must(bts_del(txn, bucket, word(a)), BTS_OK, op);
		else if (strcmp(verb, "range") == 0)
			must(bts_del_range(txn, bucket, word(a), word(b), NULL), BTS_OK, op);
		else if (strcmp(verb, "wipe") == 0)
			wipe(txn, bucket);
		else if (strcmp(verb, "note") == 0)
			must(bts_bucket_set_meta(
				     txn, bucket, (struct bts_slice){"another note", 1 + notes++ % 12}),
				BTS_OK, op);
		else if (strcmp(verb, "get") == 0)
			must(bts_get(txn, bucket, word(a), &value), BTS_NOT_FOUND, op);
		else if (strcmp(verb, "scan") == 0 || strcmp(verb, "back") == 0)
			walk(txn, bucket, verb[0] == 'b', a, (unsigned)atoi(b));
		else if (strcmp(verb, "info") == 0)
			must(bts_bucket_info(txn, bucket, &info), BTS_OK, op);
		else
			must(strcmp(verb, "make") ? BTS_INVALID : BTS_OK, BTS_OK, op);
	}
}

/* Each operation in txn or, when that is NULL, in a transaction of its own.  Gives the newest of these. */
static bts_txid run_script(struct bts_txn *txn, const char *script)
{
	char copy[128], *rest, *op;
	bts_txid txid = 0;

	snprintf(copy, sizeof(copy), "%s", script);
	for (op = strtok_r(copy, ";", &rest); op != NULL; op = strtok_r(NULL, ";", &rest)) {
		struct bts_txn *own = txn ? txn : bed_begin(&bed, BTS_WRITE);

		do_op(own, op);
		if (txn == NULL)
			assert_int_equal(bts_commit_id(own, &txid, NULL), BTS_OK);
	}
	return txid;
}

static void fill(void)
{
	static const char *const names[] = {"b", "o"};
	struct bts_txn *txn = bed_begin(&bed, BTS_WRITE);
	char key[16];

	for (unsigned n = 0; n < 2; n++)
		for (unsigned i = 0; i < KEYS; i += 2) {
			snprintf(key, sizeof(key), "%04u", i);
			bed_put(txn, names[n], key, "a value of the beginning");
		}
	bed_commit(&bed, txn);
}

static void begin(void)
{
	memset(&bed, 0, sizeof(bed));
	strcpy(bed.path, "/db");
	bed.mem = env_mem_clone(base);
	bed_open(&bed);
}

static void check_conflict(struct bts_txn *mine, bts_txid snapshot, bts_txid theirs)
{
	bts_txid winner = bts_conflict_winner(mine);
	char text[32];

	if (winner <= snapshot || winner > theirs)
		fail_msg("winner %llu, snapshot %llu, theirs %llu: %s", (unsigned long long)winner,
			(unsigned long long)snapshot, (unsigned long long)theirs, bed.error.text);
	snprintf(text, sizeof(text), "transaction %llu ", (unsigned long long)winner);
	assert_non_null(strstr(bed.error.text, text));
	assert_non_null(strstr(bed.error.text, "bucket \""));
	assert_int_equal(bts_refresh(mine, NULL), BTS_OK);
	assert_true(bts_txn_id(mine) >= winner);
	assert_int_equal(bts_conflict_winner(mine), 0);
	bts_abort(mine);
}

static unsigned run_row(const struct row *row, unsigned flag)
{
	bool serial = flag == BTS_SERIALIZABLE;
	enum outcome expected = serial ? row->serial : row->plain;
	bts_txid snapshot, theirs;
	struct bts_txn *mine;
	enum bts_err err;

	begin();
	mine = bed_begin(&bed, BTS_WRITE | flag);
	snapshot = bts_txn_id(mine);
	run_script(mine, row->mine);
	theirs = run_script(NULL, row->theirs);
	err = bts_commit(mine, &bed.error);
	if (err == BTS_CONFLICT)
		check_conflict(mine, snapshot, theirs);
	bed_fini(&bed);
	if (expected == EITHER ? err == BTS_OK || err == BTS_CONFLICT
			       : err == (expected == FINE ? BTS_OK : BTS_CONFLICT))
		return 0;
	printf("theirs \"%s\", mine \"%s\"%s: %s %s\n", row->theirs, row->mine,
		serial ? ", serializable" : "", bts_err_name(err), err ? bed.error.text : "");
	return 1;
}

static void matrix(void **state)
{
	unsigned wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		for (int serial = 0; serial < 2; serial++)
			wrong += run_row(&rows[i], serial ? BTS_SERIALIZABLE : 0);
	assert_int_equal(wrong, 0);
}

static void matrix_of_states(void **state)
{
	unsigned wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++)
		wrong += run_row(&states[i], BTS_CONFLICT_STATE);
	assert_int_equal(wrong, 0);
}

/* What the loser would have done is not there, what a replayed one did is. */
static void outcomes(void **state)
{
	struct bts_txn *mine;

	(void)state;
	begin();
	mine = bed_begin(&bed, BTS_WRITE);
	run_script(mine, "name b c; put c 0102; range c 0200 0300; put b new");
	run_script(NULL, "put b 0100; put b 0301");
	bed_commit(&bed, mine);
	bed_holds(&bed, "c", "0100", "some value of a few bytes");
	bed_holds(&bed, "c", "0102", "some value of a few bytes");
	bed_holds(&bed, "c", "0200", NULL);
	bed_holds(&bed, "c", "0298", NULL);
	bed_holds(&bed, "c", "0301", "some value of a few bytes");
	bed_holds(&bed, "b", "new", "some value of a few bytes");
	bed_holds(&bed, "b", "0100", NULL);
	bed_fini(&bed);
}

/* Serializable: alone it commits, read only it never conflicts, a group sees its own. */
static void serializable_alone(void **state)
{
	struct bts_txn *txn;

	(void)state;
	begin();
	txn = bed_begin(&bed, BTS_WRITE | BTS_SERIALIZABLE);
	run_script(txn, "scan b - 5000; list; info b; get o 0001; put b 0100; scan b - 5000; range o - 2000; "
			"scan o - 5000");
	bed_commit(&bed, txn);
	txn = bed_begin(&bed, BTS_WRITE | BTS_SERIALIZABLE);
	run_script(txn, "get b 0100");
	run_script(NULL, "put b 0100");
	bed_commit(&bed, txn);
	txn = bed_begin(&bed, BTS_READ | BTS_SERIALIZABLE);
	run_script(NULL, "put b 0100");
	bed_expect(txn, "b", "0102", "a value of the beginning");
	bts_abort(txn);
	txn = bed_begin(&bed, BTS_WRITE | BTS_SERIALIZABLE);
	run_script(txn, "get b 0100; put o 3000");
	run_script(NULL, "put b 0100");
	assert_int_equal(bts_commit(txn, &bed.error), BTS_CONFLICT);
	assert_non_null(strstr(bed.error.text, "read"));
	assert_int_equal(bts_refresh(txn, NULL), BTS_OK); /* what it had read is forgotten */
	run_script(txn, "get b 3000; put o 3000");
	run_script(NULL, "put b 0100");
	bed_commit(&bed, txn);
	bed_fini(&bed);
}

/* What did not succeed for what was not there, or succeeded for that, has read it. */
static void serializable_absent(void **state)
{
	(void)state;
	for (int what = 0; what < 3; what++) {
		struct bts_txn *txn;
		struct bts_load *load;

		begin();
		txn = bed_begin(&bed, BTS_WRITE | BTS_SERIALIZABLE);
		if (what == 0) {
			assert_int_equal(bts_bucket_drop(txn, bed_text("c"), NULL), BTS_NOT_FOUND);
		} else if (what == 1) {
			assert_int_equal(bts_bucket_rename(txn, bed_text("c"), bed_text("d"), NULL), BTS_NOT_FOUND);
		} else {
			assert_int_equal(bts_load_begin(txn, bed_find(txn, "b"), 0, &load, NULL), BTS_OK);
			assert_int_equal(bts_load_add(load, bed_text("5000"), bed_text("v")), BTS_OK);
			assert_int_equal(bts_load_end(load, NULL), BTS_OK);
		}
		run_script(txn, "put o 0100");
		run_script(NULL, what == 2 ? "put b 6000" : "make c");
		assert_int_equal(bts_commit(txn, &bed.error), BTS_CONFLICT);
		bts_abort(txn);
		bed_fini(&bed);
	}
}

static int make_base(void **state)
{
	(void)state;
	bed_init_memory(&bed);
	fill();
	bts_close(bed.db);
	base = bed.mem;
	return 0;
}

static int free_base(void **state)
{
	(void)state;
	env_mem_free(base);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(matrix),
		cmocka_unit_test(matrix_of_states),
		cmocka_unit_test(outcomes),
		cmocka_unit_test(serializable_alone),
		cmocka_unit_test(serializable_absent),
	};

	return cmocka_run_group_tests(tests, make_base, free_base);
}
