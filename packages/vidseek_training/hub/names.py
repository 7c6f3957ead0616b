"""Names of models on the hub: `owner/name`, or `owner/name@revision`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vidseek_media.names import shown
from vidseek_training.hub.faults import HubNameError, HubWrongKind

WANTED = "a backbone: a joint model of texts with pictures or videos"

_NAME = re.compile(r"(?P<repository>[A-Za-z0-9_][\w.-]{0,95}(?:/[\w][\w.-]{0,95})?)(?:@(?P<revision>[\w][\w./-]{0,255}))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PAGE = re.compile(
    r"(?:https?://[^/]+/|hf://)(?P<kind>datasets/|spaces/|models/)?(?P<repository>[^/@?#]+/[^/@?#]+)"
    r"(?:(?:/(?:tree|commit|blob|resolve)/|@)(?P<revision>[^?#]+?))?/?(?:[?#].*)?"
)
"""The address of a model's page, as it is copied from a browser."""


@dataclass(frozen=True)
class HubName:
    """A model of the hub, at a revision."""

    repository: str
    """`owner/name`."""
    revision: str = ""
    """A branch, a tag or a commit; empty for the branch `main`."""

    @classmethod
    def parse(cls, text: str) -> HubName | None:
        """Parse `owner/name` or `owner/name@revision`; None for any other text, which then means a folder."""
        match = _NAME.fullmatch(text)
        if match is None or "/" not in match["repository"] or "--" in match["repository"]:
            return None
        if any(part in text for part in ("..", "//", "/.")) or text.endswith(("/", ".", ".lock", ".git")):
            return None
        return cls(match["repository"], match["revision"] or "")

    @classmethod
    def asked(cls, text: str) -> HubName:
        """Parse a name that a user typed: as `parse`, or the URL of a model's page.

        Raises:
            HubNameError: it is neither.
            HubWrongKind: it is the page of a data set or a space.
        """
        text = text.strip()
        page = _PAGE.fullmatch(text)
        if page is not None and page["kind"] in ("datasets/", "spaces/"):
            kind = {"datasets/": "a data set", "spaces/": "a space"}[page["kind"]]
            raise HubWrongKind(f"{shown(text)} is {kind}; wanted {WANTED}", remedy="Name a model, such as owner/name")
        if page is not None:
            revision = f"@{page['revision']}" if page["revision"] else ""
            text = f"{page['repository']}{revision}"
        found = cls.parse(text)
        if found is None:
            raise HubNameError(
                f"{shown(text)} is no name of a model; wanted owner/name, or owner/name@revision",
                remedy="Copy the name from the model's page on the hub, such as openai/clip-vit-base-patch32",
            )
        return found

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a whole commit hash, which names the same files for ever."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def branch(self) -> str:
        """The revision to look up: `main` where none is named."""
        return self.revision or "main"

    def at(self, revision: str) -> HubName:
        """Return the same model at another revision."""
        return replace(self, revision=revision)

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}" if self.revision else self.repository
