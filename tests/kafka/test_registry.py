"""The registry, by the client that producers use: what it answers is what Confluent's does."""

import json
import urllib.error
import urllib.request

import pytest

from registry import CONTENT, Registry

FIRST = {"type": "record", "name": "payment", "fields": [{"name": "id", "type": "string"}]}
SECOND = {**FIRST, "fields": [*FIRST["fields"], {"name": "amount", "type": ["null", "double"], "default": None}]}


def call(url, body=None):
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode(), headers={"Content-Type": CONTENT})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.headers["Content-Type"] == CONTENT
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_schemas_and_versions():
    with Registry() as registry:
        at = f"{registry.url}/subjects/payments-value/versions"
        assert call(at, {"schema": json.dumps(FIRST)}) == (200, {"id": 1})
        assert call(at, {"schema": json.dumps(SECOND)}) == (200, {"id": 2})
        assert call(at, {"schema": json.dumps(FIRST, indent=1)}) == (200, {"id": 1})
        assert call(f"{registry.url}/subjects/other%2Fname/versions", {"schema": json.dumps(SECOND)}) == (200, {"id": 2})
        status, found = call(f"{at}/latest")
        assert (status, found["subject"], found["version"], found["id"], json.loads(found["schema"])) == (
            200,
            "payments-value",
            2,
            2,
            SECOND,
        )
        assert call(at) == (200, [1, 2]) and call(f"{registry.url}/subjects") == (200, ["payments-value", "other/name"])
        assert json.loads(call(f"{registry.url}/schemas/ids/1")[1]["schema"]) == FIRST


@pytest.mark.parametrize(
    "path, status, code",
    [
        ("schemas/ids/9", 404, 40403),
        ("subjects/none/versions/latest", 404, 40401),
        ("subjects/payments/versions/7", 404, 40402),
        ("subjects/payments/versions/x", 422, 42202),
        ("nothing", 404, 404),
    ],
)
def test_errors_have_their_numbers(path, status, code):
    with Registry() as registry:
        call(f"{registry.url}/subjects/payments/versions", {"schema": json.dumps(FIRST)})
        found = call(f"{registry.url}/{path}")
        assert (found[0], found[1]["error_code"]) == (status, code)


def test_what_is_no_schema_is_refused():
    with Registry() as registry:
        for body in ({"schema": "{"}, {}, []):
            assert call(f"{registry.url}/subjects/payments/versions", body)[0] == 422
        assert registry.schemas == []


def test_failures_as_told():
    with Registry() as registry:
        registry.failures = [503]
        assert call(f"{registry.url}/subjects")[0] == 503
        assert call(f"{registry.url}/subjects") == (200, [])
        assert len(registry.requests) == 2
