"""How the agent's syscalls reach the supervisor."""
