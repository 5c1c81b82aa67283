"""Schemathesis asks of every route what the service's own OpenAPI allows, and what it does not."""

import contextlib

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serve.running import running
from serve.shops import TOKEN

from mimctr.serve.app import create_app

pytestmark = pytest.mark.slow
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 25
"""Of each route, allowed and not, with and without a token."""


@pytest.mark.parametrize("headers", [TOKEN, {}], ids=["token", "no token"])
def test_every_answer_is_one_that_the_documentation_has(service, headers):
    """No status of 500 or more but those that are documented, and every body in the form that is."""
    wrong: dict[str, BaseException] = {}
    asked = 0
    with running(create_app(service, token="secret", deadline=60.0)) as port:
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                strategy = operation.as_strategy(generation_mode=mode)

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
                    nonlocal asked
                    asked += 1
                    case.call_and_validate(headers=headers, checks=CHECKS)

                try:
                    with contextlib.suppress(schemathesis.errors.Unsatisfiable):
                        ask()
                except Exception as error:  # noqa: BLE001: all that is wrong, not the first
                    wrong[f"{operation.label} ({mode})"] = error
    assert not wrong, "\n\n".join(f"{label}: {error!r}" for label, error in wrong.items())
    assert asked > 5 * EXAMPLES
