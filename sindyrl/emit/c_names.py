"""Names of locals in generated C: those of the user wherever C allows them."""

from __future__ import annotations

from collections.abc import Iterable

_C = """auto break case char const continue default do double else enum extern float for goto if inline int long
register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while _Bool
_Complex _Imaginary alignas alignof bool constexpr false nullptr static_assert thread_local true typeof typeof_unqual"""
_CPP = """and and_eq asm bitand bitor catch char16_t char32_t char8_t class co_await co_return co_yield compl concept
consteval constinit const_cast decltype delete dynamic_cast explicit export final friend import module mutable
namespace new noexcept not not_eq operator or or_eq override private protected public reinterpret_cast requires
static_cast template this throw try typeid typename using virtual wchar_t xor xor_eq"""
_MATH = """abs acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh div erf erfc exp exp2 expm1 fabs
fdim floor fma fmax fmin fmod frexp gamma hypot ilogb j0 j1 jn labs ldexp lgamma llrint llround log log10 log1p log2
logb lrint lround modf nan nearbyint nextafter nexttoward pow remainder remquo rint round scalbln scalbn signgam sin
sinh sqrt tan tanh tgamma trunc y0 y1 yn isfinite isinf isnan isnormal signbit fpclassify
isgreater isless isunordered"""
_MACROS = """BUFSIZ CHAR_BIT DBL_EPSILON DBL_MAX DBL_MIN DOMAIN EDOM EOF ERANGE FLT_EPSILON FLT_MAX FLT_MIN HUGE
HUGE_VAL HUGE_VALF I INFINITY INT_MAX INT_MIN M_E M_PI M_PI_2 M_PI_4 MAXFLOAT NAN NULL OVERFLOW PLOSS RAND_MAX SING
TLOSS UNDERFLOW assert complex errno i386 imaginary linux offsetof stderr stdin stdout unix va_arg main arm ARM A0 A1
A2 A3 A4 A5 A6 A7 DEFAULT DEG_TO_RAD EULER EXTERNAL F HALF_PI HIGH INPUT INTERNAL LOW LSBFIRST MSBFIRST OUTPUT PI
PROGMEM RAD_TO_DEG SERIAL TWO_PI bit boolean byte constrain degrees interrupts lowByte highByte map max min radians sq
word near far pascal cdecl huge interface small hyper max_align_t ptrdiff_t size_t"""
_MATH_NAMES = frozenset(_MATH.split())
RESERVED = frozenset((*_C.split(), *_CPP.split(), *_MACROS.split(), *_MATH_NAMES))
"""Keywords of C and C++, functions and macros of the standard library, and macros of common embedded environments."""

_MAX_LENGTH = 56  # C99 distinguishes 63 characters; leave room for a suffix


class LocalNames:
    """Hands out names that clash with nothing: not with C, not with each other, not even when case is ignored."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {name.lower() for name in taken}

    def new(self, wish: str) -> str:
        """``wish``, with an underscore or a number appended if it is not free; deterministic."""
        name = wish[:_MAX_LENGTH]
        if name.startswith("_"):  # leading underscores belong to the compiler
            name = "v" + name
        if is_reserved(name):
            name += "_"
        candidate, count = name, 1
        while candidate.lower() in self._taken:
            count += 1
            candidate = f"{name.removesuffix('_')}_{count}"
        self._taken.add(candidate.lower())
        return candidate


def is_reserved(name: str) -> bool:
    """Whether a name belongs to C, its library (also the float and long double forms) or a common macro."""
    stem = name[:-1] if name.endswith(("f", "l")) else name
    fixed_width = name.endswith("_t") and name.startswith(("int", "uint"))
    return name in RESERVED or stem in _MATH_NAMES or fixed_width
