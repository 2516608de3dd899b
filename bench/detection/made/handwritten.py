"""Credentials in many writings, and values that look like them; every value is random and was never valid."""

from __future__ import annotations

import base64
import json
import random
import string
import uuid
from collections.abc import Iterator
from typing import Any

A = string.ascii_letters + string.digits
H = "0123456789abcdef"
U = string.ascii_uppercase + string.digits
L = string.ascii_lowercase + string.digits
SEED = 991


def credentials(seed: int = SEED) -> Iterator[dict[str, Any]]:
    """Rows with a label: 1 where the text holds a credential."""
    yield from ({"text": text, "label": 1} for text in _real(random.Random(seed)))
    yield from ({"text": text, "label": 0} for text in _look_alikes(random.Random(seed + 1)))


def _made(r: random.Random, length: int, alphabet: str = A) -> str:
    return "".join(r.choice(alphabet) for _ in range(length))


def _real(r: random.Random) -> list[str]:
    return [*_tokens(r), *_assignments(r), _session(r)]


def _tokens(r: random.Random) -> list[str]:
    def t(length: int, alphabet: str = A) -> str:
        return _made(r, length, alphabet)

    return [
        f"export AWS_SECRET_ACCESS_KEY={t(40, A + '/+')}",
        f"aws_access_key_id = AKIA{t(16, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567')}",
        f"GITHUB_TOKEN=ghp_{t(36)}",
        f"token: github_pat_{t(22)}_{t(59)}",
        f"glpat-{t(20)}",
        f'SLACK_BOT_TOKEN="xoxb-{t(12, "0123456789")}-{t(12, "0123456789")}-{t(24)}"',
        f"https://hooks.slack.com/services/T{t(8, U)}/B{t(10, U)}/{t(24)}",
        f'stripe.api_key = "sk_live_{t(24)}"',
        f"OPENAI_API_KEY=sk-proj-{t(74)}T3BlbkFJ{t(74)}",
        f"anthropic: sk-ant-api03-{t(93, A + '-_')}AA",
        f"HF_TOKEN=hf_{t(34, string.ascii_letters)}",
        f"SENDGRID_API_KEY: SG.{t(22)}.{t(43)}",
        f'twilio_auth_token = "{t(32, H)}"',
        f"TWILIO SK{t(32, H)}",
        f"npm_{t(36)}",
        f"//registry.example.com/:_authToken={t(36, H)}",
        f"pypi-AgEIcHlwaS5vcmc{t(150, A + '-_')}",
        f"AIza{t(35, A + '-_')}",
        f"client_secret: GOCSPX-{t(28, A + '-_')}",
        f"dop_v1_{t(64, H)}",
        f"DATABASE_URL=postgres://app:{t(14)}@db.internal:5432/prod",
        f"mongodb+srv://root:{t(12)}@cluster0.ab1cd.mongodb.net/x",
        f"redis://:{t(20)}@cache:6379/0",
        f"jdbc:mysql://h/db?user=root&password={t(12)}",
        f"amqp://svc:{t(16)}@mq:5672",
        f"Authorization: Bearer {t(40, A + '-_')}",
        f"curl -u admin:{t(14)} https://api.internal/v1",
        f"Authorization: Basic {base64.b64encode(('bob:' + t(12)).encode()).decode()}",
        "-----BEGIN RSA PRIVATE KEY-----\n"
        + "\n".join(t(64, A + "+/") for _ in range(12))
        + "\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n"
        + "\n".join(t(70, A + "+/") for _ in range(6))
        + "\n-----END OPENSSH PRIVATE KEY-----",
    ]


def _assignments(r: random.Random) -> list[str]:
    def t(length: int, alphabet: str = A) -> str:
        return _made(r, length, alphabet)

    key = base64.b64encode(r.randbytes(64)).decode()
    return [
        f'password = "{t(14)}!"',
        f"'db_password' => '{t(16)}',",
        f'<add key="ApiSecret" value="{t(32)}" />',
        f'"secretKey": "{t(40)}"',
        f"machine api.example.com login bob password {t(16)}",
        f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={key};EndpointSuffix=core.windows.net",
        f"AGE-SECRET-KEY-1{t(58, 'QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L')}",
        f"DISCORD_TOKEN={t(24)}.{t(6)}.{t(27, A + '-_')}",
        f"bot{t(9, '123456789')}:AA{t(33, A + '-_')}",
        f"shpat_{t(32, H)}",
        f"sq0atp-{t(22, A + '-_')}",
        f"EAACEdEose0cBA{t(80)}",
        f"xapp-1-A{t(10, U)}-{t(13, '0123456789')}-{t(64, H)}",
        f"DD_API_KEY={t(32, H)}",
        f"NRAK-{t(27, U)}",
        f"lin_api_{t(40)}",
        f"ATATT3xFfGF0{t(180, A + '-_=')}",
        f"hvs.{t(90, A + '-_')}",
        f"vault token s.{t(24)}",
        f"dckr_pat_{t(27, A + '-_')}",
        f"glsa_{t(32)}_{t(8, H)}",
        f"sntrys_{t(60)}",
        f"figd_{t(40, A + '-_')}",
        f"ghs_{t(36)}",
        f"pul-{t(40, H)}",
        f"rubygems_{t(48, H)}",
        f"CLOUDFLARE_API_TOKEN = {t(40, A + '-_')}",
        f"heroku_api_key={uuid.UUID(int=r.getrandbits(128))}",
        f'SECRET_KEY = "django-insecure-{t(50, A + "!@#$%^&*(-_=+)")}"',
        f"jwtSecret: {t(48)}",
    ]


def _session(r: random.Random) -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    claims = {"sub": "42", "name": "x", "iat": 1700000000}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    signature = _made(r, 43, A + "-_")
    return f"cookie: session={header}.{payload}.{signature}"


def _look_alikes(r: random.Random) -> list[str]:
    return [*_digests(r), *_settings(r)]


def _digests(r: random.Random) -> list[str]:
    def t(length: int, alphabet: str = A) -> str:
        return _made(r, length, alphabet)

    return [
        f"sha256: {t(64, H)}",
        f"commit {t(40, H)}",
        f"request id {uuid.UUID(int=r.getrandbits(128))}",
        f'"integrity": "sha512-{base64.b64encode(bytes(r.randrange(256) for _ in range(64))).decode()}"',
        'password = os.environ["DB_PASSWORD"]',
        "api_key: ${{ secrets.API_KEY }}",
        "API_KEY=<your-api-key>",
        "password: changeme",
        "token = get_token(user)",
        'secret_name = "prod/db/main"',
        "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE",
        "sk_test_xxxxxxxxxxxxxxxxxxxxxxxx",
        "password_hash = bcrypt.hash(password)",
        "The password must have at least 12 characters.",
        "tokens_per_second = 1523.25",
        "max_tokens: 4096",
        'key = "primary_key"',
        'const passwordField = document.getElementById("password")',
        'if (password !== confirmPassword) throw new Error("no match")',
        f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{t(43, A + '+/')} bob@host",
        f"-----BEGIN PUBLIC KEY-----\n{t(64)}\n{t(64)}\n-----END PUBLIC KEY-----",
        f"-----BEGIN CERTIFICATE-----\n{t(64)}\n-----END CERTIFICATE-----",
        f"data:image/png;base64,iVBORw0KGgo{t(120, A + '+/')}",
        f'etag: "{t(32, H)}"',
        f"docker pull app@sha256:{t(64, H)}",
        f"traceparent: 00-{t(32, H)}-{t(16, H)}-01",
        "postgres://localhost:5432/dev",
        "postgres://user:password@localhost/db",
        "https://example.com/reset?token=TOKEN",
        "secretKeyRef:\n  name: db\n  key: password",
    ]


def _settings(r: random.Random) -> list[str]:
    def t(length: int, alphabet: str = A) -> str:
        return _made(r, length, alphabet)

    return [
        'private_key_path = "/etc/ssl/private/key.pem"',
        f"v={t(11, A + '-_')} https://youtu.be/{t(11, A + '-_')}",
        f"order {t(10, '0123456789')} shipped",
        f"h1:{base64.b64encode(bytes(r.randrange(256) for _ in range(32))).decode()}",
        "pk_live_ is the prefix of publishable keys; sk_live_ of secret ones",
        "Use `Authorization: Bearer <token>` in each request",
        "secret santa: draw names on Friday",
        "passwd: user not found",
        "auth_token=None",
        "GITHUB_TOKEN=ghp_XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
        "client_id: 1045678901234-abcdefgh.apps.example.com",
        f"_ga=GA1.2.{t(10, '0123456789')}.{t(10, '0123456789')}",
        f"nonce-{t(24)}",
        f"cid:{t(59, L)}",
        f"uuid={uuid.UUID(int=r.getrandbits(128))}; path=/",
        f'const chunk = "{t(8, H)}.{t(20, H)}.js"',
        "PASSWORD_RESET_TIMEOUT = 259200",
        'apiKey: process.env.API_KEY ?? ""',
        'credentials: "include"',
        "token_type: bearer",
        "access_key = var.access_key",
        'String password = request.getParameter("password");',
        "password=********",
        "pwd=$(cat /run/secrets/db)",
        "enc: ENC[AES256_GCM,data:Tr7o1,iv:1=,tag:k=,type:str]",
        "password: !vault |",
        'secret: "{{ .Values.secret }}"',
        "mysql -u root -p",
        'curl -H "X-Api-Key: $KEY" https://api',
        "user:pass",
    ]
