"""Webhooks: signed, tried again where they surely were not taken, and each moment received at most once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest

from tests.raising import raises
from tests.vidseek.saved.saved_archive import SECRET, Receiver, later, video_id
from tests.waiting import wait_until
from vidseek.archive import Archive
from vidseek.jobs.job_table import new_id
from vidseek.saved.records import SavedMoment, SavedQuery, SavedSearch
from vidseek.saved.saved_table import Looked, SavedTable, Seen
from vidseek.saved.saving import save_search
from vidseek.saved.webhooks import SECRET_VARIABLE, DeliveryReport, deliver, key_of
from vidseek_media.errors import ConfigError
from vidseek_media.files.fetching import UrlRefused
from vidseek_media.forgotten import ForgottenVideo, write_forgotten
from vidseek_retrieval.search.searcher import Searcher


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    found: list[Receiver] = []
    yield found
    for each in found:
        each.close()


@pytest.fixture
def receiver(request: pytest.FixtureRequest, receivers: list[Receiver]) -> Receiver:
    receivers.append(Receiver(*getattr(request, "param", (200,))))
    return receivers[-1]


def find(archive: Archive, receiver: Receiver, *numbers: int, name: str = "") -> None:
    """A saved search with a webhook, and a moment that is new for it in each of these videos, as a look leaves them."""
    table, search = SavedTable(archive.saved), SavedSearch(new_id(), name, SavedQuery(("red",)), receiver.url, 1.0)
    table.add(search, [], Seen())
    new = [
        SavedMoment(SavedMoment.id_of(search.id, video_id(each), 0, 1000), search.id, video_id(each), 0, 1000, 1.0,
                    {"video_id": video_id(each), "title": "é"}, "pending") for each in numbers
    ]
    table.keep([Looked(search.id, new)], Seen(), now=1.0, most=100)


def send(archive: Archive, receiver: Receiver, seconds: float = 10.0) -> DeliveryReport:
    return deliver(archive, lambda _: receiver.sender(seconds))


def moments(archive: Archive) -> list[SavedMoment]:
    table = SavedTable(archive.saved)
    return [moment for search in table.searches() for moment in table.moments(search.id, limit=100)]


def test_deliver__sends_each_moment_once_and_signed(archive: Archive, receiver: Receiver) -> None:
    find(archive, receiver, 3, 4, name="réd")
    assert send(archive, receiver) == DeliveryReport(num_sent=2)
    assert send(archive, receiver) == DeliveryReport()
    assert {each.delivery for each in moments(archive)} == {"sent"}
    told = {}
    for headers, body in receiver.came:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        made = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{made}"
        assert headers["content-type"] == "application/json" and headers["host"] == receiver.host
        told[headers["webhook-id"]] = json.loads(body)["data"]
    assert {each.id: (each.video_id, "réd") for each in moments(archive)} == {
        name: (data["moment"]["video_id"], data["saved_search"]["name"]) for name, data in told.items()
    }


@pytest.mark.parametrize("receiver", [(500, 503, 429, 200)], indirect=True)
def test_deliver__tries_again_what_was_refused_for_now(
    archive: Archive, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(archive, receiver, 3)
    assert send(archive, receiver) == DeliveryReport(num_waiting=1)
    assert send(archive, receiver) == DeliveryReport()  # not before its time
    for seconds, report in ((11, DeliveryReport(num_waiting=1)), (60, DeliveryReport(num_waiting=1)),
                            (200, DeliveryReport(num_sent=1)), (9000, DeliveryReport())):
        with monkeypatch.context() as patched:
            later(patched, seconds)
            assert send(archive, receiver) == report
    assert len({headers["webhook-id"] for headers, _ in receiver.came}) == 1 and len(receiver.came) == 4
    assert moments(archive)[0].attempts == 4


@pytest.mark.parametrize("receiver", [(500,)], indirect=True)
def test_deliver__gives_up_in_the_end_and_a_host_that_is_down_is_left_alone(
    archive: Archive, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    (archive.root / "params.yaml").write_text("saved: {webhook_attempts: 2}\n")
    find(archive, receiver, 3, 4)
    assert send(archive, receiver) == DeliveryReport(num_waiting=2)
    assert len(receiver.came) == 1  # the other waits too
    for seconds in (20, 60, 200, 600):
        with monkeypatch.context() as patched:
            later(patched, seconds)
            send(archive, receiver)
    assert [each.delivery for each in moments(archive)] == ["failed", "failed"] and len(receiver.came) == 4


@pytest.mark.parametrize(("receiver", "told"), [((301,), "301"), ((307,), "307"), ((400,), "400"), ((410,), "410")],
                         indirect=["receiver"])
def test_deliver__redirects_are_not_followed_and_refusals_are_final(
    archive: Archive, receiver: Receiver, told: str
) -> None:
    find(archive, receiver, 3)
    assert send(archive, receiver) == DeliveryReport(num_failed=1)
    assert len(receiver.came) == 1
    assert (moments(archive)[0].delivery, told in moments(archive)[0].told) == ("failed", True)


@pytest.mark.parametrize("receiver", [(0,)], indirect=True)
def test_deliver__one_that_hangs_is_unknown_and_not_sent_again(
    archive: Archive, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(archive, receiver, 3)
    assert send(archive, receiver, seconds=0.5) == DeliveryReport(num_unknown=1)
    later(monkeypatch, 10_000)
    assert send(archive, receiver) == DeliveryReport()
    assert len(receiver.came) == 1 and moments(archive)[0].delivery == "unknown"


def test_deliver__without_a_connection_it_is_tried_again(
    archive: Archive, receiver: Receiver, receivers: list[Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    find(archive, receiver, 3)
    receiver.close()
    assert send(archive, receiver) == DeliveryReport(num_waiting=1)
    receivers.clear()
    assert moments(archive)[0].delivery == "pending"


def test_deliver__of_a_process_that_died_meanwhile_is_not_sent_again(archive: Archive, receiver: Receiver) -> None:
    find(archive, receiver, 3, 4)
    table = SavedTable(archive.saved)
    dead = f"4194304@{os.uname().nodename}"
    assert table.claim(moments(archive)[0].id, worker=dead, now=0.0)  # beyond the largest process id
    assert not table.claim(moments(archive)[0].id, worker="me", now=0.0)
    assert send(archive, receiver) == DeliveryReport(num_sent=1, num_unknown=1)
    assert sorted(each.delivery for each in moments(archive)) == ["sent", "unknown"] and len(receiver.came) == 1


@pytest.mark.slow
@pytest.mark.parametrize("receiver", [(0, 200)], indirect=True)
def test_deliver__that_is_killed_while_nobody_answers_sends_nothing_again(archive: Archive, receiver: Receiver) -> None:
    find(archive, receiver, 3, 4)
    code = f"""
from pathlib import Path
from vidseek.archive import Archive
from vidseek.saved.webhooks import Sender, deliver, key_of
from vidseek_media.files.fetching import Fetcher
fetcher = Fetcher([{receiver.host!r}], max_bytes=0, timeout_seconds=60, resolve=lambda *_: ["127.0.0.1"], may_reach=bool)
deliver(Archive(Path({str(archive.root)!r})), lambda _: Sender(fetcher, key_of({SECRET!r})))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: receiver.came)
    process.kill()
    process.wait()
    assert send(archive, receiver) == DeliveryReport(num_sent=1, num_unknown=1)
    assert sorted(each.delivery for each in moments(archive)) == ["sent", "unknown"]
    assert len({headers["webhook-id"] for headers, _ in receiver.came}) == len(receiver.came) == 2


def test_deliver__two_at_once_send_each_moment_once(archive: Archive, receiver: Receiver) -> None:
    find(archive, receiver, *range(3, 11))
    threads = [threading.Thread(target=send, args=(archive, receiver)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(headers["webhook-id"] for headers, _ in receiver.came) == sorted(each.id for each in moments(archive))


def test_deliver__nothing_of_what_was_forgotten_or_removed(archive: Archive, receiver: Receiver) -> None:
    find(archive, receiver, 3, 4)
    write_forgotten(archive.decisions, [ForgottenVideo(video_id(3), ("x",), (), "", "")])
    assert send(archive, receiver) == DeliveryReport(num_sent=1)
    assert json.loads(receiver.came[0][1])["data"]["moment"]["video_id"] == video_id(4)
    find(archive, receiver, 6)
    for search in SavedTable(archive.saved).searches():
        SavedTable(archive.saved).remove(search.id)
    assert send(archive, receiver) == DeliveryReport() and len(receiver.came) == 1


def test_save__refuses_webhooks_that_may_not_be(
    archive: Archive, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real look-up of names: the receiver is on this machine, so it is never reached."""
    port = urlsplit(receiver.url).port
    query, searcher = SavedQuery(texts=("red",)), cast(Searcher, None)  # the webhook is looked at first
    for hosts, url, code in (
        ([], "https://hooks.example/", "webhooks-off"),
        ([f"127.0.0.1:{port}"], "https://hooks.example/", "host-not-allowed"),
        ([f"127.0.0.1:{port}"], f"http://127.0.0.1:{port}/", "private-host"),
        ([f"localhost:{port}"], f"http://localhost:{port}/", "private-host"),
        (["hooks.example"], "ftp://hooks.example/", "bad-address"),
        (["hooks.example"], "https://me@hooks.example/", "bad-address"),
    ):
        (archive.root / "params.yaml").write_text(f"saved: {{webhook_hosts: {json.dumps(hosts)}}}\n")
        monkeypatch.setenv(SECRET_VARIABLE, SECRET)
        with raises(UrlRefused, code=code):
            save_search(archive, query, searcher, webhook=url)
        monkeypatch.delenv(SECRET_VARIABLE)
        with raises((ConfigError if hosts else UrlRefused), code="webhook-secret" if hosts else "webhooks-off"):
            save_search(archive, query, searcher, webhook=url)
    assert SavedTable(archive.saved).searches() == [] and receiver.came == []


@pytest.mark.parametrize("text", [None, "short", "whsec_!!", "whsec_c2hvcnQ="])
def test_key__of_what_is_no_secret(text: str | None) -> None:
    with raises(ConfigError, code="webhook-secret"):
        key_of(text)


def test_key__of_base64_is_what_it_packs() -> None:
    assert key_of("whsec_" + base64.b64encode(b"x" * 24).decode()) == b"x" * 24 and key_of(SECRET) == SECRET.encode()


def test_names__of_webhooks_are_shown_as_hosts(archive: Archive, receiver: Receiver) -> None:
    find(archive, receiver, 3)
    [search] = SavedTable(archive.saved).searches()
    assert search.to_json()["webhook_host"] == receiver.host and "token" not in json.dumps(search.to_json())
    assert video_id(3) == moments(archive)[0].video_id
