"""How long to wait, in every form in which a server writes it."""

import time
from collections.abc import Iterator

import pytest
from gateway_remote.waits import wait_s
from hypothesis import given
from hypothesis import strategies as st

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the date in RFC 9110
LATER = 1_767_225_600.0


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own time is not UTC."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "date",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "1994-11-06T08:49:37Z",
        "1994-11-06T09:49:37.000+01:00",
        "1994-11-06 08:49:37",
    ],
)
def test_every_form_of_a_date_is_read_as_utc_wherever_this_machine_is(date: str, elsewhere: None) -> None:
    assert wait_s(date, NOW - 40) == 40.0
    assert wait_s(date, NOW + 40) == 0.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("7.66", 7.66), (" 3 ", 3.0), (".5", 0.5), ("2.", 2.0),
        ("1s", 1.0), ("6m0s", 360.0), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("1d", 86400.0), ("5us", 5e-6),
        (f"{LATER + 3:.0f}", 3.0), (f"{(LATER + 3) * 1000:.0f}", 3.0), (f"{LATER - 3:.0f}", 0.0),
    ],
)  # fmt: skip
def test_numbers_durations_and_times_since_the_epoch_are_read(text: str, seconds: float) -> None:
    assert wait_s(text, LATER) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "-0.5", "+1", "nan", "inf", "1e400", "1e3", "1_0", "soon", "5 minutes", "1m2", "٣", "4e8", "999999999", "400d",
     "Sun, 32 Nov 1994 08:49:37 GMT", "9999-12-31T23:59:59Z", "1994-13-06T08:49:37Z", "s", "1" * 65],
)  # fmt: skip
def test_what_is_no_wait_or_an_absurd_one_is_none(text: str) -> None:
    assert wait_s(text, NOW) is None


@given(st.text(max_size=70) | st.from_regex(r"[0-9.]{1,20}(s|ms|m|h|d)?[0-9]{0,3}", fullmatch=True), st.floats(0, 1e11))
def test_no_text_upsets_it_and_no_wait_is_negative_or_without_end(text: str, now_s: float) -> None:
    found = wait_s(text, now_s)
    assert found is None or 0 <= found <= 366 * 86400
