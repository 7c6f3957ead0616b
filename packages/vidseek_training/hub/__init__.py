"""Backbones of the model hub: fetched on demand, pinned to a commit, read from the local cache."""

from vidseek_training.hub.cache import find_snapshot, pinned
from vidseek_training.hub.fetching import Fetched, fetch
from vidseek_training.hub.names import HubName

__all__ = ["Fetched", "HubName", "fetch", "find_snapshot", "pinned"]
