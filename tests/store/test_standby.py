"""How far a standby is behind, told from where the log of the primary stood and when."""

from app.store.postgresql.standby import NEVER, Positions


def positions(*samples: tuple[float, int]) -> Positions:
    made = Positions()
    for at, position in samples:
        made.note(at, position, system=1)
    return made


def test_a_standby_that_has_replayed_all_that_is_known_is_not_behind() -> None:
    idle = positions((10, 100), (11, 100), (3000, 100))
    assert idle.seconds_behind(4000, 100, 3990) == 0
    assert idle.seconds_behind(4000, 101, None) == 0


def test_it_is_behind_since_the_primary_passed_its_position() -> None:
    busy = positions((10, 100), (11, 200), (12, 300))
    assert busy.seconds_behind(15, 150, 0.1) == 4
    assert busy.seconds_behind(15, 200, 3600) == 3


def test_before_the_first_sample_the_standby_tells_itself() -> None:
    busy = positions((10, 100), (11, 200))
    assert busy.seconds_behind(15, 50, 3600) == 3600
    assert busy.seconds_behind(15, 50, 0.1) == 5
    assert busy.seconds_behind(15, 50, None) == NEVER
    assert busy.seconds_behind(15, None, 0) == NEVER


def test_a_primary_whose_log_is_shorter_is_another_one() -> None:
    assert positions((10, 100), (11, 200), (12, 150)).seconds_behind(15, 150, 0) == 0
