/* What a client takes (RFC 9110, 12.5.1). */
#ifndef HTTPAPI_ACCEPT_H
#define HTTPAPI_ACCEPT_H

/* Whether an Accept header (NULL: not given) names this very media type, with a q that is not 0.  A range with * names none. */
int accept_names(const char *header, const char *type);
#endif
