/*
 * A writer that is held to a deadline: what a program does that is primary only while it holds a lease somewhere else.
 *
 *	cc deadline_writer.c $(pkg-config --cflags --libs btree_store)
 *	./a.out FILE
 *
 * Whoever keeps the lease (here: lines on standard input) tells the library each time it was renewed until when it lasts, less a
 * margin.  Every process that has the file open obeys.  Lines, and what is answered:
 *
 *	for MS         the lease lasts so long from now on                         "ok"
 *	give-up        it was given up, or is known to be lost                     "ok"
 *	left           how much is left of it                                      milliseconds, or "none in use"
 *	put KEY VALUE  "ok": done.  "fenced": nothing was changed.  "outcome-unknown": neither may be believed, see put
 *	get KEY        the value, or "not-found"
 */
#include <btree_store.h>
#include <btree_store/ship.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct pair {
	struct bts_slice key, value;
};

/* The clock of the deadline: it goes on while the machine sleeps, and nobody sets it. */
static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static enum bts_err put_one(struct bts_txn *txn, void *arg)
{
	const struct pair *pair = arg;
	struct bts_bucket *bucket;
	enum bts_err err = bts_bucket(txn, (struct bts_slice){"things", 6}, BTS_CREATE, &bucket, NULL);

	return err ? err : bts_put(txn, bucket, pair->key, pair->value, 0);
}

/*
 * BTS_UNKNOWN: the change is in this file, or will be, but another primary may have begun without it.  Who holds the lease again,
 * or the new primary, is asked whether it stands before it is done once more.
 */
static void put(struct bts *db, char *rest)
{
	char *space = strchr(rest, ' ');
	struct bts_error error = {0};
	struct pair pair;
	enum bts_err err;

	if (!space || space == rest) {
		puts("put KEY VALUE");
		return;
	}
	pair.key = (struct bts_slice){rest, (size_t)(space - rest)};
	pair.value = (struct bts_slice){space + 1, strlen(space + 1)};
	err = bts_update(db, put_one, &pair, &error);
	puts(bts_err_name(err));
	if (err)
		fprintf(stderr, "%s\n", error.text);
}

static enum bts_err get_one(struct bts_txn *txn, void *arg)
{
	struct pair *pair = arg;
	struct bts_bucket *bucket;
	enum bts_err err = bts_bucket(txn, (struct bts_slice){"things", 6}, 0, &bucket, NULL);

	if (!err)
		err = bts_get(txn, bucket, pair->key, &pair->value);
	if (!err)
		printf("%.*s\n", (int)pair->value.size, (const char *)pair->value.data);
	return err;
}

/* Readers need no deadline. */
static void get(struct bts *db, const char *key)
{
	struct pair pair = {.key = {key, strlen(key)}};
	enum bts_err err = bts_view(db, get_one, &pair, NULL);

	if (err)
		puts(bts_err_name(err));
}

static void left(struct bts *db)
{
	uint64_t ms;

	if (bts_deadline(db, NULL, &ms) == BTS_NOT_FOUND)
		puts("none in use");
	else
		printf("%" PRIu64 "\n", ms);
}

static void run(struct bts *db, char *line)
{
	struct bts_error error = {0};
	enum bts_err err = BTS_OK;

	line[strcspn(line, "\n")] = '\0';
	if (!strncmp(line, "put ", 4)) {
		put(db, line + 4);
	} else if (!strncmp(line, "get ", 4)) {
		get(db, line + 4);
	} else if (!strcmp(line, "left")) {
		left(db);
	} else {
		if (!strncmp(line, "for ", 4)) /* a real one: from when the lease was asked for, not from the answer */
			err = bts_deadline_set(db, now_ms() + strtoull(line + 4, NULL, 10), &error);
		else if (!strcmp(line, "give-up"))
			err = bts_deadline_set(db, 0, &error);
		else
			err = BTS_INVALID;
		puts(bts_err_name(err));
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct bts_options options;
	struct bts_error error;
	struct bts *db;
	char line[1024];

	if (argc != 2) {
		fprintf(stderr, "usage: %s FILE\n", argv[0]);
		return 2;
	}
	bts_options_init(&options);
	options.flags = BTS_OPEN_DEADLINE;
	if (bts_open(argv[1], &options, &db, &error)) {
		fprintf(stderr, "%s\n", error.text);
		return 1;
	}
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		run(db, line);
	bts_close(db);
	return 0;
}
