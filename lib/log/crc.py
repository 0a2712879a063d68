"""CRC32C of a concatenation from the CRCs of its parts, so that bytes are summed once.

A CRC is linear: the sum of A·B is the sum of A, moved past the length of B by a multiplication with a
power of x modulo the polynomial, plus (xor) the sum of B. This is zlib's ``crc32_combine`` with the
Castagnoli polynomial. Cost: about 10 µs, against 40 µs a MiB for summing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

POLYNOMIAL: Final = 0x82F63B78  # Castagnoli, bits reversed: the highest bit is the coefficient of x^0
_ONE: Final = 1 << 31


def combined(first: int, second: int, second_bytes: int) -> int:
    """The CRC32C of A followed by B, from those of A (``first``) and B (``second``) and the length of B."""
    shift, place = first, 0
    while second_bytes:
        if low := second_bytes & 0xFF:
            shift = _times(_power(low, place), shift)
        second_bytes >>= 8
        place += 1
    return shift ^ second


@lru_cache(maxsize=2_048)
def _power(byte: int, place: int) -> int:
    """X to the number of bits in ``byte * 256**place`` bytes."""
    power, square, exponent = _ONE, _ONE >> 1, 8 * byte << (8 * place)
    while exponent:
        if exponent & 1:
            power = _times(square, power)
        square = _times(square, square)
        exponent >>= 1
    return power


def _times(a: int, b: int) -> int:
    """The product of two polynomials modulo the CRC's."""
    product, bit = 0, _ONE
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = (b >> 1) ^ POLYNOMIAL if b & 1 else b >> 1
    return product
