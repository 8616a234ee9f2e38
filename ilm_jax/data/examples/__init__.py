"""Parts of examples: prompts, mentions, indexings, draws; settings and specs of tasks."""
