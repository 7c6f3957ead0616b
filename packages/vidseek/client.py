"""Client of a running API, for the page and agents: a method for each route, and one class of errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from vidseek_media.errors import ServiceError

TIMEOUT_SECONDS = 60.0
READY_TIMEOUT_SECONDS = 2.0


class Problem(ServiceError):
    """An error that the API answered, or no answer.

    Args:
        message: What came, and what was wanted.
        remedy: What the user can do.
        name: The API's code, such as `key_wrong` or `not_ready`; `no_answer` without an answer.
        fault: The API's finer code, one of docs/errors.md; empty if it states none.
        status: HTTP status; None without an answer.
    """

    code = "api-error"

    def __init__(
        self, message: str, *, remedy: str = "", name: str = "no_answer", fault: str = "", status: int | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.name = name
        self.fault = fault
        self.status = status

    @property
    def is_passing(self) -> bool:
        """Whether waiting may help: the API is down, or not ready yet."""
        return self.status in (None, 502, 503)


class Api:
    """Client of a running API. Safe to share between threads.

    Args:
        url: Base URL, without a slash at the end.
        key: API key, sent with every request; None sends none.
        client: HTTP client to use; None creates one.

    Examples:
        >>> def answer(request):  # stands for a running service
        ...     return httpx.Response(200, json={"hits": [], "next_offset": None})
        >>> api = Api("http://localhost:3000", client=httpx.Client(transport=httpx.MockTransport(answer)))
        >>> api.search({"text": "a red car", "limit": 3})["hits"]
        []
    """

    def __init__(self, url: str, *, key: str | None = None, client: httpx.Client | None = None) -> None:
        self.url = url
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = client or httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False)
        self._client.headers.update(headers)

    def is_ready(self) -> bool:
        """Whether the API would answer a search now."""
        try:
            return self._client.get(f"{self.url}/readyz", timeout=READY_TIMEOUT_SECONDS).status_code == 200
        except httpx.HTTPError:
            return False

    def search(self, body: Mapping[str, Any], *, files: Sequence[tuple[str, bytes]] = ()) -> dict[str, Any]:
        """Send POST /v1/search, and return the answer.

        Args:
            body: JSON of the request.
            files: Name (`image` or `clip`) and bytes of each attached file.

        Raises:
            Problem: the request was refused, or not answered.
        """
        if not files:
            return self._asked("POST", "/v1/search", json=dict(body))
        parts = [(name, ("upload", content, "application/octet-stream")) for name, content in files]
        return self._asked("POST", "/v1/search", data={"query": json.dumps(dict(body))}, files=parts)

    def export(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send POST /v1/export, and return the answer: the content of a timeline, and what is to be known of it.

        Args:
            body: JSON of the request.

        Raises:
            Problem: the request was refused, or not answered.
        """
        return self._asked("POST", "/v1/export", json=dict(body))

    def models(self) -> list[dict[str, Any]]:
        """Return the models that a search may name, the live one first, with a short timeout. Raises Problem."""
        found: list[dict[str, Any]] = self._asked("GET", "/v1/models", timeout=READY_TIMEOUT_SECONDS)["data"]
        return found

    def facets(self) -> dict[str, Any]:
        """Return the values that filters can take. Raises Problem."""
        return self._asked("GET", "/v1/facets")

    def clip(self, clip_id: str) -> dict[str, Any]:
        """Return the payload of a clip. Raises Problem."""
        return self._asked("GET", f"/v1/clips/{clip_id}")

    def neighbours(self, clip_id: str) -> list[dict[str, Any]]:
        """Return a clip and its neighbours in the video, in order of time. Raises Problem."""
        clips: list[dict[str, Any]] = self._asked("GET", f"/v1/clips/{clip_id}/neighbours")["clips"]
        return clips

    def transcript(self, clip_id: str) -> list[dict[str, Any]]:
        """Return what is said and written in a clip's video, in order of time. Raises Problem."""
        segments: list[dict[str, Any]] = self._asked("GET", f"/v1/clips/{clip_id}/transcript")["segments"]
        return segments

    def strip(self, clip_id: str, *, frames: int) -> bytes:
        """Return a JPEG with frames of a clip side by side. Raises Problem.

        Args:
            clip_id: Id of the clip.
            frames: Number of frames.
        """
        return self.content(f"/v1/clips/{clip_id}/strip?frames={frames}")

    def record_feedback(self, *, query: str, clip_id: str, relevant: bool) -> None:
        """Write feedback down. Raises Problem."""
        self._asked("POST", "/v1/feedback", json={"query": query, "clip_id": clip_id, "relevant": relevant})

    def tag_clip(self, clip_id: str, tag: str, *, has_tag: bool, who: str = "") -> list[str]:
        """Set or remove a tag of a clip, and return its tags after that; wants the admin key. Raises Problem.

        Args:
            clip_id: Id of the clip.
            tag: The tag.
            has_tag: Whether it is set, not removed.
            who: The person.
        """
        path = f"/v1/clips/{clip_id}/tags/{quote(tag, safe='')}"
        tags: list[str] = self._asked("PUT" if has_tag else "DELETE", path, params={"who": who})["tags"]
        return tags

    def caption_clip(self, clip_id: str, text: str, *, who: str = "") -> dict[str, Any]:
        """Write down what is seen in a clip; wants the admin key. Raises Problem.

        Args:
            clip_id: Id of the clip.
            text: The caption; empty takes back what the same person wrote of it.
            who: The person.
        """
        return self._asked("POST", f"/v1/clips/{clip_id}/captions", json={"text": text, "who": who})

    def saved(self) -> list[dict[str, Any]]:
        """Return the saved searches, each with its newest moments. Raises Problem."""
        found: list[dict[str, Any]] = self._asked("GET", "/v1/saved")["saved"]
        return found

    def save_search(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Save a search; wants the admin key. Raises Problem.

        Args:
            body: JSON of POST /v1/saved.
        """
        return self._asked("POST", "/v1/saved", json=dict(body))

    def remove_saved(self, saved_id: str) -> None:
        """Remove a saved search; wants the admin key. Raises Problem."""
        self._asked("DELETE", f"/v1/saved/{saved_id}")

    def admin(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call an admin route: GET without a body, else POST. Raises Problem.

        Args:
            path: Path below `/v1/admin/`.
            body: JSON of the request; None sends GET.
        """
        if body is None:
            return self._asked("GET", f"/v1/admin/{path}")
        return self._asked("POST", f"/v1/admin/{path}", json=dict(body))

    def jobs(self, *, limit: int = 50) -> dict[str, Any]:
        """Return the newest jobs of the archive; wants the admin key. Raises Problem."""
        return self._asked("GET", "/v1/jobs", params={"limit": limit})

    def retry_job(self, job_id: str) -> dict[str, Any]:
        """Put a job that failed into the queue again; wants the admin key. Raises Problem."""
        return self._asked("POST", f"/v1/jobs/{job_id}/retry", json={})

    def cancel_job(self, job_id: str) -> dict[str, Any]:
        """Take a job that waits out of the queue; wants the admin key. Raises Problem."""
        return self._asked("DELETE", f"/v1/jobs/{job_id}")

    @property
    def key(self) -> str | None:
        """The key that is sent with every request; None if there is none."""
        return self._client.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def content(self, path: str) -> bytes:
        """Return the bytes of a GET request. Raises Problem."""
        return self._answer("GET", path).content

    def _asked(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._answer(method, path, **options)
        try:
            content: dict[str, Any] = answer.json()
        except ValueError as error:
            raise Problem(
                f"{self.url} answers with something else than JSON",
                remedy="See that VIDSEEK_URL is the address of a vidseek API", status=answer.status_code,
            ) from error
        return content

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, f"{self.url}{path}", **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Problem(
                f"the API at {self.url} does not answer", remedy="See that `vidseek serve` runs there",
            ) from error
        if answer.is_success:
            return answer
        raise _problem(answer, self.url)


def _problem(answer: httpx.Response, url: str) -> Problem:
    try:
        said = answer.json()["error"]
        return Problem(
            str(said["message"]), remedy=str(said["remedy"]), name=str(said["code"]), fault=str(said.get("fault", "")),
            status=answer.status_code,
        )
    except (ValueError, KeyError, TypeError):
        return Problem(
            f"{url} answers {answer.status_code}", remedy="See that VIDSEEK_URL is a vidseek API",
            status=answer.status_code,
        )
