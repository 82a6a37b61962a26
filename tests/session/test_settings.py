"""Settings of a server: what is out of range is named, before anybody calls."""

import pytest

from labkit.errors import ServerError
from labkit.session.settings import ServerSettings


@pytest.mark.parametrize(
    "name",
    [
        "max_audio_speed",
        "max_messages_per_s",
        "max_frames_per_s",
        "max_waiting_turns",
        "max_held_bytes",
        "replay_bytes",
        "replay_s",
    ],
)
def test_nothing_at_all_is_refused_where_nobody_could_speak(name: str) -> None:
    with pytest.raises(ServerError, match=f"setting {name} is 0: it should be more than 0"):
        ServerSettings(**{name: 0})
    ServerSettings(**{name: 1})
