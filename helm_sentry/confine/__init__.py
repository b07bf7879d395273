"""What limits the agent without the supervisor: Landlock, resource limits, environment, credentials."""
