"""Made-up credentials in the syntaxes that carry them, and what stands in the same places and is none.

Every value is drawn from a seed; none was ever valid. The negatives are what the same lines look like when
they hold a reference, a placeholder, code, an identifier or a checksum.
"""

# ruff: noqa: E501, SIM905 - tables of one form a line

from __future__ import annotations

import base64
import random
import string
import uuid
from collections.abc import Callable, Iterator, Mapping

Rng = random.Random
_ALNUM = string.ascii_letters + string.digits
_WORDS = (
    "river stone market winter copper garden falcon orange silver window planet bridge candle rocket "
    "tiger meadow harbor velvet summit walnut"
).split()
_OWNERS = (
    "db admin mysql postgres redis smtp root app service mail ldap jenkins prod staging backup proxy "
    "internal billing warehouse search queue portal"
).split()
PASSWORD_NAMES = ("password", "passwd", "pwd", "pass", "passphrase", "userPassword", "login_password")
SECRET_NAMES = (
    "api_key", "apikey", "secret", "secret_key", "access_token", "auth_token", "client_secret", "token",
    "private_key", "encryption_key", "signing_key", "access_key", "webhook_secret", "session_secret",
    "refresh_token", "bearer_token", "jwt_secret", "app_secret", "consumer_secret", "master_key",
)  # fmt: skip


def token(rng: Rng) -> str:
    """A drawn value as services issue them."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.choice((16, 20, 32))).hex()
    if kind == 1:
        return base64.b64encode(rng.randbytes(rng.choice((24, 32, 33, 48)))).decode()
    if kind == 2:
        return base64.urlsafe_b64encode(rng.randbytes(rng.choice((16, 24, 32)))).decode().rstrip("=")
    if kind == 3:
        return str(uuid.UUID(bytes=rng.randbytes(16), version=4))
    if kind == 4:
        return base64.b32encode(rng.randbytes(20)).decode()
    if kind == 5:
        return "".join(rng.choices(string.ascii_lowercase + string.digits, k=rng.randint(24, 40)))
    return "".join(rng.choices(_ALNUM, k=rng.randint(20, 48)))


def password(rng: Rng) -> str:
    """A value as people choose them, or as a password store draws them."""
    word, other = rng.sample(_WORDS, 2)
    year, number = rng.randrange(1970, 2026), rng.randrange(10, 9999)
    swapped = word.replace("e", "3").replace("o", "0").replace("i", "1").replace("a", "@")
    styles: tuple[Callable[[], str], ...] = (
        lambda: f"{word.capitalize()}{year}!",
        lambda: f"{swapped}{number}",
        lambda: f"{word}{rng.choice('#$!_-.@')}{other}{number}",
        lambda: f"{word}{number}{other}",
        lambda: "".join(rng.choices(_ALNUM + "!#%+-=?@^_~", k=rng.randint(10, 20))),
        lambda: "".join(rng.choices(_ALNUM, k=rng.randint(8, 16))),
        lambda: f"{rng.choice('!@#')}{word.capitalize()}{other.capitalize()}{number % 100}",
    )
    return rng.choice(styles)()


def name(rng: Rng, names: tuple[str, ...]) -> str:
    """A name of a credential, often with an owner, in one of the styles of writing names."""
    words = rng.choice(names).replace("P", "_p").replace("K", "_k").casefold().split("_")
    if rng.random() < 0.6:
        words = [rng.choice(_OWNERS), *words]
    style = rng.randrange(5)
    if style == 0:
        return "_".join(words).upper()
    if style == 1:
        return words[0] + "".join(word.capitalize() for word in words[1:])
    if style == 2:
        return "".join(word.capitalize() for word in words)
    return ("-" if style == 3 else "_").join(words)


ASSIGNED: Mapping[str, str] = {
    "env": "{u}={v}\n",
    "env quoted": '{u}="{v}"\n',
    "shell export": "export {u}='{v}'\n",
    "shell default": 'export {u}="${{{u}:-{v}}}"\n',
    "powershell": '$env:{u} = "{v}"\n',
    "batch": "set {u}={v}\n",
    "yaml": "server:\n  {n}: {v}\n",
    "yaml quoted": "server:\n  {n}: '{v}'\n",
    "yaml name and value": "env:\n  - name: {u}\n    value: {v}\n",
    "compose list": "environment:\n  - {u}={v}\n",
    "json": '{{"host": "h1", "{n}": "{v}", "port": 1}}\n',
    "json key and value": '{{"key": "{n}", "value": "{v}"}}\n',
    "json in a string": '"{{\\"{n}\\": \\"{v}\\"}}"\n',
    "toml": '[server]\n{n} = "{v}"\n',
    "ini": "[server]\n{n} = {v}\n",
    "properties": "app.{n}={v}\n",
    "xml element": "<{e}>{v}</{e}>\n",
    "xml attribute": '<add key="{n}" value="{v}" />\n',
    "xml own attribute": '<server host="h1" {e}="{v}"/>\n',
    "plist": "<key>{n}</key>\n<string>{v}</string>\n",
    "hcl": 'variable "{s}" {{\n  default = "{v}"\n}}\n',
    "hcl value": 'resource "x" "y" {{\n  {s} = "{v}"\n}}\n',
    "dockerfile": "ENV {u} {v}\n",
    "dockerfile =": "ARG {u}={v}\n",
    "python": '{s} = "{v}"\n',
    "python call": 'client = connect(host, {s}="{v}")\n',
    "python dict": "settings = {{'{n}': '{v}'}}\n",
    "python item": 'config["{n}"] = "{v}"\n',
    "python environ": 'os.environ["{u}"] = "{v}"\n',
    "python default": 'os.getenv("{u}", "{v}")\n',
    "python attribute": 'self.{s} = "{v}"\n',
    "javascript": 'const {c} = "{v}";\n',
    "javascript object": "module.exports = {{ {c}: '{v}' }};\n",
    "javascript fallback": 'const {c} = process.env.{u} || "{v}";\n',
    "typescript": 'private readonly {c}: string = "{v}";\n',
    "java": 'private static final String {u} = "{v}";\n',
    "java setter": 'config.set{p}("{v}");\n',
    "java property": 'props.setProperty("{n}", "{v}");\n',
    "go": '{c} := "{v}"\n',
    "go const": 'const {c} = "{v}"\n',
    "go struct": 'Config{{\n\t{p}: "{v}",\n}}\n',
    "php": "${s} = '{v}';\n",
    "php define": "define('{u}', '{v}');\n",
    "php array": "'{n}' => '{v}',\n",
    "ruby": ':{s} => "{v}",\n',
    "ruby symbol": "{s}: '{v}',\n",
    "c#": 'public string {p} = "{v}";\n',
    "c# indexer": 'Configuration["{n}"] = "{v}";\n',
    "c define": '#define {u} "{v}"\n',
    "rust": 'let {s}: &str = "{v}";\n',
    "kotlin": 'val {c} = "{v}"\n',
    "swift": 'let {c}: String = "{v}"\n',
    "scala": 'val {c}: String = "{v}"\n',
    "perl": 'my ${s} = "{v}";\n',
    "lua": 'local {s} = "{v}"\n',
    "r": 'Sys.setenv({u} = "{v}")\n',
    "sql insert": "INSERT INTO settings (name, value) VALUES ('{n}', '{v}');\n",
    "command line": "./deploy --{k} {v} --verbose\n",
    "command line =": "./deploy --{k}={v}\n",
    "helm set": "helm install x ./x --set auth.{c}={v}\n",
    "docker run": "docker run -e {u}={v} image\n",
    "url query": "https://api.internal.test/v1/items?{s}={v}&page=2\n",
    "http header": "X-{h}: {v}\n",
    "curl header": "curl -H 'X-{h}: {v}' https://api.internal.test/\n",
    "markdown": "- **{w}**: `{v}`\n",
    "prose": "The {w} is {v}\n",
    "log": "2025-03-04 10:11:12 INFO connecting with {s}={v} retries=3\n",
    "csv row": "{n},{v}\n",
    "terraform tfvars": '{s} = "{v}"\n',
    "spring placeholder": "{n}: ${{{u}:{v}}}\n",
    "github actions": "    {u}: {v}\n",
}  # fmt: skip
_UNFIT = frozenset({"csv row"})  # a name and a value with a comma between is too little to go by


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _url_safe(rng: Rng, size: int) -> str:
    return "".join(rng.choices(_ALNUM + "-_", k=size))


def _wrapped(rng: Rng, size: int) -> str:
    body = base64.b64encode(rng.randbytes(size)).decode()
    return "\n".join(body[i : i + 64] for i in range(0, len(body), 64))


PLACED: Mapping[str, Callable[[Rng], str]] = {
    "basic auth header": lambda r: f"Authorization: Basic {_b64('svc:' + password(r))}",
    "bearer header": lambda r: f"Authorization: Bearer {token(r)}",
    "bearer header in json": lambda r: f'"headers": {{"Authorization": "Bearer {token(r)}"}}',
    "bearer header in python": lambda r: f"headers = {{'Authorization': 'Token {token(r)}'}}",
    "database url": lambda r: f"DATABASE_URL=postgres://app:{_url_safe(r, 14)}@db1.internal:5432/main",
    "sqlalchemy url": lambda r: f'create_engine("mysql+pymysql://app:{_url_safe(r, 12)}@10.1.2.3/main")',
    "mongodb url": lambda r: f"mongodb+srv://app:{_url_safe(r, 16)}@cluster0.ab1cd.mongodb.net/x",
    "redis url": lambda r: f"REDIS_URL=redis://:{_url_safe(r, 20)}@cache.internal:6379/0",
    "url with a password": lambda r: f"git clone https://bot:{_url_safe(r, 24)}@git.internal.test/x.git",
    "url with a token": lambda r: f"pip install --index-url https://{token(r)[:30]}@pypi.internal.test/simple",
    "jdbc": lambda r: f"jdbc:postgresql://db1:5432/m?user=app&password={token(r)[:15]}",
    "ado": lambda r: f"Server=tcp:db1,1433;Database=m;User ID=app;Password={password(r)};Encrypt=True;",
    "odbc": lambda r: f"Driver={{SQL Server}};Server=db1;Uid=app;Pwd={password(r)};",
    "netrc": lambda r: f"machine api.internal.test\n  login bot\n  password {password(r)}\n",
    "npmrc": lambda r: f"//registry.internal.test/:_authToken={token(r)}\n",
    "npmrc basic": lambda r: f"//registry.internal.test/:_password={_b64(password(r))}\n",
    "pypirc": lambda r: f"[pypi]\nusername = bot\npassword = {password(r)}\n",
    "htpasswd apr1": lambda r: f"bot:$apr1${token(r)[:8]}${''.join(r.choices(_ALNUM, k=22))}\n",
    "htpasswd bcrypt": lambda r: f"bot:$2y$10${''.join(r.choices(_ALNUM + './', k=53))}\n",
    "shadow": lambda r: f"app:$6${''.join(r.choices(_ALNUM, k=16))}${''.join(r.choices(_ALNUM + './', k=86))}:19000:0:99999:7:::\n",
    "kubeconfig token": lambda r: f"users:\n- name: admin\n  user:\n    token: {token(r)}\n",
    "kubeconfig key": lambda r: f"    client-key-data: {base64.b64encode(r.randbytes(300)).decode()}\n",
    "kubernetes secret": lambda r: f"kind: Secret\ndata:\n  password: {_b64(password(r))}\n",
    "docker config": lambda r: f'{{"auths": {{"r.internal.test": {{"auth": "{_b64("bot:" + password(r))}"}}}}}}',
    "pem rsa": lambda r: f"-----BEGIN RSA PRIVATE KEY-----\n{_wrapped(r, 600)}\n-----END RSA PRIVATE KEY-----",
    "pem pkcs8": lambda r: f"-----BEGIN PRIVATE KEY-----\n{_wrapped(r, 600)}\n-----END PRIVATE KEY-----",
    "pem escaped": lambda r: f'"k": "-----BEGIN EC PRIVATE KEY-----\\n{base64.b64encode(r.randbytes(118)).decode()}\\n-----END EC PRIVATE KEY-----\\n"',
    "openssh": lambda r: f"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA{_wrapped(r, 300)}\n-----END OPENSSH PRIVATE KEY-----",
    "pgp": lambda r: f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n{_wrapped(r, 500)}\n=aB3d\n-----END PGP PRIVATE KEY BLOCK-----",
    "jwk": lambda r: f'{{"kty":"EC","crv":"P-256","x":"a","d":"{base64.urlsafe_b64encode(r.randbytes(32)).decode().rstrip("=")}"}}',
    "jwt": lambda r: "token " + ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"%d","iat":1700000000}' % r.randrange(10**9), r.randbytes(32))),
    "curl user": lambda r: f"curl -u admin:{token(r)[:16]} https://x.internal.test/api",
    "wget": lambda r: f"wget --user=bot --password={token(r)[:14]} https://x.internal.test/f",
    "mysql cli": lambda r: f"mysql -u root -p{token(r)[:14]} main",
    "psql": lambda r: f"PGPASSWORD={token(r)[:14]} psql -h db1 -U app",
    "sshpass": lambda r: f"sshpass -p '{password(r)}' ssh bot@h1",
    "redis cli": lambda r: f"redis-cli -h cache -a {token(r)[:18]} ping",
    "docker login": lambda r: f"docker login -u bot -p {token(r)} r.internal.test",
    "sql user": lambda r: f"CREATE USER app WITH PASSWORD '{password(r)}';",
    "sql identified": lambda r: f"ALTER USER 'app'@'%' IDENTIFIED BY '{password(r)}';",
    "spoken": lambda r: f"the wifi password for the office is {password(r)}, please keep it to yourself",
    "chat": lambda r: f"use login svc-{r.choice(_OWNERS)} / {password(r)} for the test server",
    "two lines": lambda r: f"Username: bot\nPassword: {password(r)}\n",
    "secure string": lambda r: f"$p = ConvertTo-SecureString '{password(r)}' -AsPlainText -Force",
    "authorization array": lambda r: f"req.headers['authorization'] = 'Bearer {token(r)}';",
    "set cookie": lambda r: f"Set-Cookie: sessionid={token(r)}; HttpOnly; Secure",
    "wp salt": lambda r: f"define('AUTH_KEY',         '{''.join(r.choices(_ALNUM + '!@#$%^&*()-_ []{}<>~`+=,.;:/?|', k=64))}');",
    "ansible inventory": lambda r: f"h1 ansible_user=bot ansible_ssh_pass={token(r)[:14]}",
    "snmp": lambda r: f"snmp-server community {token(r)[:12]} RO",
    "wpa": lambda r: f'network={{\n ssid="office"\n psk="{password(r)}"\n}}',
}  # fmt: skip


def positives(*, seed: int, each: int) -> Iterator[tuple[str, str]]:
    """Pairs of syntax and text; every text holds a credential."""
    rng = random.Random(seed)
    for syntax, form in ASSIGNED.items():
        if syntax in _UNFIT:
            continue
        for index in range(each):
            if index % 2 and "url" not in syntax:
                yield syntax, _filled(form, name(rng, PASSWORD_NAMES), password(rng))
            else:
                yield syntax, _filled(form, name(rng, SECRET_NAMES), token(rng))
    for place, make in PLACED.items():
        for _ in range(each):
            yield place, make(rng)


def _words(identifier: str) -> list[str]:
    spaced = "".join(f" {c}" if c.isupper() and not identifier.isupper() else c for c in identifier)
    return spaced.replace("_", " ").replace("-", " ").casefold().split()


def _filled(form: str, identifier: str, value: str) -> str:
    words = _words(identifier)
    snake, pascal = "_".join(words), "".join(w.capitalize() for w in words)
    return form.format(
        n=identifier, u=snake.upper(), s=snake, p=pascal, c=words[0] + pascal[len(words[0]) :],
        k="-".join(words), e=snake, h="-".join(w.capitalize() for w in words), w=" ".join(words), v=value,
    )  # fmt: skip


_REFERENCES: tuple[str, ...] = (
    "${{VAULT_VALUE}}", "$DB_VALUE", "{{{{ vault.value }}}}", "<your-value>", "YOUR_VALUE_HERE", "changeme",
    "********", "xxxxxxxxxxxx", "REPLACE_ME", "none", "null", "(redacted)", "%DB_VALUE%", "example-value",
    "os.environ['VALUE']", "process.env.VALUE", "getenv('VALUE')", "config.get('value')", "secrets.VALUE",
    "var.db_value", "data.vault.value", "ENC[AES256]", "string", "required", "optional", "SecretStr",
    "str | None", "!Ref DbValue", "file:///run/value", "/run/secrets/value", "<%= value %>", "TODO",
    "your_api_key", "insert-your-key-here", "test", "dummy", "fake-value", "sample", "enter a value", "...",
)  # fmt: skip


def negatives(*, seed: int, each: int) -> Iterator[tuple[str, str]]:
    """Pairs of kind and text; no text holds a credential."""
    rng = random.Random(seed)
    forms = [form for syntax, form in ASSIGNED.items() if syntax not in _UNFIT]
    for reference in _REFERENCES:
        for _ in range(each):
            identifier = name(rng, rng.choice((PASSWORD_NAMES, SECRET_NAMES)))
            text = _filled(rng.choice(forms), identifier, reference.format())
            yield f"reference {reference.format()}", text
    for kind, make in _OTHERS.items():
        for _ in range(each):
            yield kind, make(rng)


def _hex(rng: Rng, size: int) -> str:
    return rng.randbytes(size // 2).hex()


_OTHERS: Mapping[str, Callable[[Rng], str]] = {
    "git log": lambda r: f"commit {_hex(r, 40)}\nAuthor: A <a@x.test>\n\n    Rotate {r.choice(_WORDS)} tokens\n",
    "git short": lambda r: f"{_hex(r, 8)[:7]} Fix the secret key rotation of {r.choice(_WORDS)}",
    "docker digest": lambda r: f"image: r.test/app@sha256:{_hex(r, 64)}",
    "pip hash": lambda r: f"token-tools==1.{r.randrange(20)} \\\n    --hash=sha256:{_hex(r, 64)}",
    "npm lock": lambda r: f'"keytar": {{"version": "7.{r.randrange(9)}.0", "integrity": "sha512-{base64.b64encode(r.randbytes(64)).decode()}"}}',
    "go sum": lambda r: f"github.com/x/{r.choice(_WORDS)} v1.{r.randrange(9)}.0 h1:{base64.b64encode(r.randbytes(32)).decode()}",
    "cargo lock": lambda r: f'name = "secrecy"\nversion = "0.8.{r.randrange(9)}"\nchecksum = "{_hex(r, 64)}"',
    "etag": lambda r: f'ETag: "{_hex(r, 32)}"',
    "uuid id": lambda r: f'{{"id": "{uuid.UUID(bytes=r.randbytes(16), version=4)}", "name": "{r.choice(_WORDS)}"}}',
    "request id": lambda r: f"INFO request_id={_hex(r, 32)} path=/v1/tokens status=200",
    "trace": lambda r: f"traceparent: 00-{_hex(r, 32)}-{_hex(r, 16)}-01",
    "public key": lambda r: f"ssh-ed25519 {base64.b64encode(r.randbytes(51)).decode()} a@h1",
    "public pem": lambda r: f"-----BEGIN PUBLIC KEY-----\n{_wrapped(r, 294)}\n-----END PUBLIC KEY-----",
    "certificate": lambda r: f"-----BEGIN CERTIFICATE-----\n{_wrapped(r, 700)}\n-----END CERTIFICATE-----",
    "public_key setting": lambda r: f'public_key = "{base64.b64encode(r.randbytes(32)).decode()}"',
    "key id": lambda r: f'kid: "{_hex(r, 32)}"',
    "cache key": lambda r: f'cache_key = "user:{r.randrange(10**6)}:{r.choice(_WORDS)}"',
    "sort key": lambda r: f"sort_key: {r.choice(_WORDS)}_created_at_{r.randrange(99)}",
    "primary key": lambda r: f"PRIMARY KEY: {r.choice(_WORDS)}_id_{r.randrange(99)}",
    "key code": lambda r: f'key = "{r.choice(_WORDS)}.{r.choice(_WORDS)}.title{r.randrange(9)}"',
    "token type": lambda r: f'token_type: "{r.choice(("Bearer", "access_token", "refresh_token"))}"',
    "token count": lambda r: f"max_tokens = {r.randrange(100, 128000)}\ntotal_tokens: {r.randrange(10**6)}",
    "token url": lambda r: f"token_url = https://auth.{r.choice(_WORDS)}.test/oauth2/v{r.randrange(3)}/token",
    "password policy": lambda r: f"password_min_length: {r.randrange(8, 20)}\npassword_hash_algorithm: argon2id",
    "password code": lambda r: f"password = hash_password(user.{r.choice(_WORDS)}, salt)",
    "password prompt": lambda r: f'password = input("Enter the {r.choice(_WORDS)} password: ")',
    "password column": lambda r: f"password VARCHAR({r.randrange(60, 255)}) NOT NULL",
    "password label": lambda r: f'<label for="password">{r.choice(_WORDS).capitalize()} password</label>',
    "password message": lambda r: f'"password": "The password must have {r.randrange(8, 20)} characters."',
    "password doc": lambda r: f"Set password: choose one of {r.randrange(8, 20)} characters or more.",
    "ui text": lambda r: f'"forgotPassword": "Forgot your {r.choice(_WORDS)} password?"',
    "secret name": lambda r: f"secretName: {r.choice(_WORDS)}-tls-{r.randrange(9)}",
    "secret ref": lambda r: f"secretKeyRef:\n  name: {r.choice(_WORDS)}-db\n  key: password",
    "vault path": lambda r: f"secret: kv/data/{r.choice(_WORDS)}/{r.choice(_WORDS)}#password",
    "arn": lambda r: f"secret_arn = arn:aws:secretsmanager:eu-west-1:{r.randrange(10**11, 10**12)}:secret:{r.choice(_WORDS)}",
    "image": lambda r: f"background: url(data:image/png;base64,{base64.b64encode(r.randbytes(400)).decode()})",
    "minified": lambda r: f"!function(e,t){{var n=e.token,r=t.key;return n&&n.{r.choice('abcdef')}(r)}}(window,{{key:{r.randrange(99)},token:t}});",
    "source map": lambda r: f'"mappings": "{"".join(r.choices(_ALNUM + ";,", k=120))}"',
    "version": lambda r: f"keyring=={r.randrange(30)}.{r.randrange(9)}.{r.randrange(9)}",
    "import": lambda r: f"from {r.choice(_WORDS)}.tokens import AccessToken, refresh_token as {r.choice(_WORDS)}_token",
    "css": lambda r: f".password-{r.choice(_WORDS)}::placeholder {{ color: #{_hex(r, 6)} }}",
    "regex": lambda r: f'TOKEN = re.compile(r"[A-Za-z0-9]{{{r.randrange(9, 40)}}}")',
    "enum": lambda r: f'ACCESS_TOKEN = "access_token_{r.choice(_WORDS)}"',
    "test name": lambda r: f"def test_password_{r.choice(_WORDS)}_is_refused_when_{r.choice(_WORDS)}(): ...",
    "file id": lambda r: f"https://drive.test/file/d/{''.join(r.choices(_ALNUM, k=33))}/view",
    "sitekey": lambda r: f'data-sitekey="{r.choice(_WORDS)}"',
    "hash of a file": lambda r: f"{_hex(r, 64)}  secrets-{r.randrange(9)}.tar.gz",
    "nonce": lambda r: f"<script nonce=\"{base64.b64encode(r.randbytes(12)).decode()}\">",
    "product key text": lambda r: f"Key facts: {r.choice(_WORDS)} grew by {r.randrange(99)} % in {r.randrange(1990, 2026)}.",
    "keyboard": lambda r: f"key: Ctrl+Shift+{r.choice(string.ascii_uppercase)}",
    "prose": lambda r: f"The password is case-sensitive and must be changed after {r.randrange(30, 180)} days.",
    "prose 2": lambda r: f"Your token: valid until {r.randrange(2025, 2031)}-0{r.randrange(1, 9)}-11 at 10:00.",
}  # fmt: skip
