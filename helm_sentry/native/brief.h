/* System calls that nearly always end at once, made by threads that must not wait: one that takes longer is interrupted. */
#ifndef HELM_SENTRY_BRIEF_H
#define HELM_SENTRY_BRIEF_H

struct brief;

/* Prepare the calling thread, in which `signal`, whose handler does nothing, is blocked from now on. NULL where there is no
 * room. It lasts as long as the process. */
struct brief *brief_new(int signal);
/* What `brief_new` returned in this thread last. */
struct brief *brief_here(void);
/* Whether a TCP socket is connecting already: it may take its time, and another connect ends as this one does. */
int brief_is_connecting(int descriptor);
/* connect(2). Returns 0 or a negative errno: -EINTR when it was interrupted after half a millisecond or two. */
int brief_connect(struct brief *brief, int descriptor, const void *address, unsigned int size);

#endif
