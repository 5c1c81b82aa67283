"""Ids, paths, pictures, hosts and tokens that are not what they should be."""

import io
import re
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from mimctr.errors import ConfigError
from mimctr.explore import pictures
from mimctr.explore.app import create_app
from mimctr.explore.guard import in_address
from mimctr.recipes import explore


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("/api/item?id=nobody", "there is no item 'nobody' in this run"),
        ("/api/item?id=../../etc/passwd", "there is no item '../../etc/passwd' in this run"),
        ("/api/user?id=99999", "there is no user '99999' in this run"),
        ("/api/user?id=-1", "there is no user '-1' in this run"),
        ("/api/user?id=9223372036854775808", "there is no user '9223372036854775808' in this run"),
        ("/api/user?id=-9223372036854775809", "there is no user '-9223372036854775809' in this run"),
        ("/api/user?id=1e3", "there is no user '1e3' in this run"),
        ("/api/user?id=3&row=0", "impression 0 is none of user '3' in the test part"),
        ("/api/user?id=3&encoder=other", "there are no vectors of 'other' in this run, but of csft"),
        ("/api/slice?name=other", "there is no slice 'other' in this run"),
        ("/pictures/items/100000", "there is no picture 100000 of items in this run"),
        ("/pictures/items/-1", "there is no picture -1 of items in this run"),
        ("/static/..%2fapp.py", "Not Found"),
        ("/static/app.py", "there is no such file"),
    ],
)
def test_what_is_not_there_is_told(client, address, told):
    answer = client.get(address)
    assert (answer.status_code, answer.json()["detail"]) == (404, told)


def test_pages_tell_what_is_wrong_as_pages(client):
    answer = client.get("/item", params={"id": "<b>x"})
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "there is no item &#39;&lt;b&gt;x&#39;" in answer.text


@pytest.mark.parametrize("body", [b"", b"no picture", b"%!PS-Adobe"])
def test_what_is_no_picture_is_refused(client, body):
    answer = client.post("/api/search/picture", content=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("image: ")


def test_a_request_that_is_too_large_is_refused(client):
    assert client.post("/api/search/picture", content=bytes(20_000_001)).status_code == 413


def test_a_picture_is_small_and_is_not_sent_again(client, opened):
    answer = client.get("/pictures/items/0")
    assert answer.headers["content-type"] == "image/png"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    stored = np.asarray(Image.open(io.BytesIO(opened.data.item_images.blob(0))))
    np.testing.assert_array_equal(shown, stored)  # smaller than a thumbnail: as it is
    again = client.get("/pictures/items/0", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/pictures/items/1").headers["etag"] != answer.headers["etag"]


def test_pictures_are_kept_as_long_as_their_bytes_have_room(opened, monkeypatch):
    """Of three one must go, which was not looked at for longest. Mutant: pictures are counted, not their bytes."""
    made, make = [], pictures._small

    def counted(data, size):
        made.append(data)
        return make(data, size)

    blobs = [opened.data.item_images.blob(number) for number in range(3)]
    room = sum(len(make(data, 128)) for data in blobs) - 1
    monkeypatch.setattr(pictures, "_small", counted)
    thumbnails = pictures.Thumbnails({"items": opened.data.item_images}, kept=room)
    found = [thumbnails.get("items", number, 128).data for number in (0, 1, 0, 2, 0, 1)]
    assert made == [blobs[0], blobs[1], blobs[2], blobs[1]]
    assert found == [make(blobs[number], 128) for number in (0, 1, 0, 2, 0, 1)]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8090",
        "[::1].evil.example",
        "[::1]evil.example:8090",
        "127.0.0.1:8090.evil.example",
        "evil.example@127.0.0.1",
        "testserver",
        "127.0.0.1:80:80",
        "",
    ],
)
def test_another_name_of_this_machine_is_refused(opened, host):
    """A page elsewhere whose name points to 127.0.0.1 must not read what is here."""
    with TestClient(create_app(opened)) as client:
        assert client.get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8090", "localhost:8090", "LocalHost", "[::1]:8090", "[::1]"]
)
def test_this_machines_own_names_are_answered(opened, host):
    with TestClient(create_app(opened)) as client:
        assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "named"), [("127.0.0.2", "127.0.0.2:8090"), ("::1", "[::1]:8090"), ("0:0:0:0:0:0:0:1", "[::1]")]
)
def test_the_address_that_is_listened_on_is_answered(opened, host, named):
    with TestClient(create_app(opened, host=host)) as client:
        assert client.get("/", headers={"host": named}).status_code == 200
        assert client.get("/", headers={"host": "127.0.0.3"}).status_code == 403
        assert in_address(host) == named.removesuffix(":8090")


def test_the_port_that_was_free_is_told(run_folder):
    command = [
        sys.executable,
        "-m",
        "mimctr",
        "explore",
        str(run_folder),
        "--host",
        "127.0.0.2",
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stderr if "http://" in line)
            address = re.search(r"http://127\.0\.0\.2:[1-9]\d+", line)[0]
            assert urllib.request.urlopen(address).status == 200
        finally:
            process.terminate()
            process.communicate()


def test_a_text_of_spaces_is_no_text(client):
    assert client.get("/api/search/text", params={"q": "  "}).status_code == 422


@pytest.mark.parametrize("path", ["/", "/api/run", "/pictures/items/0", "/static/explore.js"])
def test_with_a_token_everything_needs_it(opened, path):
    with TestClient(create_app(opened, token="secret"), base_url="http://explorer.example") as client:
        refused = client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
        assert client.get(path, auth=("anyone", "wrong")).status_code == 401
        assert client.get(path, headers={"authorization": "Basic %%"}).status_code == 401
        assert client.get(path, auth=("anyone", "secret")).status_code == 200
        assert client.get(path, headers={"authorization": "Bearer secret"}).status_code == 200


def test_an_address_that_others_reach_needs_a_token(run_folder, monkeypatch):
    monkeypatch.delenv("MIMCTR_TOKEN", raising=False)
    with pytest.raises(
        ConfigError, match=r"explore: 0\.0\.0\.0 can be reached from elsewhere\. Set MIMCTR_TOKEN"
    ):
        explore.main(run_folder, explore.Config(host="0.0.0.0"))


def test_nothing_from_elsewhere_is_loaded(client):
    for address in ("/", "/search", "/item?id=item/7", "/user?id=3", "/slices"):
        answer = client.get(address)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http://" not in answer.text
        assert "https://" not in answer.text
