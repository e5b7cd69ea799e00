/* What the tests over real HTTP share: a directory, writes, waiting, comparing, and a proxy that misbehaves.
 */
#ifndef REPLICA_H
#define REPLICA_H

#include <stdbool.h>
#include <stdint.h>

#include <btree_store/ship.h>

#include "follow.h"
#include "serve.h"

#define REPLICA_TIMEOUT_MS 60000 /* a test that waits longer has failed */

/* A directory of the test's own, removed with all in it by replica_leave. */
void replica_enter(char *dir, size_t size);
void replica_leave(const char *dir);
void replica_path(char *out, size_t size, const char *dir, const char *name);

/* Owned: bts_close.  Fails the test with the error's text. */
struct bts *replica_open(const char *path, unsigned flags);
/* The same by a name within dir. */
struct bts *replica_open_in(const char *dir, const char *name, unsigned flags);
/* A file as it stands, under another name within dir. */
void replica_copy(const char *dir, const char *from, const char *to);

/* One commit: keys [from, from + count) of bucket "b", values that depend on key, round and size. */
void replica_put(struct bts *db, unsigned from, unsigned count, unsigned round, size_t size);
bts_txid replica_txid(struct bts *db);

/* Server on a free port and its URL. */
struct serve *replica_serve(struct bts *db, char *url, size_t size);
struct follow *replica_follow(const char *path, const char *url, const char *node);
/* Until the follower has that commit; fails the test when it stops or takes too long. */
void replica_await(struct follow *follow, bts_txid txid);
/* Until it has stopped for ever; fails the test when it does not. */
void replica_await_stopped(struct follow *follow, struct follow_status *status);

/* Until so many requests have failed. */
void replica_await_retries(struct follow *follow, uint64_t retries);

/* Same position, same root digest, same content; both check clean. */
void replica_assert_same(struct bts *a, struct bts *b);
void replica_assert_clean(struct bts *db);

/* Forwards connections to a port, and does harm to what comes back. */
struct proxy;
struct proxy *proxy_start(unsigned upstream_port, char *url, size_t size);
/* The next `times` connections: cut after that many bytes of the answers; flip != 0: one bit of that byte
 * instead. */
void proxy_harm(struct proxy *, unsigned times, uint64_t after, bool flip);
unsigned proxy_harmed(struct proxy *);	    /* connections harmed so far */
void proxy_hang(struct proxy *, bool hang); /* pass nothing on, close nothing, until told otherwise */
void proxy_hang_after(struct proxy *, uint64_t answered); /* the same from where an answer has so many bytes, or more, on; once */
unsigned proxy_asked(struct proxy *);	    /* times something came from clients */
void proxy_stop(struct proxy *);

#endif
