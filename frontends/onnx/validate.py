"""stub"""

from .wire import Source


def validate(source: Source) -> None:
    pass
