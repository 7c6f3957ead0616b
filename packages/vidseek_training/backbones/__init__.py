"""Model families behind one protocol: texts and clips of T frames to features of one dimension."""

from vidseek_training.backbones.base import Backbone, BackboneSpec
from vidseek_training.backbones.loading import load, resolve, revision_of, weights_sha256
from vidseek_training.backbones.registry import Family, register
from vidseek_training.hub import pinned

__all__ = ["Backbone", "BackboneSpec", "Family", "load", "pinned", "register", "resolve", "revision_of", "weights_sha256"]
