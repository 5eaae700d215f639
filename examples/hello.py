"""The smallest app: whatever is installed answers. With gateway-local that is its starter model, offline and free."""

from gateway import Gateway

with Gateway.discover() as gw:
    reply = gw.chat("Good morrow, sir. What news?", max_tokens=60, seed=7)
    print(reply.text)
    print(f"-- {reply.model}, {reply.usage.output_tokens} tokens, {reply.usage.cost_usd} USD")
