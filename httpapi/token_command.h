/* btsd token: tokens of a file, without a server. */
#ifndef HTTPAPI_TOKEN_COMMAND_H
#define HTTPAPI_TOKEN_COMMAND_H

/* argv[0] is "token".  The exit status. */
int token_command(int argc, char **argv);

#endif
