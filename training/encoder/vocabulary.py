"""A smaller vocabulary: what the corpus uses, every single character, and the most frequent pieces.

The ids of the packaged vocabulary follow the frequency of English, so the lowest ids fill what is left.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST_WORD = 40  # characters; longer runs are cut, so that none becomes one unknown token
FEWEST = 3  # occurrences in the corpus that keep a piece


def read_vocabulary(folder: Path) -> dict[str, int]:
    """Pieces and ids of the packaged model."""
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]


def tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    """WordPiece over lower-cased text without accents; no special token can be written in a text.

    Characters outside the vocabulary stand alone, so that they hide no word that they touch.
    """
    made = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD + 1))
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
    )
    pieces = {piece.removeprefix("##") for piece in vocabulary}
    alphabet = sorted(piece for piece in pieces if len(piece) == 1 and piece.isalnum())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.BertPreTokenizer(),
            pre_tokenizers.Split(Regex(f"[^{''.join(alphabet)}]"), "isolated"),
            pre_tokenizers.Split(Regex(f".{{{LONGEST_WORD}}}"), "isolated"),
        ]
    )
    return made


def kept_ids(vocabulary: dict[str, int], texts: Iterable[str], *, size: int) -> list[int]:
    """Which ids of the packaged vocabulary to keep, special ones first, then in their old order."""
    counts: Counter[int] = Counter()
    full = tokenizer(vocabulary)
    for text in texts:
        counts.update(full.encode(text, add_special_tokens=False).ids)
    special = [vocabulary[piece] for piece in SPECIAL]
    kept = set(special)
    kept |= {number for piece, number in vocabulary.items() if _is_needed(piece)}
    kept |= {number for number, _ in counts.most_common(size - len(kept)) if counts[number] >= FEWEST}
    for number in sorted(vocabulary.values()):
        if len(kept) >= size:
            break
        kept.add(number)
    return special + sorted(kept - set(special))


def _is_needed(piece: str) -> bool:
    return len(piece.removeprefix("##")) == 1 and not piece.startswith("[unused")


def pruned(vocabulary: dict[str, int], kept: list[int]) -> dict[str, int]:
    """Pieces and new ids."""
    pieces = {number: piece for piece, number in vocabulary.items()}
    return {pieces[old]: new for new, old in enumerate(kept)}
