"""Facts about Linux: syscall numbers, flags, structures and the libc calls the supervisor makes."""
