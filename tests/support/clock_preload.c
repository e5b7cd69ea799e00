/*
 * A clock that a test sets: loaded before the C library (LD_PRELOAD), it adds what the file $CLOCK_FILE holds, a 64-bit
 * number of nanoseconds, to CLOCK_REALTIME.  The other clocks are the machine's.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *clock_preload_offset;

static void __attribute__((constructor)) clock_preload_begin(void)
{
	const char *path = getenv("CLOCK_FILE");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *map;

	if (fd < 0)
		return;
	map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		clock_preload_offset = map;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int status = (int)syscall(SYS_clock_gettime, clock, now);
	int64_t ns;

	if (!status && clock == CLOCK_REALTIME && clock_preload_offset) {
		ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + *clock_preload_offset;
		now->tv_sec = ns / 1000000000;
		now->tv_nsec = ns % 1000000000;
	}
	return status;
}
