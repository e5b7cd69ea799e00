/* The lock file: what followers acknowledged, and who waits for it; the node that is followed. */
#include "shared_bed.h"

static struct bts_ack ack_of(const char *node, bts_txid txid, uint64_t seen)
{
	struct bts_ack ack = {.txid = txid, .seen_ms = seen};

	snprintf(ack.node, sizeof(ack.node), "%s", node);
	snprintf(ack.url, sizeof(ack.url), "http://%s", node);
	return ack;
}

static void ack(struct handle *h, const char *node, bts_txid txid, uint64_t seen)
{
	struct bts_ack it = ack_of(node, txid, seen);

	assert_int_equal(shared_ack_record(h->shared, &it, NULL), BTS_OK);
}

static void test_acks(void **state)
{
	struct place at = place_new();
	struct handle a = handle_first(&at, 7), b = handle_open(&at);
	struct bts_ack list[80], nameless = ack_of("", 1, 1);
	char node[16];

	(void)state;
	assert_int_equal(shared_ack_list(a.shared, list, 80), 0);
	ack(&a, "f1", 5, 100);
	ack(&b, "f2", 6, 101);
	ack(&a, "f1", 7, 102);
	ack(&b, "f1", 4, 103); /* backwards: kept at 7, an alarm */
	assert_int_equal(shared_ack_list(b.shared, list, 80), 2);
	assert_string_equal(list[0].node, "f1");
	assert_string_equal(list[0].url, "http://f1");
	assert_int_equal(list[0].txid, 7);
	assert_int_equal(list[0].seen_ms, 103);
	assert_int_equal(list[0].alarms, 1);
	assert_int_equal(list[1].txid, 6);
	assert_int_equal(list[1].alarms, 0);
	for (unsigned i = 0; i < 62; i++) {
		snprintf(node, sizeof(node), "n%u", i);
		ack(&a, node, i, 1000 + i);
	}
	assert_int_equal(shared_ack_list(a.shared, list, 1), 64);
	ack(&a, "new", 1, 5000); /* replaces f2, unseen for longest */
	assert_int_equal(shared_ack_list(a.shared, list, 80), 64);
	assert_string_equal(list[1].node, "new");
	assert_int_equal(shared_ack_record(a.shared, &nameless, NULL), BTS_INVALID);
	handle_close(&b);
	handle_close(&a);
}

/* Epochs come before numbers; a session that comes back has a twin of its name. */
static void test_ack_epochs(void **state)
{
	struct place at = place_new();
	struct handle a = handle_first(&at, 7);
	struct bts_ack it = ack_of("f1", 9, 1), got;

	(void)state;
	it.epoch = 2;
	it.epoch_random = 22;
	it.session = 1;
	assert_int_equal(shared_ack_record(a.shared, &it, NULL), BTS_OK);
	it.epoch = 1; /* of a history that was left: an alarm, whatever its number */
	it.txid = 100;
	assert_int_equal(shared_ack_record(a.shared, &it, NULL), BTS_OK);
	assert_int_equal(shared_ack_list(a.shared, &got, 1), 1);
	assert_true(got.txid == 9 && got.epoch == 2 && got.epoch_random == 22 && got.alarms == 1 && got.twins == 0);
	it.epoch = 3;
	it.txid = 5;
	it.session = 2; /* restarted */
	assert_int_equal(shared_ack_record(a.shared, &it, NULL), BTS_OK);
	assert_int_equal(shared_ack_list(a.shared, &got, 1), 1);
	assert_true(got.txid == 5 && got.epoch == 3 && got.alarms == 1 && got.twins == 0);
	it.session = 1; /* and yet the first is still there */
	assert_int_equal(shared_ack_record(a.shared, &it, NULL), BTS_OK);
	it.session = 3;
	assert_int_equal(shared_ack_record(a.shared, &it, NULL), BTS_OK);
	assert_int_equal(shared_ack_list(a.shared, &got, 1), 1);
	assert_int_equal(got.twins, 1);
	handle_close(&a);
}

static void test_ack_wait(void **state)
{
	struct place at = place_new();
	struct handle a = handle_first(&at, 7);
	uint32_t seen = 0;
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(shared_ack_wait(a.shared, &seen, 1), BTS_TIMEOUT);
	ack(&a, "f1", 7, 1);
	assert_int_equal(shared_ack_wait(a.shared, &seen, 0), BTS_OK);
	assert_int_equal(shared_ack_wait(a.shared, &seen, 0), BTS_TIMEOUT);
	pid = fork();
	if (pid == 0) {
		struct handle mine = handle_open(&at);

		_exit(shared_ack_wait(mine.shared, &seen, 60000) != BTS_OK);
	}
	while (!atomic_load(&a.shared->map->ack_waiters))
		sched_yield();
	ack(&a, "f1", 8, 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	handle_close(&a);
}

static void test_upstream(void **state)
{
	struct place at = place_new();
	struct handle a = handle_first(&at, 7), b = handle_open(&at);
	struct bts_upstream up = {"n0", "n1,n2", 17}, got;

	(void)state;
	shared_upstream(b.shared, &got);
	assert_true(got.fresh_ms == 0 && !got.via[0]);
	assert_int_equal(shared_upstream_record(a.shared, &up, NULL), BTS_OK);
	shared_upstream(b.shared, &got);
	assert_int_equal(got.fresh_ms, 17);
	assert_string_equal(got.node, "n0");
	assert_string_equal(got.via, "n1,n2");
	handle_close(&b);
	handle_close(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_acks),
		cmocka_unit_test(test_ack_epochs),
		cmocka_unit_test(test_ack_wait),
		cmocka_unit_test(test_upstream),
	};
	int failed;

	if (bed_enter())
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	return bed_leave() || failed;
}
