/*
 * Eight processes, mixed work, kill -9 at any moment: nobody else is stopped, nothing acknowledged is lost, nothing leaks.
 *
 * This process only supervises: workers (torture_worker.c) are this program started again, each reports through a pipe of
 * its own.  One after the other is killed, often right inside a commit, or stopped there for a moment; each kill must be
 * followed by commits of the others.  At the end of a round all pause, or all are killed at once, and the file is held
 * against the books (torture_books.c) and checked.
 *
 * Arguments: seed, and seconds=N (20), workers=N (8).  In the environment BTS_TORTURE_KEEP leaves the file, BTS_TORTURE_WAIT
 * stops at a standstill, to be looked at with a debugger.
 */
#include "bed.h"
#include "torture.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <rng.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SECOND UINT64_C(1000000000)
#define PATIENCE (60 * SECOND) /* nothing at all may take so long */
#define ROUND_SECONDS 5
#define STALLS_MAX 100000u

struct post {
	pid_t pid;
	int commands, reports;
	bool ready, paused, leaving, intends;
	uint64_t last_ack; /* when */
	size_t filled;
	uint8_t buffer[65536];
};

static uint64_t seed, seconds = 20, workers = TORTURE_PLACES;
static char folder[64], path[80];
static struct rng rng;
static struct post posts[TORTURE_PLACES];
static struct torture_books books;
static struct torture_control *control;
static int control_file;
static bool passed;
static uint32_t incarnation;
static uint64_t stalls[STALLS_MAX];
static size_t stall_count;
static uint64_t newest_ack,
	calm_gap; /* the longest time between two commits that no kill, stop or pause fell into */
static uint64_t disturbed;
static unsigned kills, aimed, stops, killed_stopped, blamed, rounds, massacres;

static void hire(unsigned place)
{
	char words[4][32];
	char *arguments[] = {(char *)(uintptr_t) "worker", path, words[0], words[1], words[2], NULL};
	struct post *post = &posts[place];
	int to[2], from[2];

	assert_int_equal(pipe2(to, O_CLOEXEC), 0);
	assert_int_equal(pipe2(from, O_CLOEXEC), 0);
	snprintf(words[0], sizeof(words[0]), "%u", place);
	snprintf(words[1], sizeof(words[1]), "%" PRIu64, rng_next(&rng));
	snprintf(words[2], sizeof(words[2]), "%" PRIu64, (uint64_t)++incarnation << 32);
	memset(post, 0, offsetof(struct post, buffer));
	fflush(NULL);
	post->pid = fork();
	assert_true(post->pid >= 0);
	if (post->pid == 0) {
		/* By way of high numbers: the three may stand in each other's place. */
		int input = fcntl(to[0], F_DUPFD, 50), output = fcntl(from[1], F_DUPFD, 50);
		int memory = fcntl(control_file, F_DUPFD, 50);

		dup2(input, TORTURE_INPUT);
		dup2(output, TORTURE_REPORTS);
		dup2(memory, TORTURE_CONTROL);
		closefrom(TORTURE_CONTROL + 1);
		execv("/proc/self/exe", arguments);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	post->commands = to[1];
	post->reports = from[0];
}

static void acknowledged(struct post *post, uint64_t time)
{
	post->last_ack = time;
	if (newest_ack > disturbed && time > newest_ack && time - newest_ack > calm_gap)
		calm_gap = time - newest_ack;
	if (time > newest_ack)
		newest_ack = time;
}

static void take(unsigned place, const struct torture_message *message)
{
	struct post *post = &posts[place];

	switch (message->type) {
	case TORTURE_INVENTORY:
		if (!torture_books_settle(&books, place, message->u.own))
			fail_msg("a new worker does not find what the one before was told");
		post->ready = true;
		acknowledged(post, message->time);
		break;
	case TORTURE_INTENT:
		torture_books_intent(&books, place, message);
		post->intends = true;
		break;
	case TORTURE_ACK:
		torture_books_ack(&books, place, message->stamp);
		acknowledged(post, message->time);
		break;
	case TORTURE_ASYNC:
		torture_books_async(&books, place, message->stamp);
		acknowledged(post, message->time);
		break;
	case TORTURE_ABANDON:
		torture_books_abandon(&books, place, message->stamp);
		break;
	case TORTURE_PAUSED:
		post->paused = true;
		break;
	case TORTURE_LEAVING:
		post->leaving = true;
		break;
	case TORTURE_WRONG:
		fail_msg("%s", message->u.text);
	default:
		fail_msg("a message of type %u", message->type);
	}
}

/* What is in its pipe; false at the end of it. */
static bool listen(unsigned place)
{
	struct post *post = &posts[place];
	struct torture_message message;
	size_t at = 0;
	ssize_t got = read(post->reports, post->buffer + post->filled, sizeof(post->buffer) - post->filled);

	assert_true(got >= 0);
	post->filled += (size_t)got;
	while (post->filled - at >= offsetof(struct torture_message, u)) {
		memcpy(&message, post->buffer + at, offsetof(struct torture_message, u));
		assert_in_range(message.size, offsetof(struct torture_message, u), sizeof(message));
		if (post->filled - at < message.size)
			break;
		memcpy(&message, post->buffer + at, message.size);
		at += message.size;
		take(place, &message);
	}
	memmove(post->buffer, post->buffer + at, post->filled - at);
	post->filled -= at;
	return got > 0;
}

/* It is dead: hear its last words. */
static int bury(unsigned place)
{
	struct post *post = &posts[place];
	int status;

	while (listen(place))
		;
	assert_int_equal(waitpid(post->pid, &status, 0), post->pid);
	close(post->commands);
	close(post->reports);
	post->pid = 0;
	return status;
}

/* Everybody's reports, for at most so long; whoever left is replaced. */
static void hear(uint64_t nanoseconds)
{
	struct timespec timeout = {(time_t)(nanoseconds / SECOND), (long)(nanoseconds % SECOND)};
	struct pollfd polls[TORTURE_PLACES];

	for (unsigned i = 0; i < workers; i++)
		polls[i] = (struct pollfd){.fd = posts[i].pid ? posts[i].reports : -1, .events = POLLIN};
	if (ppoll(polls, workers, &timeout, NULL) <= 0)
		return;
	for (unsigned i = 0; i < workers; i++) {
		if (polls[i].revents == 0 || listen(i))
			continue;
		if (bury(i) != 0 || !posts[i].leaving)
			fail_msg("the worker of place %u ended by itself", i);
		hire(i);
	}
}

static void hear_until(uint64_t time)
{
	for (uint64_t now = torture_now(); now < time; now = torture_now())
		hear(time - now);
}

static void complain_of_standstill(const char *what)
{
	for (unsigned i = 0; i < workers; i++)
		if (posts[i].pid)
			fprintf(stderr, "place %u: pid %d, %s, last acknowledgement %.1f s ago\n", i,
				(int)posts[i].pid, posts[i].intends ? "in a commit" : "elsewhere",
				(double)(torture_now() - posts[i].last_ack) / 1e9);
	if (getenv("BTS_TORTURE_WAIT"))
		pause();
	fail_msg("%s", what);
}

/* Some other worker gets a commit acknowledged after that time. */
static void await_progress(unsigned but, uint64_t since)
{
	for (;;) {
		for (unsigned i = 0; i < workers; i++) {
			if (i == but || posts[i].last_ack <= since)
				continue;
			if (stall_count < STALLS_MAX)
				stalls[stall_count++] = posts[i].last_ack - since;
			return;
		}
		if (torture_now() > since + PATIENCE)
			complain_of_standstill("no commit of anybody else since the kill");
		hear(SECOND / 10);
	}
}

/* At the next intent of it, and a moment into the commit. */
static void aim(unsigned place)
{
	uint64_t until = torture_now() + SECOND / 4, moment;

	posts[place].intends = false;
	while (!posts[place].intends && torture_now() < until)
		hear(SECOND / 100);
	aimed += posts[place].intends;
	moment = torture_now() + rng_below(&rng, rng_one_in(&rng, 2) ? 200000 : 2000000);
	while (torture_now() < moment)
		;
}

static uint64_t kill_now(unsigned place)
{
	uint64_t time;
	int status;

	disturbed = torture_now();
	kill(posts[place].pid, SIGKILL);
	time = torture_now();
	status = bury(place);
	assert_true(WIFSIGNALED(status) || posts[place].leaving);
	kills++;
	return time;
}

static void kill_one(unsigned place)
{
	uint64_t time = kill_now(place);

	if (workers > 1)
		await_progress(place, time);
	hire(place);
	if (!rng_one_in(&rng, 8))
		return;
	hear_until(torture_now() + rng_below(&rng, SECOND / 30)); /* still opening the file, perhaps */
	time = kill_now(place);
	if (workers > 1)
		await_progress(place, time);
	hire(place);
}

/* Did nobody else get anything done since a moment after it was stopped? */
static bool others_stand(unsigned place, uint64_t since)
{
	bool stand = true;

	for (unsigned i = 0; i < workers; i++)
		stand = stand && (i == place || posts[i].last_ack < since + SECOND / 5);
	return stand;
}

static uint32_t who_is_blamed(void)
{
	struct bed bed = {0};
	struct bts_stat stat;

	strcpy(bed.path, path);
	if (bed_try_open(&bed, BTS_OPEN_READ_ONLY, &bed.db))
		fail_msg("open beside a stopped process: %s", bed.error.text);
	stat = bed_stat(&bed);
	bts_close(bed.db);
	return stat.stuck_pid;
}

/* It stands still: when nobody else gets anything done, whoever asks is told because of whom; or the machine stood still, and they go on. */
static void blame(unsigned place, uint64_t since)
{
	uint32_t named;

	while ((named = who_is_blamed()) != (uint32_t)posts[place].pid) {
		if (!others_stand(place, since))
			return;
		if (torture_now() > since + PATIENCE)
			fail_msg("process %d was stopped and the others wait, but %u is named", (int)posts[place].pid,
				named);
		hear(SECOND / 10);
	}
	blamed++;
}

/* Stopped, perhaps in its commit, it goes on or is killed then; another one may die while all wait for it. */
static void stop_one(unsigned place)
{
	bool other = workers > 2 && rng_one_in(&rng, 3);
	uint64_t time;

	if (!rng_one_in(&rng, 4))
		aim(place);
	disturbed = torture_now();
	kill(posts[place].pid, SIGSTOP);
	time = torture_now();
	stops++;
	if (other) {
		hear_until(torture_now() + rng_below(&rng, SECOND / 50));
		kill_now((place + 1) % (unsigned)workers);
	}
	if (rng_one_in(&rng, 12)) {
		hear_until(time + SECOND * 3 / 2);
		blame(place, time);
	}
	hear_until(torture_now() + rng_below(&rng, SECOND / 10));
	if (other)
		hire((place + 1) % (unsigned)workers);
	if (rng_one_in(&rng, 3)) {
		killed_stopped++;
		kill_one(place);
		return;
	}
	disturbed = torture_now();
	kill(posts[place].pid, SIGCONT);
	time = torture_now();
	if (workers > 1)
		await_progress(place, time);
}

static void torment(uint64_t until)
{
	while (torture_now() < until) {
		unsigned place = (unsigned)rng_below(&rng, workers);

		hear_until(torture_now() + rng_below(&rng, SECOND / 25));
		if (rng_one_in(&rng, 6)) {
			stop_one(place);
			continue;
		}
		if (!rng_one_in(&rng, 4))
			aim(place);
		kill_one(place);
	}
}

static bool all_paused(void)
{
	for (unsigned i = 0; i < workers; i++)
		if (!posts[i].paused)
			return false;
	return true;
}

static void pause_all(void)
{
	uint64_t begin = torture_now();

	atomic_store(&control->pause, 1);
	while (!all_paused()) {
		if (torture_now() > begin + PATIENCE)
			complain_of_standstill("a worker does not come to its pause");
		hear(SECOND / 10);
	}
}

static void go_on(void)
{
	disturbed = torture_now();
	atomic_store(&control->pause, 0);
	for (unsigned i = 0; i < workers; i++) {
		posts[i].paused = false;
		assert_int_equal(write(posts[i].commands, "g", 1), 1);
	}
}

/* At once, as far as a loop can. */
static void kill_all(void)
{
	for (unsigned i = 0; i < workers; i++)
		kill(posts[i].pid, SIGKILL);
	for (unsigned i = 0; i < workers; i++)
		bury(i);
}

/* The file and its lock file, and nothing else. */
static void nothing_left_over(void)
{
	struct dirent *entry;
	DIR *dir = opendir(folder);

	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.' && strcmp(entry->d_name, "db") != 0 &&
			strcmp(entry->d_name, "db-lock") != 0)
			fail_msg("'%s' was left over", entry->d_name);
	closedir(dir);
}

/* Against the books.  Nobody works now. */
static void audit(unsigned flags, const char *when)
{
	struct bed bed = {0};
	struct torture_shared shared;
	uint64_t own[TORTURE_OWN];
	const char *wrong;
	struct bts_txn *txn;
	struct bts_stat stat;

	strcpy(bed.path, path);
	if (bed_try_open(&bed, flags, &bed.db))
		fail_msg("open %s: %s", when, bed.error.text);
	txn = bed_begin(&bed, BTS_READ);
	for (unsigned place = 0; place < workers; place++) {
		assert_int_equal(torture_read_own(txn, place, own, &wrong), BTS_OK);
		if (wrong)
			fail_msg("%s: %s", when, wrong);
		if (!torture_books_settle(&books, place, own))
			fail_msg("%s: acknowledged work is missing, or something else is there", when);
	}
	assert_int_equal(torture_read_shared(txn, &shared, &wrong), BTS_OK);
	if (wrong)
		fail_msg("%s: %s", when, wrong);
	if (!torture_books_shared(&books, &shared))
		fail_msg("%s: the sums are not what was acknowledged", when);
	bts_abort(txn);
	bed_check(&bed);
	stat = bed_stat(&bed);
	printf("%-14s acknowledged %" PRIu64 ", in flight kept %" PRIu64 " lost %" PRIu64
	       ", async lost %" PRIu64 "; %" PRIu64 " pages, %" PRIu64 " free, %" PRIu64
	       " of them held by %u readers, txid %" PRIu64 "\n",
		when, books.acknowledged, books.in_flight_kept, books.in_flight_lost, books.async_lost,
		(uint64_t)stat.pages, stat.free_pages, stat.pinned_pages, stat.readers, (uint64_t)stat.txid);
	fflush(stdout);
	if (flags == 0) /* alone */
		assert_int_equal(stat.readers + stat.pinned_pages, 0);
	bts_close(bed.db);
	nothing_left_over();
}

static void found(void)
{
	struct bed bed = {0};
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	char room[32];

	strcpy(bed.path, path);
	bed_open(&bed);
	txn = bed_begin(&bed, BTS_WRITE);
	bucket = bed_bucket(txn, "data");
	for (unsigned i = 0; i < TORTURE_COUNTERS; i++)
		assert_int_equal(
			torture_put_number(txn, bucket, torture_number_key(room, "counter", i), 0), BTS_OK);
	for (unsigned i = 0; i < TORTURE_ACCOUNTS; i++) {
		books.accounts[i] = TORTURE_BALANCE;
		assert_int_equal(torture_put_number(txn, bucket, torture_number_key(room, "account", i),
					 TORTURE_BALANCE),
			BTS_OK);
	}
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(
			torture_put_number(txn, bucket, torture_number_key(room, "duty", i), 1), BTS_OK);
	bed_commit(&bed, txn);
	bts_close(bed.db);
}

static int stall_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void tell(void)
{
	static const double parts[] = {0.5, 0.9, 0.99, 0.999};

	printf("%u rounds, %u massacres, %u kills, %u stops (%u killed then, %u blamed), %u of both in a "
	       "commit\n",
		rounds, massacres, kills, stops, killed_stopped, blamed, aimed);
	for (unsigned i = 0; i < TORTURE_TALLIES; i++)
		printf("%s %" PRIu64 "%s", torture_deed_names[i], (uint64_t)atomic_load(&control->tally[i]),
			i + 1 < TORTURE_TALLIES ? ", " : "\n");
	if (stall_count == 0)
		return;
	qsort(stalls, stall_count, sizeof(stalls[0]), stall_order);
	printf("from a kill to the next commit of another, ms:");
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		printf(" %g%% %.2f,", parts[i] * 100,
			(double)stalls[(size_t)(parts[i] * (double)stall_count)] / 1e6);
	printf(" longest %.2f (%zu); between two commits without a kill %.2f at most\n",
		(double)stalls[stall_count - 1] / 1e6, stall_count, (double)calm_gap / 1e6);
}

static void torture(void **state)
{
	uint64_t end = torture_now() + seconds * SECOND;

	(void)state;
	found();
	for (unsigned i = 0; i < workers; i++)
		hire(i);
	while (torture_now() < end) {
		rounds++;
		torment(torture_now() + ROUND_SECONDS * SECOND);
		if (rng_one_in(&rng, 2)) {
			massacres++;
			kill_all();
			if (rng_one_in(&rng, 2)) /* else those who come next race to recover it */
				audit(0, "all died");
			for (unsigned i = 0; i < workers; i++)
				hire(i);
			continue;
		}
		pause_all();
		audit(BTS_OPEN_READ_ONLY, "all pause");
		go_on();
	}
	pause_all();
	audit(BTS_OPEN_READ_ONLY, "at the end");
	kill_all();
	audit(0, "all are dead");
	audit(0, "once more");
	tell();
	passed = true;
}

static int start(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "%.30s/bts-torture-%d", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
		(int)getpid());
	snprintf(path, sizeof(path), "%s/db", folder);
	assert_int_equal(mkdir(folder, 0700), 0);
	rng_init(&rng, seed);
	control_file = memfd_create("torture", MFD_CLOEXEC);
	assert_int_equal(ftruncate(control_file, sizeof(*control)), 0);
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, control_file, 0);
	assert_true(control != MAP_FAILED);
	return 0;
}

/* Also after a failure; then the file is kept to be looked at. */
static int finish(void **state)
{
	struct bed bed = {0};

	(void)state;
	for (unsigned i = 0; i < workers; i++)
		if (posts[i].pid > 0)
			kill(posts[i].pid, SIGKILL);
	strcpy(bed.path, path);
	if (passed && getenv("BTS_TORTURE_KEEP") == NULL) {
		bed_remove(&bed);
		rmdir(folder);
	} else {
		printf("kept: %s\n", folder);
	}
	munmap(control, sizeof(*control));
	close(control_file);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(torture, start, finish),
	};

	if (argc == 5 && strcmp(argv[0], "worker") == 0)
		torture_work(argv[1], (unsigned)atoi(argv[2]), strtoull(argv[3], NULL, 10),
			strtoull(argv[4], NULL, 10));
	signal(SIGPIPE, SIG_IGN);
	for (; argc > 1 && strchr(argv[argc - 1], '='); argc--) {
		sscanf(argv[argc - 1], "seconds=%" SCNu64, &seconds);
		sscanf(argv[argc - 1], "workers=%" SCNu64, &workers);
	}
	if (workers < 1 || workers > TORTURE_PLACES)
		workers = TORTURE_PLACES;
	seed = rng_seed_from(argc, argv, 6);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
