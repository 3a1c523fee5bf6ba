"""Conformance of back-ends: plays a front-end, well-behaved or not, against a program under test."""
