"""Subcommands of ``vhost-user`` that act as a front-end.

A module named by an entry point imports only click at its top; what works is imported when the command runs.
"""
