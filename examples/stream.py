"""An answer as it comes. Leaving the `with` early stops the model; the whole response is there at the end."""

from gateway import Gateway, Generate

with (
    Gateway.discover() as gw,
    gw.stream(Generate(prompt="JULIET:\nO Romeo,", max_tokens=80, temperature=0.7, seed=3)) as story,
):
    for delta in story:
        print(delta.text, end="", flush=True)
    print(f"\n-- {story.response.finish}, first token after {story.response.trace.first_token_s:.3f} s")
