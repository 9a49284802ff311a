"""Batches of markets as libraries of learning algorithms want them; each module needs its library."""
