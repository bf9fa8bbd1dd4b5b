"""Run where `magenta-rt[jax]` is installed: the official code on a checkpoint in its layout, and the shapes it has.

    python mrt2_official.py shapes OUT.json
    python mrt2_official.py outputs FOLDER SPEC.json INPUTS.safetensors OUT.safetensors

INPUTS: `ids` [1, T, 144] and `codes` [1, 12, T] for the language model, `audio` [2, N] for the codec. OUT: what the
official code makes of them, its own greedy continuation from silence under the same conditions included.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn  # pyright: ignore[reportMissingImports]
import flax.traverse_util as tree  # pyright: ignore[reportMissingImports]
import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import magenta_rt.jax.model as official  # pyright: ignore[reportMissingImports]
import magenta_rt.jax.spectrostream as codecs  # pyright: ignore[reportMissingImports]
import numpy as np
import sequence_layers.jax as sl  # pyright: ignore[reportMissingImports]
from safetensors.numpy import load_file, save_file

K, RESERVED = 12, 6


def sequence(values):
    return sl.Sequence.from_values(jnp.asarray(values))


def forward(model, ids, target):
    source = model.encoder.body.layer(ids, training=False)
    logits, _ = model.decoder.layer_with_emits(target, training=False, constants={"source": source})
    return source.values, logits.values


def size(stack: dict[str, int]):
    return official.ModelSpec(
        num_layers=stack["layers"],
        model_dims=stack["width"],
        hidden_dims=stack["hidden"],
        num_heads=stack["heads"],
        dim_per_head=stack["head_width"],
        ffn_use_gated_activation=False,
    )


def model_of(spec: dict[str, Any]):
    """The official model with our sizes."""
    made = official.MagentaRT2ModelBase()
    window = spec["window_frames"]
    made.encoder_size = dataclasses.replace(official.S, model_dims=spec["source_width"])
    made.decoder_temporal_size, made.decoder_depth_size = size(spec["temporal"]), size(spec["depth"])
    made.decoder_temporal_self_attention_max_past_horizon = window
    made.decoder_temporal_cross_attention_max_past_horizon = window
    made.compute_dtype = jnp.float32
    made.spectrostream = dataclasses.replace(official.SPECTROSTREAM, codebook_size=spec["card"])
    style = dataclasses.replace(official.MUSICCOCA, embedding_size=spec["style_width"])
    kinds = (style, *made.input_configs[1:])
    type(made).input_configs = property(lambda self: kinds)
    return made.depthformer_config().make()


def codec_of(spec: dict[str, Any]):
    config = codecs.stft_spectrostream_40ms_generic_48khz_stereo_config()
    quantizer = dataclasses.replace(
        config.quantizer, num_quantizers=spec["levels"], num_embeddings=spec["card"], embedding_dim=spec["features"]
    )
    return dataclasses.replace(
        config,
        num_features=spec["features"],
        encoder_base_conv_depth=spec["encoder_width"],
        decoder_base_conv_depth=spec["decoder_width"],
        quantizer=quantizer,
    ).make()


def nested(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    return tree.unflatten_dict({tuple(name.split("/")): jnp.asarray(value) for name, value in tensors.items()})


def lm_outputs(folder: Path, spec: dict[str, Any], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    checkpoint = next((folder / "checkpoints").glob("*.safetensors"))
    params = {"params": nested(load_file(checkpoint))["params"]["depthformer"]}
    model, card = model_of(spec), spec["card"]
    starts = RESERVED + card * np.arange(K, dtype=np.int32)
    target = inputs["codes"].transpose(0, 2, 1).astype(np.int32) + starts
    run = jax.jit(lambda ids, codes: model.apply(params, sequence(ids), sequence(codes), method=forward))
    source, logits = run(inputs["ids"], target)
    valid = np.stack([np.asarray(logits)[:, :, k, starts[k] : starts[k] + card] for k in range(K)], axis=1)
    played = greedy(model, params, inputs["ids"]) - starts
    return {"source": np.asarray(source), "logits": valid, "greedy": played.transpose(0, 2, 1).astype(np.int32)}


def greedy(model, params, ids: np.ndarray) -> np.ndarray:
    """What the official streaming sampler plays, always taking the likeliest code."""
    constants = {"temperature": jnp.zeros(1), "top_k": jnp.ones(1, jnp.int32)}
    rngs = {"random": jax.random.PRNGKey(0)}
    state = model.apply(
        params,
        1,
        jax.ShapeDtypeStruct([ids.shape[2]], jnp.int32),
        constants={},
        training=False,
        rngs=rngs,
        method=lambda m, n, spec, **given: m.sampler.get_initial_state(n, spec, **given),
    )

    @jax.jit
    def step(frame, state):
        given = {"constants": constants, "training": False}
        return model.apply(
            params, sequence(frame), state, rngs=rngs, method=lambda m, x, s: m.sampler.step(x, s, **given)
        )

    played = []
    for frame in range(ids.shape[1]):
        out, state = step(ids[:, frame : frame + 1], state)
        played.append(np.asarray(out.values))
    return np.concatenate(played, axis=1)


def codec_outputs(folder: Path, spec: dict[str, Any], audio: np.ndarray) -> dict[str, np.ndarray]:
    """Features, codes, and the audio of these codes with one frame of nothing behind the last."""
    checkpoint = next((folder / "checkpoints").glob("*.safetensors"))
    encoder = load_file(folder / "resources" / "spectrostream" / "encoder.safetensors")
    params = {"params": nested(load_file(checkpoint))["params"]["soundstream"] | nested(encoder)["params"]}
    model = codec_of(spec)

    def both(m, x):
        features = m.waveform_to_embeddings(x, training=False)
        codes = m.quantizer.embeddings_to_codes(features)
        heard = m.quantizer.codes_to_embeddings(codes[:, :, :K]).pad_time(0, 1, valid=True)
        return features.values, codes.values, m.embeddings_to_waveform(heard, training=False).values

    run = jax.jit(lambda x: model.apply(params, sequence(x), method=both))
    features, codes, heard = (np.asarray(part)[0] for part in run(audio.T[None]))
    return {"features": features, "codec_codes": codes.T[:K].astype(np.int32), "decoded": heard.T}


def shapes_of(init) -> dict[str, list[int]]:
    made = tree.flatten_dict(nn.meta.unbox(jax.eval_shape(init)))
    return {"/".join(name): list(like.shape) for name, like in made.items()}


def official_shapes() -> dict[str, dict[str, list[int]]]:
    """Of the true models, without making them."""
    key = {"params": jax.random.PRNGKey(0)}
    found = {}
    for name in ("mrt2_small", "mrt2_base"):
        model = official.get_model_class(name)().depthformer_config().make()
        given = [sequence(np.zeros((1, 2, width), np.int32)) for width in (144, K)]
        found[name] = shapes_of(lambda model=model, given=given: model.init(key, *given, method=forward))
    codec = codecs.stft_spectrostream_40ms_generic_48khz_stereo_config().make()
    audio = sequence(np.zeros((1, 1920 * 4, 2), np.float32))
    found["codec"] = shapes_of(lambda: codec.init(key, audio, training=False))
    return found


def main(words: list[str]) -> None:
    if words[0] == "shapes":
        Path(words[1]).write_text(json.dumps(official_shapes()))
        return
    folder, spec = Path(words[1]), json.loads(Path(words[2]).read_text())
    inputs = load_file(words[3])
    made = lm_outputs(folder, spec["lm"], inputs)
    if "codec" in spec:
        made |= codec_outputs(folder, spec["codec"], inputs["audio"])
    save_file({name: np.ascontiguousarray(value) for name, value in made.items()}, words[4])


if __name__ == "__main__":
    main(sys.argv[1:])
