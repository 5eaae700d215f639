"""What a need rules out and why: a table of every model, each policy's score, and each refusal."""

from gateway import Chat, Gateway, Need, NoEligibleModel, Price
from gateway.testing import Echo

MODELS = [
    Echo("pocket", params=2_000_000, quality=0.2),
    Echo("house", place="host", params=8_000_000_000, quality=0.6, per_token_s=0.02),
    Echo("cloud", place="hosted", quality=0.95, price=Price(input=3.0, output=15.0), per_token_s=0.01),
]

with Gateway(MODELS) as gw:
    question = Chat.ask("Summarise this contract: ...", max_tokens=200)
    print(gw.explain(question))
    print()
    print(gw.explain(question, Need(place="local", max_params=1e9)))
    print()
    try:
        gw.run(question, Need(place="local", min_quality=0.9))
    except NoEligibleModel as error:
        print(error)
