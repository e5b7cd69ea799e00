/*
 * What the original promised of several processes that write one file: first committer wins, whoever it is;
 * the loser refreshes and tries again, and nothing of either is lost; readers of a third process see whole
 * states; a process that dies with work open, or in the middle of a commit, stops nobody.
 *
 * This process only conducts: actors are its children, each with a pipe for commands and one for answers, a
 * number each.  Arguments: seed.
 */
#include "bed.h"

#include <errno.h>
#include <rng.h>
#include <signal.h>
#include <sys/wait.h>

#define ACTORS 3u
#define COUNTS 60u
#define ACCOUNTS 40u
#define FUNDS 1000u
#define WRONG UINT64_MAX
#define PAGES_MAX 250u /* a few leaves, history and free log of some thousand commits */

static uint64_t seed;
static struct bed stage;

struct actor {
	pid_t pid;
	unsigned number;
	int to, from;
};

/* The inside of an actor. */
struct part {
	struct bed bed;
	struct bts_txn *txn, *pinned;
	struct bts_bucket *bucket;
	unsigned number;
	struct rng rng;
};

static uint64_t get_number(struct bts_txn *txn, const char *key)
{
	struct bts_bucket *bucket;
	struct bts_slice value;
	uint64_t number = 0;

	if (bts_bucket(txn, bed_text("b"), 0, &bucket, NULL) || bts_get(txn, bucket, bed_text(key), &value))
		return 0;
	memcpy(&number, value.data, sizeof(number));
	return number;
}

static enum bts_err put_number(struct bts_txn *txn, const char *key, uint64_t number)
{
	struct bts_bucket *bucket;
	enum bts_err err = bts_bucket(txn, bed_text("b"), BTS_CREATE, &bucket, NULL);

	return err ? err
		   : bts_put(txn, bucket, bed_text(key), (struct bts_slice){&number, sizeof(number)}, 0);
}

/* One more in the counter of all, and one more in its own. */
static enum bts_err count_one(struct bts_txn *txn, void *arg)
{
	const struct part *part = arg;
	enum bts_err err = put_number(txn, "count", get_number(txn, "count") + 1);
	char key[24];

	snprintf(key, sizeof(key), "count of %u", part->number);
	return err ? err : put_number(txn, key, get_number(txn, key) + 1);
}

static enum bts_err pay(struct bts_txn *txn, void *arg)
{
	struct part *part = arg;
	uint64_t sum = rng_below(&part->rng, 9), funds;
	char from[24], to[24];
	enum bts_err err;

	snprintf(from, sizeof(from), "account %u", (unsigned)rng_below(&part->rng, ACCOUNTS));
	snprintf(to, sizeof(to), "account %u", (unsigned)rng_below(&part->rng, ACCOUNTS));
	funds = get_number(txn, from);
	if (funds < sum)
		return BTS_OK;
	err = put_number(txn, from, funds - sum);
	return err ? err : put_number(txn, to, get_number(txn, to) + sum);
}

static enum bts_err open_accounts(struct bts_txn *txn, void *arg)
{
	enum bts_err err = BTS_OK;

	(void)arg;
	for (unsigned i = 0; i < ACCOUNTS && err == BTS_OK; i++) {
		char key[24];

		snprintf(key, sizeof(key), "account %u", i);
		err = put_number(txn, key, FUNDS);
	}
	return err;
}

static enum bts_err sum_up(struct bts_txn *txn, void *arg)
{
	uint64_t *sum = arg;

	*sum = 0;
	for (unsigned i = 0; i < ACCOUNTS; i++) {
		char key[24];

		snprintf(key, sizeof(key), "account %u", i);
		*sum += get_number(txn, key);
	}
	return BTS_OK;
}

static uint64_t update_often(struct part *part, bts_txn_fn *fn)
{
	struct bts_stat stat = {.size = sizeof(stat)};

	for (unsigned i = 0; i < COUNTS; i++)
		if (bts_update(part->bed.db, fn, part, &part->bed.error))
			return WRONG;
	return bts_stat(part->bed.db, &stat, NULL) ? WRONG : stat.conflicts;
}

static uint64_t watch_accounts(struct part *part)
{
	uint64_t sum;

	for (unsigned i = 0; i < COUNTS * 4; i++)
		if (bts_view(part->bed.db, sum_up, &sum, &part->bed.error) || sum != ACCOUNTS * FUNDS)
			return WRONG;
	return sum;
}

static uint64_t part_number(struct part *part, const char *key)
{
	struct bts_txn *txn;
	uint64_t number;

	if (bts_begin(part->bed.db, BTS_READ, &txn, &part->bed.error))
		return WRONG;
	number = get_number(txn, key);
	bts_abort(txn);
	return number;
}

/* Commands on the one write transaction that an actor has open. */
static uint64_t part_do_txn(struct part *part, char command)
{
	char own[24];
	enum bts_err err;

	snprintf(own, sizeof(own), "of %u", part->number);
	switch (command) {
	case 'b': /* begin */
		return bts_begin(part->bed.db, BTS_WRITE, &part->txn, &part->bed.error);
	case 'p': /* put the key that all put */
		return put_number(part->txn, "key of all", 100 + part->number);
	case 'o': /* put its own */
		return put_number(part->txn, own, 100 + part->number);
	case 'c':
		err = bts_commit(part->txn, &part->bed.error);
		part->txn = err == BTS_CONFLICT ? part->txn : NULL;
		return err;
	case 't': /* does the error name the key? */
		return strstr(part->bed.error.text, "key\\x20of\\x20all") != NULL;
	case 'r':
		return bts_refresh(part->txn, &part->bed.error);
	case 'g': /* what the transaction sees */
		return get_number(part->txn, "key of all");
	default: /* 'a' */
		bts_abort(part->txn);
		return 0;
	}
}

static uint64_t part_do(struct part *part, char command)
{
	switch (command) {
	case '+':
		part->bed = stage;
		return bed_try_open(&part->bed, 0, &part->bed.db);
	case '-':
		bts_close(part->bed.db);
		return 0;
	case 'u':
		return update_often(part, count_one);
	case 'y':
		return update_often(part, pay);
	case 'w':
		return watch_accounts(part);
	case 's':
		return bts_update(part->bed.db, open_accounts, NULL, &part->bed.error);
	case '#':
		return part_number(part, "count");
	case 'i': /* pin a snapshot */
		return bts_begin(part->bed.db, BTS_READ, &part->pinned, &part->bed.error);
	case 'h': /* what it holds */
		return get_number(part->pinned, "count");
	case 'e':
		bts_abort(part->pinned);
		return 0;
	case '?':
		fprintf(stderr, "actor %u: %s\n", part->number, part->bed.error.text);
		return 0;
	case 'k':
		return bts_check(
			part->bed.db, &(struct bts_check_options){.report = bed_report}, &part->bed.error);
	default:
		return part_do_txn(part, command);
	}
}

static void answer(int to, uint64_t number)
{
	if (write(to, &number, sizeof(number)) != (ssize_t)sizeof(number))
		_exit(1);
}

static void part_run(unsigned number, int from, int to)
{
	struct part part = {.number = number};
	char command;

	rng_init(&part.rng, seed + number);
	while (read(from, &command, 1) == 1 && command != 'q') {
		if (command == 'f')
			for (;;) /* count for ever: an answer is an acknowledgement */
				answer(to, bts_update(part.bed.db, count_one, &part, NULL));
		answer(to, part_do(&part, command));
	}
	_exit(0);
}

static struct actor cast(unsigned number)
{
	struct actor actor = {.number = number};
	int to[2], from[2];

	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	fflush(NULL);
	actor.pid = fork();
	assert_true(actor.pid >= 0);
	if (actor.pid == 0) {
		close(to[1]);
		close(from[0]);
		part_run(number, to[0], from[1]);
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

/* Every command of the text in turn gets the answer 0. */
static void direct(const struct actor *actor, const char *commands)
{
	for (; *commands; commands++) {
		uint64_t number = ask(actor, *commands);

		if (number == 0)
			continue;
		ask(actor, '?');
		fail_msg("actor %u, command %c: %llu", actor->number, *commands, (unsigned long long)number);
	}
}

/* How many acknowledgements were in the pipe. */
static uint64_t kill_actor(struct actor *actor)
{
	uint64_t number, heard = 0;

	kill(actor->pid, SIGKILL);
	assert_int_equal(waitpid(actor->pid, NULL, 0), actor->pid);
	while (read(actor->from, &number, sizeof(number)) == (ssize_t)sizeof(number)) {
		assert_int_equal(number, BTS_OK);
		heard++;
	}
	close(actor->to);
	close(actor->from);
	return heard;
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

static void cast_all(struct actor actors[ACTORS])
{
	bed_init_file(&stage);
	bed_set(&stage, "b", "first", "0"); /* two that create a bucket clash by that alone */
	bts_close(stage.db);
	for (unsigned i = 0; i < ACTORS; i++) {
		actors[i] = cast(i);
		direct(&actors[i], "+");
	}
}

/* All leave; what is left opens cleanly, is sound, no larger than it must be, and holds that count. */
static void dismiss_all(struct actor actors[ACTORS], uint64_t low, uint64_t high)
{
	struct bts_txn *txn;
	struct bts_stat stat;

	for (unsigned i = 0; i < ACTORS; i++) {
		direct(&actors[i], "-");
		dismiss(&actors[i]);
	}
	bed_open(&stage);
	if (low < high) /* one that died may have left numbers behind that only an opening commit settles */
		bed_reopen(&stage);
	stat = bed_stat(&stage);
	assert_int_equal(stat.clean_open, 1);
	printf("%llu pages in use, %llu free\n",
		(unsigned long long)(stat.pages - stat.first_page - stat.free_pages),
		(unsigned long long)stat.free_pages);
	assert_true(stat.pages < PAGES_MAX);
	txn = bed_begin(&stage, BTS_READ);
	assert_in_range(get_number(txn, "count"), low, high);
	bts_abort(txn);
	bed_fini(&stage);
}

static void the_second_committer(void **state)
{
	struct actor actors[ACTORS];

	(void)state;
	cast_all(actors);
	for (unsigned round = 0; round < 10; round++) {
		const struct actor *one = &actors[round % ACTORS], *two = &actors[(round + 1) % ACTORS];

		direct(two, "bpo");
		direct(one, "bpoc");
		assert_int_equal(ask(two, 'c'), BTS_CONFLICT);
		assert_int_equal(ask(two, 't'), 1);
		direct(two, "r");
		assert_int_equal(ask(two, 'g'), 100 + one->number);
		direct(two, "oc"); /* without the clash: both are there */
		direct(two, "b");
		assert_int_equal(ask(two, 'g'), 100 + one->number);
		direct(two, "a");
		direct(one, "bo");
		direct(two, "bpc");
		direct(one, "c"); /* its own key: no clash */
	}
	dismiss_all(actors, 0, 0);
}

static void counting_loses_nothing(void **state)
{
	struct actor actors[ACTORS];
	uint64_t conflicts = 0;

	(void)state;
	cast_all(actors);
	for (unsigned i = 0; i < ACTORS; i++)
		tell(&actors[i], 'u');
	for (unsigned i = 0; i < ACTORS; i++) {
		uint64_t met = hear(&actors[i]);

		assert_true(met != WRONG);
		conflicts += met;
	}
	printf("%llu conflicts\n", (unsigned long long)conflicts);
	for (unsigned i = 0; i < ACTORS; i++) {
		assert_int_equal(ask(&actors[i], '#'), ACTORS * COUNTS);
		direct(&actors[i], "k");
	}
	dismiss_all(actors, ACTORS * COUNTS, ACTORS * COUNTS);
}

static void sums_stay(void **state)
{
	struct actor actors[ACTORS];

	(void)state;
	cast_all(actors);
	direct(&actors[0], "s");
	tell(&actors[0], 'y');
	tell(&actors[1], 'y');
	assert_int_equal(ask(&actors[2], 'w'), ACCOUNTS * FUNDS);
	assert_true(hear(&actors[0]) != WRONG);
	assert_true(hear(&actors[1]) != WRONG);
	assert_int_equal(ask(&actors[0], 'w'), ACCOUNTS * FUNDS);
	dismiss_all(actors, 0, 0);
}

/* A transaction is open in one process; others come, write, read and leave, and neither waits. */
static void opened_beside_a_transaction(void **state)
{
	struct actor actors[ACTORS], late;

	(void)state;
	cast_all(actors);
	for (unsigned round = 0; round < 5; round++) {
		direct(&actors[0], "bo");
		direct(&actors[1], "i");
		late = cast(ACTORS + round);
		direct(&late, "+boc");
		assert_true(ask(&late, 'u') != WRONG);
		direct(&late, "k-");
		dismiss(&late);
		assert_int_equal(ask(&actors[1], 'h'), round * COUNTS);
		assert_int_equal(ask(&actors[1], '#'), (round + 1) * COUNTS);
		direct(&actors[1], "e");
		direct(&actors[0], "c");
	}
	dismiss_all(actors, 5 * COUNTS, 5 * COUNTS);
}

/* Some die with work open, some in the middle of commits; the others go on and miss nothing acknowledged. */
static void the_dead_stop_nobody(void **state)
{
	uint64_t acknowledged = 0, deaths = 0;
	struct actor actors[ACTORS];
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	cast_all(actors);
	for (unsigned round = 0; round < 12; round++) {
		struct actor victim = cast(ACTORS);

		direct(&victim, "+");
		if (round % 3 == 0) {
			direct(&victim, "bpo");
		} else {
			tell(&victim, 'f');
			for (uint64_t n = 1 + rng_below(&rng, 10); n > 0; n--, acknowledged++)
				assert_int_equal(hear(&victim), BTS_OK);
		}
		for (unsigned i = 0; i < ACTORS; i++)
			tell(&actors[i], 'u');
		for (volatile uint64_t spin = rng_below(&rng, 300000); spin > 0; spin--)
			;
		acknowledged += kill_actor(&victim);
		deaths += round % 3 != 0;
		for (unsigned i = 0; i < ACTORS; i++, acknowledged += COUNTS)
			assert_true(hear(&actors[i]) != WRONG);
		for (unsigned i = 0; i < ACTORS; i++)
			assert_in_range(ask(&actors[i], '#'), acknowledged, acknowledged + deaths);
		direct(&actors[round % ACTORS], "k");
		direct(&actors[(round + 1) % ACTORS], "bpoc");
	}
	dismiss_all(actors, acknowledged, acknowledged + deaths);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_second_committer),
		cmocka_unit_test(counting_loses_nothing),
		cmocka_unit_test(sums_stay),
		cmocka_unit_test(opened_beside_a_transaction),
		cmocka_unit_test(the_dead_stop_nobody),
	};

	signal(SIGPIPE, SIG_IGN);
	alarm(300);
	seed = rng_seed_from(argc, argv, 5);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
