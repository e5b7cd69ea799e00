/* The follower's state machine by hand: no socket, no clock but the numbers given. */
#include "cmocka.h"

#include "position.h"
#include "session.h"

static uint32_t fixed_random = 0;

static uint32_t give_random(void *arg)
{
	(void)arg;
	return fixed_random;
}

static const struct session_config config = {
	.node = "n1", .url = "http://127.0.0.1:9", .session = 7, .wait_ms = 30000, .random = give_random};

static struct bts_position own(bts_txid txid)
{
	struct bts_position position;

	memset(&position, 0, sizeof(position));
	memset(position.database, 0xda, 16);
	position.epoch = 3;
	position.epoch_random = 9;
	position.txid = txid;
	memset(position.chain, (int)txid, 16);
	return position;
}

static struct frame_header frame(bts_txid base, bts_txid target)
{
	return (struct frame_header){.base = own(base), .target = own(target), .page_size = 4096};
}

static void asks(struct session *session, uint64_t now, const char *part)
{
	struct session_step step;

	session_next(session, now, &step);
	assert_int_equal(step.what, SESSION_REQUEST);
	if (!strstr(step.target, part))
		fail_msg("'%s' is not in '%s'", part, step.target);
}

static enum bts_err reply(struct session *session, long status, uint64_t txid, const char *code, uint64_t now)
{
	const struct session_reply answer = {
		.status = status, .has_txid = txid != 0, .txid = txid, .code = code};
	struct bts_error error = {0};

	return session_reply(session, &answer, now, &error);
}

static void first_sync_and_on(void **state)
{
	struct frame_header header = frame(0, 20);
	struct session session;
	struct bts_error error;

	(void)state;
	session_init(&session, &config, NULL, 0);
	asks(&session, 1000,
		"?after=0&follower=n1&session=0000000000000007&url=http%3A%2F%2F127.0.0.1%3A9&wait=0ms");
	assert_int_equal(reply(&session, 200, 20, NULL, 1100), BTS_OK);
	assert_int_equal(session_lag_ms(session.fresh_ms, 1300), SESSION_LAG_UNKNOWN_MS);
	assert_int_equal(session_frame(&session, &header, &error), BTS_OK);
	session_applied(&session, &header);
	session_done(&session, NULL);
	/* What the source said before it sent the frame is no newer for the time the frame took. */
	assert_int_equal(session.contact_ms, 1100);
	assert_int_equal(session_lag_ms(session.fresh_ms, 1400), 400);
	assert_int_equal(session.frames, 1);
	/* The next request acknowledges it. */
	asks(&session, 1500,
		"after=20&database=dadadadadadadadadadadadadadadada&epoch=3-0000000000000009&chain=14");
}

static void wait_ends_without_news(void **state)
{
	struct bts_position position = own(5);
	struct session session;
	struct session_step step;

	(void)state;
	session_init(&session, &config, &position, 4096);
	/* The first answer comes at once, so that the source is known to be there. */
	asks(&session, 0, "wait=0ms");
	assert_int_equal(reply(&session, 204, 5, NULL, 0), BTS_NOT_FOUND);
	session_done(&session, NULL);
	asks(&session, 0, "wait=30000ms");
	assert_int_equal(reply(&session, 204, 5, NULL, 30000), BTS_NOT_FOUND);
	session_done(&session, NULL);
	asks(&session, 30000, "wait=30000ms");
	/* One that comes at once would make a loop of requests: back off. */
	assert_int_equal(reply(&session, 204, 5, NULL, 30001), BTS_NOT_FOUND);
	session_done(&session, NULL);
	session_next(&session, 30001, &step);
	assert_int_equal(step.what, SESSION_WAIT);
}

/* A source that grants a shorter wait than asked for is as healthy as any. */
static void source_shortens_the_wait(void **state)
{
	struct bts_position position = own(5);
	struct session session;
	uint64_t now;

	(void)state;
	session_init(&session, &config, &position, 4096);
	for (now = 0; now < 5000; now += 200) {
		asks(&session, now, "after=5");
		assert_int_equal(reply(&session, 204, 5, NULL, now + SESSION_EARLY_MS), BTS_NOT_FOUND);
		session_done(&session, NULL);
		assert_int_equal(session.failures, 0);
	}
}

/* Answers at once to all requests: the first, which must not wait, forgives nothing. */
static void early_answers_between_failures(void **state)
{
	struct bts_error error = {.code = BTS_IO, .text = "no answer"};
	struct bts_position position = own(5);
	struct session_step step;
	struct session session;
	unsigned i;

	(void)state;
	session_init(&session, &config, &position, 4096);
	for (i = 0; i < 5; i++) {
		asks(&session, 0, "wait=0ms");
		assert_int_equal(reply(&session, 204, 5, NULL, 0), BTS_NOT_FOUND);
		session_done(&session, NULL);
		asks(&session, 0, "wait=30000ms");
		assert_int_equal(reply(&session, 204, 5, NULL, 1), BTS_NOT_FOUND);
		session_done(&session, NULL);
		assert_int_equal(session.failures, 2 * i + 1);
		session_next(&session, 1, &step);
		assert_int_equal(step.what, SESSION_WAIT);
		asks(&session, 2, "wait=30000ms");
		session_done(&session, &error);
		assert_int_equal(session.failures, 2 * i + 2);
		session_next(&session, 3, &step);
		assert_int_equal(step.what, SESSION_WAIT);
	}
	/* A wait that was kept to does. */
	asks(&session, 0, "wait=0ms");
	assert_int_equal(reply(&session, 204, 5, NULL, 0), BTS_NOT_FOUND);
	session_done(&session, NULL);
	asks(&session, 0, "wait=30000ms");
	assert_int_equal(reply(&session, 204, 5, NULL, 30000), BTS_NOT_FOUND);
	session_done(&session, NULL);
	assert_int_equal(session.failures, 0);
}

/* Only an answer that says where the source stands makes what is here fresh. */
static void contact(void **state)
{
	struct bts_error error = {.code = BTS_IO, .text = "no answer"};
	struct bts_position position = own(5);
	struct session_step step;
	struct session session;

	(void)state;
	session_init(&session, &config, &position, 4096);
	asks(&session, 10, "after=5");
	assert_int_equal(reply(&session, 204, 5, NULL, 20), BTS_NOT_FOUND);
	session_done(&session, NULL);
	assert_int_equal(session.contact_ms, 20);
	asks(&session, 30, "after=5");
	session_done(&session, &error);
	session_next(&session, 4000, &step);
	assert_int_equal(step.what, SESSION_WAIT);
	assert_int_equal(session.contact_ms, 20);
	asks(&session, 5000, "wait=0ms");
	assert_true(reply(&session, 503, 0, NULL, 5001) != BTS_OK);
	session_done(&session, &error);
	assert_int_equal(session.contact_ms, 20);
}

static void backs_off_until_a_frame_is_applied(void **state)
{
	struct bts_position position = own(5);
	struct frame_header header = frame(5, 6);
	struct bts_error error = {.code = BTS_IO, .text = "connection refused"};
	struct session_step step;
	struct session session;
	unsigned i, bound = 200;

	(void)state;
	session_init(&session, &config, &position, 4096);
	for (i = 1; i <= 12; i++) {
		asks(&session, 0, "after=5");
		/* A reply that breaks off before its end resets nothing. */
		assert_int_equal(reply(&session, 200, 6, NULL, 0), BTS_OK);
		session_done(&session, &error);
		fixed_random = i % 2 ? UINT32_MAX - UINT32_MAX % (bound - 99) + bound - 100 : 0;
		session_next(&session, 0, &step);
		assert_int_equal(step.what, SESSION_WAIT);
		assert_true(step.wait_ms >= SESSION_BACKOFF_MIN_MS && step.wait_ms <= bound);
		bound = bound * 2 < SESSION_BACKOFF_MAX_MS ? bound * 2 : SESSION_BACKOFF_MAX_MS;
	}
	assert_int_equal(session.retries, 12);
	assert_string_equal(session.error.text, "connection refused");
	asks(&session, 0, "after=5");
	assert_int_equal(reply(&session, 200, 6, NULL, 0), BTS_OK);
	session_applied(&session, &header);
	assert_int_equal(session.failures, 0);
	/* The connection breaks after the frame was installed: no harm, ask on. */
	session_done(&session, &error);
	asks(&session, 0, "after=6");
}

static void stops_for_ever(void **state)
{
	static const char *const codes[] = {"wrong-database", "diverged", "ahead", "base-unknown"};
	struct bts_position position = own(5);
	struct session_step step;
	struct session session;
	struct bts_error error;
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		session_init(&session, &config, &position, 4096);
		asks(&session, 0, "after=5");
		assert_true(reply(&session, 409, 9, codes[i], 1) != BTS_OK);
		error = session.error;
		session_done(&session, &error);
		session_next(&session, 2, &step);
		assert_int_equal(step.what, SESSION_STOP);
		assert_non_null(strstr(session.error.text, codes[i]));
	}
}

static void other_answers_are_retried(void **state)
{
	static const long statuses[] = {301, 400, 404, 500, 503};
	struct bts_position position = own(5);
	struct session_step step;
	struct session session;
	struct bts_error error = {.code = BTS_IO};
	size_t i;

	(void)state;
	for (i = 0; i < 5; i++) {
		session_init(&session, &config, &position, 4096);
		asks(&session, 0, "after=5");
		assert_true(reply(&session, statuses[i], 0, NULL, 1) != BTS_OK);
		session_done(&session, &error);
		session_next(&session, 2, &step);
		assert_int_equal(step.what, SESSION_WAIT);
	}
}

static void refused_frame(const struct frame_header *header, bts_txid at, enum bts_err want)
{
	struct bts_position position = own(at);
	struct session session;
	struct bts_error error;

	session_init(&session, &config, &position, 4096);
	asks(&session, 0, "after=");
	assert_int_equal(reply(&session, 200, 20, NULL, 0), BTS_OK);
	assert_int_equal(session_frame(&session, header, &error), want);
}

static void frames_for_another_file(void **state)
{
	struct frame_header header = frame(5, 20);

	(void)state;
	refused_frame(&header, 5, BTS_OK);
	refused_frame(&header, 6, BTS_CORRUPT);
	refused_frame(&header, 0, BTS_CORRUPT);
	header.page_size = 8192;
	refused_frame(&header, 5, BTS_CORRUPT);
	header = frame(5, 20);
	header.base.chain[0] ^= 1;
	refused_frame(&header, 5, BTS_CORRUPT);
	header = frame(5, 20);
	header.base.database[3] = header.target.database[3] = 1;
	refused_frame(&header, 5, BTS_DIVERGED);
	header = frame(5, 20);
	header.target.epoch_random = 10;
	refused_frame(&header, 5, BTS_DIVERGED);
	/* What was not asked for. */
	header = frame(5, 20);
	header.lean = true;
	refused_frame(&header, 5, BTS_CORRUPT);
	header.lean = false;
	header.zstd = true;
	refused_frame(&header, 5, BTS_CORRUPT);
}

/* Loops come and go, and so does being ahead of a follower: neither stops one for ever. */
static void loops_are_retried(void **state)
{
	static const struct session_reply answers[] = {
		{.status = 409, .has_txid = true, .txid = 9, .code = "loop"},
		{.status = 409, .has_txid = true, .txid = 4, .code = "ahead", .follower = true},
		{.status = 204, .has_txid = true, .txid = 9, .via = "n1"},
		{.status = 200, .has_txid = true, .txid = 9, .via = "n2,n1,n3"},
	};
	const struct session_reply fine = {.status = 204, .has_txid = true, .txid = 5, .via = "n11,n,xn1"};
	struct bts_position position = own(5);
	struct session_step step;
	struct session session;
	struct bts_error error;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		session_init(&session, &config, &position, 4096);
		asks(&session, 0, "after=5");
		assert_int_equal(session_reply(&session, &answers[i], 1, &error), BTS_INVALID);
		assert_int_equal(session.contact_ms, 0); /* such an answer is none */
		session_done(&session, &error);
		session_next(&session, 2, &step);
		assert_int_equal(step.what, SESSION_WAIT);
	}
	session_init(&session, &config, &position, 4096);
	asks(&session, 0, "after=5");
	assert_int_equal(session_reply(&session, &fine, 1, &error), BTS_NOT_FOUND);
	assert_string_equal(session.via, "n11,n,xn1");
}

/*
 * An answer that tells of more than is here does not make what is here fresher: the first commit that is missing may be as old as the last
 * time that none was.
 */
static void behind(void **state)
{
	struct bts_error error = {.code = BTS_IO, .text = "no answer"};
	struct frame_header header = frame(5, 6);
	struct bts_position position = own(5);
	struct session_step step;
	struct session session;

	(void)state;
	session_init(&session, &config, &position, 4096);
	assert_int_equal(session_lag_ms(session.fresh_ms, 1), SESSION_LAG_UNKNOWN_MS); /* since whenever this file was written */
	asks(&session, 10, "after=5");
	assert_int_equal(reply(&session, 204, 5, NULL, 20), BTS_NOT_FOUND);
	session_done(&session, NULL);
	asks(&session, 30, "after=5");
	session_done(&session, &error);
	session_next(&session, 4000, &step);
	assert_int_equal(step.what, SESSION_WAIT);
	asks(&session, 5000, "wait=0ms");
	assert_int_equal(reply(&session, 200, 6, NULL, 5001), BTS_OK);
	assert_int_equal(session.contact_ms, 5001);
	assert_int_equal(session_lag_ms(session.fresh_ms, 5010), 5000);
	session_applied(&session, &header);
	assert_int_equal(session_lag_ms(session.fresh_ms, 6000), 1000);
	session_done(&session, NULL);
	/* An answer of long ago, read when this process goes on, is of before its wait was over. */
	session_init(&session, &config, &position, 4096);
	asks(&session, 6000, "wait=0ms");
	assert_int_equal(reply(&session, 204, 5, NULL, 6010), BTS_NOT_FOUND);
	session_done(&session, NULL);
	asks(&session, 6020, "wait=30000ms");
	assert_int_equal(reply(&session, 204, 5, NULL, 45000), BTS_NOT_FOUND);
	assert_int_equal(session_lag_ms(session.fresh_ms, 45000), 45000 - 36020);
	session_done(&session, NULL);
	/* A transfer that goes on is of an older commit than the source has. */
	session_init(&session, &config, NULL, 0);
	asks(&session, 7000, "after=0");
	assert_int_equal(reply(&session, 200, 6, NULL, 7001), BTS_OK);
	header = frame(0, 6);
	session.resumed = true;
	session_applied(&session, &header);
	assert_int_equal(session_lag_ms(session.fresh_ms, 7002), SESSION_LAG_UNKNOWN_MS);
	session_done(&session, NULL);
	asks(&session, 7003, "after=6");
	assert_int_equal(reply(&session, 204, 6, NULL, 7004), BTS_NOT_FOUND);
	assert_int_equal(session_lag_ms(session.fresh_ms, 7010), 6);
}

/* How old what the source had was, when it gave what is here. */
static void lag_of_the_source(void **state)
{
	struct session_reply answer = {.status = 204, .has_txid = true, .txid = 5, .follower = true, .has_lag = true, .lag_ms = 700};
	struct frame_header header = frame(5, 6);
	struct bts_position position = own(5);
	struct session session;
	struct bts_error error;

	(void)state;
	session_init(&session, &config, &position, 4096);
	asks(&session, 0, "after=5");
	assert_int_equal(session_reply(&session, &answer, 1, &error), BTS_NOT_FOUND);
	assert_int_equal(session.source_lag_ms, 700);
	session_done(&session, NULL);
	asks(&session, 2, "after=5");
	answer.status = 200;
	answer.txid = 6;
	answer.lag_ms = 20;
	assert_int_equal(session_reply(&session, &answer, 3, &error), BTS_OK);
	assert_int_equal(session.source_lag_ms, 700); /* until the frame is here */
	session_applied(&session, &header);
	assert_int_equal(session.source_lag_ms, 20);
	session_done(&session, NULL);
	asks(&session, 5, "after=6");
	answer.status = 204;
	answer.has_lag = false; /* a follower that does not know */
	assert_int_equal(session_reply(&session, &answer, 6, &error), BTS_NOT_FOUND);
	assert_int_equal(session.source_lag_ms, 20); /* what was known stays */
	assert_int_equal(session_lag_ms(session.fresh_ms, 9), 6);
	answer.has_lag = true; /* nor does one that is far behind */
	answer.lag_ms = 10 * 3600 * 1000;
	assert_int_equal(session_reply(&session, &answer, 6, &error), BTS_NOT_FOUND);
	assert_int_equal(session.source_lag_ms, 20);
	answer.has_lag = false;
	answer.follower = false; /* a primary has none */
	assert_int_equal(session_reply(&session, &answer, 7, &error), BTS_NOT_FOUND);
	assert_int_equal(session.source_lag_ms, 0);
}

static void another_source(void **state)
{
	struct bts_position position = own(5);
	struct session_step step;
	struct session session;

	(void)state;
	session_init(&session, &config, &position, 4096);
	asks(&session, 0, "after=5");
	assert_true(reply(&session, 409, 9, "diverged", 1) != BTS_OK);
	session_next(&session, 2, &step);
	assert_int_equal(step.what, SESSION_STOP);
	session_retry(&session); /* there is one more to ask */
	session_next(&session, 2, &step);
	assert_int_equal(step.what, SESSION_WAIT);
	session_switch(&session); /* told to ask another: at once, and nothing is held against it */
	assert_int_equal(session.error.code, BTS_OK);
	asks(&session, 3, "wait=0ms");
}

/* One whose cursor the source can not make anything of: begun anew at last, and asked ever more seldom until then. */
static void transfer_that_is_stuck(void **state)
{
	const struct bts_partial partial = {.position = own(5), .cursor = 34};
	struct bts_position position = own(0);
	struct bts_error error = {.code = BTS_IO};
	struct session_step step;
	struct session session;

	(void)state;
	session_init(&session, &config, &position, 4096);
	session_transfer(&session, &partial, true);
	for (unsigned i = 0; i < 2 * SESSION_STUCK_MAX; i++) { /* nobody answers: that says nothing of the cursor */
		asks(&session, i, "&cursor=34");
		session_transfer(&session, &partial, false);
		session_done(&session, &error);
		session_next(&session, i, &step);
	}
	for (unsigned i = 0; i < SESSION_STUCK_MAX; i++) {
		asks(&session, i, "&cursor=34");
		assert_int_equal(reply(&session, 200, 9, NULL, i), BTS_OK);
		session_transfer(&session, &partial, false); /* it broke before the frame's header */
		session_done(&session, &error);
		assert_int_equal(session.failures, 2 * SESSION_STUCK_MAX + i + 1);
		session_next(&session, i, &step);
		assert_int_equal(step.what, SESSION_WAIT);
	}
	session_next(&session, 99, &step);
	assert_int_equal(step.what, SESSION_REQUEST);
	assert_null(strstr(step.target, "cursor"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_sync_and_on),
		cmocka_unit_test(wait_ends_without_news),
		cmocka_unit_test(source_shortens_the_wait),
		cmocka_unit_test(early_answers_between_failures),
		cmocka_unit_test(contact),
		cmocka_unit_test(backs_off_until_a_frame_is_applied),
		cmocka_unit_test(stops_for_ever),
		cmocka_unit_test(other_answers_are_retried),
		cmocka_unit_test(frames_for_another_file),
		cmocka_unit_test(loops_are_retried),
		cmocka_unit_test(behind),
		cmocka_unit_test(lag_of_the_source),
		cmocka_unit_test(another_source),
		cmocka_unit_test(transfer_that_is_stuck),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
