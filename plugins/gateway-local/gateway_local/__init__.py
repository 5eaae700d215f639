"""gateway-local: Transformer models in this process, on GPU or CPU, from safetensors weights.

options, hub                what a row may say; weights of the Hugging Face hub
facts, heads, seq2seq       what a model is, from its headers and small files alone
sizes, speed, probe         what a token needs; how fast this machine is, and so the model; measuring it
tokens, build, load         a tokenizer; a model of whose weights each is accounted for; both, read
owner                       the one thread that may touch a loaded model, and who waits for it
copies, keeper              the loaded copies of a model, which come and go; which models are in memory together
answer                      a decoder's tasks: prompts of requests, responses
decoder, passes, attend     all answers at once, a token each at a time: who is in a pass; the pass; its attention
slots                       where the keys and values of all the texts lie
writer, picking             one answer: how a token is picked, and what becomes of it
template, render            what a chat template reads; messages, tools and options as it takes them
syntax                      how families of models write tool calls and thoughts
reply, harmony, written     a model's text as text, thoughts and tool calls, piece by piece
text, shape                 tokens to text, and stop strings; answers that fit a JSON Schema
encodes, encoder, batcher   an encoder's tasks; its batches; which texts go into one
rewrite, languages          an encoder-decoder's tasks; how a translation is asked for
embed, spans                vectors of texts; tokens to spans of characters
service, hooks, starter     all of it together; what the gateway finds; a model that needs no download
"""

from gateway_local.service import LocalModel

__all__ = ["LocalModel"]
