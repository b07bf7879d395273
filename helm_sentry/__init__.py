"""Helm Sentry: the supervisor between an AI agent and a Linux machine."""

__version__ = "0.1.0"
