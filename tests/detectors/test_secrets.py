"""Secrets: every kind is found in its example, nothing is found in what only looks like one."""

from __future__ import annotations

import random
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import detector, read, registry, span

from stanchion.core.finding import Detector
from stanchion.core.taxonomy import taxonomy
from stanchion.detectors import assignments

PATTERNS = registry().scanner.patterns_for("secrets")
DRAWN = "q7Xv2Kd9Lm4Rt8Zs1Wy6Bn3Hc5Gj0PfUeAaQ"


def test_no_example_is_dropped_again_by_the_detector() -> None:
    assert [p.id for p in PATTERNS for example in p.examples if not read("secrets", example)] == []


def test_there_are_at_least_120_kinds_and_all_categories_exist() -> None:
    assert len(PATTERNS) >= 120
    assert set(detector("secrets").categories) <= set(taxonomy())
    assert isinstance(detector("secrets"), Detector)


def test_one_place_is_reported_once_as_the_known_kind() -> None:
    text = f'api_key = "sk_live_{DRAWN[:24]}"'
    found = read("secrets", text)
    assert [finding.rule for finding in found] == ["secrets.stripe_key"]
    assert span(text, found[0]) == f"sk_live_{DRAWN[:24]}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f'db_password = "{DRAWN[:12]}!"', DRAWN[:12] + "!"),
        (f"  clientSecret: '{DRAWN[:28]}',", DRAWN[:28]),
        (f'"access_token" => "{DRAWN[:30]}"', DRAWN[:30]),
        (f"export MY_API_KEY={DRAWN}", DRAWN),
        ("the admin password is hunter2-Rv9!", "hunter2-Rv9!"),
        (f"curl -X GET \\\n  -u robot:{DRAWN[:14]} https://api.internal.example", f"robot:{DRAWN[:14]}"),
    ],
)
def test_values_in_a_credentials_place_are_found_exactly(text: str, value: str) -> None:
    assert [span(text, finding) for finding in read("secrets", text)] == [value]


@pytest.mark.parametrize(
    "text",
    [
        f'public_key = "{DRAWN}"',
        f"primary_key: {DRAWN}",
        f"api_key_id = {DRAWN}",
        f'token_url = "https://auth.example/{DRAWN}"',
        'password = os.environ["DB_PASSWORD"]',
        "password: string",
        "secret = get_secret(name)",
        "your password is incorrect.",
        "max_tokens = 4096, token_count: 128",
        'api_key = "YOUR_API_KEY_HERE"',
        "Authorization: Bearer ${ACCESS_TOKEN}",
        "https://user:password@host.example/",
        "AKIAIOSFODNN7EXAMPLE",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 of 2024",
        "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
        "trace 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "uuid 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@host",
        '"user_token": "xoxp-5678-5678-5678-a93e01c74bd2f6580e1d7c93ab54f026"',
        "SERVICE_ACCESS_KEY: BcDeFgH234",
        "  vaultToHoldSecrets: shop7-uat-4471920356",
        "  bucketForTokens: shop7-uat-4471920356",
    ],
)
def test_look_alikes_and_placeholders_are_no_findings(text: str) -> None:
    assert read("secrets", text) == []


def test_a_checksum_that_fails_lowers_the_score_and_still_counts() -> None:
    (found,) = read("secrets", f"ghp_{DRAWN}")
    assert found.score == 0.75
    assert "does not hold" in found.reason


def test_published_examples_are_known_by_digest_only() -> None:
    emulator = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq" + "/K1SZFPTOtr/KBHBeksoGMGw=="
    assert read("secrets", f"AccountName=devstoreaccount1;AccountKey={emulator};") == []
    other = emulator.replace("Eby8", "Fcz9")
    assert read("secrets", f"AccountName=shop;AccountKey={other};")


def test_private_keys_are_covered_whole_also_without_their_end() -> None:
    rng = random.Random(3)
    lines = ["".join(rng.choice(string.ascii_letters + string.digits) for _ in range(64)) for _ in range(6)]
    head, tail = "-----BEGIN RSA " + "PRIVATE KEY-----", "-----END RSA " + "PRIVATE KEY-----"
    whole = "\n".join([head, *lines, tail])
    text = f"my key:\n{whole}\nthanks, see you on Monday"
    (found,) = read("secrets", text)
    assert span(text, found) == whole
    cut = "\n".join([head, *lines[:3]])
    (found,) = read("secrets", f"{cut}\n\nand so on")
    assert span(cut, found) == cut


def test_secrets_are_found_in_decoded_and_folded_text() -> None:
    import base64

    plain = f"token glpat-{DRAWN[:20]} of the runner"
    hidden = base64.b64encode(plain.encode()).decode()
    assert [f.rule for f in read("secrets", hidden)] == ["secrets.gitlab_token"]
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in plain)
    assert read("secrets", wide)


@given(st.text(max_size=300))
@settings(deadline=None, max_examples=150)
def test_every_text_is_read_and_findings_stay_inside_it(text: str) -> None:
    for finding in read("secrets", text, least=0.0):
        assert 0 <= finding.location.start < finding.location.end <= len(text)
        assert 0.0 <= finding.score <= 1.0


@pytest.mark.parametrize(
    ("name", "password", "secret"),
    [
        ("DB_PASSWORD", True, False), ("adminPass", True, False), ("password_hash", False, False),
        ("clientSecret", False, True), ("API_KEY", False, True), ("publicKey", False, False),
        ("token_type", False, False), ("secretName", False, False), ("authToken", False, True),
        ("monkey", False, False), ("keyboard", False, False), ("next_token_url", False, False),
        ("vaultForSecrets", False, False), ("appSecrets", False, True), ("tokenForBuild", False, True),
    ],
)  # fmt: skip
def test_names_say_whether_they_hold_a_credential(name: str, password: bool, secret: bool) -> None:
    assert assignments.asks_for_password(name) is password
    assert assignments.asks_for_secret(name) is secret


def test_equal_input_gives_equal_findings_and_the_version_names_the_data() -> None:
    text = f"key sk_live_{DRAWN[:24]} and glpat-{DRAWN[:20]}"
    assert read("secrets", text) == read("secrets", text)
    assert detector("secrets").version == registry().create("secrets").version
    assert "+" in detector("secrets").version


PASSWORD = "kV9tPw2qRz"


@pytest.mark.parametrize(
    "text",
    [
        f"- name: DB_PASSWORD\n  value: {PASSWORD}",
        f'{{"name": "smtp_password", "value": "{PASSWORD}"}}',
        f'<add key="SmtpPassword" value="{PASSWORD}" />',
        f"<dbPassword>{PASSWORD}</dbPassword>",
        f"<key>dbPassword</key>\n<string>{PASSWORD}</string>",
        f'variable "db_password" {{\n  type = string\n  default = "{PASSWORD}"\n}}',
        f'private readonly dbPassword: string = "{PASSWORD}";',
        f'const dbPassword = process.env.DB_PASSWORD || "{PASSWORD}";',
        f'export DB_PASSWORD="${{DB_PASSWORD:-{PASSWORD}}}"',
        f'config.setPassword("{PASSWORD}")',
        f'os.getenv("DB_PASSWORD", "{PASSWORD}")',
        f'#define DB_PASSWORD "{PASSWORD}"',
        f"ENV DB_PASSWORD {PASSWORD}",
        f"PGPASSWORD={PASSWORD} psql -h db1",
        f"mysqlPwd: {PASSWORD}",
        f"| root password | `{PASSWORD}` |",
        f"docker login -u robot -p {PASSWORD} registry.internal.test",
        f"curl -H 'Authorization: Api-Token {PASSWORD}' https://api.internal.test",
    ],
)
def test_a_password_is_found_in_the_syntaxes_that_carry_one(text: str) -> None:
    assert [span(text, finding) for finding in read("secrets", text)] == [PASSWORD]


@pytest.mark.parametrize(
    "text",
    [
        'getpass("Enter the admin password: ")',
        '"password": "The password must have 12 characters."',
        '{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}',
        "<label for='password'>New password</label>",
        "def connect(self, user: str, password: bytes) -> None:",
        "def read(self, name, pwd=None):",
        "username, password = url_user_password",
        'FIELDS = ("gr_name", "gr_passwd", "gr_gid")',
        'export DB_PASSWORD="${DB_PASSWORD:-required}"',
        'password: "%DB_PASSWORD%"',
        "password: ENC[AES256_GCM,data:abc]",
        "password: !Ref DbPassword42",
        "password: vault:secret/data/db#password2",
        f'<input name="csrf_token" value="{DRAWN}">',
        f'next_page_token = "{DRAWN}"',
        f'rookTable = "00{DRAWN[:36]}aB3x"',
        "auth = CRAM-MD5",
        "Pass `capture_output=False2` to the call",
        f"token: {DRAWN[:20]}..[Redacted]",
        f'publicToken = "{DRAWN}"',
        "curl -i -u 'test:test' https://api.internal.test",
    ],
)
def test_what_only_stands_in_a_passwords_place_is_nothing(text: str) -> None:
    assert read("secrets", text) == []


@pytest.mark.parametrize(
    "text", ["api_key=" * 125_000, "pass.pass." * 100_000, 'password="' + "a b" * 300_000]
)
def test_long_rows_of_names_cost_linear_time(text: str) -> None:
    started = time.process_time()
    read("secrets", text)
    assert time.process_time() - started < 20
