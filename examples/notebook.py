"""As in a notebook: an event loop is running already, and Gateway works all the same, cell by cell, without await."""

import asyncio

from gateway import Chat, Gateway, Need
from gateway.testing import Echo


async def cells() -> None:
    """Jupyter runs each cell inside a running loop, as here."""
    gw = Gateway([Echo("a"), Echo("b", place="hosted")])
    print(gw.chat("hello").text)
    table = gw.explain(Chat.ask("hello"), Need(place="local"))
    print(table._repr_html_()[:60], "...")  # what a notebook shows for a cell that ends with `table`
    gw.close()


asyncio.run(cells())
