/* The settings of btsd: what they are is one table in config.c (settings.h tells how they are given). */
#ifndef HTTPAPI_CONFIG_H
#define HTTPAPI_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "archive.h"
#include "failover_run.h"
#include "secure.h"
#include "settings.h"

enum config_role { CONFIG_ROLE_NONE, CONFIG_PRIMARY, CONFIG_FOLLOWER };
enum config_log_format { CONFIG_LOG_TEXT, CONFIG_LOG_JSON };

/* Numbers of settings that a reload may change are read with SETTINGS_NOW, texts by the main thread only. */
struct config {
	unsigned role; /* enum config_role */
	int follower;  /* role is CONFIG_FOLLOWER */
	int rejoin, zstd;
	const char *data, *from, *primary_url, *name; /* NULL: not given */
	uint64_t max_rate;			      /* of a follower, bytes a second; 0: no limit */
	uint64_t serve_rate;			      /* to all followers together, bytes a second; 0: no limit */
	struct settings_address listen, admin;	      /* admin.size 0: none */
	struct settings_address replication;	      /* size 0: on the API port, where that speaks no TLS */
	const char *url;			      /* of this node, told to others; NULL: as it listens */
	int admin_plain;			      /* no TLS on the admin listener */
	uint64_t per_address;			      /* connections; 0: the default */
	struct failover_settings failover;
	struct secure secure;
	struct archive_settings archive;
	uint64_t threads;
	uint64_t max_body;	/* bytes; SETTINGS_NOW */
	uint64_t max_value;	/* likewise */
	uint64_t txn_max_ops, txn_max_bytes;		/* of a transaction or a multi-get; SETTINGS_NOW */
	uint64_t idempotency_ttl_ms, idempotency_max;	/* how long keys are kept, and how many; SETTINGS_NOW */
	const char *members;	/* names of nodes whose copies count; NULL: any named one's */
	const char *durability; /* of a write that does not say */
	unsigned copies;	/* the same, as quorum.h counts: 0 is local */
	uint64_t backups_max;	/* images at a time */
	uint64_t snapshots_max;	/* leased ones at a time */
	uint64_t snapshot_ttl_max_ms; /* of a lease */
	uint64_t snapshot_bytes_max;  /* that one may keep; 0: no limit */
	uint64_t watchers_max;	/* of change feeds */
	uint64_t changes_retain_ms, changes_pages; /* how old a bookmark may be, and what its state may cost */
	uint64_t changes_heartbeat_ms;
	unsigned log_format;	/* enum config_log_format; SETTINGS_NOW */
	const char *access_log; /* path, "-" or "off" */
	uint64_t slow_ms;	/* 0: none is logged */
	unsigned log_level;	/* enum log_level; SETTINGS_NOW */
};

/* settings_init and settings_read, and what only all settings together tell.  -1: go on; else the program's exit status, all said. */
int config_start(struct settings *, struct config *, int argc, char **argv);
/* The same once more for a reload.  0, or -1 with the reason in settings->why; the caller then takes over, or drops it. */
int config_again(struct settings *, struct config *, int argc, char **argv);

/* "127.0.0.1:8080" or "[::1]:8080" of a bound address. */
void config_address_text(const struct sockaddr_storage *, char text[64]);
#endif
