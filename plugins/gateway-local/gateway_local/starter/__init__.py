"""The starter model: a small Llama that writes the next speech of a play, so that all works offline."""

from pathlib import Path

PATH: Path = Path(__file__).resolve().parent / "model"
"""The directory to load: configuration, tokenizer and weights in the layout of Hugging Face."""
