import pytest

from mimctr.errors import MOST_NAMED, first_of


@pytest.mark.parametrize("count", [0, 1, MOST_NAMED, MOST_NAMED + 1, MOST_NAMED + 40])
def test_a_message_names_the_first_and_counts_the_others(count):
    names = [f"n{number}" for number in range(count)]
    named, _, more = first_of(names).partition(" and ")
    assert named == ", ".join(names[:MOST_NAMED])
    assert more == (f"{count - MOST_NAMED} more" if count > MOST_NAMED else "")
