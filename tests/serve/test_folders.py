"""Bundles come from one folder."""

import os

import pytest

from mimctr.errors import DataError, RunError
from mimctr.files import read_json, write_json
from mimctr.serve.bundle import Bundle
from mimctr.serve.folders import folder_within
from serve.shops import TOKEN


def test_what_is_inside_is_found(tmp_path):
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "newest").symlink_to("one")
    for named, found in (
        ("one", "one"),
        ("one/two", "one/two"),
        (str(tmp_path / "one"), "one"),
        ("one/two/..", "one"),
        ("newest", "one"),
        ("not there", "not there"),
        ("~root", "~root"),  # no shell reads it
    ):
        assert folder_within(tmp_path, named) == (tmp_path / found).resolve()


def test_what_is_outside_is_refused_whether_it_exists_or_not(tmp_path):
    """Mutants: links are followed after the comparison; names are compared as text."""
    allowed = tmp_path / "bundles"
    for folder in ("bundles", "bundles-of-others", "other"):
        (tmp_path / folder).mkdir()
    (allowed / "link").symlink_to(tmp_path / "other")
    (allowed / "circle").symlink_to(allowed / "circle")
    (allowed / "file").write_text("x")
    for named in (
        "..",
        "../other",
        "../not there",
        "one/../../other",
        str(tmp_path / "other"),
        str(tmp_path / "bundles-of-others"),
        "/etc/passwd",
        "/",
        "link",
        "link/x",
        "circle",
        "file",
        ".",
        "",
        "a\0b",
        "a" * 4096,
        "\ud800",
    ):
        with pytest.raises(DataError, match=r"is no folder in .*bundles\. Bundles come from there"):
            folder_within(allowed, named)
    with pytest.raises(DataError, match="no folder is set that bundles may come from"):
        folder_within(None, "one")


def test_reload_reads_nothing_of_elsewhere(client, bundle, tmp_path_factory):
    """A sound bundle elsewhere is refused, by name and by link; inside it is served."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    os.rename(bundle, elsewhere)
    (bundle.parent / "link").symlink_to(elsewhere)
    for named in (str(elsewhere), f"../{elsewhere.parent.name}/copy", str(bundle.parent / "link"), "link"):
        answer = client.post("/admin/reload", json={"bundle": named}, headers=TOKEN)
        assert answer.status_code == 422
        assert "Bundles come from there" in answer.json()["detail"]
    os.rename(elsewhere, bundle.parent / "newer")
    answer = client.post("/admin/reload", json={"bundle": "newer"}, headers=TOKEN)
    assert answer.json() == {"bundle": "newer", "generation": 1}


def test_a_bundle_names_only_files_of_its_own(bundle):
    """Mutant: the manifest's names are not looked at."""
    manifest = read_json(bundle / "bundle.json")
    (bundle.parent / "secret").write_text("s")
    for name in ("../secret", str(bundle.parent / "secret")):
        write_json(bundle / "bundle.json", manifest | {"files": manifest["files"] | {name: "0" * 64}})
        with pytest.raises(RunError, match="secret, which is outside of the bundle"):
            Bundle(bundle)
