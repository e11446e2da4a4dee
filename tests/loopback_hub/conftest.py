"""The hub, for the tests of the hub itself."""

from tests.loopback_hub.fixtures import hub, waits

__all__ = ["hub", "waits"]
