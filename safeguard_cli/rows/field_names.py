"""Knows field names: those that are never the text of a row, and those that are common in headers."""

from __future__ import annotations

import re

_NEVER = {
    "gold": "label labels gold golden class classes category categories target targets expected verdict truth y"
    " ground_truth annotation annotations annotator annotators rating score severity sentiment tag tags"
    " judgment judgement decision klass kategorie klasse bewertung etikett catégorie étiquette classe categoría"
    " etiqueta clase categoria etichetta etykieta kategoria",
    "id": "id ids uid uuid guid pk key idx index row number no nr url uri link href permalink hash md5 sha1 sha256"
    " checksum ip email e_mail phone nr kundennummer identifiant numéro numero",
    "date": "date dates time datetime timestamp ts created updated modified published posted year month day"
    " datum fecha zeitstempel horodateur",
    "author": "author authors user users username screen_name nickname nick handle sender recipient from to owner"
    " creator poster speaker autor auteur autore verfasser absender benutzer utilisateur usuario",
    "language": "lang language languages locale country sprache langue idioma lingua",
    "origin": "source dataset split model channel platform version",
}
_EXACT = frozenset(name for names in _NEVER.values() for name in names.split())
_ENDS = re.compile(
    r".*_(?:gold|labels?|class|category|target|ids?|uid|uuid|guid|key|hash|at|date|time|datetime|timestamp|ts|author|user|"
    r"username|lang|language|locale|url|uri|link|email|ip)|(?:author|user|sender|full|first|last|nick)_name"
)
_BEGINS = re.compile(r"(?:gold|golden|label|target|expected|annotator|id|date|is|has|num|lang)_.*")
_GOLD = frozenset(_NEVER["gold"].split())
_GOLD_PARTS = re.compile(r"^(?:gold|golden|label|target|expected|annotator)_|_(?:gold|labels?|class|category|target)$")
_HEADERS = (
    "text texts message messages conversation conversations body content comment comments post tweet title subject"
    " review sentence question answer prompt response description caption utterance transcript"
    " id label labels date timestamp author user username language lang category class url source channel"
)
_COMMON = frozenset(_HEADERS.split())


def never_text(name: str) -> bool:
    """Return whether a field of this name holds a label, an id, a date, an author, a language or the like."""
    plain = _plain(name)
    if name == "_source":
        return False  # in Elasticsearch, the document itself
    return plain in _EXACT or bool(_ENDS.fullmatch(plain) or _BEGINS.fullmatch(plain))


def may_be_gold(name: str) -> bool:
    """Return whether a field of this name may hold somebody's label."""
    plain = _plain(name)
    return plain in _GOLD or bool(_GOLD_PARTS.search(plain))


def is_common(name: str) -> bool:
    """Return whether this is a common name of a table's column."""
    plain = _plain(name)
    return plain in _COMMON or ("_" in name.strip() and never_text(plain))


def _plain(name: str) -> str:
    """Return a name in one form: `createdAt`, `Created At` and `created-at` as `created_at`."""
    words = re.sub(r"(?<=[a-z\d])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", words).strip("_").casefold()
