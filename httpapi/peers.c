/* How many connections each address has: a table of those that have any. */
#include "peers.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PEERS_CHAINS 1024

struct peer {
	struct peer *next, **link;
	uint64_t key;
	int v6;
	unsigned count;
	atomic_uint taken; /* peers_take */
};

struct peers {
	pthread_mutex_t lock;
	unsigned limit;
	uint64_t salt; /* nobody shall know which addresses share a chain */
	struct peer *chains[PEERS_CHAINS];
};

struct peers *peers_new(unsigned limit)
{
	struct peers *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	pthread_mutex_init(&p->lock, NULL);
	p->limit = limit;
	(void)!getrandom(&p->salt, sizeof(p->salt), 0);
	return p;
}

void peers_free(struct peers *p)
{
	unsigned i;

	for (i = 0; p && i < PEERS_CHAINS; i++)
		while (p->chains[i]) {
			struct peer *next = p->chains[i]->next;

			free(p->chains[i]);
			p->chains[i] = next;
		}
	if (p)
		pthread_mutex_destroy(&p->lock);
	free(p);
}

/* The address as a number, and whether it is this machine's; one of IPv4 in IPv6 is one of IPv4. */
static uint64_t peers_key(const struct sockaddr *sa, int *network_of_v6, int *own)
{
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	const struct sockaddr_in6 *v6 = (const void *)sa;
	uint64_t network;
	uint32_t v4;

	if (sa->sa_family == AF_INET6 && memcmp(&v6->sin6_addr, mapped, sizeof(mapped))) {
		*network_of_v6 = 1;
		*own = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
		memcpy(&network, &v6->sin6_addr, sizeof(network));
		return network;
	}
	if (sa->sa_family == AF_INET6)
		memcpy(&v4, v6->sin6_addr.s6_addr + 12, sizeof(v4));
	else
		v4 = ((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr;
	*own = ntohl(v4) >> 24 == 127;
	return v4;
}

int peers_enter(struct peers *p, const struct sockaddr *sa, struct peer **out)
{
	unsigned limit = p->limit ? p->limit : PEERS_DEFAULT;
	struct peer **chain, *peer;
	int own = 0, v6 = 0, full = 0;
	uint64_t key = peers_key(sa, &v6, &own);

	*out = NULL;
	if (own && !p->limit)
		return 0;
	chain = &p->chains[((key ^ p->salt) * UINT64_C(0x9e3779b97f4a7c15)) >> 54];
	pthread_mutex_lock(&p->lock);
	for (peer = *chain; peer && (peer->key != key || peer->v6 != v6); peer = peer->next)
		;
	if (!peer) {
		peer = calloc(1, sizeof(*peer));
		if (peer) {
			peer->key = key;
			peer->v6 = v6;
			peer->next = *chain;
			peer->link = chain;
			if (peer->next)
				peer->next->link = &peer->next;
			*chain = peer;
		}
	}
	full = !peer || peer->count >= limit;
	if (!full) {
		peer->count++;
		*out = peer;
	}
	pthread_mutex_unlock(&p->lock);
	return full ? -1 : 0;
}

void peers_leave(struct peers *p, struct peer *peer)
{
	if (!peer)
		return;
	pthread_mutex_lock(&p->lock);
	if (!--peer->count) {
		*peer->link = peer->next;
		if (peer->next)
			peer->next->link = peer->link;
		free(peer);
	}
	pthread_mutex_unlock(&p->lock);
}

int peers_take(struct peer *peer, unsigned most)
{
	if (!peer || atomic_fetch_add(&peer->taken, 1) < most)
		return 0;
	atomic_fetch_sub(&peer->taken, 1);
	return -1;
}

void peers_put(struct peer *peer)
{
	if (peer)
		atomic_fetch_sub(&peer->taken, 1);
}
