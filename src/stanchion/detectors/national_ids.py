"""National identity and tax numbers: which exist, what they look like, who says that they hold.

The automaton finds runs of digits and codes of capitals and digits; the table
`data/national_ids.yaml` says what each can be. A kind's check is python-stdnum's or our own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from importlib import import_module

import msgspec

from stanchion.core.codec import Digest, digest
from stanchion.core.resources import read_data_text
from stanchion.detectors import id_checks
from stanchion.detectors.checksums import compact

_TABLE = "national_ids.yaml"

# Modules of python-stdnum whose `is_valid` is used, loaded at the first candidate of the kind.
_STDNUM = (
    "ar.cuit ar.dni at.tin at.vnr au.abn au.tfn be.nn bg.egn br.cnpj br.cpf by.unp ca.sin ch.ssn "
    "cl.rut cn.ric co.nit cr.cpf cu.ni cy.vat cz.rc de.idnr de.stnr dk.cpr do.cedula dz.nif ec.ci "
    "ee.ik eg.tn es.dni es.nie fi.hetu fr.nif fr.nir gb.nhs gb.utr gh.tin gr.amka gr.vat gt.nit "
    "hr.oib hu.anum id.nik ie.pps il.idnr in_.aadhaar in_.epic in_.pan is_.kennitala it.codicefiscale "
    "jp.in_ ke.pin kr.rrn lt.asmens lv.pvn md.idno me.pib mk.edb mu.nid mx.curp mx.rfc my.nric "
    "mz.nuit nl.bsn no.fodselsnummer nz.ird pe.cui pk.cnic pl.nip pl.pesel pt.cc pt.nif py.ruc ro.cnp "
    "rs.pib ru.inn se.personnummer si.emso sk.rc sv.nit th.pin tn.mf tr.tckimlik ua.rntrc us.ein "
    "us.itin us.ssn uy.rut ve.rif vn.mst za.idnr"
)


class NationalId(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of number: in digits, of one of the lengths `digits`, or with letters, of the form `shape`.

    `free` is the written form of digits that is telling enough, with its check, without a word beside it;
    empty when a word is always needed. With letters, a `free_score` of 0 says that. `words` name the number
    in the languages of the country. Without `check_digits` the check is one of form only.
    """

    id: str
    country: str
    title: str
    check: str
    check_digits: bool = True
    digits: tuple[int, ...] = ()
    shape: str = ""
    free: str = ""
    free_score: float = 0.0
    category: str = "pii.national_id"
    words: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """What a finding of this kind says."""
        held = "its check digits hold" if self.check_digits else "its form holds"
        return f"{self.title} ({self.country}): {held}"


class Kind(msgspec.Struct, frozen=True):
    """A kind, ready to be asked: `form` is what `free` or `shape` says."""

    entry: NationalId
    form: re.Pattern[str] | None
    holds: Callable[[str], bool]


def _check_stdnum(module: str, text: str) -> bool:
    try:
        return bool(import_module(f"stdnum.{module}").is_valid(compact(text)))
    except (LookupError, ValueError):  # some modules fall over numbers that their registers do not know
        return False


def checks() -> Mapping[str, Callable[[str], bool]]:
    """All checks by name: `it_codicefiscale` of python-stdnum's `it.codicefiscale`, and our own."""
    found: dict[str, Callable[[str], bool]] = {
        name.replace("_.", ".").replace(".", "_").rstrip("_"): partial(_check_stdnum, name)
        for name in _STDNUM.split()
    }
    own = (name for name in vars(id_checks) if name.startswith("is_"))
    found.update({name.removeprefix("is_"): getattr(id_checks, name) for name in own})
    return found


@lru_cache(maxsize=1)
def table() -> tuple[NationalId, ...]:
    """The kinds of `data/national_ids.yaml`, in the file's order."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    file = yaml.load(read_data_text(_TABLE), Loader=loader)  # noqa: S506 - a safe loader, in C
    return msgspec.convert([*file["kinds"], *file["coded"]], tuple[NationalId, ...], strict=True)


@lru_cache(maxsize=1)
def table_digest() -> Digest:
    """The identity of the table."""
    return digest(table())


@lru_cache(maxsize=1)
def kinds_by_length() -> Mapping[int, tuple[Kind, ...]]:
    """The kinds that a number of so many digits can be."""
    lengths: dict[int, list[Kind]] = {}
    for kind in _kinds():
        for length in kind.entry.digits:
            lengths.setdefault(length, []).append(kind)
    return {length: tuple(kinds) for length, kinds in lengths.items()}


@lru_cache(maxsize=1)
def coded_kinds() -> tuple[Kind, ...]:
    """The kinds that are written with letters."""
    return tuple(kind for kind in _kinds() if kind.entry.shape)


def _kinds() -> Iterator[Kind]:
    known = checks()
    for entry in table():
        form = entry.free or entry.shape
        yield Kind(entry, re.compile(form) if form else None, known[entry.check])
