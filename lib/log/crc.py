"""CRC32C of a concatenation from the CRCs of its parts, so that bytes are summed once.

A CRC is linear: the sum of A·B is the sum of A, moved past the length of B by a multiplication with a
power of x modulo the polynomial, plus (xor) the sum of B. This is zlib's ``crc32_combine`` with the
Castagnoli polynomial, with the powers' multiplications in tables. Cost: 2 to 5 µs, against 40 µs a MiB for summing.
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from typing import Final

POLYNOMIAL: Final = 0x82F63B78  # Castagnoli, bits reversed: the highest bit is the coefficient of x^0
_ONE: Final = 1 << 31


def combined(first: int, second: int, second_bytes: int) -> int:
    """The CRC32C of A followed by B, from those of A (``first``) and B (``second``) and the length of B."""
    shift, place = first, 0
    while second_bytes:
        if second_bytes & 1:
            lowest, lower, higher, highest = _mover(place)
            shift = lowest[shift & 0xFF] ^ lower[shift >> 8 & 0xFF] ^ higher[shift >> 16 & 0xFF] ^ highest[shift >> 24]
        second_bytes >>= 1
        place += 1
    return shift ^ second


@lru_cache(maxsize=64)
def _mover(place: int) -> tuple[array[int], ...]:
    """What moving past ``2**place`` bytes makes of each value of each of a CRC's four bytes, the lowest first.

    Cost: about 0.5 ms, once.
    """
    power = _ONE >> 8
    for _ in range(place):
        power = _times(power, power)
    tables = []
    for byte in range(4):
        table = [0]
        for bit in range(8):
            moved = _times(power, 1 << (8 * byte + bit))
            table += [known ^ moved for known in table]
        tables.append(array("L", table))  # a list's numbers would lie all over the memory
    return tuple(tables)


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
