/* The description of this API, as it was built in: openapi.yaml. */
#include "handle.h"
#include "reply.h"
#include "request.h"

extern const char openapi_text[], openapi_end[];

/* The file itself, between two labels: the assembler takes it in as it is. */
__asm__(".pushsection .rodata\n"
	".global openapi_text\n"
	"openapi_text:\n"
	".incbin \"" OPENAPI_FILE "\"\n"
	".global openapi_end\n"
	"openapi_end:\n"
	".byte 0\n"
	".popsection\n");

static void openapi_release(void *arg)
{
	(void)arg;
}

void handle_openapi(struct request *r)
{
	struct bts_slice text = {openapi_text, (size_t)(openapi_end - openapi_text)};

	request_set_header(r, "Cache-Control", "no-cache");
	reply_borrowed(r, 200, "application/yaml", text, openapi_release, NULL);
}
