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
# POSIX.1-2024, XBD 14, and what earlier issues had
_POSIX_HEADERS = """
aio cpio devctl dirent dlfcn endian fcntl fmtmsg fnmatch ftw glob grp iconv langinfo libgen libintl
monetary mqueue ndbm netdb nl_types poll pthread pwd regex sched search semaphore spawn strings
stropts syslog tar termios trace ulimit unistd utime utmpx wordexp
"""
# What glibc 2.41, musl 1.2 and newlib 4.3 have besides
_LIBRARY_HEADERS = """
a.out aliases alloca ar argp argz byteswap crypt elf envlock envz err error execinfo fastmath
features features-time64 fpregdef fpu_control fstab fts gconv getopt gnu-versions gshadow ieee754
ieeefp ifaddrs lastlog link malloc mcheck memory mntent newlib nss obstack paths printf proc_service
pty re_comp reent regdef regexp resolv sgidefs sgtty shadow stab stdc-predef stdio_ext syscall
sysexits thread_db ttyent ucontext unctrl utmp values wait
"""
# What GCC and Clang have besides; those of vector instructions end alike
_COMPILER_HEADERS = """
altivec arm64intr arm_acle arm_bf16 arm_cde arm_cmse arm_fp16 arm_mve arm_neon arm_neon_sve_bridge
arm_sme arm_sve arm_vector_types armintr builtins cet cpuid mm3dnow mm_malloc ptrauth stdcountof
unwind varargs
"""
_OF_COMPILER = re.compile(r"\w*intrin")
_TAKEN = frozenset((_KEYWORDS + _MACROS).split())
_STANDARD = frozenset((_HEADERS + _POSIX_HEADERS + _LIBRARY_HEADERS + _COMPILER_HEADERS).split())


def identifier(text: str) -> str:
    """A C identifier that resembles a name, and is free for a member of a struct."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII) or "tensor"
    if _RESERVED.fullmatch(name):
        return f"t_{name.lstrip('_')}"
    known = name in _TAKEN or _OF_NUMBERS.fullmatch(name)
    return f"t_{name}" if known or name[0].isdigit() else name


def header_name(stem: str, others: Iterable[str]) -> str:
    """The name of a model's header; `<stem>_model.h` where `<stem>.h` is one of C's, of its library
    or compiler, which include theirs from where programs say first, or one of `others` that lie
    beside it, in whatever case. What begins with an underscore is theirs."""
    name, small = f"{stem}.h", stem.lower()
    theirs = small.startswith("_") or small in _STANDARD or _OF_COMPILER.fullmatch(small)
    return f"{stem}_model.h" if theirs or is_among(name, others) else name


def is_among(name: str, others: Iterable[str]) -> bool:
    """Whether a file would take the place of another, also where names have no case."""
    return name.casefold() in {other.casefold() for other in others}
