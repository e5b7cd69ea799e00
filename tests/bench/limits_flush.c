/*
 * What a durable write costs at least: pwrite into a file whose blocks exist and are written, then
 * fdatasync.  No file grows, so that a flush is the data and the device's own flush, without the file
 * system's journal.
 */
#include "limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FLUSH_PAGE 4096u
#define FLUSH_STEP 1250u /* pages of the largest write */
#define FLUSH_PAGES (50u * FLUSH_STEP)

static struct {
	int fd;
	char path[4200];
	uint8_t *buffer; /* FLUSH_STEP pages */
	uint64_t random;
} flush = {.fd = -1};

static void flush_free(void)
{
	if (flush.fd >= 0) {
		close(flush.fd);
		unlink(flush.path);
	}
	flush.fd = -1;
	free(flush.buffer);
	flush.buffer = NULL;
}

static int flush_write(uint64_t page, unsigned pages)
{
	size_t size = (size_t)pages * FLUSH_PAGE;

	flush.buffer[0]++;
	for (size_t done = 0; done < size;) {
		ssize_t n =
			pwrite(flush.fd, flush.buffer + done, size - done, (off_t)(page * FLUSH_PAGE + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return bench_fail("%s: pwrite: %s", flush.path, strerror(errno));
		done += (size_t)n;
	}
	return 0;
}

static int flush_sync(void)
{
	return fdatasync(flush.fd) ? bench_fail("%s: fdatasync: %s", flush.path, strerror(errno)) : 0;
}

static int flush_make(struct bench *bench)
{
	flush.random = bench->options.seed;
	flush.buffer = malloc((size_t)FLUSH_STEP * FLUSH_PAGE);
	if (!flush.buffer)
		return bench_fail("out of memory");
	for (size_t i = 0; i < (size_t)FLUSH_STEP * FLUSH_PAGE; i++)
		flush.buffer[i] = (uint8_t)bench_random(&flush.random);
	snprintf(flush.path, sizeof(flush.path), "%s/flush", bench->dir);
	flush.fd = open(flush.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (flush.fd < 0)
		return bench_fail("%s: %s", flush.path, strerror(errno));
	for (unsigned page = 0; page < FLUSH_PAGES; page += FLUSH_STEP)
		if (flush_write(page, FLUSH_STEP))
			return -1;
	return flush_sync();
}

/* Where so many pages fit, but not page 0, which stands for the meta page. */
static uint64_t flush_any(unsigned pages)
{
	return 1 + bench_random(&flush.random) % (FLUSH_PAGES - pages);
}

enum flush_kind { FLUSH_TOGETHER, FLUSH_AND_META, FLUSH_SCATTERED };

static int flush_once(enum flush_kind kind, unsigned pages)
{
	unsigned each = kind == FLUSH_SCATTERED ? 1 : pages;

	for (unsigned done = 0; done < pages; done += each)
		if (flush_write(flush_any(each), each))
			return -1;
	if (kind == FLUSH_AND_META && flush_write(0, 1))
		return -1;
	return flush_sync();
}

/* One or more flushes, until the slice is over. */
static int flush_slice(
	struct bench *bench, struct bench_lane *lane, const struct bench_work *work, double *sample)
{
	double begin = bench_clock(), end;
	unsigned count = 0;

	(void)lane;
	do {
		if (flush_once((enum flush_kind)work->b, (unsigned)work->a))
			return -1;
		count++;
		end = bench_clock();
	} while (end - begin < bench->options.seconds);
	*sample = (end - begin) / count * 1e6;
	return 0;
}

static const struct bench_work flush_works[] = {
	{.name = "overwrite 4 KiB, fdatasync", .unit = "us", .slice = flush_slice, .a = 1},
	{.name = "overwrite 16 KiB, fdatasync", .unit = "us", .slice = flush_slice, .a = 4},
	{.name = "overwrite 16 KiB and 4 KiB elsewhere, fdatasync",
		.unit = "us",
		.slice = flush_slice,
		.a = 4,
		.b = FLUSH_AND_META},
	{.name = "overwrite 1250 adjacent pages, fdatasync",
		.unit = "us",
		.slice = flush_slice,
		.a = FLUSH_STEP},
	{.name = "overwrite 1250 scattered pages, fdatasync",
		.unit = "us",
		.slice = flush_slice,
		.a = FLUSH_STEP,
		.b = FLUSH_SCATTERED},
};

const struct limits_part limits_flush = {flush_make, flush_free, flush_works, BENCH_COUNT(flush_works)};
