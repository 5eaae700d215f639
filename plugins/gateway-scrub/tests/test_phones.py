"""Telephone numbers: a country's code and length, what is no number, and how much of what Faker makes is found."""

from __future__ import annotations

import pytest
from gateway_scrub.phones import COUNTRIES, LENGTHS, e164, international, phone_context, phone_trunk
from gateway_scrub.scan import Scanner

SCANNER = Scanner(types=["PHONE"])
SAID = {
    "en_IN": "My mobile number is {}, call after six.", "pt_BR": "Meu telefone é {}, ligue amanhã.",
    "es_ES": "Mi teléfono es {}.", "es_AR": "Llamame al celular {} mañana.", "es_CO": "Teléfono {} Bogotá",
    "fr_FR": "Mon téléphone : {}, merci.", "fr_CH": "tél. {} (bureau)", "de_DE": "Meine Telefonnummer ist {}.",
    "de_AT": "Handy: {}, bitte.", "pl_PL": "Telefon: {}", "it_IT": "Il mio cellulare è {}, grazie.",
    "ru_RU": "Мой телефон {}, звоните.", "tr_TR": "Telefonum {}, arayın.", "nl_NL": "Mijn telefoon is {}.",
    "sv_SE": "Min mobil är {}.", "da_DK": "Min tlf. {}.", "fi_FI": "Puhelin {}.", "no_NO": "Tlf {}",
    "pt_PT": "O meu telemóvel é {}.", "cs_CZ": "Můj telefon je {}.", "hu_HU": "A telefonszám: {}.",
    "uk_UA": "Мій телефон {}.", "el_GR": "Τηλέφωνο {}.", "ro_RO": "Telefonul meu este {}.", "fa_IR": "شماره تلفن {} است",
    "th_TH": "โทรศัพท์ {} ครับ", "id_ID": "Telepon: {}.", "en_AU": "Call me on {}.",
}  # fmt: skip


@pytest.mark.parametrize("number", ["+49 30 1234567", "+33 (0)1 41 63 60 83", "0049 30 1234567", "+1 212 555 0100"])
def test_a_number_of_a_country_has_its_length(number: str) -> None:
    assert e164(number)


@pytest.mark.parametrize("number", ["+49 30", "+999 1234567", "+33 1 23 45 67", "+1 212 555", "+4911111111111111111"])
def test_a_number_of_no_country_or_of_the_wrong_length_is_none(number: str) -> None:
    assert not e164(number)


def test_a_country_is_in_the_table_once() -> None:
    codes = [code for row in LENGTHS.values() for code in row.split()]
    assert len(codes) == len(set(codes)) == len(COUNTRIES)


@pytest.mark.parametrize("text", ["01-02-2003", "012-34-5678", "02139-4307", "082-083-227-067", "2012-0304-05", ""])
def test_days_and_numbers_of_other_kinds_are_no_telephone_numbers(text: str) -> None:
    assert not phone_trunk(text)


@pytest.mark.parametrize("text", ["2024-01-31", "20240131", "20240131123000", "10.20.30.40", "0000000", "123456", "1.2345678"])
def test_words_do_not_make_a_day_or_a_version_a_telephone_number(text: str) -> None:
    assert not phone_context(text)


def test_the_number_ends_where_it_can_and_takes_its_extension_along() -> None:
    text = "(+57) 303 915 00 08 and +90(806)3608377x24, +49 30 1234567 2019 2020"
    assert [text[start:end] for start, end in international(text, text)] == [
        "(+57) 303 915 00 08", "+90(806)3608377x24", "+49 30 1234567",
    ]  # fmt: skip


@pytest.mark.parametrize("locale", sorted(SAID))
def test_nine_in_ten_of_what_faker_makes_are_found_where_words_say_so(locale: str) -> None:
    faker = pytest.importorskip("faker").Faker(locale)
    faker.seed_instance(11)
    found = 0
    for _ in range(100):
        number = faker.phone_number()
        text = SAID[locale].format(number)
        spans = SCANNER.find(text)
        at = text.index(number)
        found += any(span.start <= at + 1 and span.end >= at + len(number) - 1 for span in spans)
        assert all(span.start < at + len(number) and span.end > at for span in spans), text
    assert found >= 90


@pytest.mark.parametrize(
    "line",
    [
        "2024-01-31 12:30:45,123 INFO [worker-12] took 1048576 us, id=1732646647123",
        "GET /api/v1/items/9876543210?ts=1700000000 200 512 0.0123",
        "lat 52.520008, lon 13.404954; commit 9f86d081884c7d65; v10.2.0-rc1",
        "total 1,234,567.89 EUR (2019: 987 654 321)",
        "for i in range(1000000000): x = y + 12345678901",
        "ISBN 978-3-16-148410-0, 0-306-40615-2; CVE-2021-44228; RFC 2119; 550e8400-e29b-41d4-a716-446655440000",
        "zone +4339-07923, UTC+02:00, +0000, 1e+10",
        "Dec 10 06:55:46 LabSZ sshd[24200]: port 38926 ssh2, 173.234.31.186",
    ],
)
def test_logs_and_code_hold_no_telephone_numbers(line: str) -> None:
    assert SCANNER.find(line) == []
