"""The table of `labkit endpointing`."""

from labkit.cli.endpointing import lines_table
from labkit.measure.endpointing import Decision, EndpointingSummary


def test_each_policy_is_a_row_and_what_it_does_not_reach_is_a_dash() -> None:
    summary = EndpointingSummary(
        [
            Decision("fixed", 0.5, 0, 0, cut_off=True, dead_air_s=0.5),
            Decision("adaptive", 1.3, 0, 0, cut_off=False, dead_air_s=0.4),
        ]
    )
    columns = [list(column.cells) for column in lines_table(summary).columns]
    assert columns == [["fixed", "adaptive"], ["-", "400"], ["-", "400"], ["-", "-"], ["100", "0"]]
