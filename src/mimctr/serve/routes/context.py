"""What all routes work with."""

import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Header, HTTPException

from mimctr.serve.admission import Admission
from mimctr.serve.items import Items
from mimctr.serve.metrics import Metrics
from mimctr.serve.service import Service


@dataclass(frozen=True, slots=True)
class Context:
    """An application's parts.

    Args:
        service: Answers.
        admission: Says which requests are worked on.
        metrics: What is counted.
        token: That writes and administration must bring as ``Authorization: Bearer``; None: they need none.
        bundles: Folder that bundles may be reloaded from; None: none may.
        items: Takes items in; None: another process does.
    """

    service: Service
    admission: Admission
    metrics: Metrics
    token: str | None
    bundles: Path | None
    items: Items | None = None

    async def permitted(self, authorization: Annotated[str | None, Header()] = None) -> None:
        """Let writes and administration through.

        Raises:
            HTTPException: 401.
        """
        given = (authorization or "").removeprefix("Bearer ").encode()
        if self.token is not None and not hmac.compare_digest(given, self.token.encode()):
            raise HTTPException(401, "a token is missing or wrong", headers={"WWW-Authenticate": "Bearer"})
