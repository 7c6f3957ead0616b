"""The ledger of proofs: which validation rows were used for a proof, when, by which challengers, and with what result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError
from vidseek_media.files.folders import write_text
from vidseek_training.evaluation.proof import ALPHA, Challenge

LEDGER = "proofs.jsonl"


@dataclass(frozen=True)
class ProofUse:
    """One use of proof rows; a line of the ledger."""

    used_at: str
    """RFC 3339, UTC."""
    rows: str
    """The hash of the rows, which are a gallery: `train.gallery_hash`."""
    groups: tuple[str, ...]
    """The first digits of a hash of each group's name and of each video: a group may be named anew."""
    champion: str
    """The sha256 of its adapter, or the name of the backbone."""
    alpha: float
    """Of all challengers of this use together."""
    challenges: dict[str, Challenge]
    """By the sha256 of the challenger's adapter."""

    @staticmethod
    def of(
        rows: str, groups: Iterable[str], champion: str, alpha: float, challenges: dict[str, Challenge]
    ) -> ProofUse:
        """Create the record of a use at the present time.

        Args:
            rows: Hash of the proof rows.
            groups: Groups of videos of the proof rows.
            champion: sha256 of the champion.
            alpha: Level that was spent.
            challenges: Results by the sha256 of the challenger.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return ProofUse(now, rows, group_marks(groups), champion, alpha, challenges)

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(line: str) -> ProofUse:
        """Restore a record from a line of `to_json`.

        Raises:
            ValueError: the line is not a record.
        """
        try:
            content: dict[str, Any] = json.loads(line)
            challenges = {name: Challenge(**each) for name, each in content["challenges"].items()}
            return ProofUse(**content | {"groups": tuple(content["groups"]), "challenges": challenges})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is no use of proof rows: {error}") from error


@dataclass(frozen=True)
class ProofLedger:
    """All uses that are known, oldest first."""

    uses: tuple[ProofUse, ...]

    @staticmethod
    def read(*paths: Path) -> ProofLedger:
        """Read the uses in all given files: the archive's own, and the copy beside the champion.

        Raises:
            ArtifactError: a file cannot be read.
        """
        found: dict[str, ProofUse] = {}
        for path in paths:
            try:
                lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
                found |= {line: ProofUse.from_json(line) for line in lines if line.strip()}
            except (OSError, ValueError) as error:
                raise ArtifactError(
                    f"{path} says how often the proof rows have been used, and cannot be read: {error}",
                    code="proof-ledger-broken",
                    remedy="Bring it back from a copy; without it the rows count as unused, and a proof is worth less",
                ) from error
        return ProofLedger(tuple(sorted(found.values(), key=lambda use: use.used_at)))

    def times_used(self, groups: Sequence[str], videos: Sequence[str] | None = None) -> float:
        """Return how often the proof rows of groups of videos have been used; 0 means never.

        A use that shares only some of the groups counts as that share. A group is shared if one of its videos is, since a
        near-duplicate that joins a group may rename it.

        Args:
            groups: Shape (n,): the group of each query.
            videos: Shape (n,): the video of each query; None if only groups are known.
        """
        members: dict[str, set[str]] = {}
        for group, video in zip(groups, groups if videos is None else videos, strict=True):
            members.setdefault(str(group), {str(group)}).add(str(video))
        marks = [set(group_marks(own)) for own in members.values()]
        shared = sum(bool(own & seen) for seen in (set(use.groups) for use in self.uses) for own in marks)
        return round(shared / len(marks), 4) if marks else 0.0

    def known_challenges(self, rows: str, champion: str) -> dict[str, Challenge]:
        """Return earlier challenges on the same rows against the same champion, which can be reused without cost.

        Args:
            rows: Hash of the proof rows.
            champion: sha256 of the champion.

        Returns:
            The challenges by the sha256 of the challenger.
        """
        return {
            sha256: challenge for use in self.uses if (use.rows, use.champion) == (rows, champion)
            for sha256, challenge in use.challenges.items()
        }

    def proof_of(self, sha256: str) -> Challenge | None:
        """Return the last challenge that an adapter won; None if there is none."""
        won = [use.challenges[sha256] for use in self.uses if sha256 in use.challenges and use.challenges[sha256].won]
        return won[-1] if won else None

    def with_use(self, use: ProofUse) -> ProofLedger:
        """With one use more."""
        return ProofLedger((*self.uses, use))

    def write(self, path: Path) -> None:
        """Write all uses to `path`, whole or not at all; without uses no file is written."""
        if not self.uses:
            return
        write_text(path, "".join(f"{use.to_json()}\n" for use in self.uses))


def group_marks(groups: Iterable[str]) -> tuple[str, ...]:
    """Short marks of names of groups and videos, sorted, each once."""
    return tuple(sorted({hashlib.sha256(str(group).encode()).hexdigest()[:10] for group in groups}))


def used(num_queries: int, num_groups: int, times_used: float, alpha: float | None) -> str:
    """Describe in one sentence how many queries a proof used, and how often they were used.

    Args:
        num_queries: Number of queries.
        num_groups: Number of groups of videos.
        times_used: Earlier uses of these rows.
        alpha: Level that was spent; None if nothing was tested.
    """
    level = "nothing new was put to the proof" if alpha is None else f"tested at {alpha:.3g} of {ALPHA}"
    return (
        f"the proof half has {num_queries} queries of {num_groups} groups of videos and had been used {times_used:g} times "
        f"before; {level}"
    )


def as_lines(challenges: Sequence[Challenge]) -> list[str]:
    """Describe the result of each challenge for people, one line each."""
    lines = []
    for each in challenges:
        name = f"{each.challenger} against {each.champion}"
        if each.gain is None:
            lines.append(f"{name}: {each.verdict} ({each.choosing_gain:+.3f} in MRR on the choosing half)")
        else:
            low, high = ("?" if end is None else f"{end:+.3f}" for end in (each.low, each.high))
            lines.append(f"{name}: {each.verdict}, {each.gain:+.3f} [{low}, {high}] in MRR on the proof half")
    return lines


def lines_of(selected: Mapping[str, Any]) -> list[str]:
    """Describe the proof in selected.json for people: each challenge, the rows, and what could not be proven."""
    proof, challenges = selected["proof"], [Challenge(**each) for each in selected["challenges"]]
    earlier = selected.get("proven")
    since = [] if earlier is None or any(each.won for each in challenges) else as_lines([Challenge(**earlier)])
    return [
        *(f"{selected['setting']} is the champion by an earlier proof: {line}" for line in since), *as_lines(challenges),
        used(proof["num_queries"], proof["num_groups"], proof["times_used"], proof["alpha"]), *selected["notes"],
    ]
