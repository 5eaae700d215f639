"""gateway-scrub: personal data and secrets out of requests before they leave this machine, and back in the answers.

spans       what was found where, and which of overlapping finds stay
"""

from gateway_scrub.spans import Span

__all__ = ["Span"]
