"""Checksums of national numbers that `python-stdnum` does not know, each from the issuer's published rule."""

from __future__ import annotations

import re

_TAIWAN_LETTERS = "ABCDEFGHJKLMNPQRSTUVXYWZIO"  # the order of their two-digit codes, from 10
_SINGAPORE = {
    "S": "JZIHGFEDCBA",
    "T": "GFEDCBAJZIH",
    "F": "XWUTRQPNMLK",
    "G": "RQPNMLKXWUT",
    "M": "XWUTRQPNJLK",
}
_SINGAPORE_WEIGHTS = (2, 7, 6, 5, 4, 3, 2)
_NINO_NEVER = frozenset({"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"})


def _digits(text: str) -> list[int]:
    return [int(character) for character in text if character in "0123456789"]


def _letters_and_digits(text: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", text.upper())


def is_ru_snils(text: str) -> bool:
    """Russian pension insurance number: nine digits weighted 9 to 1, modulo 101, as two digits."""
    digits = _digits(text)
    if len(digits) != 11:
        return False
    check = sum(d * w for d, w in zip(digits, range(9, 0, -1), strict=False)) % 101 % 100
    return check == digits[9] * 10 + digits[10] and any(digits[:9])


def is_hk_id(text: str) -> bool:
    """Hong Kong identity card: one or two letters, six digits, a check digit (A is 10), weighted 9 to 1."""
    body = _letters_and_digits(text)
    match = re.fullmatch(r"([A-Z]{1,2})(\d{6})([0-9A])", body)
    if match is None:
        return False
    letters = match[1].rjust(2)
    values = [36 if c == " " else ord(c) - 55 for c in letters] + _digits(match[2])
    values.append(10 if match[3] == "A" else int(match[3]))
    return sum(v * w for v, w in zip(values, range(9, 0, -1), strict=True)) % 11 == 0


def is_tw_id(text: str) -> bool:
    """Taiwanese identity number: a letter that counts as two digits, nine digits, weights 1, 9 to 1, 1."""
    body = _letters_and_digits(text)
    if not re.fullmatch(r"[A-Z][1289]\d{8}", body):
        return False
    tens, units = divmod(_TAIWAN_LETTERS.index(body[0]) + 10, 10)
    values = [tens, units, *_digits(body[1:])]
    return sum(v * w for v, w in zip(values, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)) % 10 == 0


def is_sg_nric(text: str) -> bool:
    """Singaporean NRIC or FIN: seven weighted digits choose the last letter, by series."""
    body = _letters_and_digits(text)
    if not re.fullmatch(r"[STFGM]\d{7}[A-Z]", body):
        return False
    total = sum(d * w for d, w in zip(_digits(body[1:8]), _SINGAPORE_WEIGHTS, strict=True))
    total += {"T": 0, "G": 0, "M": 3}.get(body[0], 0)
    return _SINGAPORE[body[0]][total % 11] == body[-1]


def is_lk_nic(text: str) -> bool:
    """Sri Lankan identity card: two digits of the year, day of the year (500 more for women), V or X."""
    body = _letters_and_digits(text)
    return bool(re.fullmatch(r"\d{9}[VX]", body)) and 1 <= int(body[2:5]) % 500 <= 366


def is_gb_nino(text: str) -> bool:
    """British national insurance number: prefixes that are issued, six digits, A to D."""
    body = _letters_and_digits(text)
    match = re.fullmatch(r"([A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z])\d{6}[A-D]", body)
    return match is not None and match[1] not in _NINO_NEVER


def is_gb_driver(text: str) -> bool:
    """British driving licence: the encoded month and day of birth exist."""
    body = _letters_and_digits(text)
    if not re.fullmatch(r"[A-Z]{2}[A-Z9]{3}\d{6}[A-Z9]{2}[A-Z0-9][A-Z]{2}", body):
        return False
    month, day = int(body[6:8]), int(body[8:10])
    return 1 <= month % 50 <= 12 and 1 <= day <= 31


def is_au_medicare(text: str) -> bool:
    """Australian Medicare card: first digit 2 to 6, eight digits weighted 1, 3, 7, 9."""
    digits = _digits(text)
    if len(digits) not in (10, 11) or not 2 <= digits[0] <= 6:
        return False
    return sum(d * w for d, w in zip(digits, (1, 3, 7, 9, 1, 3, 7, 9), strict=False)) % 10 == digits[8]


def is_de_kvnr(text: str) -> bool:
    """German health insurance number: the letter as two digits, weights 1 and 2 in turn, digit sums."""
    body = _letters_and_digits(text)
    if not re.fullmatch(r"[A-Z]\d{9}", body):
        return False
    values = _digits(f"{ord(body[0]) - 64:02d}{body[1:9]}")
    products = (v * w for v, w in zip(values, (1, 2) * 5, strict=True))
    return sum(sum(divmod(p, 10)) for p in products) % 10 == int(body[9])


def is_kz_iin(text: str) -> bool:
    """Kazakh individual number: date of birth, century digit, weights 1 to 11 and, at 10, 3 to 11, 1, 2."""
    digits = _digits(text)
    if len(digits) != 12 or not (
        1 <= digits[2] * 10 + digits[3] <= 12 and 1 <= digits[4] * 10 + digits[5] <= 31
    ):
        return False
    check = sum(d * w for d, w in zip(digits, range(1, 12), strict=False)) % 11
    if check == 10:
        check = sum(d * w for d, w in zip(digits, (3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2), strict=False)) % 11
    return check == digits[11] and check != 10


def is_us_mbi(text: str) -> bool:
    """United States Medicare beneficiary identifier: the published sequence of letters and digits."""
    letters = "AC-HJKMNP-RT-Y"
    shape = rf"[1-9][{letters}][{letters}0-9]\d[{letters}][{letters}0-9]\d[{letters}]{{2}}\d{{2}}"
    return re.fullmatch(shape, _letters_and_digits(text)) is not None


def is_mixed_code(text: str) -> bool:
    """A document number: four digits or more among its letters."""
    return sum(character in "0123456789" for character in text) >= 4
