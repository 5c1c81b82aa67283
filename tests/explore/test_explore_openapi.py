"""Schemathesis asks of every route of the explorer what its OpenAPI allows, and what it does not."""

import contextlib
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from serve.running import running
from serve.test_openapi import CHECKS, EXAMPLES

from mimctr.explore.app import create_app

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Do not use the `random` module"),  # Schemathesis does
]


def test_every_answer_is_one_that_the_documentation_has(opened):
    """No fault of the server, but for the deadline that a request sets itself."""
    wrong: dict[str, BaseException] = {}
    asked: Counter[int] = Counter()
    with running(create_app(opened, deadline=60.0)) as port:
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/api/openapi.json")
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in GenerationMode:

                @given(case=operation.as_strategy(generation_mode=mode))
                @settings(
                    max_examples=EXAMPLES,
                    derandomize=True,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                def ask(case) -> None:
                    answer = case.call_and_validate(checks=CHECKS)
                    asked[answer.status_code] += 1
                    in_time = answer.status_code == 504 and "x-deadline-ms" in map(str.lower, case.headers)
                    assert answer.status_code < 500 or in_time, (answer.text, case.as_curl_command())

                try:
                    with contextlib.suppress(Unsatisfiable):
                        ask()
                except (AssertionError, FailureGroup) as error:  # all that is wrong, not the first
                    wrong[f"{operation.label} ({mode.value})"] = error
    assert not wrong, "\n\n".join(f"{label}: {error!r:.2000}" for label, error in wrong.items())
    assert {200, 404, 422} <= set(asked), asked
