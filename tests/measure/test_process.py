"""A server in a process of its own."""

import os
import sys

import pytest

from labkit.client import VoiceClient
from labkit.errors import ServerError
from labkit.measure.process import labkit_server, running_server, server_process


async def test_the_echo_server_starts_answers_and_ends() -> None:
    async with (
        server_process(labkit_server("--pipeline", "echo")) as url,
        VoiceClient.connect(url) as client,
    ):
        assert await client.ping() > 0


async def test_the_process_of_a_running_server_is_known() -> None:
    async with running_server(labkit_server("--pipeline", "echo")) as server:
        assert server.url.startswith("ws://")
        assert server.pid is not None
        os.kill(server.pid, 0)


async def test_a_server_that_dies_is_quoted() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the models are missing')"]
    with pytest.raises(ServerError, match=r"ended with code 1(.|\n)*the models are missing"):
        async with server_process(command):
            pass


async def test_a_server_that_says_nothing_is_given_up() -> None:
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    with pytest.raises(ServerError, match=r"not ready within 0.2 s\. It said nothing"):
        async with server_process(command, start_s=0.2):
            pass


async def test_a_token_in_the_environment_does_not_shut_out_the_callers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LABKIT_TOKEN", "a-token-of-the-environment")
    async with (
        server_process(labkit_server("--pipeline", "echo")) as url,
        VoiceClient.connect(url) as client,
    ):
        assert await client.ping() > 0
