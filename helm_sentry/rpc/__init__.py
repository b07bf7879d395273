"""The gRPC service of the daemon: its description, what is generated from it, and how it is served."""
