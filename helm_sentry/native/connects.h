/* Connects to this host that repeat what was decided, and what is remembered of them until the broker asks. */
#ifndef HELM_SENTRY_CONNECTS_H
#define HELM_SENTRY_CONNECTS_H

#include "receiver.h"

#define MOST_BEGUN 1024 /* connections that the broker has not asked for yet */

struct begun_connections {
	pthread_mutex_t lock;	   /* held for a few stores and never while anything is waited for */
	_Atomic uint32_t promised; /* places that are taken, or kept for a connect whose record is being written */
	uint32_t count;
	struct begun all[MOST_BEGUN];
};

#endif
