/* How far long work is, on stderr. */
#include "bts_tool.h"
#include <time.h>
#include <unistd.h>

double bts_progress_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void bts_progress_begin(struct bts_progress *progress, const struct bts_args *args, const char *unit)
{
	*progress = (struct bts_progress){
		.what = args->command,
		.unit = unit,
		.off = args->json,
		.terminal = isatty(STDERR_FILENO),
		.start = bts_progress_clock(),
	};
	progress->next = progress->start + (progress->terminal ? 0.2 : 2.0);
}

void bts_progress_step(struct bts_progress *progress, uint64_t done, uint64_t part, uint64_t whole)
{
	double now;
	char share[16] = "";

	if (progress->off)
		return;
	now = bts_progress_clock();
	if (now < progress->next)
		return;
	progress->next = now + (progress->terminal ? 0.1 : 10.0);
	progress->shown = true;
	if (whole)
		snprintf(share, sizeof(share), ", %.0f%%", 100.0 * (double)part / (double)whole);
	fprintf(stderr, progress->terminal ? "\r\033[K%s: %llu %s%s, %.0f s" : "%s: %llu %s%s, %.0f s\n",
		progress->what, (unsigned long long)done, progress->unit, share, now - progress->start);
	fflush(stderr);
}

void bts_progress_end(struct bts_progress *progress)
{
	if (progress->terminal && progress->shown)
		fputs("\r\033[K", stderr);
	progress->off = true;
}
