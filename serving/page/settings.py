"""What the page is told by the environment: which API it asks, with which keys, and where it listens."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from vidseek.actions.queries import URL_VARIABLE
from vidseek.service import ADMIN_KEY_VARIABLE, KEY_VARIABLE
from vidseek_media.errors import ConfigError
from vidseek_media.secret import secret

HOST_VARIABLE = "VIDSEEK_PAGE_HOST"
PORT_VARIABLE = "VIDSEEK_PAGE_PORT"
OTHER_VARIABLE = "VIDSEEK_OTHER_URL"
DEFAULT_URL = "http://127.0.0.1:3000"
DEFAULT_PORT = 8501
MAX_UPLOAD_MB = 64
"""Of a picture or clip that is searched with: the API's own default, which may say less."""


@dataclass(frozen=True)
class PageSettings:
    """Which API, which keys, which address."""

    url: str = DEFAULT_URL
    key: str | None = None
    """Of the API."""
    admin_key: str | None = None
    """Of its admin routes, or None: then the pages that need it ask for it."""
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    other_url: str | None = None
    """A second API over the same videos, to compare with in the place of the base. It is asked with the same key."""

    def __post_init__(self) -> None:
        for name, url in ((URL_VARIABLE, self.url), (OTHER_VARIABLE, self.other_url)):
            if url is not None and not url.startswith(("http://", "https://")):
                raise ConfigError(f"{name} is {url!r}", code="bad-url", remedy="It begins with http:// or https://")
        if self.is_open and not self.key:
            raise ConfigError(
                f"the page would listen at {self.host}, and {KEY_VARIABLE} is not set: anybody could search",
                code="key-not-set",
                remedy="Set the key that visitors shall type in, or listen at 127.0.0.1",
            )

    @property
    def is_open(self) -> bool:
        """Whether others than this machine may reach the page: then each visitor must show the key."""
        return not ipaddress.ip_address(self.host).is_loopback

    @classmethod
    def of_environment(cls) -> PageSettings:
        """Return the settings in the environment variables, with defaults for missing ones.

        Raises:
            ConfigError: one of them cannot be.
        """
        try:
            return cls(
                url=(os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/"),
                key=secret(KEY_VARIABLE) or None,
                admin_key=secret(ADMIN_KEY_VARIABLE) or None,
                host=os.environ.get(HOST_VARIABLE) or "127.0.0.1",
                port=int(os.environ.get(PORT_VARIABLE) or DEFAULT_PORT),
                other_url=(os.environ.get(OTHER_VARIABLE) or "").rstrip("/") or None,
            )
        except ValueError as error:
            raise ConfigError(
                f"{HOST_VARIABLE} or {PORT_VARIABLE} cannot be used: {error}", code="setting-out-of-range",
            ) from error
