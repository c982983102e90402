"""Text encoders: the encoder of a T5 model, BERT-like models, decoders such as Llama and Qwen, with their own
tokenizer.

Lengths are known from the tokenizer alone. Padding stands right of the text whatever the tokenizer would do: a
decoder's tokens then see exactly the text before them. A decoder's tokenizer may make nothing of an empty text; it then
has one token, the tokenizer's end or padding mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xxhash
from torch import Tensor

from ...cache.errors import UserError
from ..decode import decode_text
from ..decode.text import ENCODINGS
from ..media import Media
from .base import Batch, FrozenEncoder
from .sentence import SentenceRule

# Tokens of a text unless --max-tokens asks for more; tokenizers without a limit of their own report one near 1e30.
LONGEST = 512
# Characters that reach the tokenizer, which reads a text to its end however few tokens are kept: 200 for each.
LONGEST_TEXT = 200 * LONGEST


class TextEncoder(FrozenEncoder):
    """Token ids (B, S) with their attention mask -> (B, S, D).

    sentence: the checkpoint's rule for `--pool sentence`. limit: its own limit of tokens beside the tokenizer's.
    prompt: what stands before every text.
    """

    version = 2  # 1: bits in bfloat16 on a CPU depended on how full the batch was
    medium = "text"

    def __init__(
        self,
        *args: Any,
        tokenizer: Any,
        sentence: SentenceRule | None = None,
        limit: int | None = None,
        prompt: str = "",
        **kwargs: Any,
    ) -> None:
        self.tokenizer = tokenizer
        self.sentence = sentence
        self.prompt = prompt
        self.has_cls = tokenizer.cls_token is not None
        super().__init__(*args, **kwargs)
        if "t5" in self.config.model_type and self.spec.compute == "float16":
            raise UserError(
                f"--dtype float16: {self.name} is a T5 model, and T5's activations overflow float16. "
                "Use bfloat16 or float32."
            )
        self.max_tokens = int(min(tokenizer.model_max_length, limit or LONGEST, self.spec.max_tokens or LONGEST))
        marks = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.padding = int(next(mark for mark in marks if mark is not None))
        self.blank = int(next(mark for mark in (marks[1], marks[0], 0) if mark is not None))

    @property
    def dim(self) -> int:
        """Width D of a token, or of a text's one vector."""
        return (self.sentence and self.sentence.dim) or int(self.config.hidden_size)

    def decode(self, media: Media) -> str:
        return decode_text(media.read())[:LONGEST_TEXT]

    def prepare(self, items: Sequence[Any]) -> list[list[int]]:
        """Token ids of each text, in one call: fast tokenizers cost more to enter than to run."""
        return self._tokenize(list(items)) if items else []

    def lengths(self, items: Sequence[Any]) -> list[int]:
        return [len(ids) for ids in self._ids(items)]

    def collate(self, items: Sequence[Any]) -> Batch:
        texts = self._ids(items)
        longest = max(map(len, texts))
        ids = torch.tensor([text + [self.padding] * (longest - len(text)) for text in texts])
        mask = (torch.arange(longest) < torch.tensor([[len(text)] for text in texts])).long()
        return {"input_ids": ids, "attention_mask": mask}

    def _ids(self, items: Sequence[Any]) -> list[list[int]]:
        """Token ids of texts, all of them prepared or none."""
        return self.prepare(items) if items and isinstance(items[0], str) else list(items)

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        texts = [self.prompt + text for text in texts] if self.prompt else texts
        found = self.tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"]
        return [ids or [self.blank] for ids in found]

    def pool(self, tokens: Tensor) -> Tensor:
        """As every encoder does, or by the checkpoint's own rule."""
        return self.sentence(tokens) if self.sentence else super().pool(tokens)

    def processing(self) -> Mapping[str, Any]:
        return {
            "processor": type(self.tokenizer).__name__,
            "processor_digest": digest_tokenizer(self.tokenizer),
            "max_tokens": self.max_tokens,
            "prompt": self.prompt,
            "sentence": self.sentence.described() if self.sentence else None,
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
