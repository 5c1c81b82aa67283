"""What several machines made of a reproduction is, joined, what one makes at once."""

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mimctr.cli import app
from mimctr.errors import DataError, RunError
from mimctr.evaluate.paper.join import ORDER
from mimctr.evaluate.paper.schema import read_reproduction, write_reproduction
from mimctr.recipes.reproduction import join
from mimctr.recipes.reproduction import main as reproduction

from .test_reproduction import CSFT, QUICK, TRAIN, recipe, write_world

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PARTS = (
    ("extensions", "table 4", "table 7"),
    ("table 1", "table 3", "figure 6", "table 2"),
    ("figure 5", "online", "table 5", "pairs"),
)
"""Not in the order of the report; all three have encoders, the first two models by age and category."""


def make(world, out, wanted, **changes):
    planning = reproduction.plan(recipe(world, **({"seeds": [0], "num_pictures": 2} | changes)), out, wanted)
    return reproduction.main(planning, seconds=None, command=f"make {', '.join(wanted)}").reproduction


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    """The whole, and its parts: each from a copy of all that was trained."""
    root = tmp_path_factory.mktemp("made")
    whole = make(world, root / "whole", QUICK)
    folders = [root / f"part{number}" for number in range(len(PARTS))]
    for folder, wanted in zip(folders, PARTS, strict=True):
        shutil.copytree(root / "whole", folder)
        make(world, folder, wanted)
    return root / "whole", whole, folders


def test_joined_it_is_as_made_at_once(made, tmp_path):
    assert sorted(name for part in PARTS for name in part) == sorted(QUICK)
    whole_folder, whole, folders = made
    joined = join.main(folders, tmp_path / "joined", command="mimctr join x").reproduction
    assert joined == read_reproduction(tmp_path / "joined" / "reproduction.json")
    told_apart = {"steps", "command", "parts"}
    assert joined.model_dump(exclude=told_apart) == whole.model_dump(exclude=told_apart)
    assert {step.name: step for step in joined.steps}.keys() == {step.name for step in whole.steps}
    serves = {step.name: set(step.serves) for step in whole.steps}
    assert {step.name: set(step.serves) for step in joined.steps} == serves
    for gallery in whole.galleries:
        for sheet in gallery.sheets:
            assert (tmp_path / "joined" / sheet.file).read_bytes() == (whole_folder / sheet.file).read_bytes()
    assert whole.galleries


@pytest.mark.parametrize("name", ["bazaar_small", "bazaar_medium", "fashion"])
def test_the_order_is_that_of_a_whole_report(name):
    whole = read_reproduction(RESULTS / f"{name}.json")
    for shown in (whole.tables, whole.figures):
        keys = [one.key for one in shown]
        assert set(keys) <= set(ORDER)
        assert keys == sorted(keys, key=ORDER.index)


def test_it_says_what_each_part_was_and_took(made, tmp_path):
    _, whole, folders = made
    joined = join.main(folders, tmp_path / "joined", command="mimctr join x").reproduction
    assert [part.command for part in joined.parts] == [f"make {', '.join(wanted)}" for wanted in PARTS]
    assert {"extensions", "table 4", "table 7", "exchange rate"} <= set(joined.parts[0].shows)
    assert sum(part.seconds for part in joined.parts) > sum(step.seconds or 0 for step in whole.steps)
    page = (tmp_path / "joined" / "reproduction.html").read_text(encoding="utf-8")
    text = (tmp_path / "joined" / "reproduction.md").read_text(encoding="utf-8")
    for wanted in PARTS:
        assert f"make {', '.join(wanted)}" in page
        assert f"make {', '.join(wanted)}" in text


def test_a_step_that_one_part_made_is_made(made, tmp_path):
    *_, folders = made
    cut = read_reproduction(folders[0] / "reproduction.json")
    steps = [step.model_copy(update={"seconds": None, "not_run": "no time"}) for step in cut.steps]
    write_reproduction(
        tmp_path / "cut" / "reproduction.json", cut.model_copy(update={"steps": steps, "galleries": []})
    )
    joined = join.main([tmp_path / "cut", *folders[1:]], tmp_path / "out", command="c").reproduction
    made_by_others = {
        step.name for folder in folders[1:] for step in read_reproduction(folder / "reproduction.json").steps
    }
    left = {step.name for step in joined.steps if step.not_run is not None}
    assert left == {step.name for step in steps} - made_by_others
    assert left


def test_parts_of_two_precisions_are_told(made, tmp_path):
    *_, folders = made
    shutil.copytree(folders[1], tmp_path / "other")
    other = read_reproduction(folders[1] / "reproduction.json")
    machine = other.machine.model_copy(update={"has_bfloat16": not other.machine.has_bfloat16})
    write_reproduction(
        tmp_path / "other" / "reproduction.json", other.model_copy(update={"machine": machine})
    )
    told = "encoders of one name are not the same in all tables"
    for name, part in (("both", tmp_path / "other"), ("one", folders[1])):
        join.main([folders[0], part], tmp_path / name, command="c")
        for file in ("reproduction.html", "reproduction.md"):
            assert (told in (tmp_path / name / file).read_text(encoding="utf-8")) == (name == "both")


def test_parts_can_be_joined_one_by_one(made, tmp_path):
    *_, folders = made
    at_once = join.main(folders, tmp_path / "three", command="c").reproduction
    join.main(folders[:2], tmp_path / "two", command="c")
    step_by_step = join.main([tmp_path / "two", folders[2]], tmp_path / "both", command="c").reproduction
    assert step_by_step == at_once
    again = join.main([tmp_path / "two", *folders[1:]], tmp_path / "both", command="c").reproduction
    assert again == at_once


def test_the_same_of_two_parts_is_taken_once_and_something_else_is_refused(made, tmp_path):
    *_, folders = made
    copy = tmp_path / "copy"
    shutil.copytree(folders[1], copy)
    once = join.main([folders[1], copy], tmp_path / "out", command="c").reproduction
    assert once.tables == read_reproduction(folders[1] / "reproduction.json").tables
    other = json.loads((copy / "reproduction.json").read_text())
    table = next(table for table in other["tables"] if table["key"] == "table 3")
    table["rows"][1]["cells"][0]["ours"]["mean"] += 0.001
    (copy / "reproduction.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match=r"copy: table 3 is in .*part1 too, with other numbers\. Make each"):
        join.main([folders[1], copy], tmp_path / "again", command="c")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"csft": CSFT | {"num_steps": 1, "seed": 5, "device": "auto"}, "ubm": "mean"},
            r"csft\.num_steps = 1, which is 2, csft\.seed = 5, which is the default, ubm = \"mean\", which is "
            "the default in",
        ),
        ({"seeds": [1]}, "seeds 1, which are 0 in"),
        ({"prepare": {"test_fraction": 0.25}}, "other data than what is in"),
    ],
)
def test_parts_of_other_settings_or_data_do_not_go_together(made, world, tmp_path, changed, told):
    *_, folders = made
    make(world, tmp_path / "other", ["table 1"], **changed)
    with pytest.raises(DataError, match=rf"other: made with {told} .*part0\. Parts of one"):
        join.main([folders[0], tmp_path / "other"], tmp_path / "out", command="c")


def test_seeds_that_one_part_has_not_are_refused(made, tmp_path):
    *_, folders = made
    cut = read_reproduction(folders[1] / "reproduction.json").model_copy(update={"seeds": [1]})
    write_reproduction(tmp_path / "cut" / "reproduction.json", cut)
    with pytest.raises(DataError, match="cut: made with seeds 1, which are 0 in "):
        join.main([folders[0], tmp_path / "cut"], tmp_path / "out", command="c")


def test_weights_and_devices_may_be_elsewhere(world, tmp_path):
    """Mutant: of the models under others it is the path that counts."""
    found = []
    for name, weights in (("here", b"same"), ("there", b"same"), ("other", b"other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
        given = {"image_weights": str(tmp_path / name), "text_weights": "minilm"}
        given_twice = {"foundation": given, "others": {"Own": given}}
        found.append(recipe(world, **given_twice, train=TRAIN | {"device": name}).settings())
    here, there, other = found
    assert here == there
    assert {name for name in here if here[name] != other[name]} == {
        "foundation.image_weights",
        "others.Own.image_weights",
    }
    assert here["foundation.text_weights"] == here["others.Own.text_weights"] == "minilm"
    assert here["train.hidden_dims"] == [8]


def test_an_encoder_that_parts_measured_otherwise_is_a_point_of_each(made, tmp_path):
    *_, folders = made
    one, other = (json.loads((folder / "reproduction.json").read_text()) for folder in folders[:2])
    points, others = (
        next(figure for figure in part["figures"] if figure["key"] == "exchange rate")["series"][0]["points"]
        for part in (one, other)
    )
    moved = next(point for point in others if point in points)
    label, before = moved["label"], moved["y"]
    moved["y"] += 0.01
    shutil.copytree(folders[1], tmp_path / "other")
    (tmp_path / "other" / "reproduction.json").write_text(json.dumps(other))
    orders = [[folders[0], tmp_path / "other"], [tmp_path / "other", folders[0]]]
    for number, parts in enumerate(orders):
        joined = join.main(parts, tmp_path / f"out{number}", command="c").reproduction
        (series,) = next(figure for figure in joined.figures if figure.key == "exchange rate").series
        assert [point.y for point in series.points if point.label == label] == [before, moved["y"]]


def test_an_encoder_of_which_only_the_interval_differs_is_one_point(made, tmp_path):
    """As where one part was evaluated by an older release."""
    *_, folders = made
    other = json.loads((folders[1] / "reproduction.json").read_text())
    figure = next(figure for figure in other["figures"] if figure["key"] == "exchange rate")
    for point in figure["series"][0]["points"]:
        point["low"] -= 0.001
    shutil.copytree(folders[1], tmp_path / "other")
    (tmp_path / "other" / "reproduction.json").write_text(json.dumps(other))
    joined = join.main([folders[0], tmp_path / "other"], tmp_path / "out", command="c").reproduction
    (series,) = next(figure for figure in joined.figures if figure.key == "exchange rate").series
    labels = [point.label for point in series.points]
    assert len(labels) == len(set(labels))


def test_a_finding_that_was_run_stands_before_one_that_was_not(made, tmp_path):
    *_, folders = made
    part = read_reproduction(folders[1] / "reproduction.json")
    run = next(finding for finding in part.findings if finding.verdict != "not run")
    lost = [
        one.model_copy(update={"verdict": "not run", "difference": None}) if one == run else one
        for one in part.findings
    ]
    shutil.copytree(folders[1], tmp_path / "lost")
    write_reproduction(tmp_path / "lost" / "reproduction.json", part.model_copy(update={"findings": lost}))
    for number, parts in enumerate([[folders[1], tmp_path / "lost"], [tmp_path / "lost", folders[1]]]):
        joined = join.main(parts, tmp_path / f"out{number}", command="c").reproduction
        assert [one for one in joined.findings if one.key == run.key] == [run]


def test_what_one_part_lacks_another_may_have(made, tmp_path):
    *_, folders = made
    shutil.copytree(folders[0], tmp_path / "first")
    lacking = read_reproduction(folders[0] / "reproduction.json")
    lacking = lacking.model_copy(update={"lacking": ["table 2", "table 6"]})
    write_reproduction(tmp_path / "first" / "reproduction.json", lacking)
    joined = join.main([tmp_path / "first", folders[1]], tmp_path / "out", command="c").reproduction
    assert joined.lacking == ["table 6"]
    text = (tmp_path / "out" / "reproduction.md").read_text(encoding="utf-8")
    assert "Not made yet: table 6. Make it in a part of its own, and join again." in text


def test_what_cannot_be_joined_is_told_in_a_line(made, tmp_path):
    *_, folders = made
    record = folders[0] / "reproduction.json"

    def told(parts, out=tmp_path / "out"):
        with pytest.raises((RunError, DataError)) as caught:
            join.main(parts, out, command="c")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "one part alone is nothing to join" in told(folders[:1])
    assert "named twice" in told([folders[0], record])
    assert "is one of the parts, which would be lost" in told(folders[:2], folders[1])
    assert "holds a reproduction that was made there" in told(folders[:2], folders[2])
    assert re.search(r"nowhere/reproduction\.json", told([folders[0], tmp_path / "nowhere"]))
    old = read_reproduction(record).model_copy(update={"data": "", "settings": None})
    write_reproduction(tmp_path / "old" / "reproduction.json", old)
    assert "does not say what it was made from" in told([tmp_path / "old", folders[1]])
    assert not (tmp_path / "out").exists()


def test_pictures_stay_in_their_folder(made, tmp_path):
    *_, folders = made
    shutil.copytree(folders[1], tmp_path / "part")
    path = tmp_path / "part" / "reproduction.json"
    part = json.loads(path.read_text())
    sheet = part["galleries"][0]["sheets"][0]
    (tmp_path / "outside.jpg").write_bytes((tmp_path / "part" / sheet["file"]).read_bytes())
    sheet["file"] = "../outside.jpg"
    path.write_text(json.dumps(part))
    with pytest.raises(RunError, match=r"the picture \.\./outside\.jpg is not in its folder"):
        join.main([tmp_path / "part", folders[2]], tmp_path / "sub" / "out", command="c")
    (tmp_path / "part" / (name := part["galleries"][0]["sheets"][1]["file"])).unlink()
    sheet["file"] = name
    path.write_text(json.dumps(part))
    with pytest.raises(RunError, match=r"a picture of reproduction\.json is missing \(\d+ are\)"):
        join.main([tmp_path / "part", folders[2]], tmp_path / "sub" / "out", command="c")


def test_the_command_line_joins(made, tmp_path, monkeypatch):
    *_, folders = made
    monkeypatch.setattr("sys.argv", ["mimctr", "join", "a", "b"])
    ran = CliRunner().invoke(app, ["join", *map(str, folders), "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    assert "what held" in ran.stdout
    assert (tmp_path / "out" / "reproduction.html").exists()
    as_json = CliRunner().invoke(
        app, ["join", *map(str, folders[:2]), "--out", str(tmp_path / "two"), "--json"]
    )
    assert json.loads(as_json.stdout)["command"] == "mimctr join a b"
