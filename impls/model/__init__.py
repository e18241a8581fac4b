"""The one small language model that studies extend: a decoder over bytes, made of the suite's own layers."""
