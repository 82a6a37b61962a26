"""A server in a process of its own, with any settings."""

import pytest

from labkit.client.v1 import SessionClient
from labkit.drills.target import settings_of, target_command
from labkit.errors import InstrumentError
from labkit.measure.server_process import running_server


async def test_the_server_has_the_settings_that_it_is_told_and_its_log_can_be_read() -> None:
    command = target_command(history=3, max_messages_per_s=1e6)
    async with running_server(command) as server:
        async with SessionClient.connect(server.url) as client:
            assert client.started is not None
            assert client.started.limits.history == 3
            assert client.started.limits.max_messages_per_s == 1e6
        log = server.log()
        assert "begun" in log
        assert server.log(len(log.encode())) in ("", server.log()[len(log) :])


def test_it_takes_a_free_port_of_this_machine_unless_told_otherwise() -> None:
    assert (settings_of({}).host, settings_of({}).port) == ("127.0.0.1", 0)
    assert settings_of({"port": 9000}).port == 9000


def test_a_setting_that_is_none_is_named() -> None:
    with pytest.raises(InstrumentError, match="no setting 'histroy'; it has .*history"):
        target_command(histroy=3)
