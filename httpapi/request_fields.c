/* What a request says beside its path and its body: header fields and parameters; and the header fields of its reply. */
#include <inttypes.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

#include "accept.h"
#include "framing.h"
#include "reply.h"
#include "request.h"
#include "server.h"
#include "text.h"

const char *request_get_header(const struct request *r, const char *name)
{
	if (!(r->headers_seen & framing_mark(name, strlen(name))))
		return NULL;
	return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

static size_t request_trimmed(const char *value, size_t size)
{
	while (size && (value[size - 1] == ' ' || value[size - 1] == '\t'))
		size--;
	return size;
}

struct bts_slice request_get_value(const struct request *r, const char *name)
{
	const char *value = request_get_header(r, name);

	return (struct bts_slice){value, value ? request_trimmed(value, strlen(value)) : 0};
}

struct request_list {
	const char *name;
	struct buf *out;
};

static enum MHD_Result request_list_line(void *cls, enum MHD_ValueKind kind, const char *name,
	size_t name_size, const char *value, size_t size)
{
	struct request_list *list = cls;

	(void)kind;
	(void)name_size;
	if (strcasecmp(name, list->name))
		return MHD_YES;
	if (list->out->size)
		list->out->data[list->out->size - 1] = ',';
	buf_add(list->out, value, request_trimmed(value, size));
	buf_add(list->out, "", 1);
	return list->out->failed ? MHD_NO : MHD_YES;
}

void request_get_list(const struct request *r, const char *name, struct buf *out)
{
	struct request_list list = {name, out};

	if (r->headers_seen & framing_mark(name, strlen(name)))
		MHD_get_connection_values_n(r->mhd, MHD_HEADER_KIND, request_list_line, &list);
}

int request_accepts(const struct request *r, const char *type)
{
	struct buf list = {0};
	int accepts = 0;

	request_get_list(r, "Accept", &list);
	if (list.size && !list.failed)
		accepts = accept_names(list.data, type);
	buf_fini(&list);
	return accepts;
}

const struct bts_slice *request_param(const struct request *r, const char *name)
{
	return uri_param(&r->uri, name);
}

int request_param_flag(struct request *r, const char *name)
{
	const struct bts_slice *value = request_param(r, name);

	if (!value || (value->size == 1 && !memcmp(value->data, "0", 1)) ||
		(value->size == 5 && !memcmp(value->data, "false", 5)))
		return 0;
	if ((value->size == 1 && !memcmp(value->data, "1", 1)) ||
		(value->size == 4 && !memcmp(value->data, "true", 4)))
		return 1;
	reply_problem(r, 400, "invalid-parameter", NULL, "the parameter %s is true or false", name);
	return -1;
}

int request_param_u64(struct request *r, const char *name, uint64_t min, uint64_t max, uint64_t *value)
{
	const struct bts_slice *text = request_param(r, name);
	uint64_t number;

	if (!text)
		return 0;
	if (text_u64(text->data, text->size, max, &number) || number < min) {
		reply_problem(r, 400, "invalid-parameter", NULL,
			"the parameter %s is a number from %" PRIu64 " to %" PRIu64, name, min, max);
		return -1;
	}
	*value = number;
	return 0;
}

void request_set_header(struct request *r, const char *name, const char *value)
{
	size_t size = strlen(value) + 1;
	int owned = size > sizeof(r->header_text) - r->header_bytes;
	char *copy;

	if (r->header_count == REQUEST_HEADERS_MAX)
		return;
	if (owned) {
		copy = strdup(value);
	} else {
		copy = memcpy(r->header_text + r->header_bytes, value, size);
		r->header_bytes += size;
	}
	if (copy)
		r->headers[r->header_count++] = (struct request_header){name, copy, owned};
}

void request_drop_headers(struct request *r)
{
	while (r->header_count > 0)
		if (r->headers[--r->header_count].owned)
			free(r->headers[r->header_count].value);
	r->header_bytes = 0;
}

void request_take_id(struct request *r)
{
	struct bts_slice given = request_get_value(r, "X-Request-Id");
	size_t n = given.size;

	if (n && n < sizeof(r->id) &&
		strspn(given.data, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:+/=") >= n) {
		memcpy(r->id, given.data, n);
		r->id[n] = '\0';
	} else {
		struct server_loop *loop = r->loop;
		uint64_t x = ++loop->ids * UINT64_C(0x9e3779b97f4a7c15) ^ loop->id_salt;

		text_hex(r->id, &x, sizeof(x));
	}
}
