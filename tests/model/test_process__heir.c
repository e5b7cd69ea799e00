/*
 * Several processes on one file, and their sudden death: readers beside the writer, a second writer beside both,
 * the heir of a killed writer, killed readers.
 *
 * This process only conducts: actors are its children, each with a pipe for commands and one for answers.
 */
#include "bed.h"

#include <errno.h>
#include <rng.h>
#include <signal.h>
#include <sys/wait.h>

#define KEYS 80u

struct actor {
	pid_t pid;
	int to, from;
};

/* The inside of an actor; an answer is a number, UINT64_MAX when something is wrong. */
struct part {
	struct bed bed;
	struct bts_txn *pinned;
	uint64_t number;
};

static uint64_t seed;
static char path[64];

static struct bts_slice key_of(char key[24], unsigned number)
{
	snprintf(key, 24, "key %06u", number);
	return bed_text(key);
}

/* Every key gets the number, some in a large value. */
static uint64_t part_write(struct part *part)
{
	static uint8_t large[20000];
	uint64_t number = part->number + 1;
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	enum bts_err err;

	if (bts_begin(part->bed.db, BTS_WRITE, &txn, NULL))
		return UINT64_MAX;
	for (size_t k = 0; k + 8 <= sizeof(large); k += 8)
		memcpy(large + k, &number, 8);
	err = bts_bucket(txn, bed_text("b"), BTS_CREATE, &bucket, NULL);
	for (unsigned i = 0; i < KEYS && err == BTS_OK; i++) {
		struct bts_slice value = {large, i % 20 ? 200 : sizeof(large)};
		char key[24];

		err = bts_put(txn, bucket, key_of(key, i), value, 0);
	}
	if (err) {
		bts_abort(txn);
		return UINT64_MAX;
	}
	if (bts_commit(txn, &part->bed.error))
		return UINT64_MAX;
	return part->number = number;
}

/* The number that every byte of the snapshot shows. */
static uint64_t part_read(struct bts_txn *txn)
{
	struct bts_slice key, value;
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	uint64_t number = 0, found, entries = 0;

	if (bts_bucket(txn, bed_text("b"), 0, &bucket, NULL))
		return 0;
	if (bts_cursor_open(txn, bucket, &cursor, NULL))
		return UINT64_MAX;
	while (bts_cursor_next(cursor, &key, &value) == BTS_OK) {
		for (size_t at = 0; at + 8 <= value.size; at += 8) {
			memcpy(&found, (const uint8_t *)value.data + at, 8);
			if (number == 0)
				number = found;
			if (found != number)
				return UINT64_MAX;
		}
		entries++;
	}
	bts_cursor_close(cursor);
	return entries == KEYS ? number : UINT64_MAX;
}

static uint64_t part_open(struct part *part, unsigned flags)
{
	enum bts_err err;

	strcpy(part->bed.path, path);
	err = bed_try_open(&part->bed, flags, &part->bed.db);
	if (err)
		part->bed.db = NULL;
	return err;
}

static uint64_t part_number(struct part *part)
{
	struct bts_txn *txn;

	if (bts_begin(part->bed.db, BTS_READ, &txn, NULL))
		return UINT64_MAX;
	part->number = part_read(txn);
	bts_abort(txn);
	return part->number;
}

static uint64_t part_stat(struct part *part, char what)
{
	struct bts_stat stat = {.size = sizeof(stat)};

	if (bts_stat(part->bed.db, &stat, NULL))
		return UINT64_MAX;
	return what == 'p' ? stat.pinned_pages : what == 'l' ? (uint64_t)stat.clean_open : stat.readers;
}

static uint64_t part_do(struct part *part, char command)
{
	switch (command) {
	case 'o': /* open for writing */
		return part_open(part, 0);
	case 'r': /* open for reading */
		return part_open(part, BTS_OPEN_READ_ONLY);
	case 'c': /* close */
		bts_close(part->bed.db);
		return 0;
	case 'w':
		return part_write(part);
	case 'n': /* the number now */
		return part_number(part);
	case 'b': /* pin a snapshot */
		return bts_begin(part->bed.db, BTS_READ, &part->pinned, NULL) ? UINT64_MAX
									      : part_read(part->pinned);
	case 'h': /* what the pinned snapshot holds */
		return part_read(part->pinned);
	case 'e':
		bts_abort(part->pinned);
		return 0;
	case 'k':
		return bts_check(part->bed.db, &(struct bts_check_options){.report = bed_report}, NULL);
	default:
		return part_stat(part, command);
	}
}

static void answer(int to, uint64_t number)
{
	if (write(to, &number, sizeof(number)) != (ssize_t)sizeof(number))
		_exit(1);
}

static void part_run(int from, int to)
{
	struct part part = {0};
	char command;

	while (read(from, &command, 1) == 1 && command != 'q') {
		if (command != 'f') {
			answer(to, part_do(&part, command));
			continue;
		}
		for (;;) /* commit for ever: an answer is an acknowledgement */
			answer(to, part_write(&part));
	}
	_exit(0);
}

static struct actor cast(void)
{
	struct actor actor;
	int to[2], from[2];

	assert_int_equal(pipe2(to, 0), 0);
	assert_int_equal(pipe2(from, 0), 0);
	fflush(NULL);
	actor.pid = fork();
	assert_true(actor.pid >= 0);
	if (actor.pid == 0) {
		close(to[1]);
		close(from[0]);
		part_run(to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	actor.to = to[1];
	actor.from = from[0];
	return actor;
}

static void tell(const struct actor *actor, char command)
{
	assert_int_equal(write(actor->to, &command, 1), 1);
}

static uint64_t hear(const struct actor *actor)
{
	uint64_t number = 0;

	assert_int_equal(read(actor->from, &number, sizeof(number)), sizeof(number));
	return number;
}

static uint64_t ask(const struct actor *actor, char command)
{
	tell(actor, command);
	return hear(actor);
}

/* Returns the last acknowledgement found in the pipe, or `acknowledged`. */
static uint64_t kill_actor(struct actor *actor, uint64_t acknowledged)
{
	uint64_t number;

	kill(actor->pid, SIGKILL);
	assert_int_equal(waitpid(actor->pid, NULL, 0), actor->pid);
	while (read(actor->from, &number, sizeof(number)) == (ssize_t)sizeof(number)) {
		assert_true(number != UINT64_MAX);
		acknowledged = number;
	}
	close(actor->to);
	close(actor->from);
	return acknowledged;
}

static void dismiss(struct actor *actor)
{
	int status;

	tell(actor, 'q'); /* later actors hold the pipe too, so closing it would not do */
	close(actor->to);
	assert_int_equal(waitpid(actor->pid, &status, 0), actor->pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(actor->from);
}

static int fresh(void **state)
{
	struct bed bed = {0};

	(void)state;
	snprintf(path, sizeof(path), "/tmp/bts-process-%d", (int)getpid());
	strcpy(bed.path, path);
	bed_remove(&bed);
	return 0;
}

/* What is left opens, is sound, and holds the number. */
static void afterwards(uint64_t low, uint64_t high)
{
	struct actor last = cast();
	struct bed bed = {0};

	assert_int_equal(ask(&last, 'o'), BTS_OK);
	assert_in_range(ask(&last, 'n'), low, high);
	assert_int_equal(ask(&last, 'k'), BTS_OK);
	assert_true(ask(&last, 'w') != UINT64_MAX);
	assert_int_equal(ask(&last, 'c'), 0);
	assert_int_equal(ask(&last, 'o'), BTS_OK);
	assert_int_equal(ask(&last, 'l'), 1);
	ask(&last, 'c');
	dismiss(&last);
	strcpy(bed.path, path);
	bed_remove(&bed);
}

static void a_reader_beside_the_writer(void **state)
{
	struct actor writer = cast(), reader = cast(), other = cast();

	(void)state;
	assert_int_equal(ask(&reader, 'r'), BTS_NOT_FOUND); /* a reader makes no file */
	assert_int_equal(ask(&writer, 'o'), BTS_OK);
	assert_int_equal(ask(&reader, 'r'), BTS_OK);
	for (uint64_t i = 1; i < 100; i++) {
		assert_int_equal(ask(&writer, 'w'), i);
		assert_int_equal(ask(&reader, 'n'), i);
	}
	assert_int_equal(ask(&other, 'o'), BTS_OK); /* beside both */
	assert_int_equal(ask(&reader, 'k'), BTS_OK);
	ask(&writer, 'c');
	dismiss(&writer);
	assert_int_equal(ask(&reader, 'n'), 99);
	assert_int_equal(ask(&other, 'n'), 99);
	assert_int_equal(ask(&other, 'w'), 100);
	assert_int_equal(ask(&reader, 'n'), 100);
	ask(&reader, 'c');
	ask(&other, 'c');
	dismiss(&reader);
	dismiss(&other);
	afterwards(100, 100);
}

/* Let it commit for ever, wait for some acknowledgements, kill it at any moment. */
static uint64_t commit_and_die(struct actor *writer, struct rng *rng)
{
	uint64_t acknowledged = 0;

	tell(writer, 'f');
	for (uint64_t n = 1 + rng_below(rng, 12); n > 0; n--)
		acknowledged = hear(writer);
	for (volatile uint64_t spin = rng_below(rng, 300000); spin > 0; spin--)
		;
	return kill_actor(writer, acknowledged);
}

/* M2, G5: each heir finds all that was acknowledged, and what it does leaves an old snapshot as it was. */
static void heirs(void **state)
{
	struct actor writer = cast(), reader = cast(), second = cast();
	uint64_t pinned, acknowledged = 0, number;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	assert_int_equal(ask(&writer, 'o'), BTS_OK);
	for (int i = 0; i < 5; i++)
		ask(&writer, 'w');
	assert_int_equal(ask(&reader, 'r'), BTS_OK);
	assert_int_equal(ask(&second, 'r'), BTS_OK);
	pinned = ask(&reader, 'b');
	assert_int_equal(pinned, 5);
	for (int round = 0; round < 15; round++) {
		acknowledged = commit_and_die(&writer, &rng);
		assert_int_equal(ask(&reader, 'h'), pinned);
		number = ask(&reader, 'n'); /* while there is no writer */
		assert_in_range(number, acknowledged, acknowledged + 1);
		assert_in_range(ask(&second, 'b'), acknowledged, acknowledged + 1);
		writer = cast();
		assert_int_equal(ask(&writer, 'o'), BTS_OK);
		number = ask(&writer, 'n');
		assert_in_range(number, acknowledged, acknowledged + 1);
		for (int i = 0; i < 20; i++) {
			assert_int_equal(ask(&writer, 'w'), ++number);
			assert_int_equal(ask(&reader, 'h'), pinned);
		}
		assert_in_range(ask(&second, 'h'), acknowledged, acknowledged + 1);
		ask(&second, 'e');
		assert_int_equal(ask(&second, 'n'), number);
		assert_int_equal(ask(&second, 'k'), BTS_OK);
		if (round == 7) { /* another old snapshot */
			ask(&reader, 'e');
			pinned = ask(&reader, 'b');
			assert_int_equal(pinned, number);
		}
	}
	acknowledged = number;
	ask(&writer, 'c');
	dismiss(&writer);
	assert_int_equal(ask(&reader, 'h'), pinned);
	ask(&reader, 'e');
	dismiss(&reader);
	dismiss(&second);
	afterwards(acknowledged, acknowledged);
}

static void everybody_killed(void **state)
{
	uint64_t acknowledged = 0;
	struct rng rng;

	(void)state;
	rng_init(&rng, seed + 1);
	for (int round = 0; round < 15; round++) {
		struct actor writer = cast(), reader = cast();

		assert_int_equal(ask(&writer, 'o'), BTS_OK);
		assert_in_range(ask(&writer, 'n'), acknowledged, acknowledged + 1);
		assert_int_equal(ask(&writer, 'l'), round == 0);
		assert_int_equal(ask(&reader, 'r'), BTS_OK);
		ask(&reader, 'b');
		acknowledged = commit_and_die(&writer, &rng);
		kill_actor(&reader, 0);
		reader = cast(); /* a reader alone recovers, a writer beside it inherits */
		if (round % 3 == 0) {
			assert_int_equal(ask(&reader, 'r'), BTS_OK);
			assert_in_range(ask(&reader, 'b'), acknowledged, acknowledged + 1);
			writer = cast();
			assert_int_equal(ask(&writer, 'o'), BTS_OK);
			for (int i = 0; i < 10; i++)
				assert_int_equal(
					i == 0 ? ask(&writer, 'n') > 0 : ask(&writer, 'w') != UINT64_MAX, 1);
			assert_in_range(ask(&reader, 'h'), acknowledged, acknowledged + 1);
			acknowledged = ask(&writer, 'n');
			assert_int_equal(ask(&writer, 'k'), BTS_OK);
			kill_actor(&writer, 0);
		}
		kill_actor(&reader, 0);
	}
	afterwards(acknowledged, acknowledged + 1);
}

static void a_killed_reader_pins_nothing(void **state)
{
	struct actor writer = cast(), reader = cast();

	(void)state;
	assert_int_equal(ask(&writer, 'o'), BTS_OK);
	assert_int_equal(ask(&writer, 'w'), 1);
	assert_int_equal(ask(&reader, 'r'), BTS_OK);
	assert_int_equal(ask(&reader, 'b'), 1);
	for (int i = 0; i < 100; i++)
		ask(&writer, 'w');
	assert_true(ask(&writer, 'p') > KEYS / 20 * 5);
	assert_int_equal(ask(&writer, 's'), 1);
	assert_int_equal(ask(&reader, 'h'), 1);
	kill_actor(&reader, 0);
	assert_int_equal(ask(&writer, 's'), 0);
	ask(&writer, 'w');
	ask(&writer, 'w');
	assert_true(ask(&writer, 'p') < KEYS); /* what the newest commit replaced, no more */
	ask(&writer, 'c');
	dismiss(&writer);
	afterwards(103, 103);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_reader_beside_the_writer, fresh),
		cmocka_unit_test_setup(heirs, fresh),
		cmocka_unit_test_setup(everybody_killed, fresh),
		cmocka_unit_test_setup(a_killed_reader_pins_nothing, fresh),
	};

	signal(SIGPIPE, SIG_IGN);
	alarm(300);
	seed = rng_seed_from(argc, argv, 5);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
