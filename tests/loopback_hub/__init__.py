"""A Hugging Face Hub on the loopback interface, for the real client, with faults on demand. README.md describes it.

Tests use these names and the fixtures in `tests.loopback_hub.fixtures`; everything else is internal.
"""

from tests.loopback_hub.faults import COMMON_FAULTS, Fault
from tests.loopback_hub.git import Commit, LfsFile
from tests.loopback_hub.hub import LoopbackHub
from tests.loopback_hub.repos import Refusal, Repo

__all__ = ["COMMON_FAULTS", "Commit", "Fault", "LfsFile", "LoopbackHub", "Refusal", "Repo"]
