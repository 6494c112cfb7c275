"""Build a very small Stable Diffusion with random weights; runs inside the sandbox, its files become artefacts."""

import json
import string
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import torch  # noqa: E402  (its imports warn)
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: E402

words = ["<|startoftext|>", "<|endoftext|>", *string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
Path("/tmp/vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
Path("/tmp/merges.txt").write_text("#version: 0.2\n")
torch.manual_seed(0)
pipeline = StableDiffusionPipeline(
    unet=UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
    ),
    scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
    vae=AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
    ),
    text_encoder=CLIPTextModel(
        CLIPTextConfig(
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
            hidden_size=32,
            intermediate_size=37,
            num_attention_heads=4,
            num_hidden_layers=2,
            vocab_size=len(words),
        )
    ),
    tokenizer=CLIPTokenizer("/tmp/vocab.json", "/tmp/merges.txt", model_max_length=77),
    safety_checker=None,
    feature_extractor=None,
    requires_safety_checker=False,
)
pipeline.save_pretrained("/out/model")
