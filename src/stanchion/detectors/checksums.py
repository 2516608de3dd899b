"""Checksums of numbers that name an account or a person: pure arithmetic, no tables of live values.

Each function takes the text of a candidate (separators allowed where people write them) and says whether the
number could have been issued. A number that holds its checksum need not exist.
"""

from __future__ import annotations

import hashlib
import ipaddress

_SEPARATORS = str.maketrans("", "", " -./\u00a0\u2009\u202f\u2010\u2011\u2012\u2013")
_LUHN_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

# Leading digits (low, high, both of one width) and the lengths issued under them: ISO/IEC 7812 ranges as the
# schemes publish them.
_CARD_RANGES: tuple[tuple[int, int, frozenset[int]], ...] = (
    (4, 4, frozenset({13, 16, 19})),  # Visa
    (51, 55, frozenset({16})),  # Mastercard
    (2221, 2720, frozenset({16})),  # Mastercard, 2-series
    (34, 34, frozenset({15})),  # American Express
    (37, 37, frozenset({15})),
    (300, 305, frozenset({14, 16})),  # Diners Club
    (3095, 3095, frozenset({14, 16})),
    (36, 36, frozenset({14, 16, 19})),
    (38, 39, frozenset({14, 16, 19})),
    (6011, 6011, frozenset({16, 19})),  # Discover
    (644, 659, frozenset({16, 19})),  # Discover, RuPay (652), Troy (65)
    (3528, 3589, frozenset({16, 17, 18, 19})),  # JCB
    (1800, 1800, frozenset({15})),  # JCB, old numbers
    (2131, 2131, frozenset({15})),
    (62, 62, frozenset({16, 17, 18, 19})),  # UnionPay
    (81, 81, frozenset({16, 17, 18, 19})),
    (50, 50, frozenset(range(12, 20))),  # Maestro, Elo, RuPay
    (56, 58, frozenset(range(12, 20))),  # Maestro
    (60, 60, frozenset({16})),  # RuPay, Hipercard
    (63, 63, frozenset({16, 18, 19})),
    (67, 67, frozenset(range(12, 20))),
    (2200, 2204, frozenset({16, 17, 18, 19})),  # Mir
    (979, 979, frozenset({16})),  # Troy
)

# ISO 13616 registry: length of an IBAN by country.
_IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE", "BI"), 16),
    **dict.fromkeys(("DK", "FI", "FK", "FO", "GL", "NL", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "XK", "MN"), 20),
    **dict.fromkeys(("CH", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "OM", "SO", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("DJ", "FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HN", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    "LC": 32,
    "RU": 33,
}

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_RIPPLE = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_CONSTANTS = (1, 0x2BC830A3)  # BIP-173, BIP-350 (bech32m)


def compact(text: str) -> str:
    """The number without the separators that people put in."""
    return text.translate(_SEPARATORS)


def is_luhn(text: str) -> bool:
    """ISO/IEC 7812-1 annex B over the digits of the text; False for fewer than two digits."""
    digits = compact(text)
    if len(digits) < 2 or not (digits.isascii() and digits.isdigit()):
        return False
    values = [ord(character) - 48 for character in reversed(digits)]
    return (sum(values[0::2]) + sum(_LUHN_DOUBLED[v] for v in values[1::2])) % 10 == 0


def is_card(text: str) -> bool:
    """A payment card number: Luhn, a scheme's leading digits and lengths, not one digit repeated."""
    digits = compact(text)
    if not 12 <= len(digits) <= 19 or not is_luhn(digits) or len(set(digits)) < 2:
        return False
    return any(
        low <= int(digits[: len(str(low))]) <= high and len(digits) in lengths
        for low, high, lengths in _CARD_RANGES
    )


def is_iban(text: str) -> bool:
    """An IBAN: a registered country, its length, and ISO 7064 mod 97-10."""
    number = compact(text).upper()
    if _IBAN_LENGTHS.get(number[:2]) != len(number) or not (number.isascii() and number.isalnum()):
        return False
    return int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1


def is_aba_routing(text: str) -> bool:
    """A routing number of the American Bankers Association: district and weights 3-7-1."""
    digits = compact(text)
    if len(digits) != 9 or not (digits.isascii() and digits.isdigit()):
        return False
    district = int(digits[:2])
    if not (district <= 12 or 21 <= district <= 32 or 61 <= district <= 72 or district == 80):
        return False
    return sum(int(d) * w for d, w in zip(digits, (3, 7, 1) * 3, strict=True)) % 10 == 0 and int(digits) > 0


def is_base58check(text: str) -> bool:
    """Bitcoin's base58check (BIP-13 and kin): the last four bytes are a double sha256 of the rest."""
    return _holds_base58(text, _BASE58)


def is_ripple_address(text: str) -> bool:
    """A classic address of the XRP ledger: base58check in its own alphabet."""
    return _holds_base58(text, _BASE58_RIPPLE)


_LONGEST_BASE58 = 128  # an extended key has 111; the arithmetic grows with the square of the length


def _holds_base58(text: str, alphabet: str) -> bool:
    if len(text) > _LONGEST_BASE58:
        return False
    value = 0
    for character in text:
        index = alphabet.find(character)
        if index < 0:
            return False
        value = value * 58 + index
    zeros = len(text) - len(text.lstrip(alphabet[0]))
    raw = b"\0" * zeros + value.to_bytes((value.bit_length() + 7) // 8, "big")
    if len(raw) < 25:
        return False
    payload, check = raw[:-4], raw[-4:]
    return hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4] == check


def is_bech32(text: str) -> bool:
    """A bech32 or bech32m string (BIP-173, BIP-350): segwit, Litecoin, Cardano, Cosmos addresses."""
    if text not in (text.lower(), text.upper()):
        return False
    prefix, separator, data = text.lower().rpartition("1")
    if not separator or len(data) < 6 or any(c not in _BECH32 for c in data):
        return False
    values = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    return _bech32_polymod(values + [_BECH32.index(c) for c in data]) in _BECH32_CONSTANTS


def _bech32_polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_BECH32_GENERATOR):
            check ^= generator if (top >> bit) & 1 else 0
    return check


def is_ethereum_address(text: str) -> bool:
    """`0x` and 40 hex digits; mixed case must hold the EIP-55 checksum; not a trivial pattern."""
    body = text[2:]
    if len(body) != 40 or len(set(body.lower())) < 6:
        return False
    if body in (body.lower(), body.upper()):
        return True
    nibbles = keccak_256(body.lower().encode("ascii")).hex()
    return all(
        character == (character.upper() if int(nibble, 16) >= 8 else character.lower())
        for character, nibble in zip(body, nibbles, strict=False)
    )


def is_ip_address(text: str) -> bool:
    """An IPv4 or IPv6 address in any textual form that `ipaddress` reads."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_ROUND_CONSTANTS = (
    0x0000000000000001, 0x0000000000008082, 0x800000000000808A, 0x8000000080008000,
    0x000000000000808B, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
    0x000000000000008A, 0x0000000000000088, 0x0000000080008009, 0x000000008000000A,
    0x000000008000808B, 0x800000000000008B, 0x8000000000008089, 0x8000000000008003,
    0x8000000000008002, 0x8000000000000080, 0x000000000000800A, 0x800000008000000A,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
)  # fmt: skip
_ROTATIONS = (
    (0, 36, 3, 41, 18), (1, 44, 10, 45, 2), (62, 6, 43, 15, 61), (28, 55, 25, 21, 56), (27, 20, 39, 8, 14),
)  # fmt: skip
_MASK = (1 << 64) - 1
_RATE = 136


def keccak_256(message: bytes) -> bytes:
    """Keccak-256 with the original padding, as Ethereum uses it (not FIPS 202 SHA3-256)."""
    padded = bytearray(message)
    padded.append(0x01)
    padded.extend(b"\0" * (-len(padded) % _RATE))
    padded[-1] |= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for offset in range(0, len(padded), _RATE):
        for index in range(_RATE // 8):
            start = offset + 8 * index
            lanes[index % 5][index // 5] ^= int.from_bytes(padded[start : start + 8], "little")
        lanes = _keccak_f(lanes)
    return b"".join(lanes[i % 5][i // 5].to_bytes(8, "little") for i in range(4))


def _keccak_f(lanes: list[list[int]]) -> list[list[int]]:
    for constant in _ROUND_CONSTANTS:
        parity = [lanes[x][0] ^ lanes[x][1] ^ lanes[x][2] ^ lanes[x][3] ^ lanes[x][4] for x in range(5)]
        effect = [parity[x - 1] ^ _rotate(parity[(x + 1) % 5], 1) for x in range(5)]
        moved = [[0] * 5 for _ in range(5)]
        for x in range(5):
            for y in range(5):
                moved[y][(2 * x + 3 * y) % 5] = _rotate(lanes[x][y] ^ effect[x], _ROTATIONS[x][y])
        lanes = [
            [moved[x][y] ^ (~moved[(x + 1) % 5][y] & _MASK & moved[(x + 2) % 5][y]) for y in range(5)]
            for x in range(5)
        ]
        lanes[0][0] ^= constant
    return lanes


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK if bits else value
