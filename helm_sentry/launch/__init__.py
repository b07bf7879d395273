"""From an argument list to a confined process: the seccomp filter, the guardian and the child."""
