"""What examples are made of: prompts, mentions, indexings, draws; settings and specs of tasks."""
