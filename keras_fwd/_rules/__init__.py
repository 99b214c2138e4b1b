"""Derivatives of ops that TensorFlow lacks, drops, gets wrong or makes slow."""
