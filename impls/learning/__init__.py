"""The learning study: PPO against GRPO, reinforcement learning with rewards that a program checks."""
