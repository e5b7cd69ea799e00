/* Small replies made of response objects that have been used before. */
#include "reply_again.h"

#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

#include "rawhead.h"

static int reply_again_fits(
	const struct reply_kept *kept, const struct reply_fields *fields, const size_t *sizes, size_t size)
{
	unsigned i;

	if (!kept->response || kept->taken || kept->size != size || kept->count != fields->count)
		return 0;
	for (i = 0; i < kept->count; i++)
		if (kept->field[i].name != fields->field[i].name || kept->field[i].size != sizes[i])
			return 0;
	return 1;
}

/* -1: there is something that the library would have to judge. */
static int reply_again_write(struct reply_kept *kept, const struct reply_fields *fields)
{
	unsigned i;
	size_t k;

	for (i = 0; i < kept->count; i++) {
		const char *value = fields->field[i].value;

		if (!memcmp(kept->field[i].value, value, kept->field[i].size))
			continue;
		for (k = 0; k < kept->field[i].size; k++)
			if ((unsigned char)value[k] < ' ')
				return -1;
		memcpy(kept->field[i].value, value, kept->field[i].size);
	}
	return 0;
}

static void reply_again_drop(struct reply_kept *kept)
{
	if (kept->response)
		MHD_destroy_response(kept->response);
	free(kept->body);
	memset(kept, 0, sizeof(*kept));
}

struct reply_again_noted {
	struct reply_kept *kept;
	const struct reply_fields *fields;
};

static enum MHD_Result reply_again_note(
	void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct reply_again_noted *noted = cls;
	struct reply_kept *kept = noted->kept;
	unsigned i = kept->count++;

	(void)kind;
	if (i >= noted->fields->count || strcmp(name, noted->fields->field[i].name) ||
		strcmp(value, noted->fields->field[i].value)) {
		kept->taken = 1;
		return MHD_NO;
	}
	kept->field[i].name = noted->fields->field[i].name;
	kept->field[i].value = (char *)value;
	kept->field[i].size = strlen(value);
	return MHD_YES;
}

/* -1: not possible. */
static int reply_again_make(struct reply_kept *kept, const struct reply_fields *fields, struct bts_slice body)
{
	struct reply_again_noted noted = {kept, fields};
	unsigned i;

	kept->body = malloc(body.size + 1);
	if (!kept->body)
		return -1;
	kept->size = body.size;
	kept->response = MHD_create_response_from_buffer(body.size, kept->body, MHD_RESPMEM_PERSISTENT);
	if (!kept->response)
		goto fail;
	for (i = 0; i < fields->count; i++)
		if (MHD_add_response_header(kept->response, fields->field[i].name, fields->field[i].value) !=
			MHD_YES)
			goto fail;
	MHD_get_response_headers(kept->response, reply_again_note, &noted);
	if (!kept->taken && kept->count == fields->count)
		return 0;

fail:
	reply_again_drop(kept);
	return -1;
}

/* One that is free, in turn. */
static struct reply_kept *reply_again_room(struct reply_again *all)
{
	unsigned i;

	for (i = 0; i < REPLY_AGAIN_KEPT; i++) {
		struct reply_kept *kept = &all->kept[all->next++ % REPLY_AGAIN_KEPT];

		if (!kept->taken) {
			reply_again_drop(kept);
			return kept;
		}
	}
	return NULL;
}

struct MHD_Response *reply_again(struct reply_again *all, const struct reply_fields *fields,
	struct bts_slice body, struct reply_kept **taken)
{
	struct reply_kept *kept = NULL;
	size_t sizes[REPLY_AGAIN_FIELDS];
	unsigned i;

	*taken = NULL;
	if (body.size > REPLY_AGAIN_BODY || strcmp(MHD_get_version(), RAWHEAD_LIBRARY))
		return NULL;
	for (i = 0; i < fields->count; i++)
		sizes[i] = strlen(fields->field[i].value);
	for (i = 0; i < REPLY_AGAIN_KEPT && !kept; i++)
		if (reply_again_fits(&all->kept[i], fields, sizes, body.size))
			kept = &all->kept[i];
	if (kept) {
		if (reply_again_write(kept, fields))
			return NULL;
	} else {
		kept = reply_again_room(all);
		if (!kept || reply_again_make(kept, fields, body))
			return NULL;
	}
	if (body.size) {
		memcpy(kept->body, body.data, body.size);
		kept->taken = 1;
		*taken = kept;
	}
	return kept->response;
}

void reply_again_end(struct reply_kept *taken)
{
	if (taken)
		taken->taken = 0;
}

void reply_again_fini(struct reply_again *all)
{
	unsigned i;

	for (i = 0; i < REPLY_AGAIN_KEPT; i++)
		reply_again_drop(&all->kept[i]);
}
