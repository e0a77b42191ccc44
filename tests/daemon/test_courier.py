"""Alerts to webhooks: signed, until they are taken, by one daemon, whatever the receiver is."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import itertools
import json
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from receiver import (
    Answer,
    Received,
    Receiver,
    answer,
    continuing,
    drip,
    endless,
    hang,
    hang_up,
    nonsense,
)
from telling import HOUR_S, Desk, desk_at, moved

from autosparse.daemon.beside import Beside
from autosparse.daemon.courier import LONGEST_S, Courier, check_webhook
from autosparse.daemon.signing import make_secret
from autosparse.errors import ConfigError
from autosparse.jobs.deliveries import CLAIM_S, Deliveries, Delivery
from autosparse.jobs.states import State

KEY = bytes(range(32))
Listen = Callable[..., Receiver]


@pytest.fixture
def desk(database_url: str, tmp_path: Path) -> Iterator[Desk]:
    with desk_at(database_url, tmp_path) as desk:
        desk.search()
        yield desk


@pytest.fixture
def listen() -> Iterator[Listen]:
    made: list[Receiver] = []

    def listen(*answers: Answer) -> Receiver:
        made.append(Receiver(list(answers) or [answer(200)]))
        return made[-1]

    yield listen
    for each in made:
        each.close()


def courier(desk: Desk, *receivers: Receiver, limit_s: float = 10.0) -> Courier:
    return Courier(desk.store, [each.url for each in receivers], KEY, limit_s=limit_s)


def happen(desk: Desk, count: int = 1) -> None:
    for _ in range(count):
        desk.end(desk.begin(), State.DONE, moved())


def deliveries(desk: Desk) -> list[Delivery]:
    alerts = desk.service.alerts()[::-1]
    return [each for alert in alerts for each in Deliveries(desk.store).of_alert(alert.id)]


def check_signature(received: Received, key: bytes = KEY) -> None:
    """Checks a message as a receiver does, by what the specification says."""
    headers = received.headers
    said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + received.body
    wanted = base64.b64encode(hmac.digest(key, said, hashlib.sha256)).decode()
    versions = dict(each.split(",", 1) for each in headers["webhook-signature"].split(" "))
    assert versions == {"v1": wanted}


class TestTaken:
    def test_a_message_says_what_happened_and_is_signed(self, desk: Desk, listen: Listen) -> None:
        receiver = listen()
        carrying = courier(desk, receiver)
        happen(desk)
        assert carrying.work() == 1
        (received,) = receiver.received
        assert received.line == "POST /hook?key=s3cret HTTP/1.1"
        assert received.headers["content-type"] == "application/json"
        assert received.headers["webhook-timestamp"] == str(int(desk.clock.now_s))
        check_signature(received)
        said, alert = json.loads(received.body), desk.service.alerts()[0]
        assert said["type"] == "front.moved" and said["timestamp"] == "2026-01-01T13:01:01.000Z"
        assert said["data"]["title"] == alert.title == "nightly: the front of resnet20 moved"
        assert said["data"]["alert_id"] == alert.id and said["data"]["schedule"] == "nightly"
        (delivery,) = deliveries(desk)
        assert (delivery.state, delivery.attempts, delivery.answer) == ("sent", 1, "answered 200")

    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    def test_once(self, desk: Desk, listen: Listen, status: int) -> None:
        receiver = listen(answer(status))
        carrying = courier(desk, receiver)
        happen(desk, 3)
        assert carrying.work() == 3
        desk.clock.now_s += HOUR_S
        assert carrying.work() == 0
        identities = [each.headers["webhook-id"] for each in receiver.received]
        assert len(identities) == len(set(identities)) == 3

    def test_each_webhook_gets_it(self, desk: Desk, listen: Listen) -> None:
        receivers = [listen(), listen()]
        carrying = courier(desk, *receivers, receivers[0])
        happen(desk, 2)
        carrying.work()
        assert [len(each.received) for each in receivers] == [2, 2]

    def test_what_happened_before_a_webhook_was_named_is_not_sent(
        self, desk: Desk, listen: Listen
    ) -> None:
        happen(desk)
        desk.clock.now_s += 1
        receiver = listen()
        carrying = courier(desk, receiver)
        assert carrying.work() == 0
        happen(desk)
        assert carrying.work() == 1

    def test_what_happened_while_its_daemon_was_down_is_sent(self, desk: Desk, listen: Listen) -> None:
        receiver = listen()
        courier(desk, receiver)
        happen(desk)
        desk.clock.now_s += LONGEST_S / 2
        assert courier(desk, receiver).work() == 1

    def test_what_is_older_than_a_day_is_not_begun(self, desk: Desk, listen: Listen) -> None:
        receiver = listen()
        courier(desk, receiver)
        happen(desk)
        desk.clock.now_s += LONGEST_S + 1
        assert courier(desk, receiver).work() == 0 and receiver.received == []

    def test_more_than_fit_into_one_round(self, desk: Desk, listen: Listen) -> None:
        receiver = listen()
        carrying = courier(desk, receiver)
        happen(desk, 23)  # 23 hours, within a day
        assert [carrying.work(), carrying.work(), carrying.work()] == [20, 3, 0]

    def test_no_proxy_stands_between_processes_of_one_machine(
        self, desk: Desk, listen: Listen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        receiver = listen()
        carrying = courier(desk, receiver)
        happen(desk)
        carrying.work()
        assert deliveries(desk)[0].state == "sent"


class TestNotTaken:
    @pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 429, 500, 503])
    def test_it_is_sent_again_under_the_same_id(self, desk: Desk, listen: Listen, status: int) -> None:
        elsewhere = listen()
        receiver = listen(answer(status, f"location: {elsewhere.url}"), answer(200))
        carrying = courier(desk, receiver)
        happen(desk)
        carrying.work()
        (delivery,) = deliveries(desk)
        assert (delivery.state, delivery.answer) == ("waiting", f"answered {status}")
        assert delivery.next_at_s == desk.clock.now_s + 10
        assert carrying.work() == 0
        desk.clock.now_s += 10
        assert carrying.work() == 1
        first, second = receiver.received
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body
        assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
        check_signature(second)
        assert deliveries(desk)[0].state == "sent" and elsewhere.received == []

    @pytest.mark.parametrize("do", [hang, drip, continuing, hang_up, nonsense])
    def test_whatever_a_receiver_does_is_over_in_time(
        self, desk: Desk, listen: Listen, do: Answer
    ) -> None:
        receiver, honest = listen(do), listen()
        carrying = courier(desk, receiver, honest, limit_s=0.5)
        happen(desk)
        assert carrying.work() == 2
        found = {each.url: each for each in deliveries(desk)}
        assert found[receiver.url].state == "waiting" and found[receiver.url].answer
        assert found[honest.url].state == "sent"

    def test_nobody_is_there(self, desk: Desk, listen: Listen) -> None:
        receiver = listen()
        carrying = courier(desk, receiver)
        receiver.close()
        happen(desk)
        carrying.work()
        assert "ConnectError" in deliveries(desk)[0].answer

    def test_an_endless_answer_is_not_read(self, desk: Desk, listen: Listen) -> None:
        receiver = listen(endless)
        carrying = courier(desk, receiver, limit_s=5.0)
        happen(desk)
        carrying.work()
        assert deliveries(desk)[0].answer == "answered 200"

    def test_for_a_day_ever_more_seldom_and_then_no_more(self, desk: Desk, listen: Listen) -> None:
        receiver = listen(answer(500))
        carrying = courier(desk, receiver)
        happen(desk)
        began_s, sent_s = desk.clock.now_s, list[float]()
        while carrying.work():
            sent_s.append(desk.clock.now_s - began_s)
            (delivery,) = deliveries(desk)
            desk.clock.now_s = max(desk.clock.now_s, delivery.next_at_s - 1)
            assert carrying.work() == 0
            desk.clock.now_s += 1
        waits_s = [later - earlier for earlier, later in itertools.pairwise(sent_s)]
        assert waits_s[:4] == [10, 20, 40, 80] and max(waits_s) == 3600 == waits_s[-1]
        assert waits_s == sorted(waits_s)
        assert LONGEST_S - 3600 < sent_s[-1] <= LONGEST_S
        assert deliveries(desk)[0].state == "given up"

    def test_one_that_is_gone_for_good_gets_no_more(self, desk: Desk, listen: Listen) -> None:
        receiver, other = listen(answer(500), answer(410), answer(200)), listen()
        carrying = courier(desk, receiver, other)
        happen(desk)
        carrying.work()
        happen(desk)
        carrying.work()
        assert len(receiver.received) == 3  # the first one again, and the second beside it
        happen(desk)
        desk.clock.now_s += HOUR_S
        carrying.work()
        assert len(receiver.received) == 3 and len(other.received) == 3
        states = {(each.url, each.state) for each in deliveries(desk)}
        assert (receiver.url, "waiting") not in states and (other.url, "sent") in states

    def test_until_whoever_runs_the_daemon_names_it_anew(self, desk: Desk, listen: Listen) -> None:
        receiver = listen(answer(410), answer(200))
        carrying = courier(desk, receiver)
        happen(desk)
        carrying.work()
        happen(desk)
        desk.clock.now_s += 1
        again = courier(desk, receiver)
        assert again.work() == 0  # what happened meanwhile is not made up for
        happen(desk)
        assert again.work() == 1 and deliveries(desk)[-1].state == "sent"


class TestSeveralDaemons:
    def test_none_sends_what_another_one_is_sending(self, desk: Desk, listen: Listen) -> None:
        receiver = listen()
        couriers = [courier(desk, receiver) for _ in range(4)]
        happen(desk, 12)
        gate = threading.Barrier(4)

        def work(carrying: Courier) -> int:
            gate.wait()
            return sum(carrying.work() for _ in range(5))

        with ThreadPoolExecutor(4) as pool:
            sent = list(pool.map(work, couriers))
        sent.append(courier(desk, receiver).work())  # a row that another has locked may be passed over
        assert sum(sent) == 12
        identities = [each.headers["webhook-id"] for each in receiver.received]
        assert len(identities) == len(set(identities)) == 12

    def test_what_one_claimed_that_died_another_one_sends(self, desk: Desk, listen: Listen) -> None:
        receiver = listen()
        carrying = courier(desk, receiver)
        happen(desk)
        store = Deliveries(desk.store)
        numbers = store.register([receiver.url])
        store.prepare(numbers, LONGEST_S)
        (dead,) = store.claim(numbers)
        assert carrying.work() == 0
        desk.clock.now_s += CLAIM_S
        assert carrying.work() == 1
        (received,) = receiver.received
        assert received.headers["webhook-id"] == dead.message_id
        store.put_off(dead, 10.0, "it comes back and knows nothing")
        assert deliveries(desk)[0].state == "sent"

    def test_a_daemon_without_webhooks_sends_nothing(self, desk: Desk, listen: Listen) -> None:
        receiver = listen()
        courier(desk, receiver)
        happen(desk)
        assert Courier(desk.store, [], KEY).work() == 0 and receiver.received == []


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "https://example.org/hook",
            "https://user:word@example.org:8443/a?b=c",
            "http://127.0.0.1:9/hook",
            "http://localhost/hook",
            "http://[::1]:9/",
            "http://127.9.9.9/",
        ],
    )
    def test_that_are_taken(self, url: str) -> None:
        check_webhook(url)

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("http://example.org/hook", "must be https"),
            ("http://localhost.example.org/", "must be https"),
            ("http://127.0.0.1@example.org/", "must be https"),
            ("http://0.0.0.0/", "must be https"),
            ("http://10.0.0.1/", "must be https"),
            ("ftp://example.org/", "must be a URL of http or https"),
            ("file:///etc/passwd", "must be a URL of http or https"),
            ("example.org/hook", "must be a URL"),
            ("https://", "must be a URL"),
            ("https:///hook", "must be a URL"),
            ("", "must be a URL"),
            ("https://example.org/" + "x" * 2000, "at most 2000 characters"),
            ("https://exa mple.org/", "must be a URL"),
            ("https://example.org:port/", "must be a URL"),
            ("https://[::1/", "must be a URL"),
            ("https://example.org/\0", "must be a URL"),
        ],
    )
    def test_that_are_refused(self, url: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            check_webhook(url)


class TestSecret:
    def test_is_made_once_and_for_its_user_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "webhook.secret"
        key = make_secret(path)
        assert make_secret(path) == key and len(key) == 32
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_text().strip()
        assert text.startswith("whsec_") and base64.b64decode(text.removeprefix("whsec_")) == key

    def test_of_the_users_own(self, tmp_path: Path) -> None:
        path = tmp_path / "secret"
        path.write_text(base64.b64encode(KEY).decode())
        path.chmod(0o600)
        assert make_secret(path) == KEY

    @pytest.mark.parametrize(
        "text",
        [
            "whsec_" + "A" * 12,
            "whsec_!!!not base64 at all!!!",
            "whsec_" + base64.b64encode(bytes(23)).decode(),
            "whsec_" + base64.b64encode(bytes(65)).decode(),
            "a-word-that-is-long-enough-but-not-base64",
            "",
        ],
    )
    def test_that_is_none(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "secret"
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="the webhooks' secret file must hold"):
            make_secret(path)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
    def test_that_others_may_read(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "secret"
        make_secret(path)
        path.chmod(mode)
        with pytest.raises(ConfigError, match=rf"mode {mode:o}; run: chmod 600"):
            make_secret(path)

    def test_whose_file_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match="name it with --webhook-secret-file"):
            make_secret(tmp_path / "file" / "secret")
        os.mkdir(tmp_path / "folder")
        with pytest.raises(ConfigError, match="must be readable"):
            make_secret(tmp_path / "folder")


class TestBeside:
    def test_goes_on_after_a_failure(self) -> None:
        done = threading.Event()
        rounds: list[int] = []

        def work() -> None:
            rounds.append(1)
            if len(rounds) == 1:
                raise ValueError("the first time")
            if len(rounds) == 2:
                raise ConfigError("the second time")
            done.set()

        with Beside("test", work, every_s=0.001):
            assert done.wait(30)

    def test_does_not_wait_for_what_hangs(self) -> None:
        hanging, free = threading.Event(), threading.Event()

        def work() -> None:
            hanging.set()
            free.wait()

        beside = Beside("test", work, every_s=0.001, patience_s=0.05)
        assert hanging.wait(30)
        beside.close()
        beside.close()
        free.set()


def test_a_body_is_small_however_much_there_is_to_say(desk: Desk, listen: Listen) -> None:
    receiver = listen()
    carrying = courier(desk, receiver)
    huge = dataclasses.replace(moved(configs=20), sentence="\U0001f4a9" * 100_000, model="m" * 100_000)
    desk.end(desk.begin(), State.DONE, huge)
    carrying.work()
    assert len(receiver.received[0].body) < 65536
    assert json.loads(receiver.received[0].body)["data"]["moved"] == 20
