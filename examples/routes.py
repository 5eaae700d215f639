"""Three models, one file of routes: who answers what, why, who is next; a route that nobody can serve is refused."""

import tomllib

from gateway import Chat, ConfigError, Gateway, GatewayConfig, Meta, Need, Price, parse_config
from gateway.testing import Echo

ROUTES = """
[route.careful]
description = "answers that leave the house, read by a lawyer before"
min_quality = 0.9

[route.quick]
description = "somebody is waiting at the screen"
max_first_token_s = 1.0
max_cost_usd = 0.002
match = { task = "chat", max_input_tokens = 2000, tenant = "helpdesk" }

[route.inside]
description = "personal data stays on our machines"
place = "local"
match = { data_class = "personal" }
"""
MODELS = [
    Echo("big", place="hosted", quality=0.95, price=Price(input=3.0, output=15.0), first_token_s=0.9, per_token_s=0.015),
    Echo("small", place="hosted", quality=0.7, price=Price(input=0.1, output=0.4), first_token_s=0.3, per_token_s=0.004),
    Echo("house", place="host", quality=0.6, params=8_000_000_000, first_token_s=0.2, per_token_s=0.02),
]

with Gateway(MODELS, config=parse_config(GatewayConfig, tomllib.loads(ROUTES), "")) as gw:
    question = Chat.ask("Summarise this contract: ...", max_tokens=300)
    print(gw.explain(question, Need(route="careful")), end="\n\n\n")
    print(gw.explain(question, meta=Meta(tenant="helpdesk")), end="\n\n\n")
    print(gw.explain(question, meta=Meta(data_class="personal")), end="\n\n\n")
    print(gw.explain(question))
try:
    Gateway(MODELS, config=parse_config(GatewayConfig, {"route": {"secret": {"place": "process"}}}, ""))
except ConfigError as error:
    print(f"\n\n{error}")
