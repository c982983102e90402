"""Text encoders: the encoder of a T5 model, or a BERT/RoBERTa-style model, with its own tokenizer.

Lengths are known from the tokenizer alone, so that the plan can fix every offset before a weight is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xxhash

from ...cache.errors import UserError
from ..decode import DecodeError, decode_text, readable
from ..decode.text import ENCODINGS
from ..media import Media
from .base import Batch, FrozenEncoder

# Tokenizers without a limit of their own report a number near 1e30.
LONGEST = 512
# Characters that reach the tokenizer, which reads a text to its end however few tokens are kept: 2,000 for each.
LONGEST_TEXT = 2_000 * LONGEST


class TextEncoder(FrozenEncoder):
    """Token ids (B, S) with their attention mask -> (B, S, D)."""

    version = 1

    def __init__(self, *args: Any, tokenizer: Any, family: str, **kwargs: Any) -> None:
        self.tokenizer = tokenizer
        self.has_cls = family == "bert"
        super().__init__(*args, **kwargs)
        if family == "t5" and self.spec.compute == "float16":
            raise UserError(
                f"--dtype float16: {self.name} is a T5 model, and T5's activations overflow float16. "
                "Use bfloat16 or float32."
            )
        own_limit = int(min(tokenizer.model_max_length, LONGEST))
        self.max_tokens = min(self.spec.max_tokens, own_limit) if self.spec.max_tokens else own_limit

    def decode(self, media: Media) -> str:
        return decode_text(media.read())[:LONGEST_TEXT]

    def raw_length(self, media: Media) -> int:
        return len(self._tokenize([self.decode(media)])["input_ids"][0])

    def measure(self, media: Sequence[Media]) -> list[int | DecodeError]:
        # One call for all texts: fast tokenizers cost more to enter than to run.
        texts: list[str] = []
        failures: dict[int, DecodeError] = {}
        for place, item in enumerate(media):
            try:
                texts.append(self.decode(item))
            except Exception as error:
                failures[place] = readable(error)
        counts = iter(len(ids) for ids in self._tokenize(texts)["input_ids"]) if texts else iter(())
        return [failures[i] if i in failures else self.pooled_length(next(counts)) for i in range(len(media))]

    def collate(self, items: Sequence[Any]) -> Batch:
        batch = self._tokenize(list(items), padding=True, return_tensors="pt")
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}

    def _tokenize(self, texts: list[str], **options: Any) -> Any:
        return self.tokenizer(texts, truncation=True, max_length=self.max_tokens, **options)

    def processing(self) -> Mapping[str, Any]:
        return {
            "processor": type(self.tokenizer).__name__,
            "processor_digest": digest_tokenizer(self.tokenizer),
            "max_tokens": self.max_tokens,
            "decode": {"encodings": list(ENCODINGS)},
        }


def digest_tokenizer(tokenizer: Any) -> str:
    """Content hash of what a tokenizer does: its own serialisation where it is a fast one, else class and
    vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Truncation and padding are call options; the library writes the last used ones into the serialisation.
        backend.no_truncation()
        backend.no_padding()
        text = backend.to_str()
    else:
        text = f"{type(tokenizer).__name__} {sorted(tokenizer.get_vocab().items())}"
    return xxhash.xxh3_128_hexdigest(text.encode())
