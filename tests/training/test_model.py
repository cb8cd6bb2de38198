import json

import pytest
import torch
from transformers import Qwen2ForCausalLM

from training.export import export
from training.model import Network
from training.recipe import Shape

SHAPES = [
    Shape(hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, max_positions=64),
    Shape(hidden_size=48, intermediate_size=32, num_layers=1, num_heads=3, num_kv_heads=1, rope_theta=1e6),
    Shape(hidden_size=32, intermediate_size=40, num_layers=3, num_heads=2, num_kv_heads=2, norm_eps=1e-5),
]


def network_of(shape, vocab_size=60):
    torch.manual_seed(1)
    network = Network(shape, vocab_size=vocab_size)
    with torch.no_grad():  # livelier than at birth: zero biases and unit norms would hide mistakes
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return network


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_behind_a_shared_head_are_rows_that_begin_with_it(shape):
    network = network_of(shape)
    head, rows = torch.randint(0, 60, (7,)), torch.randint(0, 60, (5, 9))
    shared = network(head, rows)
    whole = network(torch.tensor([], dtype=torch.long), torch.cat((head.expand(5, -1), rows), dim=1))
    torch.testing.assert_close(shared, whole[:, 7:], atol=1e-5, rtol=1e-5)


def test_gradients_through_a_shared_head_are_those_of_the_whole_rows():
    network = network_of(SHAPES[0])
    head, rows = torch.randint(0, 60, (7,)), torch.randint(0, 60, (5, 9))
    network(head, rows).square().mean().backward()
    shared = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    whole = network(torch.tensor([], dtype=torch.long), torch.cat((head.expand(5, -1), rows), dim=1))
    whole[:, 7:].square().mean().backward()
    for parameter, gradient in zip(network.parameters(), shared, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4)


def test_padding_behind_a_row_changes_nothing():
    network = network_of(SHAPES[0])
    head, rows = torch.randint(0, 60, (4,)), torch.randint(0, 60, (2, 6))
    padded = torch.cat((rows, torch.zeros(2, 3, dtype=torch.long)), dim=1)
    torch.testing.assert_close(network(head, rows), network(head, padded)[:, :6], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_exported_model_is_transformers_qwen2(shape, specification, tokenizer, tmp_path):
    network = network_of(shape, vocab_size=tokenizer.vocab_size)
    export(network, specification, tmp_path, dtype=torch.float32)
    theirs = Qwen2ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, local_files_only=True).eval()
    ids = torch.randint(0, tokenizer.vocab_size, (3, 20))
    with torch.inference_mode():
        ours = network.logits(network(torch.tensor([], dtype=torch.long), ids))
        torch.testing.assert_close(ours, theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_the_exported_folder_is_complete_and_ends_at_im_end(specification, tokenizer, tmp_path):
    export(network_of(SHAPES[0], vocab_size=tokenizer.vocab_size), specification, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["eos_token_id"][0] == tokenizer.control_id("<|im_end|>")
    assert config["vocab_size"] == tokenizer.vocab_size
