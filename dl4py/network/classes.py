"""The names of a network's classes, which DL4J has no place for, as files hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dl4py.config.codec import DL4JFormatError


def written(names: Sequence[str]) -> str:
    """Names as JSON.

    >>> written(("cat", "dog"))
    '["cat", "dog"]'
    """
    return json.dumps(list(names), ensure_ascii=False)


def names(text: str | bytes, where: str) -> tuple[str, ...]:
    """What :func:`written` wrote.

    Args:
        where: the file and the place in it, for errors.

    >>> names('["cat", "dog"]', "a.zip:dl4pyClasses.json")
    ('cat', 'dog')
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(n, str) for n in found):
        raise DL4JFormatError(f"{where}: expected the names of the classes")
    if len(set(found)) < len(found):
        raise DL4JFormatError(f"{where}: a class is there twice")
    return tuple(found)


def check_order(
    given: Sequence[str] | None, known: Sequence[str] | None, of: str
) -> None:
    """Refuse a network's own classes in another order, which would all be mistaken."""
    if given and known and set(given) == set(known) and list(given) != list(known):
        raise ValueError(
            f"classes: {of} was trained on them in the order {', '.join(known)}, got "
            f"{', '.join(given)}"
        )
