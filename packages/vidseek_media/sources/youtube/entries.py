"""List the videos of a page with yt-dlp."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vidseek_media.errors import VidseekError
from vidseek_media.guards import mended_text
from vidseek_media.sources.youtube.failures import Cause, SiteFailure, failure_of
from vidseek_media.urls import bare_url


@dataclass(frozen=True)
class Entry:
    """One video that a page lists."""

    address: str
    """Site and id: `Youtube:dQw4w9WgXcQ`."""
    ask: Callable[[Any, bool], Any]
    """Asks a YoutubeDL for the video's information, and downloads the video if the second argument is true."""

    @property
    def stem(self) -> str:
        """The name of its files without suffix."""
        return _stem_of(self.address)


def walk_page(ydl: Any, result: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield the videos of a page in order; pages within it (a channel's tabs) are asked for when they are reached.

    Args:
        ydl: A YoutubeDL.
        result: What an extractor returned, unprocessed. Its shapes are described in yt-dlp's extractor/common.py: `_type`
            is video, url, url_transparent, playlist or multi_video.
    """
    kind = result.get("_type", "video")
    if kind in ("playlist", "multi_video"):
        for each in result.get("entries") or ():
            if each:
                yield from _walk_entry(ydl, each)
    elif kind == "video":
        address = mended_text(f"{result.get('extractor_key') or 'Site'}:{result['id']}")
        yield Entry(address, lambda ydl, load: ydl.process_ie_result(dict(result), download=load))
    else:
        url, key = str(result["url"]), result.get("ie_key")
        extractor = ydl.get_info_extractor(key) if key else None
        if extractor is not None and extractor.is_single_video(url):
            address = f"{key}:{result.get('id') or extractor.get_temp_id(url) or bare_url(url)}"
            yield Entry(mended_text(address), lambda ydl, load: ydl.extract_info(url, download=load, ie_key=key))
        else:
            yield from walk_page(ydl, ydl.extract_info(url, download=False, process=False, ie_key=key))


def _walk_entry(ydl: Any, each: Any) -> Iterator[Entry]:
    """Yield the videos of one entry of a page. An entry that is odd, or a page that is gone, is rejected as a video is.

    Args:
        ydl: A YoutubeDL.
        each: The entry, of any shape.

    Raises:
        Exception: of yt-dlp, where the site itself gives nothing more.
    """
    try:
        yield from walk_page(ydl, each)
    except Exception as error:  # an entry may be of any shape
        failure = failure_of(error)
        if not isinstance(failure, SiteFailure) or (failure.cause.is_of_the_site and failure.cause is not Cause.CHANGED):
            raise
        rejected = SiteFailure(failure.message)  # of this entry alone: it does not count towards a row of failures
        named = (each.get("id") or each.get("url")) if isinstance(each, dict) else None
        yield Entry(f"Entry:{mended_text(str(named or each))[:200]}", lambda ydl, load: _refuse(rejected))


def _refuse(failure: SiteFailure) -> None:
    raise failure


def ask_site(ask: Callable[[], Any]) -> Any:
    """Call yt-dlp and turn its errors into ours.

    Args:
        ask: The call.

    Raises:
        SiteFailure: this video, page or subtitle file cannot be downloaded.
        ArtifactError: the disk is full or not writable.
    """
    try:
        return ask()
    except VidseekError:
        raise
    except Exception as error:  # an extractor that fails to parse its site may raise any class
        raise failure_of(error) from error


def _stem_of(address: str) -> str:
    """Return the name of a video's files without suffix: site and id, in ASCII letters, digits, _ and -."""
    wanted = address.replace(":", "-", 1)
    plain = re.sub(r"[^\w-]", "_", wanted, flags=re.ASCII)[:120]
    return plain if plain == wanted else f"{plain}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
