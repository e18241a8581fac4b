"""The objective study: next-token against multi-token prediction, in training and in generation."""
