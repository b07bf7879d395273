"""From a raw syscall to operations a policy can judge. Pure."""
