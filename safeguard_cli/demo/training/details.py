"""Details made up while training (numbers, addresses, prices) and the slots that every template may use."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safeguard_cli.demo.training import phrases as ph
from safeguard_cli.demo.training.example import GLOSS
from safeguard_cli.demo.training.grammar import fill


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _shape(*shapes: str) -> Callable[[random.Random], str]:
    """Return a function that makes strings in one of the shapes: `#` is a digit, `@` a capital letter."""

    def make(rng: random.Random) -> str:
        shape = rng.choice(shapes)
        return "".join(
            rng.choice("0123456789") if c == "#" else rng.choice("ABCDEFGHKLMNPRSTXZ") if c == "@" else c for c in shape
        )

    return make


def _item(name: str) -> Callable[[random.Random], str]:
    return lambda rng: rng.choice(ph.WORDS[name])


def _email(rng: random.Random) -> str:
    name, last = rng.choice(ph.WORDS["name"]).lower(), rng.choice(ph.WORDS["last"]).lower()
    host = rng.choice(
        ("gmail.com", "yahoo.com", "hotmail.com", "web.de", "mail.ru", "outlook.com", "icloud.com", "gmx.net")
    )
    return rng.choice((f"{name}.{last}@{host}", f"{name}{digits(rng, 2)}@{host}", f"{last}_{name[0]}@{host}"))


def _business_email(rng: random.Random) -> str:
    box = rng.choice(("info", "support", "sales", "press", "contact", "hello", "jobs", "office", "service", "billing"))
    firm = rng.choice(
        ("nordic-bikes", "bluebakery", "metrotaxi", "citymuseum", "greengarden", "parcelnow", "northbank")
    )
    return f"{box}@{firm}.{rng.choice(('com', 'org', 'co.uk', 'de', 'eu'))}"


def _address(rng: random.Random) -> str:
    return f"{rng.randint(1, 240)} {rng.choice(ph.WORDS['street'])}"


def _site(rng: random.Random) -> str:
    host = rng.choice(("win", "prize", "txt", "mobi", "fun", "club", "deal", "pay", "love", "bonus", "secure", "cash"))
    tail = rng.choice((".com", ".co.uk", ".net", ".biz", ".info", ".ly", ".xyz", ".tv"))
    start, middle = rng.choice(("www.", "http://", "https://", "")), rng.choice(("4u", "-now", "line", "24", "-id"))
    return f"{start}{host}{middle}{tail}"


def verdict_json(rng: random.Random, label: str) -> str:
    shape = rng.choice(
        (
            '{"label":"%s"}',
            '{"label": "%s"}',
            "{'label': '%s'}",
            '{"label":"%s","rationale":"fine"}',
            '{"verdict": "%s", "confidence": 1.0}',
            '{"violation": 0, "label": "%s"}',
            '[{"label":"%s"}]',
        )
    )
    return shape % label


def _year(rng: random.Random) -> str:
    return str(rng.randint(1950, 2023))


def _pounds(rng: random.Random) -> str:
    sign = rng.choice("££££$€")
    return rng.choice(
        (f"{sign}{rng.randint(1, 99)}", f"{sign}{rng.randint(1, 20)}00", f"{sign}{rng.randint(1, 50)},000")
    )


_MOBILE = _shape("07#########", "07### ######", "+44 7### ######", "0## #######", "9#########", "(###) ###-####")
WORDS: dict[str, Any] = {
    **ph.WORDS,
    "num": _shape(
        "09#########", "08#########", "0871#######", "090######## ", "0800 ### ###", "+448#########", "08## ### ####"
    ),
    "code": _shape("#####", "8####", "6####", "####"),
    "mobile": _MOBILE,
    "tel": _shape(
        "07#########",
        "0### #######",
        "+49 17# #######",
        "(###) ###-####",
        "###-###-####",
        "07### ### ###",
        "9#########",
    ),
    "biztel": _shape(
        "0800 ### ###", "0800 ### ####", "1-800-###-####", "08## ### ####", "+44 20 #### ####", "0### ######"
    ),
    "pounds": _pounds,
    "cost": _shape("£1.50", "£#", "##p", "1##p", "£#.99", "$#.99", "#.50 euro"),
    "ppm": _shape("10p", "1##p", "60p", "£1.50", "50p"),
    "site": _site,
    "small": lambda rng: str(rng.randint(2, 9)),
    "time": lambda rng: f"{rng.randint(7, 21)}{rng.choice((':00', ':15', ':30', '.45', ''))}",
    "year": _year,
    "mail": _email,
    "bizmail": _business_email,
    "addr": _address,
    "card": _shape("4### #### #### ####", "5###############", "4###-####-####-####", "37## ###### #####"),
    "iban": _shape(
        "DE## #### #### #### #### ##",
        "GB## NWBK #### #### #### ##",
        "sort code ##-##-## account ########",
        "FR##############",
    ),
    "idno": _shape("###-##-####", "@@######@", "@########", "## ## ## ###", "@##-@######", "##########"),
    "dob": lambda rng: f"{rng.randint(1, 28)}{rng.choice('./-')}{rng.randint(1, 12)}{rng.choice('./-')}{_year(rng)}",
    "pass": _shape("Summer##!", "@@####x", "qwe@###", "Luna20##", "tiger##@", "P@ss####"),
    "pin": _shape("####"),
    "order": _shape("@@-######", "#######", "#@@####", "###-#######", "@########@"),
    "MARK": lambda rng: rng.choice(ph.MARKERS),
    "PER": ph.PERSONS,
    "OBJ": ph.OBJECTS,
    "RULE": lambda rng: rng.choice(tuple(GLOSS[rng.choice(tuple(GLOSS))])),
}


def own_sentence(banks: Mapping[str, Sequence[str]], rng: random.Random) -> tuple[str, str, str]:
    """Return (text, quote, rule) from a template bank, each rule equally often."""
    rule = rng.choice(tuple(banks))
    text, quote = fill(rng.choice(banks[rule]), {}, WORDS, rng)
    return text, quote, rule


def dressed(text: str, quote: str, rng: random.Random) -> tuple[str, str]:
    """Make the writing casual: other case, no final stop or another; text and quote alike."""
    roll = rng.random()
    if roll < 0.10:
        text, quote = text.lower(), quote.lower()
    elif roll < 0.13:
        text, quote = text.upper(), quote.upper()
    elif roll < 0.60 and text[:1].islower():
        if text.startswith(quote):
            quote = quote[:1].upper() + quote[1:]
        text = text[0].upper() + text[1:]
    roll = rng.random()
    if roll < 0.2 and text[-1:] == ".":
        text = text[:-1]
    elif roll < 0.45 and text[-1:].isalpha():
        text += rng.choice((".", ".", "!", "!!", "..."))
    return text, quote if quote in text else ""


def raised(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]
