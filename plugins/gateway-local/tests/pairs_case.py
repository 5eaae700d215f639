"""Tiny encoder-decoders with random weights, and what transformers' own generate makes of a text with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXT = ["the cat sat on the mat and the dog ran to the river", "a river runs to the sea and the sea is wide",
        "summarize: translate English to German: French:"] * 4  # fmt: skip
INPUT = "the cat sat on the river"
TOKENS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
NUMBERS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
SHAPE: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64, "init_std": 0.4, "tie_word_embeddings": False,
    "forced_eos_token_id": None, **NUMBERS,
}  # fmt: skip
T5: dict[str, Any] = {
    "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "n_positions": 48, "initializer_factor": 2.5,
    "tie_word_embeddings": False,
    "eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 1,
}  # fmt: skip
ASKED = {
    "summarization": {"prefix": "summarize: ", "max_length": 30, "min_length": 6, "num_beams": 3, "no_repeat_ngram_size": 3},
    "translation_en_to_de": {"prefix": "translate English to German: ", "max_length": 20},
    "translation_en_to_fr": {"prefix": "translate English to French: ", "max_length": 20, "num_beams": 2},
}


def save_tokenizer(folder: Path, frame: str, *, extra: tuple[str, ...] = (), **config: Any) -> int:
    """A byte-level BPE tokenizer that puts a frame around its texts. Its vocabulary size."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = list(TOKENS.values())
    core.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=90, special_tokens=special, show_progress=False))
    core.add_special_tokens([AddedToken(token, special=True) for token in extra])
    core.post_processor = processors.TemplateProcessing(single=frame, special_tokens=[("<s>", 0), ("</s>", 2)])
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**TOKENS, **config}))
    return int(core.get_vocab_size())


def save_model(folder: Path, kind: str, vocabulary: int, **changes: Any) -> Path:
    """A tiny encoder-decoder with random weights, beside a tokenizer."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    make: Any = {
        "t5": lambda own: t.T5ForConditionalGeneration(t.T5Config(**{**T5, **own})),
        "bart": lambda own: t.BartForConditionalGeneration(t.BartConfig(**{**SHAPE, "forced_eos_token_id": 2, **own})),
        "pegasus": lambda own: t.PegasusForConditionalGeneration(t.PegasusConfig(**{**SHAPE, **own})),
        "marian": lambda own: t.MarianMTModel(
            t.MarianConfig(**{**SHAPE, "decoder_vocab_size": vocabulary, "share_encoder_decoder_embeddings": True, **own})
        ),
        "m2m": lambda own: t.M2M100ForConditionalGeneration(t.M2M100Config(**{**SHAPE, **own})),
        "mbart": lambda own: t.MBartForConditionalGeneration(t.MBartConfig(**{**SHAPE, **own})),
    }
    made = make[kind]({"vocab_size": vocabulary, **changes})
    made.generation_config.decoder_start_token_id = made.config.decoder_start_token_id
    made.eval().save_pretrained(folder)
    return folder


def generation(path: Path, out: Path, **changes: Any) -> Path:
    """A copy of a model whose generation_config.json says something else."""
    copy = shutil.copytree(path, out)
    file = copy / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return Path(copy)


def library_tokenizer(core: Tokenizer) -> Any:
    """A core as a tokenizer of transformers."""
    import transformers

    library: Any = transformers
    return library.PreTrainedTokenizerFast(tokenizer_object=core, **TOKENS)


def generated(path: Path, text: str, *, seed: int = 0, **settings: Any) -> tuple[str, list[int]]:
    """What transformers' own generate makes of a text, and its tokens."""
    tokenizer = library_tokenizer(Tokenizer.from_file(str(path / "tokenizer.json")))
    return written(path, tokenizer(text, return_tensors="pt").input_ids, tokenizer, seed=seed, **settings)


def written(path: Path, ids: Any, tokenizer: Any, *, seed: int = 0, **settings: Any) -> tuple[str, list[int]]:
    """What transformers' own generate makes of tokens."""
    import torch
    import transformers

    model: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(path)
    torch.manual_seed(seed)
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, 1:].tolist()
    return str(tokenizer.decode(out, skip_special_tokens=True, clean_up_tokenization_spaces=False)), out
