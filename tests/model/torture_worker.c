/*
 * A worker of the torture: one process that loops over mixed work until it is killed or leaves.  While its file is open
 * a second thread, the mate, counts under a key of its own and looks at what everybody sees.
 */
#include "torture_worker.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

void worker_send(struct torture_message *message, enum torture_type type, uint64_t stamp, size_t payload)
{
	message->type = type;
	message->stamp = stamp;
	message->time = torture_now();
	message->size = (uint32_t)(offsetof(struct torture_message, u) + payload);
	if (write(TORTURE_REPORTS, message, message->size) != (ssize_t)message->size)
		_exit(0); /* the supervisor is gone */
}

void worker_report(enum torture_type type, uint64_t stamp)
{
	struct torture_message message;

	worker_send(&message, type, stamp, 0);
}

__attribute__((format(printf, 2, 3))) _Noreturn void worker_wrong(struct worker *w, const char *format, ...)
{
	struct torture_message message;
	va_list args;
	int length = snprintf(
		message.u.text, sizeof(message.u.text), "worker %d, place %u: ", (int)getpid(), w->place);

	va_start(args, format);
	vsnprintf(message.u.text + length, sizeof(message.u.text) - (size_t)length, format, args);
	va_end(args);
	worker_send(&message, TORTURE_WRONG, 0, sizeof(message.u.text));
	_exit(1);
}

void worker_must(struct worker *w, enum bts_err err, const char *what)
{
	if (err)
		worker_wrong(w, "%s: %s: %s", what, bts_err_name(err), w->error.text);
}

void worker_read(struct worker *w, const struct bts_txn *txn, enum bts_err err, const char *what)
{
	if (err)
		worker_wrong(w, "%s: %s: %s", what, bts_err_name(err), bts_txn_error(txn)->text);
}

void worker_tally(struct worker *w, unsigned deed)
{
	atomic_fetch_add(&w->control->tally[deed], 1);
}

enum bts_err worker_try_open(struct worker *w, unsigned flags, struct bts **db)
{
	struct bts_options options;

	bts_options_init(&options);
	options.flags = flags | BTS_OPEN_EXISTING;
	options.map_bytes = UINT64_C(1) << 34;
	return bts_open(w->path, &options, db, &w->error);
}

static enum bts_err mate_count(struct bts_txn *txn, void *arg)
{
	struct worker *w = arg;
	struct bts_bucket *bucket;
	int64_t number = 0;
	char room[32];
	struct bts_slice key = torture_number_key(room, "mate", w->place);
	enum bts_err err = bts_bucket(txn, torture_data, 0, &bucket, NULL);

	if (!err)
		err = torture_get_number(txn, bucket, key, &number);
	if (err && err != BTS_NOT_FOUND)
		return err;
	if (w->mate_counted && number != w->mate_counted)
		worker_wrong(w, "the mate counted %" PRId64 ", not %" PRId64, w->mate_counted, number);
	w->mate_counts = number + 1;
	return torture_put_number(txn, bucket, key, number + 1);
}

static void *mate_run(void *arg)
{
	struct torture_shared shared;
	struct worker *w = arg;
	struct bts_txn *txn;
	const char *wrong;
	struct bts_error error = {0};

	while (!atomic_load(&w->mate_stop)) {
		if (atomic_load(&w->control->pause)) {
			usleep(1000);
			continue;
		}
		if (bts_update(w->db, mate_count, w, &error))
			worker_wrong(w, "the mate's update: %s", error.text);
		w->mate_counted = w->mate_counts;
		if (bts_begin(w->db, BTS_READ, &txn, &error))
			worker_wrong(w, "the mate begins to read: %s", error.text);
		worker_read(w, txn, torture_read_shared(txn, &shared, &wrong), "the mate");
		if (wrong)
			worker_wrong(w, "the mate, snapshot %" PRIu64 ": %s", bts_txn_id(txn), wrong);
		bts_abort(txn);
	}
	return NULL;
}

static void obey(struct worker *w)
{
	char byte;

	while (atomic_load(&w->control->pause)) {
		worker_report(TORTURE_PAUSED, 0);
		if (read(TORTURE_INPUT, &byte, 1) != 1)
			_exit(0);
	}
}

void worker_open(struct worker *w)
{
	enum bts_err err;

	while ((err = worker_try_open(w, 0, &w->db)) == BTS_BUSY) {
		worker_tally(w, TORTURE_DEED_BUSY);
		obey(w);
		if (w->pinned && rng_one_in(&w->rng, 20))
			deed_pin(w);
		usleep(1000);
	}
	worker_must(w, err, "open");
	atomic_store(&w->mate_stop, 0);
	if (pthread_create(&w->mate, NULL, mate_run, w))
		worker_wrong(w, "no thread for the mate");
}

void worker_close(struct worker *w)
{
	atomic_store(&w->mate_stop, 1);
	pthread_join(w->mate, NULL);
	if (w->pinned && w->pinned_in == w->db) {
		bts_abort(w->pinned);
		w->pinned = NULL;
	}
	bts_close(w->db);
	w->db = NULL;
}

/*
 * After a commit of its own nothing of this place's former worker is in flight: its batches came before or never will.
 * What is read then settles the books.
 */
static void roll_call(struct worker *w)
{
	struct torture_message message;
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	const char *wrong;
	char room[32];
	enum bts_err err;

	do {
		worker_must(w, bts_begin(w->db, BTS_WRITE, &txn, &w->error), "begin");
		worker_must(w, bts_bucket(txn, torture_data, 0, &bucket, &w->error), "bucket");
		worker_must(w,
			torture_put_number(
				txn, bucket, torture_number_key(room, "roll", w->place), (int64_t)w->stamp),
			"put");
		err = bts_commit(txn, &w->error);
		if (err == BTS_CONFLICT)
			bts_abort(txn);
	} while (err == BTS_CONFLICT);
	worker_must(w, err, "commit");
	worker_must(w, bts_begin(w->db, BTS_READ, &txn, &w->error), "begin to read");
	worker_read(w, txn, torture_read_own(txn, w->place, w->own, &wrong), "reading own keys");
	if (wrong)
		worker_wrong(w, "snapshot %" PRIu64 ": %s", bts_txn_id(txn), wrong);
	bts_abort(txn);
	memcpy(message.u.own, w->own, sizeof(w->own));
	worker_send(&message, TORTURE_INVENTORY, 0, sizeof(w->own));
}

_Noreturn void torture_work(const char *path, unsigned place, uint64_t seed, uint64_t stamps)
{
	static struct worker w;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	w.path = path;
	w.place = place;
	w.stamp = stamps;
	rng_init(&w.rng, seed);
	w.control = mmap(NULL, sizeof(*w.control), PROT_READ | PROT_WRITE, MAP_SHARED, TORTURE_CONTROL, 0);
	if (w.control == MAP_FAILED)
		worker_wrong(&w, "no control memory: errno %d", errno);
	worker_open(&w);
	roll_call(&w);
	for (;;) {
		obey(&w);
		deed_any(&w);
	}
}
