/* bts promote, bts demote: who may write a file. */
#include "bts_tool.h"

#include <btree_store/ship.h>
#include <inttypes.h>

static void role_hex(const uint8_t *bytes, char out[33])
{
	for (int i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static int role_tell(const struct bts_args *args, const struct bts_role *role)
{
	static const char *const words[] = {"", "primary", "follower", "fenced"};
	char chain[33], digest[33];

	role_hex(role->position.chain, chain);
	role_hex(role->digest, digest);
	printf(args->json ? "{\"role\":\"%s\",\"position\":\"%" PRIu32 "-%016" PRIx64 "/%" PRIu64
			    "/%s\",\"root_digest\":\"%s\"}\n"
			  : "%s at %" PRIu32 "-%016" PRIx64 "/%" PRIu64 "/%s, digest %s\n",
		words[role->role], role->position.epoch, role->position.epoch_random, role->position.txid, chain, digest);
	return bts_tool_finish(args, BTS_EXIT_OK);
}

static enum bts_err role_open(const struct bts_args *args, unsigned flags, struct bts **db, struct bts_error *error)
{
	struct bts_options options;

	bts_options_init(&options);
	options.flags = BTS_OPEN_EXISTING | flags;
	return bts_open(args->file, &options, db, error);
}

int bts_cmd_promote(const struct bts_args *args)
{
	struct bts_role role = {.size = sizeof(role)};
	struct bts_error error = {0};
	struct bts *db = NULL;
	enum bts_err err = role_open(args, BTS_OPEN_FOLLOWER, &db, &error);

	if (!err)
		err = bts_promote(db, NULL, &role, &error);
	bts_close(db);
	return err ? bts_tool_fail_error(args, &error) : role_tell(args, &role);
}

/* Nobody has it open: as it stands.  Else beside the process that writes it. */
int bts_cmd_demote(const struct bts_args *args)
{
	struct bts_role role = {.size = sizeof(role)};
	struct bts_error error = {0};
	struct bts *db = NULL;
	enum bts_err err = role_open(args, BTS_OPEN_FOLLOWER | BTS_OPEN_FENCE, &db, &error);

	if (!err) {
		err = bts_role(db, &role, &error);
		role.role = BTS_ROLE_FENCED;
	} else if (err == BTS_BUSY) {
		err = role_open(args, 0, &db, &error);
		if (!err)
			err = bts_demote(db, &role, &error);
	}
	bts_close(db);
	return err ? bts_tool_fail_error(args, &error) : role_tell(args, &role);
}
