"""Write the answerer's weights as a GGUF file for llama.cpp."""

import argparse
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from data.recipes.answerer import tokeniser
from data.recipes.answerer.model import Shape

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|> ' + message['content']"
    " + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def export(folder: Path, target: Path, shape: Shape | None = None) -> Path:
    """Turn `weights.pt` and `tokenizer.json` of `folder` into `target`.

    Matrices become Q8_0, vectors stay F32.

    Raises:
        ValueError: A matrix came out as something else than Q8_0.
    """
    shape = shape or Shape()
    writer = gguf.GGUFWriter(str(target), "llama")
    _describe(writer, shape)
    _add_vocabulary(writer, folder / "tokenizer.json", shape)
    for name, weight in torch.load(folder / "weights.pt").items():
        values = weight.float().numpy()
        if values.ndim == 2:
            packed = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _check(target)
    return target


def _describe(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name("lab-llm-en")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def _add_vocabulary(writer: gguf.GGUFWriter, path: Path, shape: Shape) -> None:
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    if len(tokens) != shape.vocabulary:
        raise ValueError(f"{path} has {len(tokens)} tokens, the model {shape.vocabulary}")
    control = set(tokeniser.SPECIALS)
    kinds = [
        gguf.TokenType.CONTROL if token in control else gguf.TokenType.NORMAL for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_eos_token_id(tokeniser.END)
    writer.add_pad_token_id(tokeniser.END)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _check(target: Path) -> None:
    for tensor in gguf.GGUFReader(str(target)).tensors:
        wanted = "F32" if "norm" in tensor.name else "Q8_0"
        if tensor.tensor_type.name != wanted:
            raise ValueError(f"{target}: {tensor.name} is {tensor.tensor_type.name}, not {wanted}")


def main() -> None:
    """Export by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="holds weights.pt and tokenizer.json")
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    print(export(arguments.folder, arguments.target))


if __name__ == "__main__":
    main()
