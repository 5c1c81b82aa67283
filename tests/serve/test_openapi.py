"""Schemathesis asks of every route what the service's own OpenAPI allows, and what it does not."""

import contextlib
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mimctr.serve.app import create_app
from serve.running import running
from serve.shops import TOKEN

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("shop", ["integers"], indirect=True, scope="module"),
    pytest.mark.filterwarnings("ignore:Do not use the `random` module"),  # Schemathesis does
]
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SERVED = {"name": "mimctr", "version": "bundle"}
EXAMPLES = 25
"""Of each route, allowed and not, with and without a token."""


@pytest.mark.parametrize("headers", [TOKEN, {}], ids=["token", "no token"])
def test_every_answer_is_one_that_the_documentation_has(service, headers):
    """No fault of the server, but for the deadline that a request sets itself; every body in the form that is told."""
    wrong: dict[str, BaseException] = {}
    asked: Counter[int] = Counter()
    with running(create_app(service, token="secret", deadline=60.0)) as port:
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        for found in schema.get_all_operations():
            operation = found.ok()
            modes = [(mode, {}) for mode in GenerationMode]
            if "{name}" in operation.path:
                modes += [(mode, {"path_parameters": SERVED}) for mode in GenerationMode]
            for mode, fixed in modes:
                strategy = operation.as_strategy(generation_mode=mode, **fixed)

                @given(case=strategy)
                @settings(
                    max_examples=EXAMPLES,
                    derandomize=True,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                def ask(case) -> None:
                    answer = case.call_and_validate(headers=headers, checks=CHECKS)
                    asked[answer.status_code] += 1
                    in_time = answer.status_code == 504 and "x-deadline-ms" in map(str.lower, case.headers)
                    assert answer.status_code < 500 or in_time, (answer.text, case.as_curl_command())

                try:
                    with contextlib.suppress(Unsatisfiable):
                        ask()
                except (AssertionError, FailureGroup) as error:  # all that is wrong, not the first
                    wrong[f"{operation.label} ({mode.value}, {fixed})"] = error
    assert not wrong, "\n\n".join(f"{label}: {error!r:.2000}" for label, error in wrong.items())
    assert {200, 400, 404, 422} <= set(asked), asked
    assert ((202 in asked), (401 in asked)) == ((True, False) if headers else (False, True)), asked
