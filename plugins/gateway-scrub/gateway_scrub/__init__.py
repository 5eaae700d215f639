"""gateway-scrub: personal data and secrets out of requests before they leave this machine, and back in the answers.

spans             what was found where, and which of overlapping finds stay
scrubber, values  the same without a gateway: texts, messages; JSON values; frames: pandas
commands, view    `gateway scrub`, and what it shows; stretches, json_stream: files of any size, as text and as JSON
"""

from gateway_scrub.scrubber import Blocked, Scrubber
from gateway_scrub.spans import Span

__all__ = ["Blocked", "Scrubber", "Span"]
