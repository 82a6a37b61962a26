"""Tasks that meet: what a task that was stopped held is let go of."""

from labkit.tasks import forget_frames


def test_frames_are_let_go_of_in_groups_of_groups() -> None:
    try:
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise ExceptionGroup("outer", [ExceptionGroup("middle", [error])]) from None
    except ExceptionGroup as group:
        forget_frames(group)
        middle = group.exceptions[0]
        assert isinstance(middle, ExceptionGroup)
        assert group.__traceback__ is middle.exceptions[0].__traceback__ is None
