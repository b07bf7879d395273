"""The second witness: kernel programs that watch the agent beside the supervisor, and what they saw."""
