# ruff: noqa: E501, RUF001, SIM905 - tables of one form a line
"""Made-up personal data in the writing of its country, and everyday numbers that are none.

Telephone numbers are drawn under the numbering plans (`phonenumberslite`) and belong to whoever has them by
chance; nothing here was taken from a person or a data set.
"""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable, Iterator, Mapping

import phonenumbers

Rng = random.Random
COUNTRIES = "US GB DE FR ES IT NL BE CH AT SE NO DK FI PL CZ PT IE GR TR RU UA BR MX AR IN CN JP KR AU NZ ZA IL AE SA ID VN TH PH".split()
_SAID: Mapping[str, tuple[str, ...]] = {
    "en": ("Call me on {n} after five.", "Phone: {n}", "My mobile number is {n}, thanks.", "Tel. {n}", "You can text {n} any time.", "contact: Ana, {n}"),
    "de": ("Tel.: {n}", "Meine Handynummer ist {n}.", "Sie erreichen mich unter der Rufnummer {n}."),
    "fr": ("Tél. : {n}", "Mon numéro de téléphone est le {n}.", "Portable : {n}"),
    "es": ("Tel.: {n}", "Mi número de teléfono es {n}.", "Móvil: {n}"),
    "it": ("Tel. {n}", "Il mio numero di telefono è {n}.", "Cellulare: {n}"),
    "pt": ("Tel.: {n}", "O meu telefone é {n}.", "Celular: {n}"),
    "nl": ("Tel. {n}", "Mijn telefoonnummer is {n}.", "Mobiel: {n}"),
    "pl": ("tel. {n}", "Mój numer telefonu to {n}."), "tr": ("Tel: {n}", "Telefon numaram {n}."),
    "ru": ("Тел.: {n}", "Мой телефон {n}."), "ja": ("電話番号は{n}です。", "携帯: {n}"), "zh": ("电话：{n}", "我的手机是 {n}"), "ko": ("전화: {n}", "휴대폰 번호는 {n}입니다."),
}  # fmt: skip
_LANGUAGES: Mapping[str, str] = {
    "DE": "de", "AT": "de", "CH": "de", "FR": "fr", "BE": "fr", "ES": "es", "MX": "es", "AR": "es", "IT": "it", "PT": "pt", "BR": "pt", "NL": "nl", "PL": "pl",
    "TR": "tr", "RU": "ru", "UA": "ru", "JP": "ja", "CN": "zh", "KR": "ko",
}  # fmt: skip
_UNSAID = (
    "{n}",
    "Best,\nAna\n{n}",
    "ana.silva@mail.example | {n}",
    "Ana Silva, {n}, Lisbon",
    "- {n}",
    "Ana ({n})",
)


def _drawn(country: str, rng: Rng) -> phonenumbers.PhoneNumber:
    """A valid number of a fixed or mobile line of the country: an example's digits, the last ones drawn anew."""
    kind = rng.choice((phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE))
    example = phonenumbers.example_number_for_type(country, kind) or phonenumbers.example_number(country)
    digits = str(example.national_number)
    for _ in range(400):
        keep = max(1, len(digits) - rng.choice((5, 6, 7)))
        body = digits[:keep] + "".join(rng.choices(string.digits, k=len(digits) - keep))
        number = phonenumbers.PhoneNumber(
            country_code=example.country_code,
            national_number=int(body),
            italian_leading_zero=example.italian_leading_zero,
        )
        if phonenumbers.is_valid_number_for_region(number, country):
            return number
    return example


def written(country: str, rng: Rng) -> tuple[str, str]:
    """A style of writing and a number of the country in it."""
    number = _drawn(country, rng)
    style = rng.choice(
        ("international", "international joined", "00", "national", "national other signs", "national joined")
    )
    formats = phonenumbers.PhoneNumberFormat
    if style == "international":
        return style, phonenumbers.format_number(number, formats.INTERNATIONAL)
    if style == "international joined":
        return style, phonenumbers.format_number(number, formats.E164)
    if style == "00":
        return style, phonenumbers.format_number(number, formats.INTERNATIONAL).replace("+", "00", 1)
    national = phonenumbers.format_number(number, formats.NATIONAL)
    if style == "national":
        return style, national
    if style == "national other signs":
        sign = rng.choice(".-/ ") if country in {"DE", "AT", "CH", "BE", "FR", "NL"} else rng.choice(".- ")
        joined = sign.join(
            part for part in national.replace("(", " ").replace(")", " ").replace("-", " ").split()
        )
        return style, joined.replace("/", "/", 1)
    return style, "".join(c for c in national if c.isdigit())


def telephones(*, seed: int, each: int) -> Iterator[tuple[str, str, str, bool]]:
    """Country, style, text and whether a word says that it is a telephone number."""
    rng = random.Random(seed)
    for country in COUNTRIES:
        for index in range(each):
            style, number = written(country, rng)
            is_said = index % 2 == 0
            if not is_said and style == "national joined":
                style, number = (
                    "international",
                    phonenumbers.format_number(
                        _drawn(country, rng), phonenumbers.PhoneNumberFormat.INTERNATIONAL
                    ),
                )
            forms = _SAID[_LANGUAGES.get(country, "en")] if is_said else _UNSAID
            yield country, style, rng.choice(forms).format(n=number), is_said


_MONTHS = "January February March April May June July August September October November December".split()
_GIVEN = "Ana Tomas Mirja Kofi Leila Yuki Pedro Ingrid".split()


def _day(rng: Rng) -> str:
    year, month, day = rng.randrange(1935, 2012), rng.randrange(1, 13), rng.randrange(1, 29)
    return rng.choice(
        (
            f"{day:02d}.{month:02d}.{year}",
            f"{month}/{day}/{year}",
            f"{year}-{month:02d}-{day:02d}",
            f"{day} {_MONTHS[month - 1]} {year}",
            f"{_MONTHS[month - 1]} {day}, {year}",
            f"{day:02d}/{month:02d}/{year}",
            f"{day}-{month}-{year}",
        )
    )


def _code(rng: Rng, letters: int, digits: int) -> str:
    return "".join(rng.choices(string.ascii_uppercase, k=letters)) + "".join(
        rng.choices(string.digits, k=digits)
    )


def _digits(rng: Rng, size: int) -> str:
    return rng.choice("123456789") + "".join(rng.choices(string.digits, k=size - 1))


SAID_DATA: Mapping[str, tuple[str, Callable[[Rng], str]]] = {
    "date of birth": ("pii.birth_date", lambda r: r.choice((f"Date of birth: {_day(r)}", f"{r.choice(_GIVEN)} was born on {_day(r)}.", f"DOB {_day(r)}", f"geboren am {_day(r)}", f"Fecha de nacimiento: {_day(r)}", f"née le {_day(r)}", f"My birthday is {_day(r)}", f'"birth_date": "{_day(r)}"', f"Nato il {_day(r)}", f"Data de nascimento: {_day(r)}", f"Geboortedatum {_day(r)}", f"data urodzenia: {_day(r)}"))),
    "passport": ("pii.passport", lambda r: r.choice((f"Passport number: {_code(r, 2, 7)}", f"passport no. {_digits(r, 9)}", f"Reisepass: {_code(r, 1, 8)}", f"My passport is {_code(r, 1, 7)}", f"passeport n° {r.randrange(10, 99)}{_code(r, 2, 5)}", f'"passport_number": "{_code(r, 2, 6)}"', f"Pasaporte {_code(r, 3, 6)}"))),
    "bank account": ("pii.account", lambda r: r.choice((f"Account number: {_digits(r, 8)}", f"account no {_digits(r, 10)}, sort code {r.randrange(10, 99)}-{r.randrange(10, 99)}-{r.randrange(10, 99)}", f"Kontonummer {_digits(r, 10)}", f"acct # {_digits(r, 12)}", f"numéro de compte : {_digits(r, 11)}", f"cuenta número {_digits(r, 10)}", f'"account_number": "{_digits(r, 9)}"', f"My bank account is {_digits(r, 9)}"))),
    "driving licence": ("pii.driver_licence", lambda r: r.choice((f"Driver's license: {_code(r, 1, 7)}", f"driving licence number {_code(r, 5, 6)}{_code(r, 2, 1)}{_code(r, 2, 0)}", f"Führerschein: {_code(r, 1, 9)}", f"DL number {_digits(r, 8)}"))),
    "health insurance": ("pii.health", lambda r: r.choice((f"MRN: {_digits(r, 8)}", f"patient ID {_code(r, 2, 6)}", f"Medical record number {_digits(r, 7)}", f"member ID: {_code(r, 3, 9)}"))),
}  # fmt: skip

_STREETS = {
    "US": ("{d4} {N} Street, {C}, TX 7{d4}", "{d3} W. {N} Ave Apt {d1}, {C}, CA 9{d4}", "{d4} {N} Creek Blvd\n{C}, OH 4{d4}"), "GB": ("{d2} {N} Road, {C} LS1 4AP", "Flat {d1}, {d2} {N} Close, {C}, SW1A 2AA", "{N} Cottage, {d1} {N} Lane, {C}"),
    "DE": ("{N}straße {d2}, {d5} {C}", "{N}weg {d2}a, {d5} {C}", "Am {N}platz {d1}, {d5} {C}", "{N}allee {d3}"), "FR": ("{d2}, rue de la {N}, 75011 {C}", "{d1} bis avenue {N}, 69003 {C}", "{d2} boulevard du {N}"),
    "ES": ("Calle {N}, {d2}, 2º B, 28{d3} {C}", "Avda. de {N} {d3}, {C}", "C/ {N} {d2}"), "IT": ("Via {N} {d2}, 00{d3} {C}", "Piazza {N}, {d1}, {C}", "Corso {N} {d3}"), "NL": ("{N}straat {d2}, {d4} AB {C}", "{N}laan {d3}, {d4} XK {C}", "{N}gracht {d2}"),
    "PT": ("Rua do {N}, {d2}, 1200-{d3} {C}", "Avenida {N} {d3}, {C}"), "PL": ("ul. {N}a {d2}/{d1}, 00-{d3} {C}", "al. {N} {d2}, {C}"), "SE": ("{N}gatan {d2}, 1{d2} {d2} {C}", "{N}vägen {d1}, {C}"), "BR": ("Rua {N}, {d3} - Centro, {C} - SP, 01{d3}-000", "Av. {N}, {d4}, apto {d2}, {C}"),
    "AU": ("{d2} {N} Parade, {C} NSW 2{d3}", "Unit {d1}/{d2} {N} Street, {C} VIC 3{d3}"), "CA": ("{d4} {N} Street, {C}, ON M5V 2T6", "{d3} rue {N}, Montréal, QC H2X 1Y4"), "IN": ("{d2}, {N} Nagar, {C} 560{d3}", "Flat {d3}, {N} Apartments, MG Road, {C} 400{d3}"),
    "CH": ("{N}strasse {d2}, 80{d2} {C}", "Rue du {N} {d1}, 12{d2} {C}"), "JP": ("{d1}-{d2}-{d1} {N}, Shibuya-ku, Tokyo 150-{d4}", "〒150-{d4} 東京都渋谷区神南{d1}-{d2}-{d1}"), "MX": ("Calle {N} {d3}, Col. Centro, 06{d3} {C}",), "DK": ("{N}vej {d2}, {d4} {C}", "{N}gade {d1}, 2. tv, {d4} {C}"), "RU": ("ул. Ленина, д. {d2}, кв. {d3}, Москва", "проспект Мира, {d2}"), "CZ": ("{N}ova {d3}/{d1}, 110 00 Praha",),
}  # fmt: skip
_PLACES = "Linden Garten Haven Marron Castel Birken Falken Rosen Moreno Verdi Torres Almeida Kessel Holm Lund".split()
_CITIES = "Halden Marburg Loures Tarifa Elst Viborg Oakfield Lunel Carpi Rynek Umea Santos Hilltown".split()


def addresses(*, seed: int, each: int) -> Iterator[tuple[str, str]]:
    """Country and text with a street address."""
    rng = random.Random(seed)
    for country, forms in _STREETS.items():
        for form in forms:
            for _ in range(each):
                values = {f"d{i}": _digits(rng, i) for i in range(1, 6)}
                address = form.format(N=rng.choice(_PLACES), C=rng.choice(_CITIES), **values)
                yield (
                    country,
                    rng.choice(
                        (
                            "{a}",
                            "Please send it to {a}.",
                            "Address: {a}",
                            "She lives at {a}",
                            "Ana Silva\n{a}\n",
                            "We moved to {a} last year.",
                        )
                    ).format(a=address),
                )


def said_data(*, seed: int, each: int) -> Iterator[tuple[str, str, str]]:
    """Kind, category and text of data that a word names."""
    rng = random.Random(seed)
    for kind, (category, make) in SAID_DATA.items():
        for _ in range(each):
            yield kind, category, make(rng)


def _price(rng: Rng) -> str:
    return f"{rng.randrange(1, 999)},{rng.randrange(100, 999)}.{rng.randrange(10, 99)}"


EVERYDAY: Mapping[str, Callable[[Rng], str]] = {
    "order": lambda r: f"Order #{_digits(r, 9)} has shipped.", "order with hyphens": lambda r: f"Your order {_digits(r, 3)}-{_digits(r, 7)}-{_digits(r, 7)} has shipped.",
    "invoice": lambda r: f"Invoice INV-{r.randrange(2018, 2026)}-{_digits(r, 6)} is due.", "ticket": lambda r: f"Ticket {_digits(r, 7)} was closed.", "case": lambda r: f"case no. {r.randrange(10, 99)}-{_digits(r, 5)}",
    "version": lambda r: f"Upgrade to version {r.randrange(20)}.{r.randrange(20)}.{r.randrange(200)}.{r.randrange(9999)}", "build": lambda r: f"build 2{_digits(r, 10)} passed", "package": lambda r: f"numpy=={r.randrange(3)}.{r.randrange(30)}.{r.randrange(9)}",
    "date": lambda r: f"The meeting is on {r.randrange(1, 29)}.{r.randrange(1, 13)}.{r.randrange(2000, 2030)} at {r.randrange(10, 20)}:30.", "dates": lambda r: f"open {r.randrange(2000, 2015)}-{r.randrange(2016, 2030)}", "date and time": lambda r: f"2025-{r.randrange(10, 13)}-{r.randrange(10, 29)} {r.randrange(10, 24)}:{r.randrange(10, 60)}:{r.randrange(10, 60)}.{_digits(r, 6)}",
    "price": lambda r: f"The house costs ${_price(r)}.", "price in euros": lambda r: f"Summe: {r.randrange(1, 99)}.{r.randrange(100, 999)}.{r.randrange(100, 999)},00 EUR", "big number": lambda r: f"The population was {r.randrange(1, 99)} {r.randrange(100, 999)} {r.randrange(100, 999)}.", "percent": lambda r: f"grew by {r.randrange(100)}.{_digits(r, 4)} %",
    "coordinates": lambda r: f"{r.uniform(-90, 90):.6f}, {r.uniform(-180, 180):.6f}", "coordinates in degrees": lambda r: f"{r.randrange(90)}°{r.randrange(60)}'{r.randrange(60)}\"N {r.randrange(180)}°{r.randrange(60)}'{r.randrange(60)}\"E",
    "ISBN": lambda r: f"ISBN 978-{r.randrange(10)}-{_digits(r, 4)}-{_digits(r, 4)}-{r.randrange(10)}", "ISBN joined": lambda r: f"ISBN: 978{_digits(r, 10)}", "ISSN": lambda r: f"ISSN {_digits(r, 4)}-{_digits(r, 4)}", "DOI": lambda r: f"doi:10.{_digits(r, 4)}/{_digits(r, 7)}.{_digits(r, 7)}", "EAN": lambda r: f"EAN {_digits(r, 13)}",
    "UPS": lambda r: f"Tracking number 1Z{_code(r, 3, 0)}{_digits(r, 13)}", "tracking": lambda r: f"Tracking: {_digits(r, 4)} {_digits(r, 4)} {_digits(r, 4)}", "parcel": lambda r: f"parcel RR{_digits(r, 9)}DE", "tracking long": lambda r: f"USPS tracking {_digits(r, 22)}",
    "log": lambda r: f"[{_digits(r, 10)}.{_digits(r, 3)}] pid={_digits(r, 5)} tid={_digits(r, 7)} took {_digits(r, 6)}us", "access log": lambda r: f'"GET /items/{_digits(r, 8)} HTTP/1.1" 200 {_digits(r, 5)} "-" {_digits(r, 6)}', "timestamp": lambda r: f"created_at: {_digits(r, 10)}", "timestamp ms": lambda r: f'"ts": 17{_digits(r, 11)}',
    "sum": lambda r: f"{_digits(r, 7)} + {_digits(r, 7)} = {_digits(r, 8)}", "product": lambda r: f"{_digits(r, 5)} * {_digits(r, 6)}", "pi": lambda r: f"pi is about 3.14159265{_digits(r, 5)}", "powers": lambda r: "2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096", "list": lambda r: ", ".join(_digits(r, 3) for _ in range(8)),
    "lottery": lambda r: "the numbers were " + " ".join(str(r.randrange(10, 50)) for _ in range(6)), "scores": lambda r: f"sets: 6-{r.randrange(5)} 4-6 7-{r.randrange(6)} 6-{r.randrange(5)}", "pages": lambda r: f"pages {_digits(r, 3)}-{_digits(r, 3)}, vol. {r.randrange(50)}", "bible": lambda r: f"John {r.randrange(1, 20)}:{r.randrange(1, 20)}-{r.randrange(20, 40)}", "law": lambda r: f"§ {r.randrange(100)} Abs. {r.randrange(9)}, BGBl. I S. {_digits(r, 4)}",
    "UUID": lambda r: str(uuid.UUID(bytes=r.randbytes(16), version=4)), "hash": lambda r: r.randbytes(20).hex(), "table": lambda r: "\n".join(f"| {_digits(r, 4)} | {_digits(r, 5)} | {_digits(r, 3)} |" for _ in range(3)), "CSV": lambda r: "\n".join(",".join(_digits(r, 5) for _ in range(5)) for _ in range(3)), "matrix": lambda r: f"[[{_digits(r, 3)}, {_digits(r, 3)}], [{_digits(r, 3)}, {_digits(r, 3)}]]",
    "part number": lambda r: f"part no. {_digits(r, 3)}-{_digits(r, 4)}-{_digits(r, 2)}", "serial": lambda r: f"S/N: {_digits(r, 10)}", "model": lambda r: f"the {_code(r, 2, 5)} printer", "CAS": lambda r: f"CAS {_digits(r, 5)}-{_digits(r, 2)}-{r.randrange(10)}", "resolution": lambda r: f"{_digits(r, 4)}x{_digits(r, 4)} at 144 Hz", "port": lambda r: f"listening on port {_digits(r, 5)}",
    "SQL": lambda r: f"SELECT * FROM items WHERE id = {_digits(r, 9)};", "YouTube views": lambda r: f"{_digits(r, 9)} views", "flight": lambda r: f"flight LH{_digits(r, 4)} at gate B{_digits(r, 2)}", "temperature": lambda r: f"-{_digits(r, 2)}.{_digits(r, 1)} °C, {_digits(r, 4)} hPa", "bits": lambda r: "".join(r.choices("01", k=16)), "bits in groups": lambda r: " ".join("".join(r.choices("01", k=8)) for _ in range(4)),
    "duration": lambda r: f"{_digits(r, 2)}:{r.randrange(10, 60)}:{r.randrange(10, 60)}.{_digits(r, 3)}", "stock": lambda r: f"AAPL {_digits(r, 3)}.{_digits(r, 2)} (+{r.randrange(9)}.{_digits(r, 2)}), volume {_digits(r, 8)}", "years": lambda r: f"1914-1918, 1939-1945 and {r.randrange(1950, 2000)}-{r.randrange(2001, 2020)}", "bytes": lambda r: f"Content-Length: {_digits(r, 8)}", "zip": lambda r: f"file_{_digits(r, 8)}_{_digits(r, 6)}.zip",
}  # fmt: skip


def everyday(*, seed: int, each: int) -> Iterator[tuple[str, str]]:
    """Kind and text of numbers that are nobody's."""
    rng = random.Random(seed)
    for kind, make in EVERYDAY.items():
        for _ in range(each):
            yield kind, make(rng)
