"""Finders for East Asia: Chinese addresses, whose bounds a single pattern cannot tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from gateway_scrub.fold import EAST
from gateway_scrub.tables import words

Place = tuple[int, int]

HAN = "一-鿿"
UNIT = re.compile("[号號栋棟幢室弄]")
NUMBER = r"(?:[0-9]{1,5}(?:-[0-9]{1,4}|[A-Za-z])?|[A-Za-z][0-9]{0,3}|[一二三四五六七八九十百]{1,4}|[甲乙丙丁])"
COUNTED = re.compile(rf"{NUMBER}(?:号楼|号院|号|號|弄|栋|棟|幢|座|单元|單元|室|楼|樓|层|層|房|组|户)")
COUNTED_END = re.compile(rf"{NUMBER}\Z")
"""A number, before its unit."""
MORE = re.compile(rf"(?:[ ,-]?{COUNTED.pattern}){{1,6}}(?:[0-9]{{3,4}}(?![0-9A-Za-z]))?")
BUILDING = re.compile(
    rf"[{HAN}]{{1,10}}?(?:大厦|广场|公寓|花园|小区|中心|大楼|园区|[园苑城汇府湾村座楼])(?:[ ,-]?{COUNTED.pattern}){{1,4}}"
)
LEVEL = re.compile(
    "特别行政区|自治区|自治州|开发区|新区|街道|大道|大街|胡同|小区|社区|花园|公寓|大厦|广场|工业园|科技园|产业园|新村"
    "|[省市区區县縣州盟旗镇鎮乡鄉村路街巷里苑园城庄屯弄]"
)
ROAD = re.compile("(?:路|街|大道|巷|胡同|弄)(?:[东西南北中一二三四五六七八九十]{0,2}[段路里区街])?[东西南北]?\\Z")
HARD = re.compile(rf"[^{HAN}0-9A-Za-z()]")
SOFT = re.compile("住在|家住|位于|在|到|于|往|至|从|是|为|去|寄|送|址|的|我|你|他|她|您|们|请|把|跟|经|住|有|了")
LABEL = re.compile(
    "(?:(?:家庭住址|通[讯信]地址|收货地址|联系地址|收件地址|现住址|居住地址?|户籍地址?|户籍所在地|住所地?|家庭地址|详细地址|住址|家住|现住|现居"
    "|籍贯)(?:为|是|在|于)?[:： ]{0,2}|(?:地址|地點)(?:为|是|在|[:：]) ?)"
)
NO_PLACE = re.compile(
    "(?i)(?:ip|mac|邮箱|郵箱|邮件|电子|网|网络|网页|链接|物理|内存|url|钱包|博客|服务器|下载|仓库|虚拟|寄存器|接口)[a-z]* ?\\Z"
)
VALUE = re.compile(rf"[{HAN}0-9A-Za-z#()·-]{{3,60}}")
NEXT = re.compile("(?:联系)?电话|手机|邮编|联系人|收件人|姓名|身份证|邮箱|微信")


def cn_address(text: str, lower: str) -> Iterator[Place]:
    """Chinese addresses: at least two levels with a number, such as a road and a house; or what a label says is one."""
    if text.isascii() or not EAST.search(text):
        return
    last = 0
    for unit in UNIT.finditer(text):
        if unit.start() < last:
            continue
        number = COUNTED_END.search(text, max(unit.start() - 8, last), unit.start())
        if number is None:
            continue
        begin = _address_start(text, max(number.start() - 45, last), number.start())
        more = MORE.match(text, number.start())
        if begin is None or more is None or text[more.end() : more.end() + 1] in ("线", "線", "文", "机", "选"):
            continue
        levels = len(LEVEL.findall(text, begin, number.start()))
        counted = len(COUNTED.findall(text, number.start(), more.end()))
        road = ROAD.search(text, begin + 1, number.start()) is not None
        if levels + counted > 2 or (road and levels + counted > 1 and number.start() - begin > 2):
            building = BUILDING.match(text, more.end())
            last = building.end() if building else more.end()
            yield begin, last
    for label in LABEL.finditer(text):
        value = VALUE.match(text, label.end())
        if value is None or NO_PLACE.search(text, max(label.start() - 12, 0), label.start()):
            continue
        after = NEXT.search(text, *value.span())
        end = after.start() if after else value.end()
        if end - value.start() > 2 and (
            LEVEL.search(text, value.start() + 1, end) or places().search(text, value.start(), end)
        ):
            yield value.start(), end


def _address_start(text: str, earliest: int, number: int) -> int | None:
    """Where the address begins whose first number is at `number`: at a province or city that is known, or after a word such as
    "at" that comes before one. None when nothing of an address stands there."""
    for match in HARD.finditer(text, earliest, number):
        earliest = match.end()
    if number - earliest < 2:
        return None
    known = places().search(text, earliest, number)
    if known is not None:
        return known.start()
    starts = [earliest, *(match.end() for match in SOFT.finditer(text, earliest, number))]
    for start in reversed(starts):
        if LEVEL.search(text, start + 1, number):
            return start
    return None


@lru_cache(maxsize=1)
def places() -> re.Pattern[str]:
    """The provinces and prefectures of China."""
    return re.compile("|".join(sorted(words("places_cn", "places"), key=len, reverse=True)))


ASIA = {"cn_address": cn_address}
