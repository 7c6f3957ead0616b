"""Final Cut Pro's XML (FCPXML 1.8), by OpenTimelineIO's adapter.

Of what the adapter writes, this is put right here: it knows the durations of frames by rounded rates (29.97 gets none);
it asks ffprobe for the size of each file that it finds; it places the picture of a clip at 0, where a source with
timecode has no frame; and it leaves out the sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from xml.dom import minidom
from xml.etree import ElementTree

from vidseek.edit.events import Event
from vidseek.edit.timeline import one_rate, require_library, timeline_of

_PLACEHOLDER = "vidseek-source:"
"""Stands for a file while the adapter runs: it opens what it finds."""


def fcpxml_text(events: Sequence[Event], name: str) -> str:
    """Return the timeline as FCPXML: one project with one storyline.

    Args:
        events: At least one, all of one rate.
        name: Of the timeline.

    Raises:
        InputRejected: the events have several rates.
        ConfigError: OpenTimelineIO or its adapter is not installed.
    """
    require_library("fcpxml")
    import opentimelineio as otio

    rate = one_rate(events, "FCPXML")
    sources = list(dict.fromkeys(event.url for event in events))
    urls = [f"{_PLACEHOLDER}{sources.index(event.url)}" for event in events]
    written = str(otio.adapters.write_to_string(timeline_of(events, name, urls=urls), "fcpx_xml"))
    root = ElementTree.fromstring(written)
    by_placeholder = dict(zip(urls, events, strict=True))
    _mend_assets(root, by_placeholder, 1 / rate)
    _mend_storyline(root, events)
    return _document(root)


def _mend_assets(root: ElementTree.Element, events: dict[str, Event], frame: Fraction) -> None:
    """Give each size of picture a format of its own, and each asset its file and its sound."""
    resources = root.find("resources")
    assert resources is not None
    for old in resources.findall("format"):
        resources.remove(old)
    formats: dict[tuple[int, int], str] = {}
    for asset in resources.findall("asset"):
        event = events[asset.attrib["src"]]
        size = event.times.width, event.times.height
        if size not in formats:
            formats[size] = f"f{len(formats) + 1}"
            resources.insert(len(formats) - 1, ElementTree.Element("format", {
                "id": formats[size], "frameDuration": f"{frame.numerator}/{frame.denominator}s",
                "width": str(size[0]), "height": str(size[1]),
            }))
        asset.attrib.update(src=event.url, name=event.file_name, format=formats[size], hasVideo="1")
        asset.attrib.update({"hasAudio": "1", "audioSources": "1"} if event.times.has_sound else {"hasAudio": "0"})


def _mend_storyline(root: ElementTree.Element, events: Sequence[Event]) -> None:
    """Turn the clips into clips of assets, which play picture and sound by the source's timecode."""
    formats = {asset.attrib["id"]: asset.attrib["format"] for asset in root.iter("asset")}
    for project in root.iter("project"):
        if not project.attrib.get("uid"):
            project.attrib.pop("uid", None)
    for clip in root.findall("asset-clip"):
        clip.attrib["format"] = formats[clip.attrib["ref"]]
    for sequence in root.iter("sequence"):
        sequence.attrib.update(
            format=next(iter(formats.values())), tcStart="0s",
            tcFormat="DF" if all(event.times.is_drop for event in events) else "NDF",
        )
    clips = [clip for spine in root.iter("spine") for clip in spine.findall("clip")]
    for clip, event in zip(clips, events, strict=True):
        video = clip.find("video")
        assert video is not None
        clip.remove(video)
        clip.tag = "asset-clip"
        clip.attrib.update(
            ref=video.attrib["ref"], format=formats[video.attrib["ref"]], tcFormat="DF" if event.times.is_drop else "NDF",
        )


def _document(root: ElementTree.Element) -> str:
    for element in root.iter():
        element.text = element.tail = None
    pretty = minidom.parseString(ElementTree.tostring(root, encoding="unicode")).documentElement
    assert pretty is not None
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n{pretty.toprettyxml(indent="    ")}'
