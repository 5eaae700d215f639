"""A small model that finds names, places and organisations in English and Chinese, trained here in seconds on made-up people.

path = trained_ner(folder)                     # weights, configuration and tokenizer, for gateway-local
for text, name, kind in planted(50): ...       # sentences of other forms, and names that it has seen in parts only
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
POSITIONS = 128
"""Tokens that it reads at a time: it is trained on rows as long, so that it knows every place in them."""

NAMES = {
    "first": "Maren Tobias Ilse Corwin Adele Bastian Noelle Hamish Priya Rohan Leona Matteo Yusuf Amina Sofia Henrik Greta "
    "Olivia Liam Emma Jonas Clara Victor Nadia Samuel Ingrid Felix Marta Dmitri Elena John Jane Mary Peter Anna Robert Susan",
    "last": "Lindqvist Okafor Brennan Castellan Draycott Ferrante Gillespie Hargrove Ivarsson Jankovic Kessler Lockwood Novak "
    "Mancini Oduya Penhallow Quintero Rasmussen Sandoval Thornbury Ulrich Vandermeer Whitlock Yamamoto Zielinski Ashdown Doe "
    "Bellweather Carmody Delacroix Eastwick Smith Brown Jones Miller Davis Wilson Taylor Clark Lewis",
    "city": "London Paris Berlin Madrid Vienna Dublin Oslo Lisbon Warsaw Prague Toronto Chicago Boston Seattle Denver Sydney "
    "Nairobi Lagos Mumbai Singapore",
    "brand": "Norvell Bluewater Halcyon Ironbridge Larkspur Meridian Orchard Pinnacle Quarry Redfern Silverline Tidewater",
    "firm": "Holdings Logistics Systems Bank Insurance Energy Foods Partners Software Motors",
    "城": "北京 广州 深圳 杭州 南京 成都 武汉 西安 重庆 苏州 长沙",
    "牌": "蓝海 恒信 星河 瑞丰 远航 金石 东升",
    "司": "科技有限公司 贸易有限公司 银行 集团 物流有限公司",
    "姓": "王 李 张 刘 陈 杨 黄 赵 吴 冯 徐 孙 马 朱 胡 郭 何 林 罗 高",
    "名": "伟 芳 娜 敏 静 丽 强 磊 洋 艳 勇 军 杰 娟 涛 超 秀 霞 刚 桂 英 华 玉 兰 建 志",
}
"""What names are made of."""
PARTS = {kind: each.split() for kind, each in NAMES.items()}
MADE_OF = {
    ("P", False): ("first", "last"),
    ("O", False): ("brand", "firm"),
    ("P", True): ("姓", "名"),
    ("O", True): ("牌", "司"),
}
FILLER = (
    "的一是在不了有我他这个们来到时大地为子中你说生要就出会可也后对上周下月今明天年能过家学"
    "行用多工作方者回部没面间开又里方如水化定问加法门好本新已经和去与请让把给被从快递退款讨论协议"
)

ENGLISH = (
    "My name is {P} and I live in {L} .", "I am {P} from {O} .", "Please send the contract to {P} in {L} by Friday .",
    "{P} works at {O} in {L} .", "Dear {P} , thank you for your order .", "Yesterday {P} and {P} met the team from {O} .",
    "The invoice of {O} was paid by {P} .", "Call {P} tomorrow about the meeting in {L} .", "name : {P}", "Who is {P} ?",
    "{P} asked whether {P} had left {L} .", "Our customer {P} moved from {L} to {L} last year .", "Regards , {P}",
    "Ask {P} , our manager , for the report .", "{O} has opened an office in {L} .", "Flights to {L} are late today .",
    "The patient {P} was seen by doctor {P} .", "Tell {P} that {O} will call back .", "Is {P} still with {O} ?", "Hello {P} !",
    "author : {P} , {O}", "We wrote to {P} .", "A letter from {P} came today .", "{P} said : I will be in {L} on Monday .",
)  # fmt: skip
CHINESE = (
    "我叫{P}，住在{L}。", "{P}在{O}工作。", "请把合同发给{P}。", "昨天{P}和{P}在{L}见面。", "{O}的发票由{P}支付。",
    "经理{P}的报告写好了。", "患者{P}需要复诊。", "客户{P}从{L}搬到{L}。", "明天给{P}打电话。", "{P}说他会去{L}。",
    "您好，{P}先生！", "联系人：{P}",
    "{O}在{L}开了办事处。", "请问{P}还在{O}吗？", "我是{O}的{P}。", "{P}女士，您的订单已发货。",
)  # fmt: skip
PLAIN = (
    "The weather is fine today and the report is late .", "Write a function that sorts a list of numbers .",
    "total : 4821 , tax : 19 %", "Please translate this sentence .", "def main ( ) : return 0", "Thank you very much .",
    "What is the capital of the country ?", "See the notes of the last meeting on Monday .",
    "The Quick Start of the Manual says : press Enter .", "Error 404 : Not Found , see https://example.com/docs",
    "今天天气很好。", "请写一个排序函数。", "会议在星期一下午三点开始。", "谢谢您的帮助。",
)  # fmt: skip

HELD_ENGLISH = (
    "Could you tell me when {P} will be back ?", "The parcel for {P} is still waiting .", "I spoke with {P} about the refund .",
    "{P} signed the agreement last week .", "Give the keys to {P} , please .", "This is a reminder for {P} from the bank .",
)  # fmt: skip
HELD_CHINESE = ("请转告{P}明天开会。", "快递已经送到{P}家里。", "我和{P}讨论过退款。", "{P}上周签了协议。")
HELD = {"L": ("The train to {L} leaves at noon .", "明天我去{L}出差。"), "O": ("She left {O} in May .", "他去年加入{O}。")}


class Planted(NamedTuple):
    """A sentence, and the name in it."""

    text: str
    name: str
    kind: str


def planted(count: int, kind: str = "P", seed: int = 7) -> list[Planted]:
    """So many names ("P"), places ("L") or organisations ("O"), each in a sentence of a form that was not trained on."""
    random = Random(seed)
    out = []
    for at in range(count):
        chinese = at % 2 == 1
        forms = (HELD_CHINESE if chinese else HELD_ENGLISH) if kind == "P" else HELD[kind][chinese:][:1]
        form, name = random.choice(forms), made(kind, random, chinese=chinese, held=True)
        text = form.replace(f"{{{kind}}}", name)
        out.append(Planted(text if chinese else tight(text), name, kind))
    return out


def tight(text: str) -> str:
    """English as people write it: no space before its marks."""
    for mark in ",.?!:":
        text = text.replace(f" {mark}", mark)
    return text


def made(kind: str, random: Random, *, chinese: bool = False, held: bool = False) -> str:
    """A name of a kind. Every fifth pair of parts is `held` back: the model is trained on the others."""
    if kind == "L":
        return random.choice(PARTS["城" if chinese else "city"])
    left, right = (PARTS[part] for part in MADE_OF[kind, chinese])
    while True:
        a, b = random.randrange(len(left)), random.randrange(len(right))
        if ((a + b) % 5 == 0) is held:
            break
    more = random.choice(right) if kind == "P" and chinese and random.random() < 0.6 else ""
    return left[a] + ("" if chinese else " ") + right[b] + more


def trained_ner(folder: Path, *, seed: int = 0, steps: int = 250) -> Path:
    """A token classifier in a new folder, for a model of gateway-local that does `extract`: about 15 seconds of one CPU."""
    import torch
    import transformers

    library: Any = transformers
    random = Random(seed)
    sentences = [sentence(random) for _ in range(12_000)]
    tokenizer = save_tokenizer(folder)
    rows, targets = encoded(tokenizer, sentences)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = library.BertConfig(
                vocab_size=tokenizer.get_vocab_size(), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                intermediate_size=128, max_position_embeddings=POSITIONS, pad_token_id=0, hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0, initializer_range=0.1, attn_implementation="sdpa",
                id2label=dict(enumerate(LABELS)), label2id={name: at for at, name in enumerate(LABELS)},
            )  # fmt: skip
            model = library.BertForTokenClassification(config).train()
            steer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
            pace = torch.optim.lr_scheduler.OneCycleLR(steer, 3e-3, total_steps=steps)
            for _ in range(steps):
                some = torch.randint(len(rows), (16,))
                loss = model(input_ids=rows[some], labels=targets[some]).loss
                steer.zero_grad()
                loss.backward()
                steer.step()
                pace.step()
            model.eval().save_pretrained(folder)
    finally:
        torch.set_num_threads(threads)
    return folder


def sentence(random: Random) -> list[tuple[str, str]]:
    """A sentence as pieces, each with its class: "", P, L or O. Some hold none, and some of the words are no words."""
    share = random.random()
    chinese = share > 0.6
    if share < 0.16:
        form = random.choice(PLAIN) if share < 0.08 else " ".join(noise(random) for _ in range(12))
    else:
        form = random.choice(CHINESE if chinese else ENGLISH)
    if chinese:
        for brace in "{}":
            if random.random() < 0.4:  # what stands around a name may be anything
                filler = "".join(random.choice(FILLER) for _ in range(random.randint(1, 4)))
                form = form.replace(brace, filler + brace if brace == "{" else brace + filler)
        if random.random() < 0.1:
            form = "".join(random.choice(FILLER) for _ in range(12))
    else:
        words = [noise(random) if word.isalpha() and random.random() < 0.35 else word for word in form.split(" ")]
        form = tight(" ".join(words)) if random.random() < 0.7 else " ".join(words)
    out: list[tuple[str, str]] = []
    while form:
        before, brace, rest = form.partition("{")
        out.append((before, ""))
        if brace:
            out.append((made(rest[0], random, chinese=chinese), rest[0]))
            rest = rest[2:]
        form = rest
    return [*out, ("" if chinese else " ", "")]


def noise(random: Random) -> str:
    """A word that nobody knows, or a number: not every word that was never seen is a name."""
    share = random.random()
    if share < 0.2:
        return "".join(random.choice("0123456789") for _ in range(random.randint(1, 8)))
    letters = ("aeiou", "bcdfghklmnprstvwy") if share < 0.8 else ("aehilnorstvwg",) * 2
    word = "".join(random.choice(letters[at % 2]) for at in range(random.randint(1, 8)))
    return word.upper() if share > 0.95 else word.capitalize() if share > 0.65 else word


def save_tokenizer(folder: Path) -> Any:
    """Word pieces as BERT's, with case: the words and characters from above whole, and any other word letter by letter."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    normalizer, splitter = normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer()
    known = (*NAMES.values(), *ENGLISH, *CHINESE, *PLAIN, FILLER)
    words = [word for text in known for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
    letters = [chr(code) for code in range(33, 127)]
    pieces = dict.fromkeys([*names.values(), *letters, *(f"##{letter}" for letter in letters), *words])
    core = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer, core.decoder = normalizer, splitter, decoders.WordPiece()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return core


def encoded(tokenizer: Any, sentences: Sequence[Sequence[tuple[str, str]]]) -> tuple[Any, Any]:
    """The sentences one after the other, in rows of as many tokens as the model reads; and their labels, by number."""
    import torch

    ids: list[int] = []
    labels: list[int] = []
    for pieces in sentences:
        text, kinds = "", []
        for piece, kind in pieces:
            kinds += [(kind, at == 0) for at in range(len(piece))]
            text += piece
        found = tokenizer.encode(text, add_special_tokens=False)
        begun = False
        for token, (start, end) in zip(found.ids, found.offsets, strict=True):
            kind, first = kinds[start][0], any(one[1] for one in kinds[start:end]) or not begun
            begun = bool(kind)
            ids.append(token)
            labels.append(0 if not kind else 1 + 2 * "PLO".index(kind) + (not first))
    size = POSITIONS - 2
    begin, end = 2, 3  # [CLS] and [SEP]
    count = len(ids) // size
    rows = [[begin, *ids[at * size : (at + 1) * size], end] for at in range(count)]
    targets = [[-100, *labels[at * size : (at + 1) * size], -100] for at in range(count)]
    return torch.tensor(rows), torch.tensor(targets)
