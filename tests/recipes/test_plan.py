"""Plans: a stage is made once, after what it needs, if there is time for it."""

import itertools

import pytest
from pydantic import BaseModel, ConfigDict

from mimctr.errors import RunError
from mimctr.recipes import pace
from mimctr.recipes.pace import UNKNOWN, Pace
from mimctr.recipes.plan import NO_TIME, Left, Plan, Step, added_seconds, fitting
from mimctr.train.stage import Stage


class Config(BaseModel):
    model_config = ConfigDict(frozen=True)

    size: int = 1


class World:
    """Stages that write down that they ran, and a clock that only they move."""

    def __init__(self, root):
        self.root, self.ran, self.now = root, [], 0.0

    def step(self, name, *needs, takes=1.0, kind="copy", make=None, copied_from=None):
        def work():
            self.ran.append(name)
            self.now += takes
            (self.root / name / "done").write_text(name)

        inputs = {need: self.root / need for need in needs}
        stage = Stage(kind, self.root / name, config=Config(), inputs=inputs, work=work)
        return Step(
            self.root / name,
            kind,
            takes,
            tuple(self.root / need for need in needs),
            make or (lambda: stage),
            copied_from,
        )

    def clock(self):
        return self.now

    def pace(self):
        return Pace({"copy": 1.0, "slow": 1.0})


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def names(folders):
    return sorted(folder.name for folder in folders)


def chain(world, plan):
    """a <- b <- c, and d alone."""
    plan.add(world.step("a"), ["x"])
    plan.add(world.step("b", "a"), ["x"])
    plan.add(world.step("c", "b", takes=5.0, kind="slow"), ["y"])
    plan.add(world.step("d"), ["z"])
    return plan


def test_what_two_experiments_need_is_made_once_and_serves_both(world):
    plan = Plan()
    plan.add(world.step("shared"), ["one"])
    plan.add(world.step("own", "shared"), ["one"])
    plan.add(world.step("shared"), ["two"])
    plan.add(world.step("other", "shared"), ["two"])
    plan.add(world.step("last", "own"), ["three"])
    assert plan.run(world.pace()) == {}
    assert world.ran == ["shared", "own", "other", "last"]
    assert plan.serves(world.root / "shared") == ["one", "two", "three"]
    assert plan.serves(world.root / "own") == ["one", "three"]
    assert plan.serves(world.root / "other") == ["two"]


def test_a_step_is_planned_after_what_it_needs(world):
    with pytest.raises(RunError, match=r"b: needs .*a, which is not planned before it"):
        Plan().add(world.step("b", "a"), ["x"])


def test_settings_are_asked_for_when_what_decides_them_is_made(world):
    plan = Plan()
    plan.add(world.step("tried"), ["x"])

    def tuned():
        assert (world.root / "tried" / "done").exists()
        return world.step("tuned", "tried").make()

    plan.add(world.step("tuned", "tried", make=tuned), ["x"])
    assert names(plan.made()) == []
    plan.run(world.pace())
    assert names(plan.made()) == ["tried", "tuned"]


def test_a_second_run_makes_only_what_is_left(world):
    plan = chain(world, Plan())
    assert names(plan.run(world.pace(), seconds=3.0, clock=world.clock)) == ["c"]
    assert world.ran == ["a", "b", "d"]
    assert [[one.step.folder.name for one in batch] for batch in plan.left(world.pace())] == [["c"]]
    assert plan.run(world.pace(), seconds=5.0, clock=world.clock) == {}
    assert world.ran == ["a", "b", "d", "c"]


def test_without_time_nothing_is_begun_and_everything_says_so(world):
    plan = chain(world, Plan())
    assert plan.run(world.pace(), seconds=0.0, clock=world.clock) == dict.fromkeys(
        (step.folder for step in plan), NO_TIME
    )
    assert world.ran == []


def test_a_step_that_takes_longer_than_it_should_leaves_less_time_for_others(world):
    plan = Plan()
    plan.add(world.step("long", takes=9.0, kind="slow"), ["x"])
    plan.add(world.step("short"), ["x"])
    assert names(plan.run(Pace({"copy": 1.0, "slow": 0.1}), seconds=5.0, clock=world.clock)) == ["short"]
    assert world.ran == ["long"]


def test_a_changed_step_and_what_was_made_from_it_are_made_again(world):
    chain(world, Plan()).run(world.pace())
    changed = Plan()
    changed.add(world.step("a", kind="other"), ["x"])
    changed.add(world.step("b", "a"), ["x"])
    assert names(changed.made()) == []


def test_what_fits_is_what_a_loop_takes(world):
    """Against trying every subset: taken one by one, a step is left out only if it does not fit behind those taken."""
    steps = [
        world.step("a", takes=2.0),
        world.step("b", "a", takes=3.0),
        world.step("c", takes=4.0),
        world.step("d", "c", takes=1.0),
        world.step("e", takes=0.5),
    ]
    left = [[Left(step, step.size)] for step in steps]
    for seconds in (0.0, 0.5, 2.0, 2.5, 5.0, 6.4, 6.5, 9.0, 10.0, 10.5):
        taken = set()
        for step in steps:
            spent = sum(one.size for one in steps if one.folder in taken)
            if taken.issuperset(step.needs) and spent + step.size <= seconds:
                taken.add(step.folder)
        assert fitting(left, seconds).keys() == {step.folder for step in steps} - taken
    assert fitting(left, None) == {}


@pytest.mark.parametrize(
    ("seconds", "made"), [(7.9, ""), (8.9, "d"), (9.0, "b"), (13.0, "bc"), (15.9, "bc"), (16.0, "bcd")]
)
def test_what_comes_after_the_steps_has_its_time_kept(world, monkeypatch, seconds, made):
    """a is made; each step takes one second, and after all of them a takes 5, b, c and d 3, 3 and 2.

    Mutants: nothing is kept for what is made already, for what this run has made, or within a batch.
    """
    plan = Plan()
    for name in "abcd":
        plan.add(world.step(name), ["x"])
    before = Plan()
    before.add(world.step("a"), ["x"])
    before.run(world.pace())
    monkeypatch.setattr(Plan, "learn", lambda self, pace, folders: None)

    def after(folder):
        return {"a": 5.0, "b": 3.0, "c": 3.0, "d": 2.0}[folder.name]

    left = plan.left(world.pace())
    told = fitting(left, seconds - 5.0, after=after)
    together = fitting([[one for batch in left for one in batch]], seconds - 5.0, after=after)
    reasons = plan.run(world.pace(), seconds=seconds, after=after, clock=world.clock)
    assert world.ran == ["a", *made]
    assert told == together == reasons
    assert names(reasons) == [name for name in "bcd" if name not in made]


def test_what_needs_something_left_out_is_left_out(world):
    step = world.step("b", "a")
    assert fitting([[Left(step, 1.0)]], None, without={world.root / "a"}) == {step.folder: NO_TIME}


def test_trainings_that_need_one_another_are_not_made_together(world, monkeypatch):
    """Mutant: what a grid has not tried yet is asked for its best."""
    together = []
    monkeypatch.setattr(
        Plan, "_make", lambda self, steps: together.append([one.folder.name for one in steps])
    )
    monkeypatch.setattr(Plan, "learn", lambda self, pace, folders: None)
    plan = Plan(num_workers=2)
    for name, needs in {
        "try0": (),
        "try1": (),
        "best": ("try0", "try1"),
        "next": (),
        "last": ("best",),
    }.items():
        plan.add(world.step(name, *needs, kind="train sim base"), ["x"])
    plan.run(world.pace())
    assert together == [["try0", "try1"], ["best", "next"], ["last"]]


def test_the_pace_is_the_median_of_what_was_seen_of_a_kind():
    pace = Pace({"csft": 2.0})
    assert pace.seconds("csft", 10) == 20.0
    assert pace.seconds("unheard of", 10) == UNKNOWN
    for size, seconds in ((10, 10.0), (10, 40.0), (100, 300.0)):
        pace.learn("csft", size, seconds)
    assert pace.seconds("csft", 10) == 30.0  # 1, 4 and 3 seconds a unit
    assert pace.seconds("other", 1) == UNKNOWN


def test_nothing_is_learned_of_a_step_without_a_size():
    pace = Pace({"dda": 2.0})
    pace.learn("dda", 0, 3.0)
    assert pace.seconds("dda", 10) == 20.0


@pytest.mark.parametrize(
    ("takes", "num_workers", "whole", "fit"),
    [
        ([8.0], 4, 8.0, []),  # alone it is not a quarter of it
        ([8.0, 2.0, 2.0, 2.0], 4, 8.0, [2.0, 2.0, 2.0]),
        ([4.0] * 8, 4, 8.0, [4.0] * 4),
        ([4.0] * 5, 4, 8.0, [4.0] * 4),  # the fifth waits for a worker
        ([3.0, 3.0, 1.0], 1, 7.0, [3.0, 3.0]),
    ],
)
def test_trainings_share_the_workers_and_none_is_done_sooner_than_alone(
    world, monkeypatch, takes, num_workers, whole, fit
):
    """Mutant: a training that runs alone takes a worker's share of its time."""
    plan = Plan(num_workers=num_workers)
    for number, seconds in enumerate(takes):
        plan.add(world.step(f"t{number}", takes=seconds, kind="train sim base"), ["x"])
    pace = Pace({"train sim base": 1.0})
    left = plan.left(pace)
    assert [[one.seconds for one in batch] for batch in left] == [takes]
    assert sum(added_seconds(left, num_workers).values()) == whole
    assert fitting(left, whole, num_workers=num_workers) == {}

    begun = []
    monkeypatch.setattr(Plan, "_make", lambda self, steps: begun.extend(step.size for step in steps))
    monkeypatch.setattr(Plan, "learn", lambda self, pace, folders: None)
    reasons = plan.run(pace, seconds=whole - 0.5, clock=world.clock)
    assert begun == fit
    assert len(reasons) == len(takes) - len(fit)


def test_what_a_step_adds_is_what_it_makes_its_batch_longer(world):
    steps = [world.step(name, takes=takes) for name, takes in (("a", 8.0), ("b", 2.0), ("c", 9.0))]
    added = added_seconds([[Left(step, step.size) for step in steps], [Left(world.step("d"), 1.0)]], 2)
    assert [added[world.root / name] for name in "abcd"] == [8.0, 0.0, 3.0, 1.0]


def tuned(world):
    """Two tries, the better one's copy, and what waits for it."""
    plan = Plan()
    plan.add(world.step("try0"), ["x"])
    plan.add(world.step("try1"), ["x"])
    plan.add(world.step("best", copied_from=lambda: world.root / "try1"), ["x"])
    return plan


def test_a_copy_of_what_was_tried_takes_no_time(world):
    """Mutant: the first seed's model of a grid is charged as one more training."""
    plan = tuned(world)
    assert [one.seconds for batch in plan.left(world.pace()) for one in batch] == [1.0, 1.0, 0.0]
    assert plan.run(world.pace(), seconds=2.0, clock=world.clock) == {}
    assert world.ran == ["try0", "try1"]
    assert (world.root / "best" / "done").read_text() == "try1"


def test_what_stands_in_the_place_of_a_copy_is_made_anew_in_full(world):
    (world.root / "best").mkdir()
    plan = tuned(world)
    assert [one.seconds for batch in plan.left(world.pace()) for one in batch] == [1.0, 1.0, 1.0]
    plan.run(world.pace())
    assert world.ran == ["try0", "try1", "best"]


def test_the_pace_learns_nothing_from_a_copy(world, monkeypatch):
    """Mutant: the best try's time counts twice."""
    learned = []
    monkeypatch.setattr(Pace, "learn", lambda self, kind, size, seconds: learned.append(kind))
    tuned(world).run(world.pace())
    assert learned == ["copy", "copy"]
    learned.clear()
    again = tuned(world)
    again.learn(world.pace(), again.made())
    assert learned == ["copy", "copy"]


def test_to_look_at_a_plan_copies_nothing(world):
    """Mutant: the best try is copied as soon as somebody asks what is made."""
    tries = Plan()
    for name in ("try0", "try1"):
        tries.add(world.step(name), ["x"])
    tries.run(world.pace())
    plan = tuned(world)
    assert names(plan.made()) == ["try0", "try1"]
    assert [[one.seconds for one in batch] for batch in plan.left(world.pace())] == [[0.0]]
    assert not (world.root / "best").exists()


def test_steps_come_in_the_order_in_which_they_were_planned(world):
    plan = chain(world, Plan())
    order = [step.folder.name for step in plan]
    assert order == ["a", "b", "c", "d"]
    for step, need in itertools.product(plan, plan):
        if need.folder in step.needs:
            assert order.index(need.folder.name) < order.index(step.folder.name)


@pytest.mark.parametrize(("has", "times"), [(True, 1.0), (False, pace.WITHOUT_BFLOAT16)])
def test_encoders_take_longer_without_bfloat16_until_more_is_known(monkeypatch, has, times):
    monkeypatch.setattr(pace, "has_bfloat16", lambda device: has)
    usual = Pace()
    assert usual.seconds("csft", 1000) == pytest.approx(1000 * pace.SECONDS["csft"] * times)
    assert usual.seconds("train sim base", 1000) == pytest.approx(1000 * pace.SECONDS["train sim base"])
    usual.learn("csft", 10, 5.0)
    assert usual.seconds("csft", 1000) == pytest.approx(500.0)
    assert set(pace.OF_TOWERS) <= set(pace.SECONDS)
