#!/usr/bin/env python3
"""Writes a tiny llama model with random weights (GGUF, about 5 MB) for end-to-end tests of the real engine.

    PYTHONPATH=.cache/llama/python python3 e2e/make_tiny_model.py tiny.gguf [BLOCKS]

With fewer than its 4 blocks it is faster. The same file every time. Byte and control tokens get zero rows in
the output matrix while every other token's logit is spread widely, so that the model in practice only says
words: answers are readable, valid UTF-8 and end where `max_tokens` says.
"""

import os
import sys

import gguf
import numpy as np

BLOCKS, WIDTH, HEADS, INNER, CONTEXT, SEED = 4, 256, 4, 512, 8192, 20240229

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def vocabulary():
    """A SentencePiece vocabulary of control tokens, bytes, letters, syllables: [(text, score, type)]."""
    control, byte, normal = gguf.TokenType.CONTROL, gguf.TokenType.BYTE, gguf.TokenType.NORMAL
    tokens = [("<unk>", 0.0, gguf.TokenType.UNKNOWN), ("<s>", 0.0, control), ("</s>", 0.0, control)]
    tokens += [(f"<0x{value:02X}>", 0.0, byte) for value in range(256)]
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)] + ["▁"]
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvwz" for vowel in "aeiou"]
    pieces = letters + syllables + ["▁" + piece for piece in [*"aeiou", *syllables]]
    # Longer pieces score higher, so that the tokenizer merges letters into syllables.
    return tokens + [(piece, float(len(piece)), normal) for piece in pieces]


def write_model(path, blocks):
    random = np.random.default_rng(SEED)
    tokens = vocabulary()

    def matrix(rows, columns, scale=1.0):
        return (random.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(np.float16)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text.encode() for text, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)

    output = matrix(len(tokens), WIDTH, scale=6.0)
    output[[kind != gguf.TokenType.NORMAL for _, _, kind in tokens]] = 0
    writer.add_tensor("token_embd.weight", matrix(len(tokens), WIDTH, scale=16.0))
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    for block in range(blocks):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"blk.{block}.{name}.weight", matrix(WIDTH, WIDTH))
        writer.add_tensor(f"blk.{block}.ffn_gate.weight", matrix(INNER, WIDTH))
        writer.add_tensor(f"blk.{block}.ffn_up.weight", matrix(INNER, WIDTH))
        writer.add_tensor(f"blk.{block}.ffn_down.weight", matrix(WIDTH, INNER))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{block}.{name}.weight", np.ones(WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: make_tiny_model.py FILE [BLOCKS]")
    write_model(sys.argv[1] + ".new", int(sys.argv[2]) if len(sys.argv) == 3 else BLOCKS)
    os.replace(sys.argv[1] + ".new", sys.argv[1])
