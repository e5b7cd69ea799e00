/* How far a first transfer has come: see progress.h. */
#include "progress.h"

#define PROGRESS_SPAN_MS 1000 /* that a rate is the mean of, at least */

void progress_begin(struct progress *progress, uint64_t total, uint64_t now_ms)
{
	*progress = (struct progress){.under_way = true, .total = total, .since_ms = now_ms};
}

void progress_came(struct progress *progress, uint64_t bytes, uint64_t end, uint64_t now_ms)
{
	uint64_t span = now_ms > progress->since_ms ? now_ms - progress->since_ms : 0;

	if (!progress->under_way)
		return;
	progress->bytes += bytes;
	if (end > progress->done)
		progress->done = end;
	/* The file may have grown since its size was told. */
	if (progress->total && progress->total < progress->done)
		progress->total = progress->done;
	if (span < PROGRESS_SPAN_MS)
		return;
	progress->rate = (uint64_t)((double)progress->bytes * 1000 / (double)span);
	progress->bytes = 0;
	progress->since_ms = now_ms;
}

void progress_end(struct progress *progress)
{
	*progress = (struct progress){.under_way = false};
}
