/* The clock that times to live are judged by. */
#include "ttl_clock.h"

#include <pthread.h>
#include <time.h>

#define TTL_CLOCK_STEP_NS INT64_C(1000000000) /* less is no step, only what two readings are apart */

static pthread_mutex_t ttl_clock_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ttl_clock ttl_clock_own;

uint64_t ttl_clock_read(struct ttl_clock *c, uint64_t real_ns, uint64_t boot_ns)
{
	uint64_t passed = c->boot_ns && boot_ns > c->boot_ns ? boot_ns - c->boot_ns : 0;
	uint64_t least = c->now_ns + passed / 2;

	if (c->boot_ns)
		c->stepped_ns += (int64_t)(real_ns - c->real_ns - passed);
	c->now_ns = real_ns > least ? real_ns : least;
	c->real_ns = real_ns;
	c->boot_ns = boot_ns;
	return c->now_ns;
}

int64_t ttl_clock_stepped(struct ttl_clock *c)
{
	int64_t by = c->stepped_ns;

	c->stepped_ns = 0;
	return by >= TTL_CLOCK_STEP_NS || by <= -TTL_CLOCK_STEP_NS ? by / 1000000 : 0;
}

static uint64_t ttl_clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

uint64_t ttl_now_ms(void)
{
	uint64_t now;

	pthread_mutex_lock(&ttl_clock_lock);
	now = ttl_clock_read(&ttl_clock_own, ttl_clock_ns(CLOCK_REALTIME), ttl_clock_ns(CLOCK_BOOTTIME));
	pthread_mutex_unlock(&ttl_clock_lock);
	return now / 1000000;
}

int64_t ttl_stepped_ms(void)
{
	int64_t by;

	pthread_mutex_lock(&ttl_clock_lock);
	by = ttl_clock_stepped(&ttl_clock_own);
	pthread_mutex_unlock(&ttl_clock_lock);
	return by;
}
