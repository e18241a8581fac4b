"""The study of whole models: attention, feed-forward layers, linear layers and objective, each DeepSeek's or not."""
