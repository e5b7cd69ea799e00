/*
 * store.h from the command line, for test_store.py.
 *
 *	store_tool URL put KEY FILE | new KEY FILE | get KEY | list PREFIX AFTER | delete KEY ...
 *
 * Any number of calls, one after the other.  What is got goes to standard output; each call says on a line of standard error "ok", or the
 * word of its error and the text; the exit status is 0 when all were well.  A listing prints "KEY SIZE MODIFIED" lines.
 * STORE_RETRY_MS, STORE_IDLE_S, STORE_TOTAL_MS as store_options has them.  SIGTERM interrupts.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

static void *store_tool_wait(void *arg)
{
	sigset_t signals;
	int which;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigwait(&signals, &which);
	store_interrupt(arg);
	return NULL;
}

static enum bts_err store_tool_on_piece(void *arg, const void *data, size_t size, struct bts_error *error)
{
	(void)arg;
	(void)error;
	fwrite(data, 1, size, stdout);
	return BTS_OK;
}

static enum bts_err store_tool_on_key(
	void *arg, const char *key, uint64_t size, uint64_t modified_ms, struct bts_error *error)
{
	(void)arg;
	(void)error;
	printf("%s %llu %llu\n", key, (unsigned long long)size, (unsigned long long)modified_ms);
	return BTS_OK;
}

static enum bts_err store_tool_put(
	struct store *store, const char *key, const char *name, bool only_new, struct bts_error *error)
{
	static char bytes[STORE_OBJECT_MAX + 1];
	FILE *file = fopen(name, "rb");
	size_t size;

	if (!file) {
		perror(name);
		exit(2);
	}
	size = fread(bytes, 1, sizeof(bytes), file);
	fclose(file);
	return store_put(store, key, (struct bts_slice){bytes, size}, only_new, error);
}

static unsigned store_tool_number(const char *name)
{
	const char *text = getenv(name);

	return text ? (unsigned)strtoul(text, NULL, 10) : 0;
}

int main(int argc, char **argv)
{
	const struct store_options options = {.retry_ms = store_tool_number("STORE_RETRY_MS"),
		.idle_s = store_tool_number("STORE_IDLE_S"),
		.total_ms = store_tool_number("STORE_TOTAL_MS")};
	int i, used, status = 0;
	struct bts_error error = {.text = ""};
	struct store *store;
	pthread_t thread;
	sigset_t signals;
	enum bts_err err;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	if (argc < 2)
		return 2;
	err = store_open(argv[1], &options, &store, &error);
	if (err) {
		fprintf(stderr, "%s: %s\n", bts_err_name(err), error.text);
		return 1;
	}
	pthread_create(&thread, NULL, store_tool_wait, store);
	for (i = 2; i + 1 < argc; i += used) {
		const char *what = argv[i], *key = argv[i + 1], *more = i + 2 < argc ? argv[i + 2] : "";

		used = strcmp(what, "get") == 0 || strcmp(what, "delete") == 0 ? 2 : 3;
		if (strcmp(what, "get") == 0)
			err = store_get(store, key, store_tool_on_piece, NULL, &error);
		else if (strcmp(what, "delete") == 0)
			err = store_delete(store, key, &error);
		else if (strcmp(what, "list") == 0)
			err = store_list(store, key, more, store_tool_on_key, NULL, &error);
		else
			err = store_tool_put(store, key, more, strcmp(what, "new") == 0, &error);
		fflush(stdout);
		fprintf(stderr, err ? "%s: %s\n" : "ok\n", bts_err_name(err), error.text);
		status |= err != BTS_OK;
	}
	pthread_kill(thread, SIGTERM);
	pthread_join(thread, NULL);
	store_close(store);
	return status;
}
