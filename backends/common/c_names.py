"""Names that C and C++ leave to programs: of members, macros and headers of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable

# ISO/IEC 9899:2024, 6.4.1, ISO/IEC 14882:2020, 5.11, and what GCC adds
_KEYWORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
char8_t class co_await co_return co_yield compl concept const const_cast consteval constexpr
constinit continue decltype default delete do double dynamic_cast else enum explicit export
extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq
nullptr operator or or_eq private protected public register reinterpret_cast requires restrict
return short signed sizeof static static_assert static_cast struct switch template this
thread_local throw true try typedef typeid typename typeof typeof_unqual union unsigned using
virtual void volatile wchar_t while xor xor_eq
"""
# Macros that compilers define, or headers that programs include first
_MACROS = """
CHAR_BIT EOF HUGE_VAL HUGE_VALF HUGE_VALL I INFINITY NAN NULL assert complex errno imaginary linux
offsetof stderr stdin stdout unix
"""
_OF_NUMBERS = re.compile(
    r"\w+_t|U?INT\w*_(MAX|MIN|C)|(SIZE|WCHAR|WINT|SIG_ATOMIC|[SU]?CHAR|U?SHRT|U?L?LONG)_(MAX|MIN)"
    r"|(FLT|DBL|LDBL)_\w+|M_\w+"
)
_RESERVED = re.compile(r"_[A-Z_]\w*")  # for compilers, 7.1.3
# ISO/IEC 9899:2024, 7.1.2
_HEADERS = """
assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign
stdarg stdatomic stdbit stdbool stdckdint stddef stdint stdio stdlib stdnoreturn string tgmath
threads time uchar wchar wctype
"""
_TAKEN = frozenset((_KEYWORDS + _MACROS).split())
_STANDARD = frozenset(_HEADERS.split())


def identifier(text: str) -> str:
    """A C identifier that resembles a name, and is free for a member of a struct."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII) or "tensor"
    if _RESERVED.fullmatch(name):
        return f"t_{name.lstrip('_')}"
    known = name in _TAKEN or _OF_NUMBERS.fullmatch(name)
    return f"t_{name}" if known or name[0].isdigit() else name


def header_name(stem: str, others: Iterable[str]) -> str:
    """The name of a model's header; `<stem>_model.h` where `<stem>.h` is one of C's, or one of
    `others` that lie beside it, in whatever case."""
    name = f"{stem}.h"
    taken = stem.lower() in _STANDARD or is_among(name, others)
    return f"{stem}_model.h" if taken else name


def is_among(name: str, others: Iterable[str]) -> bool:
    """Whether a file would take the place of another, also where names have no case."""
    return name.casefold() in {other.casefold() for other in others}
