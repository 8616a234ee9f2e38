"""Options of a config.json that change no number which a model computes, by list.

What changes the arithmetic is read by a family, or refused; a family's own lists say which. Here is
what files of every family carry besides. The names of PretrainedConfig are those that
`transformers` 4.46, 4.53 and 5.24 write (`to_json_string`, whole), the others are of published
files.
"""

from collections.abc import Mapping
from typing import Any

from ilm_jax.errors import UserError

# Of PretrainedConfig: how to train, generate, store and classify; `made_from` is ours, of a model
# that `ilm convert` wrote.
GENERAL = frozenset(
    "_attn_implementation_autoset _commit_hash _name_or_path architectures attn_implementation "
    "auto_map bad_words_ids begin_suppress_tokens bos_token_id cache_implementation "
    "chunk_size_feed_forward decoder_start_token_id diversity_penalty do_sample dtype "
    "early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty "
    "finetuning_task forced_bos_token_id forced_eos_token_id id2label initializer_range label2id "
    "length_penalty made_from max_length max_position_embeddings min_length model_type "
    "no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences "
    "output_attentions output_hidden_states output_scores pad_token_id prefix problem_type "
    "remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id "
    "suppress_tokens task_specific_params temperature tf_legacy_loss tokenizer_class top_k top_p "
    "torch_dtype torchscript transformers_version typical_p use_bfloat16 use_cache".split()
)
# What trainers, converters and other runtimes leave in published files; told to a person.
CARRIED = frozenset(
    "_flash_attn_2_enabled _from_model_config _model_name_or_path attn_pdrop embd_pdrop "
    "gradient_checkpointing is_llama_config loss_type model_max_length resid_pdrop "
    "transformers.js_config unk_token_id unsloth_fixed unsloth_version use_flash_attention "
    "use_flash_attention_2 use_flash_attn".split()
)
# {option: values with which it does nothing}; any other is refused.
SWITCHED_OFF: dict[str, tuple[object, ...]] = {
    "add_cross_attention": (False, None),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": (None, {}),
    "rope_interleaved": (False, None),
    "tie_encoder_decoder": (False, None),
    "use_mrope": (False, None),
}
_QUANTISED = ("quantization_config", "compression_config")


def check(
    found: Mapping[str, Any], known: frozenset[str], fixed: Mapping[str, tuple[object, ...]]
) -> None:
    """Raises UserError naming an option of config.json that would, or might, compute another thing.

    Args:
      found: config.json.
      known: options that the family reads, or knows to change nothing.
      fixed: {option: values that change nothing}; comes before SWITCHED_OFF.
    """
    kind = found.get("model_type")
    for name in _QUANTISED:
        if found.get(name):
            raise UserError(
                f"config.json of a {kind} model says {name}: its weights are quantised in a way "
                "that is not read; take the model before it was quantised, or a GGUF file of it"
            )
    for name, values in (SWITCHED_OFF | dict(fixed)).items():
        if name in found and name not in known and found[name] not in values:
            raise UserError(
                f"config.json of a {kind} model says {name}={found[name]!r}: only "
                f"{' or '.join(map(repr, values))} is built here"
            )
    listed = known | GENERAL | CARRIED | set(fixed) | set(SWITCHED_OFF) | set(_QUANTISED)
    if unknown := sorted(set(found) - listed):
        raise UserError(
            f"config.json of a {kind} model has unknown options {', '.join(unknown)}: use a model "
            "without them, or delete them if they do not change what it computes"
        )


def carried(found: Mapping[str, Any]) -> list[str]:
    """Lines for a person: options that were let through because they change nothing."""
    names = sorted(CARRIED & set(found))
    return [f"config.json: options that change nothing here: {', '.join(names)}"] if names else []
