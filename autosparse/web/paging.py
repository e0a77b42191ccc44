"""Lists in pages: each answer names the path of the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from fastapi import Query
from starlette.responses import Response

MOST = 200
T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=MOST, description="How many at most.")]


def page(
    found: Sequence[T],
    limit: int,
    path: str,
    filters: Sequence[tuple[str, str]],
    cursor: str,
    response: Response,
) -> tuple[list[T], str | None]:
    """Cuts one page, and says in the body and in the header Link where the next one is.

    Args:
        found: one more than the page holds, if there are more.
        limit: how many a page holds.
        path: of the list.
        filters: name and value of each of the query's, but for the cursor.
        cursor: attribute of the last item with which the next page begins.
        response: gets the header.

    Returns:
        The page's items, and the path of the next one; None at the end.
    """
    items = list(found[:limit])
    if len(found) <= limit:
        return items, None
    query = [*filters, ("limit", str(limit)), ("before", str(getattr(items[-1], cursor)))]
    following = f"{path}?{urlencode(query)}"
    response.headers["Link"] = f'<{following}>; rel="next"'
    return items, following
