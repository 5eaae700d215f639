"""Names in Latin letters, by titles, cues, labels, greetings, closings, mail headers of six languages, and by given names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from gateway_scrub.spans import Span
from gateway_scrub.tables import words

UP = "A-ZÀ-ÖØ-ÞĀĂĄĆČĎĐĒĖĘĚĞĢĪĮİĶŁŃŅŇŐŒŘŚŞŠŤŪŮŰŲŹŻŽ"
LOW = "a-zß-öø-ÿāăąćčďđēėęěğģīįıķłńņňőœřśşšťūůűųźżž"
CAP = rf"(?:(?:Mc|Mac|De|Di|La|Le|[OD]['’])?[{UP}][{LOW}]+(?:-[{UP}]?[{LOW}]+|['’](?!s[^{LOW}]|s\Z)[{UP}{LOW}][{LOW}]+)*)"
SHOUT = rf"[{UP}]{{2,20}}(?:['’-][{UP}]+)?"
PART = (
    "(?:v[ao]n (?:de[rnm]? )?|de (?:la |las |los )?|del |della |di |da |do[s]? |das |du |la |le |el |al-?|bin |ibn |ben |zu "
    "|ter |ten |y |e )"
)
NAME = re.compile(
    rf"(?:[{UP}]\.[ -]?){{0,3}}(?:{PART})?{CAP}(?: (?:{PART})?(?:{CAP}|[{UP}]\.(?= [{UP}])|[{UP}](?= [{UP}][{LOW}]))){{0,4}}"
)
SHOUTED = re.compile(rf"{SHOUT}(?: (?:[{UP}]\.? )?{SHOUT}){{0,3}}(?![{UP}{LOW}0-9_])")
LOWERED = re.compile(rf"[{LOW}]{{2,20}}(?: [{LOW}]{{2,20}})?")
WORD = re.compile(rf"[{UP}{LOW}'’.-]+")
AFTER_NAME = re.compile(r"[A-Za-z0-9_(\[={@]|\.[A-Za-z_(]")

TITLE = re.compile(
    r"(?:M(?:r|rs|s|x|iss|me|lle|onsieur|adame|ister|R|RS|S)|D(?:r|ra|R|ott|ottoressa|oña|on)|Prof(?:essor|essorin|essore|a)?|S(?:ir|r|ra|rta"
    r"|eñor|eñora|eñorita|ig|igra|ignor|ignora|enhor|enhora|gt|en|heikh)|H(?:err|errn|on)|Frau|L(?:ord|ady|t)|J(?:udge|ustice)|C(?:apt|aptain"
    r"|ol|olonel|omte)|Rev(?:erend)?|Gov|Gen|President|Senator|Rabbi|Imam|Avv|Ing|Mag|Dipl\.-Ing|Sgt)"
    r"(?:(?P<dot>\.) ?| )(?:(?:Dr|Prof|med|h\.c|Mag|Ing|Doktor|Doctor|Professor|Doutor|Docteur)\.? ?){0,3}"
)
FULL_TITLES = frozenset(
    {
        "sir",
        "lord",
        "lady",
        "don",
        "doña",
        "justice",
        "judge",
        "captain",
        "colonel",
        "reverend",
        "sen",
        "gov",
        "gen",
        "hon",
        "rabbi",
        "imam",
        "col",
        "mag",
        "ing",
        "comte",
    }
)
"""Titles that are other words too: a name of two words must follow, or a full stop and one."""
HOLDER = re.compile(
    r"(?:full|first|last|middle|family|given|sur|maiden|legal|birth|customer|client|patient|contact|employee|student|applicant"
    r"|card[ _-]?holder|account[ _-]holder|passenger|guest|recipient|sender|billing|holder|spouse|mother|father|insured|tenant"
    r"|beneficiary|member|vor|nach|familien|pré|sobre|cog|kunden|patienten)['’]?s?[ _-]?\Z"
)
LABEL = re.compile(
    r"(?:names?|nom|noms|nome|nombres?|apellidos?|naam)(?: completo| complet| \(s\))?[\"']?[ \t]{0,2}[:=：][ \t]{0,3}[\"'“]?"
)
IS_NAME = re.compile(r"(?:name(?: is|['’]s| ist| was)|nom est|nome (?:è|é|e['’])|nombre es)(?: actually| also)? ")
OWNER = re.compile(
    r"(?:my|his|her|whose|their|the patient['’]s|client['’]s|full|first|last|mein|sein|ihr|mon|son|mi|su|mio|suo|meu|seu|o|il)"
    r"[ -]\Z"
)
NAME_CUES = tuple(map(re.compile, (
    r"name(?:(?:s|['’]s| is| ist| was)? |[\"']?[ \t]{0,2}[:=：])",
    r"nom(?:bres?|es?|s)?(?: est | es | è | é | e['’] |[\"']?(?: compl\w+)?[ \t]{0,2}[:=：])",
    r"apellidos?[\"']?[ \t]{0,2}[:=：]",
)))  # fmt: skip
"""Where `IS_NAME` or `LABEL` may match; each begins with a literal, for which the search is quick."""
I_AM = re.compile(
    r"(?<![a-z])(?:i am|i['’]m|ich bin|je suis|(?<!que )soy|io sono|sono|eu sou|sou)(?: an?| der| die| el| la| il| o| a)? "
)
I_AM_CUES = tuple(map(re.compile, ("i am ", "i['’]m ", "ich bin ", "je suis ", "so(?:y|u|no) ")))
CALLED = re.compile(r"(?:m['’]appelle|me llamo|mi chiamo|me chamo|chamo-me|ich hei(?:ß|ss)e|hei(?:ß|ss)e) ")
CALLING = re.compile(r" (?:calling|speaking|writing)(?![a-z])")
LINE = (
    r"[ \t>]*+(?=[A-Z])(?:(?P<greet>Hi|Hello|Hey|Dear|Bonjour|Salut|Hallo|Hola|Ciao|Olá|Oi|Cher|Chère|Liebe[rs]?|Estimad[oa]"
    r"|Querid[oa]|Car[oa]|Gentile|Prezad[oa]|Sehr geehrter?|Good (?:morning|afternoon|evening)),? "
    r"|(?:(?:(?:Best|Kind|Kindest|Warm|Warmest|With best|With kind|With warm|Many) )?(?:[Rr]egards|[Ww]ishes|[Tt]hanks|[Bb]est)"
    r"|Sincerely|Yours (?:sincerely|truly|faithfully)|Sincerely yours|Cheers|Thank you|Love|Respectfully"
    r"|Mit freundlichen Gr[üu](?:ß|ss)en|(?:Viele|Liebe|Beste|Herzliche) Gr[üu](?:ß|ss)e|Cordialement|Bien à vous|Saludos"
    r"|Atentamente|Un saludo|Cordiali saluti|Distinti saluti|Atenciosamente|Abraços?)[,.!]?\s{0,3}\n[ \t>]*)"
)
FIRST_LINE, NEXT_LINE = re.compile(LINE), re.compile("\n" + LINE)
SIGNED = re.compile(r"(?<![a-z-])(?P<how>signed(?: by|,|:)|signiert von|unterzeichnet|firmado(?: por)?:?|signé(?: par)?:?) ")
NAMED = re.compile(r"(?<![a-z])(?:named|namens) ")
MAIL_NAME = re.compile(
    rf"(?:(?<=\n)|(?<=[:,;\"'> (\[])|\A)(?P<n>{CAP},? (?:{PART}|[{UP}]\.? )*{CAP}(?: {CAP})?|{CAP})[\"']? \Z"
)
COMPANY = re.compile(
    rf"(?:[{UP}][{UP}{LOW}0-9&'’.-]{{0,29}}(?<=[{UP}{LOW}0-9]),? (?:& |and |und |et |of |für )?){{1,5}}"
    r"(?:Inc\b\.?|GmbH(?: & Co\.? KG)?|Ltd\b\.?|LLC\b|LLP\b|Corp\b\.?|Corporation\b|PLC\b|plc\b|AG\b|KGaA\b|S\.A\."
    r"|SARL\b|S\.r\.l\.|SpA\b|S\.p\.A\.|B\.V\.|N\.V\.|Pty\b|Co\., Ltd\b\.?)"
)


def people(text: str, lower: str) -> Iterator[Span]:
    """Names, some of which may overlap."""
    yield from _titled(text)
    yield from _said(text, lower)
    yield from _lines(text)
    yield from _mails(text)
    yield from _pairs(text)


def organisations(text: str) -> Iterator[Span]:
    """Companies, by their legal form."""
    for match in COMPANY.finditer(text):
        start = match.start() + 4 * match.group().startswith("The ")
        yield Span(start, match.end(), "ORGANIZATION", 0.7, "names: legal form")


def _titled(text: str) -> Iterator[Span]:
    known = _known()
    for match in TITLE.finditer(text):
        start, at = match.span()
        if start and (text[start - 1].isalnum() or text[start - 1] in "_-"):
            continue
        title = match.group().replace(".", " ").partition(" ")[0].lower()
        if title in ("sr", "don", "dr") and text[start - 2 : start - 1].islower() and _capital_before(text, start):
            continue  # John Smith Sr. He went
        end, count = read(text, at, loose=True, shout=match.group()[:2].isupper())
        if match.group()[:2].isupper() and not match["dot"] and not SHOUTED.match(text, at):
            continue  # MS Windows
        if text[at - 1] == "." and title not in ("mr", "mrs", "ms", "dr", "prof"):
            continue
        if not count or (title in FULL_TITLES and count < 2 and not match["dot"]) or AFTER_NAME.match(text, end):
            continue
        first = WORD.match(text, at)
        sure = count > 1 or (first is not None and first.group() in known.given)
        yield Span(at, end, "PERSON", 0.9 if sure else 0.8, "names: title")


def _said(text: str, lower: str) -> Iterator[Span]:
    known = _known()

    def spoken(end: int, cue: str, score: float, *, one: float, lowered: bool = False) -> Iterator[Span]:
        stop, count = read(text, end)
        if count and not AFTER_NAME.match(text, stop):
            given = _first(text, end) in known.given
            worth = score if count > 1 or given else one
            yield Span(end, stop, "PERSON", worth, f"names: {cue}")
        elif lowered and not count:
            match = LOWERED.match(text, end)
            if match and match.group().partition(" ")[0].capitalize() in known.sure:
                stop = match.end() if match.group().partition(" ")[2] not in known.never else end + match.group().find(" ")
                yield Span(end, stop, "PERSON", 0.65, f"names: {cue}")

    for anchor in NAME_CUES:
        for cue in anchor.finditer(lower):
            at = cue.start()
            before = lower[max(at - 24, 0) : at]
            match = IS_NAME.match(lower, at)
            if match is not None:
                if OWNER.search(before):
                    yield from spoken(match.end(), "my name is", 0.9, one=0.8, lowered=True)
                continue
            match = LABEL.match(lower, at)
            if match is not None:
                yield from _labelled(text, at, match.end(), bool(HOLDER.search(before)) or lower[at] == "a")
    for literal in ("ppelle", "amo ", "amo-me ", "ich hei"):
        for at in _each(lower, literal):
            match = CALLED.search(lower, max(at - 7, 0), at + 16)
            if match is not None:
                yield from spoken(match.end(), "called", 0.9, one=0.8, lowered=True)
    for anchor in I_AM_CUES:
        for cue in anchor.finditer(lower):
            at = cue.start()
            match = I_AM.match(lower, at)
            if match is None or (at and (lower[at - 1].isalnum() or lower[at - 1] in "_'")):
                continue
            end = match.end()
            if _first(text, end) in known.sure:
                for span in spoken(end, "I am", 0.8, one=0.0):
                    if " " in text[span.start : span.end] or text[span.end : span.end + 1] in ("", ".", ",", "!", ";", "\n"):
                        yield span
    for at in _each(lower, "this is "):
        end, count = read(text, at + 8)
        if count and CALLING.match(text, end):
            yield Span(at + 8, end, "PERSON", 0.85, "names: calling")
    for at in _each(lower, "dear "):
        end, count = read(text, at + 5)
        if (
            count
            and text[end : end + 1] != "."  # Dear Dr. Miller: a title, which has a rule of its own
            and (text[end : end + 1] in (",", ":", "!", "\n", ";") or _first(text, at + 5) in known.sure)
            and not lower[at - 1 : at].isalpha()
        ):
            yield Span(at + 5, end, "PERSON", 0.8 if _first(text, at + 5) in known.given else 0.6, "names: dear")
    for literal, told in (("signed", SIGNED), ("named ", NAMED)):
        for at in _each(lower, literal):
            match = told.match(lower, at)
            if match is not None and _first(text, match.end()) in known.sure:
                yield from spoken(match.end(), literal.strip(), 0.75, one=0.0)


def _labelled(text: str, at: int, end: int, holder: bool) -> Iterator[Span]:
    """What stands after a label such as "Name:"."""
    known = _known()
    stop, count = read(text, end)
    if not count:
        match = SHOUTED.match(text, end)
        if (
            match is None
            or (" " not in match.group() and not holder)
            or any(w.lower() in known.never for w in match.group().split())
        ):
            return
        stop, count = match.end(), match.group().count(" ") + 1
    if AFTER_NAME.match(text, stop) or (text[end - 1] in " \t" and "=" in text[at:end] and not holder):
        return
    given = _first(text, end).capitalize() in known.given
    begins = at == 0 or text[at - 1] in "\n,;|\t*-" or text[max(at - 2, 0) : at] in (". ", ", ", "- ", "; ", "| ")
    if holder:
        score = 0.85
    elif given:
        score = 0.8 if begins or count > 1 else 0.6
    else:
        score = 0.55 if count > 1 and begins and text[at].isupper() else 0.3
    yield Span(end, stop, "PERSON", score, "names: label")


def _lines(text: str) -> Iterator[Span]:
    """Greetings at the beginning of a line, and closings with a line of their own."""
    known = _known()
    first = FIRST_LINE.match(text)
    for match in (*((first,) if first else ()), *NEXT_LINE.finditer(text)):
        at = match.end()
        end, count = read(text, at)
        if not count:
            continue
        after = text[end : end + 1]
        given = _first(text, at) in known.sure
        if match["greet"]:
            if after in ("", ",", "!", ".", ":", "\n", "-", "–", "—", "\r") and (
                given or match["greet"] in ("Dear", "Cher", "Chère")
            ):
                yield Span(at, end, "PERSON", 0.75 if given else 0.6, "names: greeting")
        elif after in ("", "\n", ",", "\r") and (count > 1 or given):
            yield Span(at, end, "PERSON", 0.8 if given else 0.65, "names: closing")


def _mails(text: str) -> Iterator[Span]:
    """The name before an address in angle brackets (RFC 5322, name-addr)."""
    known = _known()
    for at in _each(text, "@"):
        angle = text.rfind("<", max(at - 65, 0), at)
        if angle < 2 or text[angle - 1] != " " or any(char.isspace() for char in text[angle:at]):
            continue
        match = MAIL_NAME.search(text, max(angle - 50, 0), angle)
        if match is None:
            continue
        parts = match["n"].replace(",", "").split()
        if not any(part.lower() in known.never for part in parts) and (len(parts) > 1 or parts[0] in known.sure):
            yield Span(match.start("n"), match.end("n"), "PERSON", 0.9, "names: mail")


def _pairs(text: str) -> Iterator[Span]:
    """A given name that everybody knows, and a capitalised word."""
    known = _known()
    for match in PAIR.finditer(text):
        if match["given"] not in known.clear:
            continue
        start = match.start()
        if start and (text[start - 1].isalnum() or text[start - 1] in "_'’-./"):
            continue
        end, count = read(text, start)
        if count < 2 or AFTER_NAME.match(text, end) or text[start:end].rsplit(" ", 1)[1].lower() in known.never_end:
            continue
        after = WORD.match(text, end + 1) if text[end : end + 1] == " " else None
        if after is not None and after.group()[:1].isupper() and after.group().lower() in known.never_end:
            continue
        if BEFORE_PLACE.search(text, max(start - 12, 0), start):
            continue
        yield Span(start, end, "PERSON", 0.6, "names: given name")


BEFORE_PLACE = re.compile(
    r"(?:San|Santa|Saint|St\.?|New|Fort|Port|Mount|Lake|Rue|Avenue|Av\.|Avenida|Calle|Via|Viale|Piazza|Plaza|Rua|Praça|Place"
    r"|ulica|ul\.) \Z",
    re.IGNORECASE,
)
"""What comes before a person's name that has become a place's."""
PAIR = re.compile(rf"(?P<given>[{UP}][{LOW}]+) (?=[{UP}])")


def read(text: str, at: int, *, loose: bool = False, shout: bool = False) -> tuple[int, int]:
    """Where the name that begins here ends, and of how many words it is; 0 words when there is none. `loose`: after a title,
    where King and Young are names; `shout`: it may be in capitals."""
    known = _known()
    match = NAME.match(text, at) or (SHOUTED.match(text, at) if shout else None)
    if match is None:
        return at, 0
    end, count = at, 0
    for word in WORD.finditer(text, at, match.end()):
        plain = word.group().rstrip(".").lower()
        initial = len(plain) == 1
        if plain in PARTS and word.group()[0].islower():
            continue
        if plain in known.never and not initial and not (plain in known.surnames_too and (loose or count)):
            break
        if word.group()[0].islower():
            break
        count += not initial
        end = word.end() - (word.group().endswith(".") and not initial)
    return (end, count) if count else (at, 0)


PARTS = frozenset(
    {
        "van",
        "von",
        "der",
        "den",
        "dem",
        "de",
        "la",
        "las",
        "los",
        "del",
        "della",
        "di",
        "da",
        "dos",
        "do",
        "das",
        "du",
        "le",
        "el",
        "al",
        "bin",
        "ibn",
        "ben",
        "zu",
        "ter",
        "ten",
        "y",
        "e",
    }
)


class Known:
    """The words of rules/names.txt, as sets."""

    def __init__(self) -> None:
        self.given = frozenset(words("names", "given"))
        self.never = frozenset(words("names", "never"))
        self.never_end = frozenset(words("names", "never_end"))
        self.surnames_too = frozenset(words("names", "surnames_too"))
        self.sure = frozenset(name for name in self.given if name.lower() not in self.never)
        self.clear = self.sure - frozenset(words("names", "given_ambiguous"))


@lru_cache(maxsize=1)
def _known() -> Known:
    return Known()


def _first(text: str, at: int) -> str:
    match = WORD.match(text, at)
    return match.group().rstrip(".,") if match else ""


def _each(text: str, literal: str) -> Iterator[int]:
    at = text.find(literal)
    while at >= 0:
        yield at
        at = text.find(literal, at + len(literal))


def _capital_before(text: str, at: int) -> bool:
    word = text[max(at - 20, 0) : at].split()
    return bool(word) and word[-1][:1].isupper() and word[-1] not in ("El", "La", "Al", "Los", "Del", "Y", "Und", "Der", "Die")
