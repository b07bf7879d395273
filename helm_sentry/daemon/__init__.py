"""The daemon: hosts runs, and serves gRPC, metrics and the journal about every run of its state directory."""
