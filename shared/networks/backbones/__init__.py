"""Trunks with ImageNet weights."""
