"""gateway-local: Transformer models in this process, on GPU or CPU, from safetensors weights.

options, hub                what a row may say; weights of the Hugging Face hub
facts, heads                what a model is, from its headers and small files alone
sizes, speed, probe         what a token needs; how fast this machine is, and so the model; measuring it
tokens, build, load         a tokenizer; a model of whose weights each is accounted for; both, read
owner                       the one thread that may touch a loaded model, and who waits for it
answer, render, decode      a decoder's answers: chat templates, and one token after the other
text, shape                 tokens to text, and stop strings; answers that fit a JSON Schema
encodes, encoder, batcher   an encoder's tasks; its batches; which texts go into one
embed, spans                vectors of texts; tokens to spans of characters
service, hooks, starter     all of it together; what the gateway finds; a model that needs no download
"""

from gateway_local.service import LocalModel

__all__ = ["LocalModel"]
