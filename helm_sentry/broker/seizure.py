"""The one way in which a call is left to the kernel and looked at before its thread runs on."""

from helm_sentry.broker.call import Call
from helm_sentry.broker.memory import Gone, Unreadable
from helm_sentry.intercept.interceptor import Watch


def continue_watched(call: Call) -> Watch:
    """Begin to watch the caller, record the call and continue it.

    Args:
        call: of a row that says why it may be continued.

    Raises:
        Gone: the caller died, or its thread id is somebody else's by now.
        Unreadable: the kernel keeps the caller from us.
        LookupError: the row gives no reason to continue.
    """
    if not call.row.continue_reason:
        raise LookupError(f"`{call.row.name}` gives no reason to continue it")
    try:
        watch = call.broker.listener.watch(call.notification)
    except ProcessLookupError:
        raise Gone from None
    except PermissionError:
        raise Unreadable from None
    try:
        call.broker.record(call, "continue")
        watch.proceed()
    except BaseException:
        watch.abandon()
        raise
    return watch
