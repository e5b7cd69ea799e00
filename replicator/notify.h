/* Telling the service manager where this process stands: the protocol of sd_notify, which is a datagram. */
#ifndef NOTIFY_H
#define NOTIFY_H

enum notify_state { NOTIFY_READY, NOTIFY_RELOADING, NOTIFY_STOPPING };

/* Nothing happens where nobody asked for it (NOTIFY_SOCKET is not set), or when it cannot be told. */
void notify_state(enum notify_state);
#endif
