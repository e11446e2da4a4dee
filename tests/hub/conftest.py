"""The hub, for the tests of the hub itself."""

from tests.hub.fixtures import hub, waits

__all__ = ["hub", "waits"]
