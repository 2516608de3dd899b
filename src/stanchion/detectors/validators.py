"""Validators by name: what a pattern of a catalogue may ask of its match; False means no finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from stanchion.detectors import assignments, checksums, national_ids, token_checks

Validator = Callable[[str], bool]

VALIDATORS: Mapping[str, Validator] = MappingProxyType(
    {
        **national_ids.checks(),
        "aba_routing": checksums.is_aba_routing,
        "base58check": checksums.is_base58check,
        "bech32": checksums.is_bech32,
        "card": checksums.is_card,
        "ethereum_address": checksums.is_ethereum_address,
        "iban": checksums.is_iban,
        "ip_address": checksums.is_ip_address,
        "luhn": checksums.is_luhn,
        "ripple_address": checksums.is_ripple_address,
        "azure_storage_key": token_checks.is_azure_storage_key,
        "basic_auth": token_checks.is_basic_auth,
        "command_password": token_checks.is_command_password,
        "connection_string": token_checks.is_connection_string,
        "filled": token_checks.is_filled,
        "filled_and_mixed": token_checks.is_filled_and_mixed,
        "github_checksum": token_checks.has_github_checksum,
        "header_value": token_checks.is_header_value,
        "jwt": token_checks.is_jwt,
        "jwt_in_base64": token_checks.is_jwt_in_base64,
        "joined_value": assignments.holds_joined_value,
        "password_assignment": assignments.holds_password,
        "quoted_userinfo": assignments.holds_userinfo,
        "secret_assignment": assignments.holds_secret,
        "mixed_suffix": token_checks.is_mixed_suffix,
        "password_value": token_checks.is_password_value,
        "private_key_block": token_checks.is_private_key_block,
        "random_suffix": token_checks.is_random_suffix,
        "random_token": token_checks.is_random_token,
        "secret_value": token_checks.is_secret_value,
        "seed_phrase": token_checks.is_seed_phrase,
        "shaped": token_checks.is_shaped,
        "spoken_password": token_checks.is_spoken_password,
        "userinfo": token_checks.is_userinfo,
    }
)
"""All validators; the names are part of the catalogue format."""
