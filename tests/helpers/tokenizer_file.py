"""Write a `tokenizer.json`, as one is published beside a model, from a given vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

from safeguard_cli.model.tokenizer import Tokenizer


def write(path: Path, tokenizer: Tokenizer) -> Path:
    """Write ordinary tokens with their merges as the model's, and harmony's tokens as added ones."""
    data = json.loads(tokenizer._tokenizer.to_str())
    data["added_tokens"] = [
        {"id": i, "content": tokenizer.tokens[i], "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i in sorted(tokenizer.control_ids)
    ]
    path.write_text(json.dumps(data))
    return path
