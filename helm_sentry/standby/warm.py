"""What a run would wait for: modules, the shipped policies' patterns and trees, the compiled receiver."""

import contextlib
import importlib
import os

from helm_sentry import features, state
from helm_sentry.confine import credentials
from helm_sentry.errors import PolicyError
from helm_sentry.native import library
from helm_sentry.policy.loader import load_file, shipped_packs
from helm_sentry.sensor import loader as sensor

_LATER = (
    *("helm_sentry.cli.main", "helm_sentry.cli.run", "helm_sentry.control.handover", "helm_sentry.session"),
    *("helm_sentry.hosted", "helm_sentry.sensor.loader", "helm_sentry.sensor.witness"),
)
_RUN = dict.fromkeys(("workspace", "home", "tmp", "program"), "/nonexistent") | {"user": "nobody"}


def warm_up() -> None:
    """Load what every run loads, and read the shipped policies, whose parts are remembered by their text."""
    for name in _LATER:
        importlib.import_module(name)
    packs = shipped_packs()
    for policy in (*packs, *packs.presets):
        with contextlib.suppress(PolicyError):
            load_file(policy, _RUN)
    library.load()
    features.remember()
    credentials.user_name(os.getuid())


def load_ahead() -> tuple[int, ...]:
    """Have the kernel check the witness's programs, which takes 8 ms; what a run without a witness has of it is unused.

    Returns:
        Descriptors, which must stay open.
    """
    return sensor.load_ahead(state.witness_directory())
