from __future__ import annotations

import socket

import pytest

from tests.raising import raises
from vidseek.service import KEY_VARIABLE, require_free, require_key, require_local, serve_command
from vidseek_media.errors import ConfigError


def test_require_free__taken_port_and_a_name_are_config_errors() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with raises(ConfigError, code="port-taken", naming=f"port {port} "):
            require_free("127.0.0.1", port)
    require_free("127.0.0.1", port)
    with raises(ConfigError, code="bad-host"):
        require_free("localhost", port)
    with raises(ConfigError, code="port-taken"):
        require_free("192.0.2.1", port)  # not ours (RFC 5737)


def test_require_key__where_others_can_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    for own in ("127.0.0.1", "127.1.2.3", "::1"):
        require_key(own)
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with raises(ConfigError, code="key-not-set", naming=KEY_VARIABLE):
            require_key(host)
        monkeypatch.setenv(KEY_VARIABLE, "0123456789abcdef")
        require_key(host)
        monkeypatch.delenv(KEY_VARIABLE)


def test_serve_command__is_bentoml_on_the_service() -> None:
    command = serve_command(host="127.0.0.1", port=3001)
    assert command[1:5] == ["-m", "bentoml", "serve", "serving.service:Vidseek"]
    assert command[-4:] == ["--host", "127.0.0.1", "--port", "3001"]


def test_require_local__what_has_no_key_is_for_this_machine_alone() -> None:
    for own in ("127.0.0.1", "127.1.2.3", "::1"):
        require_local(own)
    for host in ("0.0.0.0", "::", "192.0.2.1", "localhost", "", "::ffff:192.0.2.1"):
        code = "bad-host" if host in ("localhost", "") else "not-only-local"
        with raises(ConfigError, code=code, naming=host) as caught:
            require_local(host)
        assert caught.value.remedy
