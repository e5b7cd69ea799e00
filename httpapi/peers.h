/* How many connections, and uploads, each address has: one that opens too many gets no more.  Any thread. */
#ifndef HTTPAPI_PEERS_H
#define HTTPAPI_PEERS_H

#include <sys/socket.h>

#define PEERS_DEFAULT 256

struct peer; /* an address that is counted */
struct peers;

/* limit 0: PEERS_DEFAULT, and none for this machine, where proxies are.  NULL: no memory. */
struct peers *peers_new(unsigned limit);
void peers_free(struct peers *); /* NULL is fine */
/*
 * A connection from there: 0 and *peer, to be given to peers_leave when it ends (NULL: it is not counted), or -1: too many.  A network
 * of IPv6 that one customer has (/64) counts as one address.
 */
int peers_enter(struct peers *, const struct sockaddr *, struct peer **peer);
void peers_leave(struct peers *, struct peer *); /* NULL is fine */
/*
 * What an address may have only so many of at a time: 0, to be given back with peers_put before its connection leaves, or -1.  NULL,
 * who is not counted, may have any number.
 */
int peers_take(struct peer *, unsigned most);
void peers_put(struct peer *);

#endif
