"""gateway-scrub: personal data and secrets out of requests before they leave this machine, and back in the answers.

spans, errors           what was found where, and which of overlapping finds stay; ScrubError
fold, words             text as it is searched; words that speak for a find
rules, finders, scan    rules as data (rules/*.toml); what needs more than a pattern; the scanner over them
validators, checks_*    check digits and the like; phones, digits, finders_asia, tables: more of both
names, names_*          names by context
model, presidio         names by a model of the gateway; Microsoft Presidio
walk, escapes, across   every text of a request; what escapes hide; what lies across two parts
detect                  all detectors together, each text looked at once
tokens, restore         placeholders, and finding them again in texts and streams
conversation(s)         what stands for what; surrogate: made-up values; state_file: kept on disk, encrypted
options, build          what [plugin.scrub] may say; a scrubber of it
transform, hooks        what a gateway does with it; what it finds
scrubber, values        the same without a gateway: texts, messages; JSON values; frames: pandas
commands, view          `gateway scrub`, and what it shows; stretches, json_stream: files of any size, as text and as JSON
"""

from gateway_scrub.rules import Rule
from gateway_scrub.scrubber import Blocked, Scrubber
from gateway_scrub.spans import Span

__all__ = ["Blocked", "Rule", "Scrubber", "Span"]
