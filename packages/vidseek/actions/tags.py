"""Tags clips and videos of an archive: finds what is meant, and writes the decision down."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vidseek.actions.forget import id_of_video
from vidseek.archive import Archive
from vidseek_media.fields.tags import TagDecision, append_tag, read_tags
from vidseek_media.records import Span

Target = tuple[str, Span | None]
"""A video_id, and the span of a clip in milliseconds; None for the whole video."""


def target_of_clip(archive: Archive, clip_id: str) -> tuple[str, Span]:
    """Return the video and the span of a clip.

    Args:
        archive: The archive.
        clip_id: A UUID.

    Raises:
        ClipUnknown: the archive has no such clip, or its video was forgotten.
        ArtifactError: nothing was cut.
    """
    return clip_targets(archive)(clip_id)


def clip_targets(archive: Archive) -> Callable[[str], tuple[str, Span]]:
    """Return what finds the video and the span of a clip as `target_of_clip` does; the tables are read once, now.

    Args:
        archive: The archive.

    Raises:
        ArtifactError: nothing was cut.
    """
    from vidseek_media.cutting.cut import clip_spans
    from vidseek_media.forgotten import read_forgotten
    from vidseek_retrieval.search.browse import ClipUnknown

    spans, forgotten = clip_spans(archive.cut), read_forgotten(archive.decisions).video_ids

    def target(clip_id: str) -> tuple[str, Span]:
        found = spans.get(clip_id.strip().lower())
        if found is None or found[0] in forgotten:
            raise ClipUnknown(f"the archive has no clip {clip_id}", remedy="Take the best_clip_id of a hit")
        return found

    return target


def target_of_video(archive: Archive, name: str) -> Target:
    """Return a whole video.

    Args:
        archive: The archive.
        name: Id of the video, its first digits, or one of its uris.

    Raises:
        InputRejected: no video of the archive matches, or several do.
        ArtifactError: nothing was ingested.
    """
    return id_of_video(archive, name), None


def decide_tags(
    archive: Archive, target: Target, tags: Sequence[str], *, has_tag: bool, who: str
) -> list[TagDecision]:
    """Set or remove tags, one after the other. They are searched after the next publish.

    Args:
        archive: The archive.
        target: What is tagged.
        tags: The tags.
        has_tag: Whether they are set, not removed.
        who: The person.

    Raises:
        InputRejected: a tag is empty, too long, or no text.
        ArtifactError: the disk cannot hold it.
    """
    decided = [TagDecision.now(*target, tag, has_tag=has_tag, who=who) for tag in tags]
    for each in decided:
        append_tag(archive.decisions, each)
    return decided


def count_auto_tags(archive: Archive) -> dict[str, int]:
    """Return how many clips have each tag by its prompts, as the last publish found, before what people say of them.

    Args:
        archive: The archive.

    Raises:
        ArtifactError: the receipt is broken.
    """
    from vidseek.reports.overview import read_json

    receipt = read_json(archive.receipts / "publish.json") or {}
    return {str(each["tag"]): int(each["num_clips"]) for each in receipt.get("auto_tags") or ()}


def list_tags(archive: Archive, target: Target | None = None) -> list[TagDecision]:
    """Return the decisions, in their order.

    Args:
        archive: The archive.
        target: Of this alone; None for all.
    """
    found = read_tags(archive.decisions)
    if target is None:
        return found
    video_id, span = target
    return [each for each in found if each.video_id == video_id and (span is None or (each.start_ms, each.end_ms) == span)]
