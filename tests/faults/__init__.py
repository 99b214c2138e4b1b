"""Tests that look for what breaks: faults that happen, and random inputs."""
