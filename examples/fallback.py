"""When the best model fails, the next one that the policies allow answers; the trace tells what happened and what it cost."""

from gateway import Gateway, Meta, Overloaded
from gateway.testing import Echo, Scripted

best = Scripted("best", otherwise=Overloaded("no room"), quality=0.9)
spare = Echo("spare", quality=0.5)

with Gateway([best, spare]) as gw:
    reply = gw.chat("Is anybody there?", meta=Meta(deadline_s=5.0))
    print(reply.text)
    print(reply.trace)
