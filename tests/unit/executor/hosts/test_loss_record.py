"""When losses of ranks are enough."""

from __future__ import annotations

from novacron.executor.hosts.loss_record import LossRecord


def steps(record: LossRecord, count: int) -> None:
    for _ in range(count):
        record.see_step()


def test_a_group_is_made_anew_three_times_without_a_step() -> None:
    record = LossRecord()
    assert [record.may_try() for _ in range(4)] == [True, True, True, False]
    record.see_step()
    assert record.may_try()


def test_four_crashes_with_few_steps_between_are_too_many() -> None:
    record = LossRecord()
    for _ in range(3):
        assert record.may_go_on(after_a_crash=True)
        steps(record, 999)
    assert not record.may_go_on(after_a_crash=True)


def test_many_steps_acquit_and_lost_links_do_not_count() -> None:
    record = LossRecord()
    for _ in range(10):
        assert record.may_go_on(after_a_crash=True)
        steps(record, 1000)
    for _ in range(10):
        assert record.may_go_on(after_a_crash=False)
    for _ in range(3):
        assert record.may_go_on(after_a_crash=True)
        assert record.may_go_on(after_a_crash=False)
    assert not record.may_go_on(after_a_crash=True)
