/*
 * A listening socket and the thread that takes connections from it: counts them, refuses what is too much, and hands each to the
 * loop, or to the replication, that it is for.
 */
#ifndef HTTPAPI_LISTENER_H
#define HTTPAPI_LISTENER_H

struct listener;
struct server;
struct settings_address;

enum listener_kind { LISTENER_API, LISTENER_ADMIN, LISTENER_FRAMES };
#define LISTENER_KINDS 3

/* Bind and listen.  The socket, or -1 with the reason logged; text gets the address with its port. */
int listener_open(const struct settings_address *, char text[64]);

/* Takes the socket; connections go to the loops from first on in turn.  NULL: no thread, no memory. */
struct listener *listener_start(struct server *, enum listener_kind, int fd, unsigned first, unsigned loops);
void listener_stop(struct listener *); /* NULL is fine */

#endif
