/* How far a first transfer has come, and how fast it is.  No clock of its own. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool under_way;
	uint64_t done, total; /* bytes of the file: up to the last page that came, and all; total 0: not told */
	uint64_t rate;	      /* bytes a second, over the last second or so; 0: not known yet */
	uint64_t since_ms, bytes;
};

void progress_begin(struct progress *, uint64_t total, uint64_t now_ms);
/* So many bytes came, up to that place in the file. */
void progress_came(struct progress *, uint64_t bytes, uint64_t end, uint64_t now_ms);
void progress_end(struct progress *);

#endif
