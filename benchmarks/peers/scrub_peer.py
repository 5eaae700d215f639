"""One library that finds personal data, asked and timed. Run by the peers' own interpreter: see benchmarks/scrub.py.

    .venv-bench/bin/python scrub_peer.py presidio|scrubadub

Reads jobs from standard input, a line of JSON each. {"job": "find", "texts": [...]} is answered with a list per text of
[start, end, type, score], by the library's own names, overlapping ones too; {"job": "time", "texts": [...]} with the seconds of
process time that finding took.

Presidio runs as it comes, in English, with all it finds (its threshold is 0), but with no trained model of a language: those
cannot be had from a package registry. A blank spaCy pipeline cuts the words, so that its words of context still count, in the
form that they stand in. What it knows of domains is what tldextract ships: nothing is fetched. scrubadub runs as it comes.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Hit = tuple[int, int, str, float]
Find = Callable[[str], list[Hit]]


def presidio() -> Find:
    """Its analyser, with the recognisers that it loads by default."""
    import spacy
    import tldextract  # type: ignore[import-not-found]
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SlimSpacyNlpEngine
    from spacy.language import Language

    @Language.component("as_it_stands")  # type: ignore[untyped-decorator]
    def as_it_stands(doc: Any) -> Any:
        for token in doc:
            token.lemma_ = token.lower_
        return doc

    class Blank(SlimSpacyNlpEngine):  # type: ignore[misc]
        def load(self) -> None:
            pipeline = spacy.blank("en")
            pipeline.add_pipe("as_it_stands")
            pipeline.max_length = 1 << 30
            self.nlp = {"en": pipeline}

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    engine = Blank()
    engine.load()
    registry = RecognizerRegistry(supported_languages=["en"])
    registry.load_predefined_recognizers(languages=["en"])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])

    def find(text: str) -> list[Hit]:
        return [(hit.start, hit.end, hit.entity_type, hit.score) for hit in analyzer.analyze(text, language="en")]

    return find


def scrubadub() -> Find:
    """Its scrubber, with the detectors that it loads by default."""
    import scrubadub as library  # type: ignore[import-not-found]

    scrubber = library.Scrubber()

    def find(text: str) -> list[Hit]:
        out: list[Hit] = []
        for filth in scrubber.iter_filth(text):
            parts = getattr(filth, "filths", None) or [filth]
            out += [(part.beg, part.end, part.type, 1.0) for part in parts]
        return out

    return find


def main() -> None:
    """Serve jobs until there are no more."""
    logging.disable(logging.WARNING)
    find = {"presidio": presidio, "scrubadub": scrubadub}[sys.argv[1]]()
    find("Call 020 7946 0958 or mail jo@example.com.")
    print("ready", flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        if given["job"] == "find":
            print(json.dumps([find(text) for text in given["texts"]]), flush=True)
        else:
            began = time.process_time()
            for text in given["texts"]:
                find(text)
            print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
