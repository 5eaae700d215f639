"""A whole plugin in one file. As a package it needs one entry point: `[project.entry-points.gateway] shout = "shout"`."""

from gateway import Chat, ChatResponse, ModelCard, ModelService, UnsupportedTask, hookimpl


class Shout(ModelService):
    """Answers in capitals."""

    card = ModelCard(name="shout", tasks=frozenset({Chat}), context=8192)

    async def run(self, request, /):
        match request:
            case Chat(messages=[*_, last]):
                return ChatResponse.of(last.text.upper())
        raise UnsupportedTask.of(self.card, request)


@hookimpl
def gateway_models(config):
    """The models of this plugin; `config` is [plugin.shout] of gateway.toml."""
    return [Shout()]


if __name__ == "__main__":
    from gateway import Gateway

    with Gateway(gateway_models({})) as gw:
        print(gw.chat("hello").text)
