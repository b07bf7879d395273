"""The control plane: questions to people, live policies, and the sockets both arrive on."""
