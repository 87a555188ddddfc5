"""Ask an endpoint with OpenAI's own client and print the answer as it comes.

usage: python examples/chat.py URL [QUESTION]      (URL is the resource's status.url)
"""

import sys
import time

from openai import OpenAI


def printable(text: str) -> str:
    """The text without what would confuse a terminal: a model with random weights says anything."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "·" for letter in text)


def main(url: str, question: str = "What is the capital of France?") -> None:
    """Stream one chat completion."""
    client = OpenAI(base_url=url, api_key="none", timeout=60)
    model = client.models.list().data[0].id
    print(f"{model} at {url}\n> {question}\n", flush=True)
    begin = time.monotonic()
    first = 0.0
    tokens = 0
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=64,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.usage:
            tokens = chunk.usage.completion_tokens
        for choice in chunk.choices:
            if choice.delta.content:
                first = first or time.monotonic()
                print(printable(choice.delta.content), end="", flush=True)
    end = time.monotonic()
    print(f"\n\n{tokens} tokens in {end - begin:.2f} s, the first after {first - begin:.2f} s")
    if not first:
        sys.exit("The stream ended without a word.")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
