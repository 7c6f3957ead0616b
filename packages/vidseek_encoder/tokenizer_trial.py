"""Process that tries a tokenizer file: it reads the file from stdin and tokenizes some texts within limits."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from tokenizers import Tokenizer

MEMORY_BYTES = 2**30
SECONDS = 5.0
"""Limit of computing time for a text of `LONG` letters."""
ALL_SECONDS = 30
"""Of the process; the kernel ends it."""
LONG = 2000
MOST_TOKENS_A_LETTER = 64
MOST_TOKENS = 256
"""Most tokens in addition to one for each letter."""

_WORDS = "The red crane lifts 3 containers, isn't it? \u00e9\u00df\u0130 \u4f60\u597d \ufdfa \U0001f3a5 <|endoftext|>"
TEXTS = (
    "", "a", "abc", " ", "aaa", "AbC", _WORDS, "".join(map(chr, range(1, 0x250))),
    *(letter * LONG for letter in "a Z0.-\n\u00e9\u4f60'"), "ab" * (LONG // 2), "a " * (LONG // 2), (_WORDS * 40)[:LONG],
)


def main() -> int:
    """Try the tokenizer; print the reason if it fails."""
    content = sys.stdin.buffer.read()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES + 32 * len(content)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (ALL_SECONDS, resource.RLIM_INFINITY))
    tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text in TEXTS:
        began = time.process_time()
        num = len(tokenizer.encode(text).ids)
        seconds = time.process_time() - began
        if num > MOST_TOKENS + MOST_TOKENS_A_LETTER * len(text) or seconds > SECONDS:
            sys.stdout.write(f"{len(text)} letters gave {num} tokens in {seconds:.1f} s")
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
