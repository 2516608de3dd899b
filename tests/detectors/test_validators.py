"""Checksums and token checks against published values, and against their own corruptions."""

from __future__ import annotations

import base64
import json
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.detectors import checksums, id_checks, token_checks
from stanchion.detectors.national_ids import checks, coded_kinds, kinds_by_length, table
from stanchion.detectors.packaged import packaged_catalogues
from stanchion.detectors.validators import VALIDATORS

# Test numbers that the schemes and their processors publish for every network.
CARDS = [
    "4111 1111 1111 1111", "5555555555554444", "2223003122003222", "378282246310005", "3714-496353-98431",
    "30569309025904", "6011111111111117", "3530111333300000", "6200000000000005", "6759649826438453",
]  # fmt: skip
# The SWIFT registry's example of each country.
IBANS = [
    "GB29 NWBK 6016 1331 9268 19", "DE89370400440532013000", "FR1420041010050500013M02606", "NO9386011117947",
    "MT84MALT011000012345MTLCAST001S", "SA0380000000608010167519", "LC55HEMM000100010012001200023015",
]  # fmt: skip
BECH32 = [
    "A12UEL5L", "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
]  # fmt: skip  # BIP-173, BIP-350
EIP55 = [
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
]  # fmt: skip  # EIP-55


@pytest.mark.parametrize("number", CARDS)
def test_published_card_numbers_hold(number: str) -> None:
    assert checksums.is_card(number)


@pytest.mark.parametrize(
    "number", ["4111111111111112", "0000000000000000", "9999999999999995", "411111111111"]
)
def test_numbers_that_no_scheme_issues_do_not_hold(number: str) -> None:
    assert not checksums.is_card(number)


@given(st.sampled_from(CARDS), st.integers(0, 18), st.integers(1, 9))
@settings(deadline=None, max_examples=60)
def test_any_changed_digit_breaks_luhn(number: str, position: int, step: int) -> None:
    digits = checksums.compact(number)
    at = position % len(digits)
    changed = digits[:at] + str((int(digits[at]) + step) % 10) + digits[at + 1 :]
    assert checksums.is_luhn(digits)
    assert not checksums.is_luhn(changed)


@pytest.mark.parametrize("number", IBANS)
def test_registry_examples_of_ibans_hold_and_their_neighbours_do_not(number: str) -> None:
    plain = checksums.compact(number)
    assert checksums.is_iban(number)
    assert checksums.is_iban(plain.lower())
    assert not checksums.is_iban(plain[:-1] + ("1" if plain[-1] != "1" else "2"))
    assert not checksums.is_iban(plain + "0")


def test_keccak_is_the_one_of_ethereum() -> None:
    empty = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert checksums.keccak_256(b"").hex() == empty
    long = "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"
    assert checksums.keccak_256(b"abc").hex() == long
    assert checksums.keccak_256(b"a" * 136) != checksums.keccak_256(b"a" * 137)


@pytest.mark.parametrize("address", EIP55)
def test_mixed_case_must_be_the_checksum(address: str) -> None:
    assert checksums.is_ethereum_address(address)
    assert checksums.is_ethereum_address(address.lower())
    swapped = address[:2] + address[2:].swapcase()
    assert not checksums.is_ethereum_address(swapped)


@pytest.mark.parametrize("text", BECH32)
def test_bech32_vectors(text: str) -> None:
    assert checksums.is_bech32(text)
    assert not checksums.is_bech32(text[:-1] + ("q" if text[-1] not in "qQ" else "p"))
    assert not checksums.is_bech32(text[0].lower() + text[1:].upper() + "b")


def test_base58check_of_the_first_address() -> None:
    first = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"  # block 0
    assert checksums.is_base58check(first)
    assert not checksums.is_base58check(first[:-1] + "b")
    assert not checksums.is_base58check("11111111111111111111111111")


def test_routing_numbers_of_the_federal_reserve() -> None:
    assert checksums.is_aba_routing("021000021")
    assert not checksums.is_aba_routing("021000022")
    assert not checksums.is_aba_routing("991000021")


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (id_checks.is_ru_snils, "112-233-445 95"),
        (id_checks.is_hk_id, "A123456(3)"),
        (id_checks.is_tw_id, "A123456789"),
        (id_checks.is_sg_nric, "S1234567D"),
        (id_checks.is_sg_nric, "T1234567J"),
        (id_checks.is_gb_nino, "AB123456C"),
        (id_checks.is_au_medicare, "2123 45670 1"),
        (id_checks.is_de_kvnr, "A123456780"),
        (id_checks.is_us_mbi, "1EG4-TE5-MK73"),
        (id_checks.is_gb_driver, "MORGA657054SM9IJ"),
        (id_checks.is_lk_nic, "851234567V"),
    ],
)
def test_our_own_checks_hold_the_issuers_examples(check, good: str) -> None:
    assert check(good)
    assert not check(good + "12")
    assert not check("")


@given(st.text(max_size=24))
@settings(deadline=None, max_examples=150)
def test_every_validator_answers_every_text(text: str) -> None:
    for name, holds in VALIDATORS.items():
        assert holds(text) in (True, False), name


def test_check_digits_refuse_most_drawn_numbers_and_kinds_without_them_say_so() -> None:
    rng = random.Random(7)
    known = checks()
    for length, kinds in kinds_by_length().items():
        draws = ["".join(rng.choice("0123456789") for _ in range(length)) for _ in range(150)]
        for kind in kinds:
            accepted = sum(known[kind.entry.check](draw) for draw in draws)
            assert accepted < 50 or not kind.entry.check_digits, kind.entry.id


def test_the_table_covers_thirty_countries_and_more() -> None:
    countries = {entry.country for entry in table()}
    assert len(countries) >= 50
    assert len({entry.id for entry in table()}) == len(table())
    assert all(entry.words for entry in table())
    assert len(coded_kinds()) >= 20


def test_every_validator_of_the_catalogues_exists() -> None:
    named = {pattern.validator for catalogue in packaged_catalogues() for pattern in catalogue.patterns}
    assert named - {""} <= set(VALIDATORS)


def _github_token(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    while value:
        value, rest = divmod(value, 62)
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[rest] + digits
    return "ghp_" + body + digits.rjust(6, "0")


@given(st.text("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", min_size=30, max_size=30))
@settings(deadline=None, max_examples=60)
def test_github_checksum_is_the_crc_of_the_body(body: str) -> None:
    token = _github_token(body)
    assert token_checks.has_github_checksum(token)
    other = token[:5] + ("a" if token[5] != "a" else "b") + token[6:]
    assert not token_checks.has_github_checksum(other)


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_jwt_needs_a_header_that_names_an_algorithm() -> None:
    assert token_checks.is_jwt(f"{_part({'alg': 'HS256'})}.{_part({'sub': 1})}.x")
    assert token_checks.is_jwt(f"{_part({'alg': 'none'})}.{_part({})}.")
    assert not token_checks.is_jwt(f"{_part({'foo': 'bar'})}.{_part({})}.x")
    assert not token_checks.is_jwt("eyJ.x.y")
    assert not token_checks.is_jwt("[" * 5000)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "xxxxxxxxxxxx",
            "changeme",
            "CHANGE_ME",
            "${TOKEN}",
            "<your-key>",
            "{{ secret }}",
            "$(cat key)",
        ),
        *("$KEY", "your_api_key", "EXAMPLEKEY", "********", "0000000000000000", "abcdefghijklmnop", "null"),
        *(
            "process.env.KEY",
            "%PASSWORD%",
            "[redacted]",
            "/etc/ssl/key.pem",
            "insert-here",
            "aaaaaaaaaaaaaaaa",
        ),
    ],
)
def test_placeholders_are_recognised(value: str) -> None:
    assert token_checks.is_placeholder(value)


@given(st.text("abcdefghjkmnpqrstuvwxyzABCDEFGHJKMNPQRSTUVWXYZ23456789", min_size=32, max_size=32))
@settings(deadline=None, max_examples=100)
def test_drawn_values_are_seldom_placeholders(value: str) -> None:
    if len(set(value)) >= 14 and any(c.isdigit() for c in value):
        assert not token_checks.is_filler(value) or any(w in value.lower() for w in ("your", "xxx", "todo"))


def test_shannon_bits_of_known_texts() -> None:
    assert token_checks.shannon_bits("") == 0
    assert token_checks.shannon_bits("aaaa") == 0
    assert token_checks.shannon_bits("abcd") == pytest.approx(2.0)
    assert token_checks.shannon_bits("aabb") == pytest.approx(1.0)


def test_words_are_told_from_drawn_letters() -> None:
    assert token_checks.wordiness("customerIdentifierStandard") > 0.9
    assert token_checks.wordiness("xkqzvwjpTqRbXnMw") < 0.3
